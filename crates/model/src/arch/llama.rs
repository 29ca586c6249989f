//! Llama (Touvron et al. 2023, Dubey et al. 2024), and everything that GGUF files under its name: Mistral (Jiang et al.
//! 2023) and Mixtral (Jiang et al. 2024), whose layers have experts where their tensors are.
//!
//! The record that the others differ from. GGUF keeps Q and K permuted so that neighbours pair. Llama 3's RoPE scaling
//! is in the tensor `rope_freqs.weight`, or in numbers. GGUF files of Mistral carry no window, so all positions are seen,
//! as in llama.cpp; a file that does carry one gets it.

use crate::{Architecture, ExpertOrder, NormPlaces, WindowPattern, WindowedRope};
use compute::{Activation, NormKind, RopePairing};

/// The type of Llama 3's RoPE scaling in Hugging Face's configurations: bands of frequencies, each scaled in its way.
pub(crate) const BANDS_TYPE: &str = "llama3";

/// What files under Meta's own names are.
pub(crate) const META: &Architecture = &LLAMA;

pub(crate) const LLAMA: Architecture = Architecture {
    name: "llama",
    models: "Llama 1-3, Mistral, Mixtral",
    model_types: &["llama", "mistral", "mixtral", "ministral"],
    renamed: &[],
    house_renamed: &[],
    norms_less_one: false,
    fused_by_head: false,
    splits_qkv: false,
    transposed: false,
    config_defaults: &[],
    expert_order: ExpertOrder::Halves,
    has_rope: true,
    alibi_at: None,
    pairing: RopePairing::Interleaved,
    config_pairing: RopePairing::Halves,
    no_rope_every: None,
    activation: Activation::Silu,
    gated: true,
    norm: NormKind::Rms,
    bare_norms: false,
    recurrence: None,
    house_heads_in_turns: false,
    rope_sections: false,
    gated_attention: false,
    adjusts_feed_forward: false,
    norms: NormPlaces::Before,
    norm_after_rope: false,
    bare_head_norms: false,
    no_head_norms_at: None,
    parallel: false,
    window_pattern: WindowPattern::Every,
    chunked: false,
    windowed_rope: WindowedRope::Apart,
    default_window: None,
    query_growth: None,
    default_local_rope_base: None,
    bare_value_norms: false,
    values_may_be_keys: false,
    says_sharing: false,
    default_sparsity: None,
    default_attention_scale: None,
    root_width_embedding: false,
    default_attention_softcap: None,
    default_logit_softcap: None,
    width_scaled_queries_at: None,
    logit_scale_divides: false,
    normalizes_experts: true,
    names_expert_step: false,
    sigmoid_experts: false,
    expert_peers: None,
    weighs_expert_input: false,
    unit_output_rows_at: None,
};
