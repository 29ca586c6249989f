//! IQ3_XXS: 8 groups of 32 weights; a weight is `±d * (0.5 + s) / 2` times a level, with `s` of 4 bits a group and the
//! levels of 4 weights from a book of 256 points.
//!
//! Bytes: `d` (2), `qs` (64: the indices), then a word (4) for each group: bits `7 * i ..` are the signs of its weights
//! `8 * i ..`, the upper four are `s`.

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ3_XXS", len: 256, bytes: 98, gguf: Some(18), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, rest @ ..]: &[u8; 98], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let (qs, words) = rest.split_at(64);
        let groups = qs.as_chunks::<8>().0.iter().zip(words.as_chunks::<4>().0);
        for ((indices, word), out) in groups.zip(out.as_chunks_mut::<32>().0) {
            let word = u32::from_le_bytes(*word);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (i, (index, out)) in indices.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
                let signs = grid::even_signs(word >> (i / 2 * 7)) >> (i % 2 * 4);
                grid::signed(out, scale, &grid::IQ3_XXS[usize::from(*index)], signs);
            }
        }
    });
}
