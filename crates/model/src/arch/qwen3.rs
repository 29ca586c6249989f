//! Qwen 3 (Yang et al. 2025): norms on each Q and K head, which their tensors tell; RoPE pairs halves.

use super::qwen2::QWEN2;
use crate::Architecture;

pub(crate) const QWEN3: Architecture =
    Architecture { name: "qwen3", models: "Qwen 3", model_types: &["qwen3"], ..QWEN2 };
