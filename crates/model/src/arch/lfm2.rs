//! LFM2 (Liquid AI 2025): layers of gated short convolutions, attention with Q/K norms between them.

use super::llama::LLAMA;
use crate::{Architecture, Recurrence};
use compute::RopePairing;

/// Names in both kinds of this family: dense, and with experts.
const NAMES: &[(&str, &str)] = &[
    ("output_norm", "embedding_norm"),
    ("attn_norm", "operator_norm"),
    ("attn_q_norm", "self_attn.q_layernorm"),
    ("attn_k_norm", "self_attn.k_layernorm"),
    ("attn_output", "self_attn.out_proj"),
    ("ffn_norm", "ffn_norm"),
    ("ffn_gate", "feed_forward.w1"),
    ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
    ("ffn_gate_inp", "feed_forward.gate"),
    ("ffn_gate_exps", "feed_forward.experts.{}.w1"),
    ("ffn_up_exps", "feed_forward.experts.{}.w3"),
    ("ffn_down_exps", "feed_forward.experts.{}.w2"),
    ("exp_probs_b.bias", "feed_forward.expert_bias"),
];

pub(crate) const LFM2: Architecture = Architecture {
    name: "lfm2",
    models: "LFM2 (350M to 2.6B)",
    model_types: &["lfm2"],
    renamed: NAMES,
    house_renamed: &[("output_norm", "token_embd_norm")],
    config_defaults: &[("rope.freq_base", 1e6), ("shortconv.l_cache", 3.0)],
    pairing: RopePairing::Halves,
    recurrence: Some(Recurrence::ShortConv),
    adjusts_feed_forward: true,
    ..LLAMA
};
