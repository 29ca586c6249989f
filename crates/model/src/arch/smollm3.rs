//! SmolLM 3 (Hugging Face 2025): Llama whose every fourth layer has no position embedding (Yang et al. 2025, "RoPE to
//! NoPE and back again").

use super::llama::LLAMA;
use crate::Architecture;

pub(crate) const SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    models: "SmolLM 3",
    model_types: &["smollm3"],
    config_defaults: &[("attention.sliding_window_on", 0.0)],
    no_rope_every: Some(4),
    ..LLAMA
};
