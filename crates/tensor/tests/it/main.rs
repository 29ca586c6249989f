//! Integration tests of dtypes and codecs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod codecs;
mod reference;
