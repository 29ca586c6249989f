//! GLM 4 (2025 releases, 9B and 32B): norms around each block, half of each head rotates, neighbours pair in every convention.

use super::llama::LLAMA;
use crate::{Architecture, NormPlaces};
use compute::RopePairing;

pub(crate) const GLM4: Architecture = Architecture {
    name: "glm4",
    models: "GLM 4, GLM Z1",
    model_types: &["glm4"],
    renamed: &[
        ("post_attention_norm", "post_self_attn_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_mlp_layernorm"),
    ],
    config_defaults: &[("rope.dimension_fraction", 0.5)],
    config_pairing: RopePairing::Interleaved,
    norms: NormPlaces::Around,
    ..LLAMA
};
