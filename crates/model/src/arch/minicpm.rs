//! MiniCPM 1 and 2 (Hu et al. 2024): Llama with three multipliers, which its own files give as an embedding scale, a depth
//! and a base width.

use super::granite::GRANITE;
use crate::Architecture;

pub(crate) const MINICPM: Architecture =
    Architecture { name: "minicpm", models: "MiniCPM 1, MiniCPM 2", model_types: &["minicpm"], ..GRANITE };
