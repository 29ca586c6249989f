//! Orion (OrionStarAI 2024): Llama with LayerNorm, whose epsilon its configuration calls that of an RMS norm.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{NormKind, RopePairing};

pub(crate) const ORION: Architecture = Architecture {
    name: "orion",
    models: "Orion 14B",
    model_types: &["orion"],
    pairing: RopePairing::Halves,
    norm: NormKind::Layer,
    ..LLAMA
};
