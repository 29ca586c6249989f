//! Gemma 2 (Riviere et al. 2024): norms around each block, soft-caps, every other layer windowed.
//!
//! GGUF stores the norm weights as `1 + w` already, Hugging Face as `w`. The 27B model (46 layers) scales its queries by `√(width / n_heads)`.

use super::llama::LLAMA;
use crate::{Architecture, NormPlaces, WindowPattern};
use compute::{Activation, RopePairing};

pub(crate) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    models: "Gemma 2",
    model_types: &["gemma2"],
    renamed: &[("ffn_norm", "pre_feedforward_layernorm")],
    norms_less_one: true,
    pairing: RopePairing::Halves,
    activation: Activation::GeluTanh,
    norms: NormPlaces::Around,
    window_pattern: WindowPattern::AllButLastOf(2),
    default_window: Some(4096),
    root_width_embedding: true,
    default_attention_softcap: Some(50.0),
    default_logit_softcap: Some(30.0),
    width_scaled_queries_at: Some(46),
    ..LLAMA
};
