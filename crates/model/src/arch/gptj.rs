//! GPT-J (Wang & Komatsuzaki 2021): both blocks side by side under one LayerNorm, partial RoPE of neighbours, no gate.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const GPTJ: Architecture = Architecture {
    name: "gptj",
    models: "GPT-J 6B",
    model_types: &["gptj"],
    renamed: &[
        ("token_embd", "wte"),
        ("layers", "h"),
        ("output_norm", "ln_f"),
        ("attn_norm", "ln_1"),
        ("attn_q", "attn.q_proj"),
        ("attn_k", "attn.k_proj"),
        ("attn_v", "attn.v_proj"),
        ("attn_output", "attn.out_proj"),
        ("ffn_up", "mlp.fc_in"),
        ("ffn_down", "mlp.fc_out"),
    ],
    config_pairing: RopePairing::Interleaved,
    activation: Activation::GeluTanh,
    gated: false,
    norm: NormKind::Layer,
    parallel: true,
    ..LLAMA
};
