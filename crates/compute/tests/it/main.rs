//! The CPU device against plain double-precision arithmetic, over every instruction set of the machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod arguments;
mod attention;
mod feed_forward;
mod linear;
mod low_rank;
mod recurrent;
mod reference;
mod streams;
