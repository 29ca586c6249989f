//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm, fused Q/K/V, no gate; its own files store matrices transposed.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind};

pub(crate) const GPT2: Architecture = Architecture {
    name: "gpt2",
    models: "GPT-2",
    model_types: &["gpt2"],
    renamed: &[
        ("token_embd", "wte"),
        ("position_embd", "wpe"),
        ("layers", "h"),
        ("output_norm", "ln_f"),
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    transposed: true,
    has_rope: false,
    activation: Activation::GeluTanh,
    gated: false,
    norm: NormKind::Layer,
    ..LLAMA
};
