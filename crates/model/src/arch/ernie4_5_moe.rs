//! ERNIE 4.5 with experts (Baidu 2025): a bias for the choice only, shared experts, dense layers first.

use super::ernie4_5::ERNIE4_5;
use crate::Architecture;

pub(crate) const ERNIE4_5_MOE: Architecture = Architecture {
    name: "ernie4_5-moe",
    models: "ERNIE 4.5 with experts (21B-A3B, 300B-A47B)",
    model_types: &["ernie4_5_moe"],
    names_expert_step: true,
    ..ERNIE4_5
};
