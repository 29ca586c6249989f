//! Command R and R+, Aya (Cohere 2024): both blocks side by side under one LayerNorm without shift, neighbours pair in every
//! convention; R+ has norms with weights of their own for each head.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{NormKind, RopePairing};

pub(crate) const COMMAND_R: Architecture = Architecture {
    name: "command-r",
    models: "Command R, Command R+, Aya 23",
    model_types: &["cohere"],
    config_defaults: &[("logit_scale", 0.0625), ("rope.freq_base", 10_000.0)],
    config_pairing: RopePairing::Interleaved,
    norm: NormKind::Layer,
    parallel: true,
    ..LLAMA
};
