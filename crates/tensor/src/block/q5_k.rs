//! Q5_K: 8 groups of 32 weights; a weight is `d * s * q - dmin * m`, with `q` of 5 bits and `s`, `m` of 6 bits a group.
//!
//! Bytes: `d` (2), `dmin` (2), `scales` (12, as in Q4_K), `qh` (32: bit `i` of byte `l` is the fifth bit of weight
//! `32 * i + l`), `qs` (128, as in Q4_K).

use super::{decode_blocks, half, q4_k::scale_and_min};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q5_K", len: 256, bytes: 176, gguf: 13, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, m0, m1, rest @ ..]: &[u8; 176], out: &mut [f32; 256]| {
        let (d, dmin) = (half(*d0, *d1), half(*m0, *m1));
        let scales: [u8; 12] = std::array::from_fn(|i| rest[i]);
        let high = &rest[12..44];
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&scales, group);
            let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = group % 2 * 4;
            let qs = &rest[44 + group / 2 % 4 * 32..][..32];
            for ((out, q), h) in out.iter_mut().zip(qs).zip(high) {
                let q = (q >> shift) & 15 | ((h >> group) & 1) << 4;
                *out = dl * f32::from(q) - ml;
            }
        }
    });
}
