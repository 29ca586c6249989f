//! GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): attention and feed-forward side by side, partial RoPE,
//! LayerNorm; Q, K and V fused head by head.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const GPTNEOX: Architecture = Architecture {
    name: "gptneox",
    models: "GPT-NeoX, Pythia",
    model_types: &["gpt_neox"],
    renamed: &[
        ("token_embd", "gpt_neox.embed_in"),
        ("layers", "gpt_neox.layers"),
        ("output_norm", "gpt_neox.final_layer_norm"),
        ("output", "embed_out"),
        ("attn_qkv", "attention.query_key_value"),
        ("attn_output", "attention.dense"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    fused_by_head: true,
    config_defaults: &[("rope.dimension_fraction", 0.25)],
    pairing: RopePairing::Halves,
    activation: Activation::Gelu,
    gated: false,
    norm: NormKind::Layer,
    parallel: true,
    ..LLAMA
};
