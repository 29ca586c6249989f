//! EXAONE 3 and 3.5 (LG AI Research 2024): Llama under other names.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const EXAONE: Architecture = Architecture {
    name: "exaone",
    models: "EXAONE 3, EXAONE 3.5",
    model_types: &["exaone"],
    renamed: &[
        ("token_embd", "wte"),
        ("layers", "h"),
        ("output_norm", "ln_f"),
        ("attn_norm", "ln_1"),
        ("attn_q", "attn.attention.q_proj"),
        ("attn_k", "attn.attention.k_proj"),
        ("attn_v", "attn.attention.v_proj"),
        ("attn_output", "attn.attention.out_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_gate", "mlp.c_fc_0"),
        ("ffn_up", "mlp.c_fc_1"),
        ("ffn_down", "mlp.c_proj"),
    ],
    pairing: RopePairing::Halves,
    ..LLAMA
};
