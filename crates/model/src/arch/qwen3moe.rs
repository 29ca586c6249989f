//! Qwen 3 with experts (Yang et al. 2025): the weights of the chosen experts are normalized, as in Mixtral.

use super::qwen3::QWEN3;
use crate::Architecture;

pub(crate) const QWEN3MOE: Architecture = Architecture {
    name: "qwen3moe",
    models: "Qwen 3 with experts (30B-A3B, 235B-A22B)",
    model_types: &["qwen3_moe"],
    config_defaults: &[("attention.sliding_window_on", 0.0), ("expert_weights_norm", 0.0)],
    ..QWEN3
};
