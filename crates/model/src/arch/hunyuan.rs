//! Hunyuan, dense (Tencent 2025): norms on each Q and K head after RoPE, whose base a number called alpha raises.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const HUNYUAN: Architecture = Architecture {
    name: "hunyuan-dense",
    models: "Hunyuan 0.5B-7B",
    model_types: &["hunyuan_v1_dense"],
    renamed: &[("attn_q_norm", "self_attn.query_layernorm"), ("attn_k_norm", "self_attn.key_layernorm")],
    pairing: RopePairing::Halves,
    norm_after_rope: true,
    ..LLAMA
};
