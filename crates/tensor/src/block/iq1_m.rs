//! IQ1_M: 16 groups of 16 weights; a weight is `d * (2 * s + 1) * (level ± 1/8)`, with `s` of 3 bits a group, the sign of the
//! shift that of 8 weights, and their levels from the book of IQ1_S.
//!
//! Bytes: `qs` (32: the low bits of each index), `qh` (16: nibble `i`, low ones first, is the three upper bits of index `i`
//! and, above them, whether its shift is negative), `scales` (8: four words, each with the scales of four groups in its low
//! twelve bits and four bits of `d`, the lowest first, above).

use super::{decode_blocks, iq1_s::shifted};
use crate::dtype::Info;
use half::f16;

pub(crate) const INFO: Info =
    Info { name: "IQ1_M", len: 256, bytes: 56, gguf: Some(29), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |block: &[u8; 56], out: &mut [f32; 256]| {
        let words: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]));
        let d = words.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
        let d = f16::from_bits(d).to_f32();
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let scale = d * f32::from(2 * (words[i / 8 % 4] >> (i / 2 % 4 * 3) & 7) + 1);
            let high = block[32 + i / 2] >> (i % 2 * 4);
            shifted(out, scale, usize::from(block[i]) | usize::from(high & 7) << 8, high & 8 != 0);
        }
    });
}
