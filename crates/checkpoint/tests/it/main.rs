//! Integration tests of model files.

mod fixtures;
mod golden;
mod malformed;
mod open;
mod split;
mod writer;
