//! Integration tests of model files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod fixtures;
mod golden;
mod graph_writer;
mod limits;
mod malformed;
mod onnx;
mod open;
mod pytorch;
mod quantized;
mod safetensors;
mod split;
mod torch_writer;
mod write;
mod writer;
