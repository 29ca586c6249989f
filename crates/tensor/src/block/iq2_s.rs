//! IQ2_S: 16 groups of 16 weights; a weight is `±d * (0.5 + s) / 4` times a level, with `s` of 4 bits a group and the
//! levels of 8 weights from a book of 1024 points.
//!
//! Bytes: `d` (2), `qs` (32: the low bits of each index), `signs` (32), `qh` (8: bits `2 * i ..` of byte `j` are the upper
//! ones of index `4 * j + i`), `scales` (8: low nibbles are even groups).

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ2_S", len: 256, bytes: 82, gguf: Some(22), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, rest @ ..]: &[u8; 82], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let (high, scales) = (&rest[64..72], &rest[72..80]);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = usize::from(rest[i]) | usize::from(high[i / 4] >> (i % 4 * 2) & 3) << 8;
            let scale = d * (0.5 + f32::from(scales[i / 4] >> (i / 2 % 2 * 4) & 15)) * 0.25;
            grid::signed(out, scale, &grid::IQ2_S[index], rest[32 + i]);
        }
    });
}
