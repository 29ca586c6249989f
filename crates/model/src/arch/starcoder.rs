//! StarCoder 1 and SantaCoder (Li et al. 2023): GPT-2 with one K/V head for all.

use super::gpt2::GPT2;
use crate::Architecture;

pub(crate) const STARCODER: Architecture = Architecture {
    name: "starcoder",
    models: "StarCoder 1, StarCoderBase",
    model_types: &["gpt_bigcode"],
    config_defaults: &[("attention.multi_query", 1.0)],
    transposed: false,
    ..GPT2
};
