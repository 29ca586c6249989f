//! Gemma 1 and CodeGemma (Mesnard et al. 2024): norm weights stored less one, embeddings multiplied by the root of the width.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, RopePairing};

pub(crate) const GEMMA: Architecture = Architecture {
    name: "gemma",
    models: "Gemma 1, CodeGemma",
    model_types: &["gemma"],
    norms_less_one: true,
    pairing: RopePairing::Halves,
    activation: Activation::GeluTanh,
    root_width_embedding: true,
    ..LLAMA
};
