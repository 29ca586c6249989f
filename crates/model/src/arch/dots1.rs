//! dots.llm1 (rednote 2025): Q/K norms, a router that scores with sigmoids and has a bias for the choice, shared experts,
//! dense layers first.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const DOTS1: Architecture = Architecture {
    name: "dots1",
    models: "dots.llm1",
    model_types: &["dots1"],
    config_defaults: &[("expert_gating_func", 2.0)],
    pairing: RopePairing::Halves,
    ..LLAMA
};
