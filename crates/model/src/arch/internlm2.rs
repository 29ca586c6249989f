//! InternLM 2 and 2.5 (Cai et al. 2024): Llama under other names, Q, K and V fused by K/V head.

use super::llama::LLAMA;
use crate::Architecture;

pub(crate) const INTERNLM2: Architecture = Architecture {
    name: "internlm2",
    models: "InternLM 2, InternLM 2.5",
    model_types: &["internlm2"],
    renamed: &[
        ("token_embd", "tok_embeddings"),
        ("output", "output"),
        ("attn_norm", "attention_norm"),
        ("attn_qkv", "attention.wqkv"),
        ("attn_output", "attention.wo"),
        ("ffn_norm", "ffn_norm"),
        ("ffn_gate", "feed_forward.w1"),
        ("ffn_up", "feed_forward.w3"),
        ("ffn_down", "feed_forward.w2"),
    ],
    fused_by_head: true,
    splits_qkv: true,
    ..LLAMA
};
