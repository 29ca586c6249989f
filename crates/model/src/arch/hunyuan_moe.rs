//! Hunyuan with experts (Tencent 2025): the dense model's attention, a shared expert beside the chosen ones.

use super::hunyuan::HUNYUAN;
use crate::Architecture;

pub(crate) const HUNYUAN_MOE: Architecture = Architecture {
    name: "hunyuan-moe",
    models: "Hunyuan A13B",
    model_types: &["hunyuan_v1_moe"],
    renamed: &[
        ("attn_q_norm", "self_attn.query_layernorm"),
        ("attn_k_norm", "self_attn.key_layernorm"),
        ("ffn_gate_inp", "mlp.gate.wg"),
        ("ffn_gate_shexp", "mlp.shared_mlp.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_mlp.up_proj"),
        ("ffn_down_shexp", "mlp.shared_mlp.down_proj"),
    ],
    ..HUNYUAN
};
