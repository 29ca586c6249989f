//! OLMoE (Muennighoff et al. 2024): experts whose weights stay as the softmax over all gives them; Q/K norms over all heads.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const OLMOE: Architecture = Architecture {
    name: "olmoe",
    models: "OLMoE",
    model_types: &["olmoe"],
    pairing: RopePairing::Halves,
    normalizes_experts: false,
    ..LLAMA
};
