//! Qwen3-Next (Qwen team 2025): three layers of the gated delta rule to one of attention whose result passes a gate and
//! of whose heads a quarter rotates; norms stored less one; experts, and one that all tokens share, with a gate of its own.

use super::qwen3::QWEN3;
use crate::{Architecture, Recurrence};

pub(crate) const QWEN3NEXT: Architecture = Architecture {
    name: "qwen3next",
    models: "Qwen3-Next (80B-A3B)",
    model_types: &["qwen3_next"],
    house_renamed: &[("ffn_norm", "post_attention_norm")],
    norms_less_one: true,
    config_defaults: &[
        ("attention.sliding_window_on", 0.0),
        ("attention.key_length", 256.0),
        ("attention.value_length", 256.0),
        ("rope.dimension_fraction", 0.25),
        ("ssm.conv_kernel", 4.0),
        ("ssm.state_size", 128.0),
        ("ssm.value_length", 128.0),
        ("ssm.group_count", 16.0),
        ("ssm.time_step_rank", 32.0),
    ],
    recurrence: Some(Recurrence::DeltaRule),
    gated_attention: true,
    ..QWEN3
};
