//! Nemotron 4 and Minitron (Parmar et al. 2024): LayerNorm whose weights are stored less one, squared ReLU without a gate,
//! partial RoPE.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const NEMOTRON: Architecture = Architecture {
    name: "nemotron",
    models: "Nemotron 4, Minitron",
    model_types: &["nemotron"],
    norms_less_one: true,
    config_defaults: &[("rope.dimension_fraction", 0.5)],
    pairing: RopePairing::Halves,
    activation: Activation::ReluSquared,
    gated: false,
    norm: NormKind::Layer,
    ..LLAMA
};
