//! StarCoder 2 (Lozhkov et al. 2024): LayerNorm, biases, no gate.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const STARCODER2: Architecture = Architecture {
    name: "starcoder2",
    models: "StarCoder 2",
    model_types: &["starcoder2"],
    renamed: &[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")],
    pairing: RopePairing::Halves,
    activation: Activation::GeluTanh,
    gated: false,
    norm: NormKind::Layer,
    ..LLAMA
};
