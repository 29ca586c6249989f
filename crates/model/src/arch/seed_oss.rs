//! Seed-OSS (ByteDance 2025): Llama with biases on Q, K and V; GGUF calls the second norm of a layer `post_attention_norm`.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const SEED_OSS: Architecture = Architecture {
    name: "seed_oss",
    models: "Seed-OSS",
    model_types: &["seed_oss"],
    house_renamed: &[("ffn_norm", "post_attention_norm")],
    pairing: RopePairing::Halves,
    ..LLAMA
};
