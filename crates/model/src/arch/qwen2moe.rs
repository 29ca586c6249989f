//! Qwen 1.5 and 2 with experts (Yang et al. 2024): a shared expert with a gate of its own; the weights of the chosen ones stay
//! as the softmax over all gives them.

use super::qwen2::QWEN2;
use crate::Architecture;

pub(crate) const QWEN2MOE: Architecture = Architecture {
    name: "qwen2moe",
    models: "Qwen 1.5 and 2 with experts (A2.7B, 57B-A14B)",
    model_types: &["qwen2_moe"],
    normalizes_experts: false,
    ..QWEN2
};
