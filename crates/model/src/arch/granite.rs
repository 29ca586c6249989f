//! Granite 3 (IBM 2024): Llama with four multipliers, which the file gives; that of the logits divides.

use super::llama::LLAMA;
use crate::Architecture;

pub(crate) const GRANITE: Architecture = Architecture {
    name: "granite",
    models: "Granite 3",
    model_types: &["granite"],
    logit_scale_divides: true,
    ..LLAMA
};
