//! The supported families, one file each. To add one: its file, and the two lines here.

mod gemma2;
mod gemma3;
mod granite;
mod llama;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3moe;
mod smollm3;

use crate::Architecture;

pub(crate) use llama::BANDS_TYPE;

/// Every supported family.
pub(crate) const ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3moe::QWEN3MOE,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &phi3::PHI3,
    &granite::GRANITE,
    &olmo2::OLMO2,
    &smollm3::SMOLLM3,
];
