//! Blocks of 32 weights with whole levels of 4 or 5 bits: how levels are found and how they lie in the bytes.
//!
//! What belongs here: what block types with such levels share, whatever their levels stand for. What does not: the scales
//! that err least (`search.rs`), what else is in a block (its own file).

use super::search::{extreme, fit_scale, fit_scale_and_min, inverse, range};

/// A scale for levels `0..2n` that are counted from `-n`, and the levels: the weight of greatest magnitude becomes exactly `-n`
/// steps, as ggml's reference does it; with importances the scale is searched.
pub(super) fn around_zero(x: &[f32; 32], given: Option<&[f32; 32]>, n: u8) -> (f32, [u8; 32]) {
    let (n_steps, top) = (f32::from(n), 2 * n - 1);
    let d = match given {
        None => extreme(x) / -n_steps,
        Some(_) => fit_scale(x, given, n),
    };
    let inverse = inverse(d);
    (d, x.map(|v| ((v * inverse + (n_steps + 0.5)) as u8).min(top)))
}

/// A scale and a minimum for levels `0..=top`, and the levels: from the range of the weights, as ggml's reference does it; with
/// importances both are searched.
pub(super) fn above_min(x: &[f32; 32], given: Option<&[f32; 32]>, top: u8) -> (f32, f32, [u8; 32]) {
    let (d, min) = match given {
        None => {
            let (min, max) = range(x);
            ((max - min) / f32::from(top), min)
        }
        Some(_) => {
            let (d, below) = fit_scale_and_min(x, given, top, true);
            (d, -below)
        }
    };
    let inverse = inverse(d);
    (d, min, x.map(|v| (((v - min) * inverse + 0.5) as u8).min(top)))
}

/// Levels of 4 bits: the low nibbles are weights 0..16, the high ones 16..32.
pub(super) fn fours(qs: &[u8; 16]) -> [u8; 32] {
    let mut levels = [0; 32];
    for (j, q) in qs.iter().enumerate() {
        levels[j] = q & 15;
        levels[j + 16] = q >> 4;
    }
    levels
}

/// The inverse of [`fours`], of the lower 4 bits of each level.
pub(super) fn pack_fours(levels: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|j| levels[j] & 15 | levels[j + 16] << 4)
}

/// Levels of 5 bits: bit `i` of `qh` is the fifth bit of weight `i`.
pub(super) fn fives(qh: [u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let (qh, mut levels) = (u32::from_le_bytes(qh), fours(qs));
    for (i, level) in levels.iter_mut().enumerate() {
        *level |= ((qh >> i & 1) as u8) << 4;
    }
    levels
}

/// The inverse of [`fives`].
pub(super) fn pack_fives(levels: &[u8; 32]) -> ([u8; 4], [u8; 16]) {
    let qh = levels.iter().enumerate().fold(0, |qh, (i, level)| qh | u32::from(level >> 4) << i);
    (qh.to_le_bytes(), pack_fours(levels))
}
