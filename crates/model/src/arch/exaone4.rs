//! EXAONE 4 (LG AI Research 2025): norms after each block and on each Q and K head; the 32B model has three windowed layers
//! to one that sees everything and has no position embedding.

use super::llama::LLAMA;
use crate::{Architecture, NormPlaces, WindowPattern, WindowedRope};
use compute::RopePairing;

pub(crate) const EXAONE4: Architecture = Architecture {
    name: "exaone4",
    models: "EXAONE 4",
    model_types: &["exaone4"],
    pairing: RopePairing::Halves,
    norms: NormPlaces::After,
    window_pattern: WindowPattern::AllButLastOf(4),
    windowed_rope: WindowedRope::Only,
    ..LLAMA
};
