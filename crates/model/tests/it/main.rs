//! Tests of whole models: logits against independent implementations, equivalence of every way to feed them, refusals.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod adapters;
mod batches;
mod demo;
mod exported;
mod exports;
mod fast;
mod fixtures;
mod goldens;
mod hugging_face;
mod made;
mod numbers;
mod observed;
mod onnx;
mod quantized;
mod quants;
mod refusals;
mod rewritten;
mod running;
