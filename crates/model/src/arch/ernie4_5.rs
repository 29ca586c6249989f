//! ERNIE 4.5, dense (Baidu 2025): Llama in whose files neighbours pair, whatever the convention.

use super::llama::LLAMA;
use crate::Architecture;
use compute::RopePairing;

pub(crate) const ERNIE4_5: Architecture = Architecture {
    name: "ernie4_5",
    models: "ERNIE 4.5 0.3B",
    model_types: &["ernie4_5"],
    config_pairing: RopePairing::Interleaved,
    ..LLAMA
};
