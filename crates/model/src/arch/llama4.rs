//! Llama 4, text part (Meta 2025): three layers of four see their chunk of the past and rotate, their heads with a norm without
//! weights (not those of Maverick, 128 experts); queries of the fourth grow with their position. One expert of many, whose
//! input is weighed, beside a shared one.

use super::llama::LLAMA;
use crate::{Architecture, ExpertOrder, WindowPattern, WindowedRope};
use compute::{QueryGrowth, RopePairing};

pub(crate) const LLAMA4: Architecture = Architecture {
    name: "llama4",
    models: "Llama 4 (text)",
    model_types: &["llama4_text", "llama4"],
    renamed: &[
        ("ffn_gate", "feed_forward.gate_proj"),
        ("ffn_up", "feed_forward.up_proj"),
        ("ffn_down", "feed_forward.down_proj"),
        ("ffn_gate_inp", "feed_forward.router"),
        ("ffn_gate_exps", "feed_forward.experts.gate_proj"),
        ("ffn_up_exps.weight", "feed_forward.experts.gate_up_proj"),
        ("ffn_up_exps.weight", "feed_forward.experts.up_proj.weight"),
        ("ffn_down_exps.weight", "feed_forward.experts.down_proj"),
        ("ffn_down_exps.weight", "feed_forward.experts.down_proj.weight"),
        ("ffn_gate_shexp", "feed_forward.shared_expert.gate_proj"),
        ("ffn_up_shexp", "feed_forward.shared_expert.up_proj"),
        ("ffn_down_shexp", "feed_forward.shared_expert.down_proj"),
    ],
    expert_order: ExpertOrder::TransposedHalves,
    config_pairing: RopePairing::Interleaved,
    norm_after_rope: true,
    bare_head_norms: true,
    no_head_norms_at: Some(128),
    window_pattern: WindowPattern::AllButLastOf(4),
    windowed_rope: WindowedRope::Only,
    default_window: Some(8192),
    chunked: true,
    query_growth: Some(QueryGrowth { span: 8192.0, weight: 0.1 }),
    normalizes_experts: false,
    names_expert_step: true,
    sigmoid_experts: true,
    weighs_expert_input: true,
    ..LLAMA
};
