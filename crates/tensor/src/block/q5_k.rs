//! Q5_K: 8 groups of 32 weights; a weight is `d * s * q - dmin * m`, with `q` of 5 bits and `s`, `m` of 6 bits a group.
//!
//! Bytes: `d` (2), `dmin` (2), `scales` (12, as in Q4_K), `qh` (32: bit `i` of byte `l` is the fifth bit of weight
//! `32 * i + l`), `qs` (128, as in Q4_K).

use super::{
    decode_blocks, encode_weighted_blocks, half,
    q4_k::{pack_scales, scale_and_min},
    search::{levels_above_min, scales_and_mins},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q5_K",
    len: 256,
    bytes: 176,
    gguf: Some(13),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

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

/// Scale and minimum of each group by search, then both rounded to 6 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 256], given, [d0, d1, m0, m1, rest @ ..]: &mut [u8; 176]| {
            let (fits, d, dmin) = scales_and_mins::<8, 32>(x, given, 31, 63);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            [*m0, *m1] = f16::from_f32(dmin).to_le_bytes();
            rest.fill(0);
            for (group, x) in x.as_chunks::<32>().0.iter().enumerate() {
                let (scale, min) = fits[group];
                let qs = levels_above_min(x, d * f32::from(scale), dmin * f32::from(min), 31);
                for (l, q) in qs.into_iter().enumerate() {
                    rest[12 + l] |= q >> 4 << group;
                    rest[44 + group / 2 * 32 + l] |= (q & 15) << (group % 2 * 4);
                }
            }
            rest[..12].copy_from_slice(&pack_scales(&fits));
        },
    );
}
