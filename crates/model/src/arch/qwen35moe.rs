//! Qwen 3.5 with experts (Qwen team 2026), text part: gate and up of all experts of a layer in one tensor, or each by itself.

use super::qwen35::QWEN35;
use crate::Architecture;

pub(crate) const QWEN35MOE: Architecture = Architecture {
    name: "qwen35moe",
    models: "Qwen 3.5 with experts (text)",
    model_types: &["qwen3_5_moe_text", "qwen3_5_moe"],
    renamed: &[
        ("attn_qkv", "linear_attn.in_proj_qkv"),
        ("attn_gate", "linear_attn.in_proj_z"),
        ("ssm_beta", "linear_attn.in_proj_b"),
        ("ssm_alpha", "linear_attn.in_proj_a"),
        ("ffn_up_exps.weight", "mlp.experts.gate_up_proj"),
        ("ffn_up_exps.weight", "mlp.experts.{}.up_proj.weight"),
        ("ffn_up_exps.weight", "mlp.switch_mlp.up_proj.weight"),
        ("ffn_down_exps.weight", "mlp.experts.down_proj"),
        ("ffn_down_exps.weight", "mlp.experts.{}.down_proj.weight"),
        ("ffn_down_exps.weight", "mlp.switch_mlp.down_proj.weight"),
    ],
    ..QWEN35
};
