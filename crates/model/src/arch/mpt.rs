//! MPT (MosaicML 2023): ALiBi in place of position embeddings (Press et al. 2021), LayerNorm without shift, no gate.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind};

pub(crate) const MPT: Architecture = Architecture {
    name: "mpt",
    models: "MPT",
    model_types: &["mpt"],
    renamed: &[
        ("token_embd", "wte"),
        ("position_embd", "wpe"),
        ("layers", "blocks"),
        ("output_norm", "norm_f"),
        ("attn_norm", "norm_1"),
        ("attn_qkv", "attn.Wqkv"),
        ("attn_output", "attn.out_proj"),
        ("ffn_norm", "norm_2"),
        ("ffn_up", "ffn.up_proj"),
        ("ffn_down", "ffn.down_proj"),
    ],
    config_defaults: &[("attention.layer_norm_epsilon", 1e-5), ("attention.max_alibi_bias", 8.0)],
    has_rope: false,
    activation: Activation::Gelu,
    gated: false,
    norm: NormKind::Layer,
    ..LLAMA
};
