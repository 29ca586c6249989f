//! Integration tests of the engine: with a scripted model (no weights, exact expectations), then with a real one.

mod fake;
mod faults;
mod generate;
mod real;
mod scores;
mod storm;
