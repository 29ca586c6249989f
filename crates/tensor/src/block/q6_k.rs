//! Q6_K: 16 groups of 16 weights; a weight is `d * s * (q - 32)`, with `q` of 6 bits and `s` a signed byte a group.
//!
//! Bytes: `ql` (128), `qh` (64), `scales` (16), `d` (2). Each half of 128 weights has 64 bytes of `ql` and 32 of `qh`. In
//! the half, weights 0..64 have their low four bits in the low nibbles of `ql`, weights 64..128 in the high ones; the two
//! upper bits of weight `32 * i + l` are bits `2 * i` of byte `l` of `qh`.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    search::{levels, scales},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q6_K",
    len: 256,
    bytes: 210,
    gguf: Some(14),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |block: &[u8; 210], out: &mut [f32; 256]| {
        let d = half(block[208], block[209]);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * f32::from(block[192 + group % 16] as i8);
            let (side, quarter, odd) = (group / 8 % 2, group % 8 / 2, group % 2);
            let low = &block[side * 64 + quarter % 2 * 32 + odd * 16..][..16];
            let high = &block[128 + side * 32 + odd * 16..][..16];
            let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
            for ((out, l), h) in out.iter_mut().zip(low).zip(high) {
                let q = (l >> low_shift) & 15 | ((h >> high_shift) & 3) << 4;
                *out = dl * (i32::from(q) - 32) as f32;
            }
        }
    });
}

/// Scale of each group by search, then rounded to 8 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(values, importance, out, |x: &[f32; 256], given, out: &mut [u8; 210]| {
        let (scales, d) = scales::<16, 16>(x, given, 32, 128);
        out[..208].fill(0);
        out[208..].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (group, x) in x.as_chunks::<16>().0.iter().enumerate() {
            out[192 + group] = scales[group] as i8 as u8;
            let qs = levels(x, d * scales[group] as f32, 32);
            let (side, quarter, odd) = (group / 8, group % 8 / 2, group % 2);
            for (l, q) in qs.into_iter().enumerate() {
                let q = (q + 32) as u8;
                out[side * 64 + quarter % 2 * 32 + odd * 16 + l] |= (q & 15) << (quarter / 2 * 4);
                out[128 + side * 32 + odd * 16 + l] |= q >> 4 << (quarter * 2);
            }
        }
    });
}
