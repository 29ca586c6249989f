//! Qwen 3.5 (Qwen team 2026), text part: Qwen3-Next with dense blocks, its Q, K and V in one matrix and what goes with them
//! in others. In GGUF files the V heads that share a K head lie apart.

use super::qwen3next::QWEN3NEXT;
use crate::Architecture;

pub(crate) const QWEN35: Architecture = Architecture {
    name: "qwen35",
    models: "Qwen 3.5 (text)",
    model_types: &["qwen3_5_text", "qwen3_5"],
    renamed: &[
        ("attn_qkv", "linear_attn.in_proj_qkv"),
        ("attn_gate", "linear_attn.in_proj_z"),
        ("ssm_beta", "linear_attn.in_proj_b"),
        ("ssm_alpha", "linear_attn.in_proj_a"),
    ],
    house_heads_in_turns: true,
    rope_sections: true,
    ..QWEN3NEXT
};
