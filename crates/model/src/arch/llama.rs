//! Llama (Touvron et al. 2023, Dubey et al. 2024), and everything that GGUF files under its name: Mistral (Jiang et al.
//! 2023) and Mixtral (Jiang et al. 2024), whose layers have experts where their tensors are.
//!
//! The record that the others differ from. GGUF keeps Q and K permuted so that neighbours pair. Llama 3's RoPE scaling
//! is in the tensor `rope_freqs.weight`, or in numbers. GGUF files of Mistral carry no window, so all positions are seen,
//! as in llama.cpp; a file that does carry one gets it.

use crate::{Architecture, NormPlaces, WindowPattern};
use compute::{Activation, RopePairing};

/// The type of Llama 3's RoPE scaling in Hugging Face's configurations: bands of frequencies, each scaled in its way.
pub(crate) const BANDS_TYPE: &str = "llama3";

pub(crate) const LLAMA: Architecture = Architecture {
    name: "llama",
    models: "Llama 1-3, Mistral, Mixtral",
    model_types: &["llama", "mistral", "mixtral", "ministral"],
    renamed: &[],
    norms_less_one: false,
    config_defaults: &[],
    pairing: RopePairing::Interleaved,
    no_rope_every: None,
    activation: Activation::Silu,
    norms: NormPlaces::Before,
    window_pattern: WindowPattern::Every,
    default_window: None,
    default_local_rope_base: None,
    root_width_embedding: false,
    default_attention_softcap: None,
    default_logit_softcap: None,
    width_scaled_queries_at: None,
    logit_scale_divides: false,
};
