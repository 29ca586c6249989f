//! The factors of RoPE that the house's files have as tensors, where others have numbers.
//!
//! What belongs here: what divides the frequencies. What does not: the frequencies (`rope.rs`).

use super::source::ExportTensor;
use crate::HyperParams;
use crate::rope::RopeScaling;

/// What frequencies are divided by that are to be 0 (llama.cpp's number).
const STANDSTILL: f32 = 1e30;

/// What divides the frequencies of RoPE, where the house's files have tensors for it and not numbers.
pub(super) fn factors(hyper: &HyperParams) -> Vec<ExportTensor> {
    let rope = &hyper.rope;
    if let Some([short, long]) = &rope.divisors {
        let made = [("rope_factors_long.weight", long), ("rope_factors_short.weight", short)];
        return made.into_iter().filter_map(|(name, values)| ExportTensor::made(name, values.clone())).collect();
    }
    if let RopeScaling::Leading { factor, .. } = rope.scaling {
        // What does not turn is divided by a number that leaves nothing of it.
        let divisor = |frequency: &f32| if *frequency == 0.0 { STANDSTILL } else { factor as f32 };
        let divisors = rope.frequencies(None, hyper.context_length).iter().map(divisor).collect();
        return ExportTensor::made("rope_freqs.weight", divisors).into_iter().collect();
    }
    let RopeScaling::Bands { .. } = rope.scaling else { return Vec::new() };
    let scaled = rope.frequencies(None, hyper.context_length);
    let unscaled = crate::RopeParams { scaling: RopeScaling::None, ..rope.clone() };
    let unscaled = unscaled.frequencies(None, hyper.context_length);
    let divisors = unscaled.iter().zip(&scaled).map(|(plain, scaled)| (f64::from(*plain) / f64::from(*scaled)) as f32);
    ExportTensor::made("rope_freqs.weight", divisors.collect()).into_iter().collect()
}
