//! Qwen 3 (Yang et al. 2025): norms on each Q and K head, which their tensors tell; RoPE pairs halves.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const QWEN3: Architecture =
    Architecture { name: "qwen3", models: "Qwen 3", pairing: RopePairing::Halves, ..LLAMA };
