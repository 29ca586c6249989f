//! GLM 4.5 (Zhipu AI 2025): half of each head rotates, the router scores with sigmoids and has a bias for the choice, one
//! shared expert, dense layers first.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const GLM4MOE: Architecture = Architecture {
    name: "glm4moe",
    models: "GLM 4.5, GLM 4.5 Air, GLM 4.6",
    model_types: &["glm4_moe"],
    house_renamed: &[("ffn_norm", "post_attention_norm")],
    config_defaults: &[("rope.dimension_fraction", 0.5), ("expert_gating_func", 2.0)],
    pairing: RopePairing::Halves,
    ..LLAMA
};
