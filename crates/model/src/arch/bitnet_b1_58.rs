//! BitNet b1.58 2B-4T (Microsoft 2025): squared ReLU. Hugging Face's folders hold ternary weights in two bits, or the weights that
//! they are made of.

use super::bitnet::BITNET;
use crate::Architecture;
use compute::Activation;

pub(crate) const BITNET_B1_58: Architecture = Architecture {
    name: "bitnet-b1.58",
    models: "BitNet b1.58 2B-4T",
    model_types: &["bitnet"],
    activation: Activation::ReluSquared,
    ..BITNET
};
