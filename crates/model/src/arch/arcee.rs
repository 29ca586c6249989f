//! Arcee AFM (2025): Llama with squared ReLU and no gate.

use super::llama::LLAMA;
use crate::Architecture;
use compute::Activation;

pub(crate) const ARCEE: Architecture = Architecture {
    name: "arcee",
    models: "Arcee AFM",
    model_types: &["arcee"],
    activation: Activation::ReluSquared,
    gated: false,
    ..LLAMA
};
