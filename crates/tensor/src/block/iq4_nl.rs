//! IQ4_NL: 32 weights share a half-precision scale `d`; a weight is `d * VALUES[q]`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    levels::{fours, pack_fours},
    search::{best_scale, extreme, importance, inverse},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "IQ4_NL",
    len: 32,
    bytes: 18,
    gguf: Some(20),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

/// The sixteen levels, denser near zero.
pub(super) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        *out = fours(qs).map(|level| d * f32::from(VALUES[usize::from(level)]));
    });
}

/// Between two levels: the nearest one to `v` is the number of these below it.
const BETWEEN: [f32; 15] = {
    let mut between = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        between[i] = (VALUES[i] as f32 + VALUES[i + 1] as f32) / 2.0;
        i += 1;
    }
    between
};

/// Index of the level nearest to `v`.
pub(super) fn nearest(v: f32) -> u8 {
    BETWEEN.iter().map(|edge| u8::from(v > *edge)).sum()
}

/// The level nearest to each of `x`, in whole vectors: the lowest one and every step up to it.
pub(super) fn nearest_levels(x: [f32; 32]) -> [f32; 32] {
    let mut levels = [f32::from(VALUES[0]); 32];
    for (i, edge) in BETWEEN.iter().enumerate() {
        let step = f32::from(VALUES[i + 1]) - f32::from(VALUES[i]);
        for (level, v) in levels.iter_mut().zip(&x) {
            *level += if v > edge { step } else { 0.0 };
        }
    }
    levels
}

/// The scale that fits `x` best: the weight of greatest magnitude is put near either end of the levels.
pub(super) fn fit_scale(x: &[f32; 32], given: Option<&[f32; 32]>) -> f32 {
    let weights = importance(x, given);
    let extreme = extreme(x);
    let steps = (-8..=8i8).map(|step| 1.0 + f32::from(step) * 0.02);
    let ends = [f32::from(VALUES[0]), f32::from(VALUES[15])];
    let inverses = steps.flat_map(|step| ends.map(|end| end * step / extreme));
    best_scale(x, &weights, inverses, nearest_levels).unwrap_or(extreme / f32::from(VALUES[0]))
}

/// The two nibbles of each byte for `x`, at `inverse` levels a unit.
pub(super) fn nibbles(x: &[f32; 32], inverse: f32) -> [u8; 16] {
    pack_fours(&x.map(|v| nearest(v * inverse)))
}

fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(values, importance, out, |x: &[f32; 32], given, [d0, d1, qs @ ..]: &mut [u8; 18]| {
        let d = f16::from_f32(fit_scale(x, given));
        [*d0, *d1] = d.to_le_bytes();
        *qs = nibbles(x, inverse(d.to_f32()));
    });
}
