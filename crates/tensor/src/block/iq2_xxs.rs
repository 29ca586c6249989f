//! IQ2_XXS: 8 groups of 32 weights; a weight is `±d * (0.5 + s) / 4` times a level, with `s` of 4 bits a group and the
//! levels of 8 weights from a book of 256 points.
//!
//! Bytes: `d` (2), then for each group four indices (4) and a word (4): bits `7 * i ..` are the signs of its weights
//! `8 * i ..`, the upper four are `s`.

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ2_XXS", len: 256, bytes: 66, gguf: Some(16), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, groups @ ..]: &[u8; 66], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        for ([indices @ .., w0, w1, w2, w3], out) in groups.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let word = u32::from_le_bytes([*w0, *w1, *w2, *w3]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (i, (index, out)) in indices.iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
                let signs = grid::even_signs(word >> (7 * i));
                grid::signed(out, scale, &grid::IQ2_XXS[usize::from(*index)], signs);
            }
        }
    });
}
