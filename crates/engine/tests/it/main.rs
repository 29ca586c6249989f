//! Integration tests of the engine: with a scripted model (no weights, exact expectations), then with a real one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests, and what they share")]

mod allocations;
mod fake;
mod faults;
mod generate;
mod real;
mod scores;
mod speculate;
mod states;
mod storm;
