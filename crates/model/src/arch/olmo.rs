//! OLMo 1 (Groeneveld et al. 2024): LayerNorm without weights; Q, K and V may be clamped.

use super::llama::LLAMA;
use crate::Architecture;
use compute::NormKind;

pub(crate) const OLMO: Architecture = Architecture {
    name: "olmo",
    models: "OLMo 1",
    model_types: &["olmo"],
    config_defaults: &[("attention.layer_norm_epsilon", 1e-5)],
    norm: NormKind::Layer,
    bare_norms: true,
    ..LLAMA
};
