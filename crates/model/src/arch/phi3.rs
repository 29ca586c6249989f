//! Phi 3, 3.5 and 4 mini (Abdin et al. 2024): fused Q/K/V and gate/up, which the loader sees; LongRoPE factors, which
//! their tensors or numbers tell (Ding et al. 2024); RoPE pairs halves.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const PHI3: Architecture = Architecture {
    name: "phi3",
    models: "Phi 3, Phi 3.5, Phi 4",
    model_types: &["phi3"],
    pairing: RopePairing::Halves,
    ..LLAMA
};
