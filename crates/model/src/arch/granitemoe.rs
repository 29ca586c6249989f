//! Granite 3 with experts (IBM 2024): Granite whose experts lie fused; some have a shared one.

use super::granite::GRANITE;
use crate::Architecture;

pub(crate) const GRANITEMOE: Architecture = Architecture {
    name: "granitemoe",
    models: "Granite 3 with experts (1B-A400M, 3B-A800M)",
    model_types: &["granitemoe", "granitemoeshared"],
    renamed: &[
        ("ffn_gate_inp", "block_sparse_moe.router.layer"),
        ("ffn_up_exps", "block_sparse_moe.input_linear"),
        ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
        ("ffn_down_exps", "block_sparse_moe.output_linear"),
        ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
        ("ffn_up_shexp", "shared_mlp.input_linear"),
        ("ffn_down_shexp", "shared_mlp.output_linear"),
    ],
    ..GRANITE
};
