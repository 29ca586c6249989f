//! Phi 1, 1.5 and 2 (Gunasekar et al. 2023): both blocks side by side under one LayerNorm, partial RoPE, biases everywhere.

use super::llama::LLAMA;
use crate::Architecture;
use compute::{Activation, NormKind, RopePairing};

pub(crate) const PHI2: Architecture = Architecture {
    name: "phi2",
    models: "Phi 1, Phi 1.5, Phi 2",
    model_types: &["phi"],
    renamed: &[
        ("output_norm", "final_layernorm"),
        ("attn_output", "self_attn.dense"),
        ("attn_q_norm", "self_attn.q_layernorm"),
        ("attn_k_norm", "self_attn.k_layernorm"),
        ("ffn_up", "mlp.fc1"),
        ("ffn_down", "mlp.fc2"),
    ],
    config_defaults: &[("rope.dimension_fraction", 0.5), ("attention.layer_norm_epsilon", 1e-5)],
    pairing: RopePairing::Halves,
    activation: Activation::GeluTanh,
    gated: false,
    norm: NormKind::Layer,
    parallel: true,
    ..LLAMA
};
