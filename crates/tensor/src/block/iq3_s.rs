//! IQ3_S: 8 groups of 32 weights; a weight is `±d * (1 + 2 * s)` times a level, with `s` of 4 bits a group and the levels
//! of 4 weights from a book of 512 points.
//!
//! Bytes: `d` (2), `qs` (64: the low bits of each index), `qh` (8: bit `i` of byte `j` is the ninth of index `8 * j + i`),
//! `signs` (32), `scales` (4: low nibbles are even groups).

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ3_S", len: 256, bytes: 110, gguf: Some(21), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, rest @ ..]: &[u8; 110], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let (high, signs, scales) = (&rest[64..72], &rest[72..104], &rest[104..108]);
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let index = usize::from(rest[i]) | usize::from(high[i / 8] >> (i % 8) & 1) << 8;
            let scale = d * f32::from(1 + 2 * (scales[i / 16] >> (i / 8 % 2 * 4) & 15));
            grid::signed(out, scale, &grid::IQ3_S[index], signs[i / 2] >> (i % 2 * 4));
        }
    });
}
