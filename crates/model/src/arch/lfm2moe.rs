//! LFM2 with experts (Liquid AI 2025): dense layers first, a router that scores with sigmoids and has a bias for the choice.

use super::lfm2::LFM2;
use crate::Architecture;

pub(crate) const LFM2MOE: Architecture = Architecture {
    name: "lfm2moe",
    models: "LFM2 with experts (8B-A1B)",
    model_types: &["lfm2_moe"],
    config_defaults: &[("rope.freq_base", 1e6), ("shortconv.l_cache", 3.0), ("expert_gating_func", 2.0)],
    ..LFM2
};
