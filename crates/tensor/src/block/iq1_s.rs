//! IQ1_S: 8 groups of 32 weights; a weight is `d * (2 * s + 1) * (level ± 1/8)`, with `s` of 3 bits and the sign of the
//! shift a group's, and the levels of 8 weights from a book of 2048 points.
//!
//! Bytes: `d` (2), `qs` (32: the low bits of each index), then a word (2) for each group: bits `3 * i ..` are the upper ones
//! of its index `i`, bits 12..15 are `s`, bit 15 makes the shift negative.

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ1_S", len: 256, bytes: 50, gguf: Some(19), decode: Some(decode), encode: None };

/// How far the levels are shifted.
const SHIFT: f32 = 0.125;

/// Eight weights of point `index`.
pub(super) fn shifted(out: &mut [f32; 8], scale: f32, index: usize, negative: bool) {
    let shift = if negative { -SHIFT } else { SHIFT };
    *out = grid::IQ1[index].map(|level| scale * (f32::from(level) + shift));
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, rest @ ..]: &[u8; 50], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let (qs, words) = rest.split_at(32);
        for (i, (q, out)) in qs.iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
            let word = u16::from_le_bytes([words[i / 4 * 2], words[i / 4 * 2 + 1]]);
            let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
            let index = usize::from(*q) | usize::from(word >> (i % 4 * 3) & 7) << 8;
            shifted(out, scale, index, word >> 15 == 1);
        }
    });
}
