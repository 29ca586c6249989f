//! DeepSeek V2, V3 and R1 (DeepSeek-AI 2024): latent attention, whose neighbours pair in every convention; shared experts,
//! and groups of experts of which the best take part.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const DEEPSEEK2: Architecture = Architecture {
    name: "deepseek2",
    models: "DeepSeek V2, V2.5, V3, R1",
    model_types: &["deepseek_v2", "deepseek_v3"],
    renamed: &[
        ("attn_q_a", "self_attn.q_a_proj"),
        ("attn_q_a_norm", "self_attn.q_a_layernorm"),
        ("attn_q_b", "self_attn.q_b_proj"),
        ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
        ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
        ("attn_kv_b", "self_attn.kv_b_proj"),
    ],
    config_pairing: RopePairing::Interleaved,
    normalizes_experts: false,
    ..LLAMA
};
