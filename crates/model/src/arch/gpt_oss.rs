//! gpt-oss (OpenAI 2025): attention sinks, every other layer windowed, YaRN in all of them, experts with biases and a
//! clamped activation that configurations call `silu`.

use super::llama::LLAMA;
use crate::{Architecture, ExpertOrder, WindowPattern, WindowedRope};
use compute::{Activation, RopePairing};

pub(crate) const GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    models: "gpt-oss 20B and 120B",
    model_types: &["gpt_oss"],
    renamed: &[
        ("ffn_gate_inp", "mlp.router"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_up_exps.weight", "mlp.experts.gate_up_proj"),
        ("ffn_up_exps.weight", "mlp.experts.up_proj.weight"),
        ("ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias"),
        ("ffn_up_exps.bias", "mlp.experts.up_proj.bias"),
        ("ffn_down_exps.weight", "mlp.experts.down_proj"),
        ("ffn_down_exps.weight", "mlp.experts.down_proj.weight"),
        ("ffn_down_exps.bias", "mlp.experts.down_proj_bias"),
        ("ffn_down_exps.bias", "mlp.experts.down_proj.bias"),
    ],
    house_renamed: &[("ffn_norm", "post_attention_norm")],
    expert_order: ExpertOrder::TransposedPairs,
    pairing: RopePairing::Halves,
    activation: Activation::ClampedSwish,
    window_pattern: WindowPattern::AllButLastOf(2),
    windowed_rope: WindowedRope::Same,
    ..LLAMA
};
