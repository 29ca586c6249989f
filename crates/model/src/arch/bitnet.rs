//! BitNet b1.58 (Ma et al. 2024) as llama.cpp names it: norms before the matrices back to the width. Its ternary weights are
//! those of the file; its makers' kernels also round activations to 8 bits, which these models were trained to bear.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const BITNET: Architecture = Architecture {
    name: "bitnet",
    models: "BitNet b1.58 (3B)",
    model_types: &[],
    pairing: RopePairing::Halves,
    ..LLAMA
};
