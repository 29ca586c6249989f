//! Qwen 2 and 2.5 (Yang et al. 2024): biases on Q, K and V, which their tensors tell; RoPE pairs halves.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    models: "Qwen 2, Qwen 2.5",
    model_types: &["qwen2"],
    config_defaults: &[("attention.sliding_window_on", 0.0)],
    pairing: RopePairing::Halves,
    ..LLAMA
};
