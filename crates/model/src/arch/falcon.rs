//! Falcon (Almazrouei et al. 2023): both blocks side by side, one K/V head for all (7B) or groups of heads with a norm for
//! each block (40B, 180B); Q, K and V fused by K/V head.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const FALCON: Architecture = Architecture {
    name: "falcon",
    models: "Falcon 7B, 11B, 40B, 180B",
    model_types: &["falcon"],
    renamed: &[
        ("token_embd", "word_embeddings"),
        ("layers", "h"),
        ("output_norm", "ln_f"),
        ("attn_norm", "input_layernorm"),
        ("attn_norm", "ln_mlp"),
        ("attn_norm_2", "ln_attn"),
        ("attn_qkv", "self_attention.query_key_value"),
        ("attn_output", "self_attention.dense"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    fused_by_head: true,
    config_defaults: &[("context_length", 2048.0), ("attention.multi_query", 1.0)],
    pairing: RopePairing::Halves,
    activation: Activation::Gelu,
    gated: false,
    norm: NormKind::Layer,
    parallel: true,
    ..LLAMA
};
