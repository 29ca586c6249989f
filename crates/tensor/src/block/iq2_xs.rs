//! IQ2_XS: 16 groups of 16 weights; a weight is `±d * (0.5 + s) / 4` times a level, with `s` of 4 bits a group and the
//! levels of 8 weights from a book of 512 points.
//!
//! Bytes: `d` (2), `qs` (64: for each 8 weights 9 bits of index and 7 of signs), `scales` (8: low nibbles are even groups).

use super::{decode_blocks, grid, half};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "IQ2_XS", len: 256, bytes: 74, gguf: Some(17), decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, rest @ ..]: &[u8; 74], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let (qs, scales) = rest.split_at(64);
        for (i, (q, out)) in qs.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
            let q = u16::from_le_bytes(*q);
            let scale = d * (0.5 + f32::from(scales[i / 4] >> (i / 2 % 2 * 4) & 15)) * 0.25;
            grid::signed(out, scale, &grid::IQ2_XS[usize::from(q & 511)], grid::even_signs(u32::from(q >> 9)));
        }
    });
}
