//! StableLM 2 and 3B (Bellagente et al. 2024): LayerNorm, partial RoPE; the 12B model has both blocks side by side and norms
//! with weights of their own for each head.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{NormKind, RopePairing};

pub(crate) const STABLELM: Architecture = Architecture {
    name: "stablelm",
    models: "StableLM 3B, StableLM 2",
    model_types: &["stablelm"],
    renamed: &[("attn_q_norm", "self_attn.q_layernorm.norms.{}"), ("attn_k_norm", "self_attn.k_layernorm.norms.{}")],
    config_defaults: &[("rope.dimension_fraction", 0.25), ("attention.layer_norm_epsilon", 1e-5)],
    pairing: RopePairing::Halves,
    norm: NormKind::Layer,
    ..LLAMA
};
