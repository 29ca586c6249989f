//! OLMo 2 (OLMo team 2024): norms after each block only; Q/K norms over all heads at once, which their shape tells.
//! OLMo 3 comes under the same name with a window on three layers of four.

use super::llama::LLAMA;
use crate::{Architecture, NormPlaces, WindowPattern};
use compute::RopePairing;

pub(crate) const OLMO2: Architecture = Architecture {
    name: "olmo2",
    models: "OLMo 2, OLMo 3",
    model_types: &["olmo2", "olmo3"],
    pairing: RopePairing::Halves,
    norms: NormPlaces::After,
    window_pattern: WindowPattern::AllButLastOf(4),
    ..LLAMA
};
