//! Phi 3.5 MoE (Abdin et al. 2024): LayerNorm, biases, and SparseMixer's weights of experts (Liu et al. 2024), each of which is
//! nearly 1 alone. llama.cpp weighs them as Mixtral's instead, so that its answers are other ones.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{NormKind, RopePairing};

pub(crate) const PHIMOE: Architecture = Architecture {
    name: "phimoe",
    models: "Phi 3.5 MoE",
    model_types: &["phimoe"],
    pairing: RopePairing::Halves,
    norm: NormKind::Layer,
    normalizes_experts: false,
    expert_peers: Some(0.02),
    ..LLAMA
};
