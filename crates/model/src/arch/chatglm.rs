//! GLM 4, first releases (Zhipu AI 2024, 9B): half of each head rotates, neighbours pair in every convention, biases on Q, K
//! and V, fused gate and up.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const CHATGLM: Architecture = Architecture {
    name: "chatglm",
    models: "GLM 4 9B (2024)",
    model_types: &["glm"],
    config_defaults: &[("rope.dimension_fraction", 0.5)],
    config_pairing: RopePairing::Interleaved,
    ..LLAMA
};
