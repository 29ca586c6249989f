//! Q3_K: 16 groups of 16 weights; a weight is `d * (s - 32) * (q - 4)`, with `q` of 3 bits and `s` of 6 bits a group.
//!
//! Bytes: `hmask` (32: bit `i` of byte `l` is the third bit of weight `32 * i + l`), `qs` (64, as in Q2_K), `scales` (12),
//! `d` (2). The low four bits of scale `i` are a nibble of byte `i % 8` (high when `i >= 8`), the upper two bits are bits
//! `2 * (i / 4)` of byte `8 + i % 4`.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    search::{levels, scales},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q3_K",
    len: 256,
    bytes: 110,
    gguf: Some(11),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

/// Scale of group `i`, still with its offset of 32.
fn scale(scales: &[u8; 12], i: usize) -> i32 {
    let low = (scales[i % 8] >> (i / 8 % 2 * 4)) & 15;
    let high = (scales[8 + i % 4] >> (i / 4 % 4 * 2)) & 3;
    i32::from(low | high << 4)
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |block: &[u8; 110], out: &mut [f32; 256]| {
        let d = half(block[108], block[109]);
        let scales: [u8; 12] = std::array::from_fn(|i| block[96 + i]);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * (scale(&scales, group) - 32) as f32;
            let shift = group % 8 / 2 * 2;
            let qs = &block[32 + group / 8 % 2 * 32 + group % 2 * 16..][..16];
            let high = &block[group % 2 * 16..][..16];
            let bit = group / 2 % 8;
            for ((out, q), h) in out.iter_mut().zip(qs).zip(high) {
                let q = (q >> shift) & 3 | ((h >> bit) & 1) << 2;
                *out = dl * (i32::from(q) - 4) as f32;
            }
        }
    });
}

/// Scale of each group by search, then rounded to 6 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(values, importance, out, |x: &[f32; 256], given, out: &mut [u8; 110]| {
        let (scales, d) = scales::<16, 16>(x, given, 4, 32);
        out[..108].fill(0);
        out[108..].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (group, x) in x.as_chunks::<16>().0.iter().enumerate() {
            let scale = (scales[group] + 32) as u8;
            out[96 + group % 8] |= (scale & 15) << (group / 8 * 4);
            out[104 + group % 4] |= scale >> 4 << (group / 4 * 2);
            let qs = levels(x, d * scales[group] as f32, 4);
            let (shift, bit) = (group % 8 / 2 * 2, group / 2);
            for (l, q) in qs.into_iter().enumerate() {
                let q = (q + 4) as u8;
                out[32 + group / 8 * 32 + group % 2 * 16 + l] |= (q & 3) << shift;
                out[group % 2 * 16 + l] |= q >> 2 << bit;
            }
        }
    });
}
