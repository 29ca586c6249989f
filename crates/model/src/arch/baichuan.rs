//! Baichuan 1 and 2 (Yang et al. 2023): Llama with Q, K and V in one matrix; the 13B models (40 layers) have ALiBi, and those of
//! the second generation (vocabulary of 125,696) normalize the rows of their output matrix.

use super::llama::LLAMA;
use crate::Architecture;

pub(crate) const BAICHUAN: Architecture = Architecture {
    name: "baichuan",
    models: "Baichuan 1 and 2 (7B, 13B)",
    model_types: &["baichuan"],
    renamed: &[("attn_qkv", "self_attn.W_pack")],
    splits_qkv: true,
    alibi_at: Some(40),
    unit_output_rows_at: Some(125_696),
    ..LLAMA
};
