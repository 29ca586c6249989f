//! Q5_0: 32 weights share a half-precision scale `d`; a weight is `(q - 16) * d`, `q` of 5 bits.
//!
//! Bytes: `d` (2), `qh` (4: bit `i` is the fifth bit of weight `i`), `qs` (16: low nibbles are weights 0..16, high ones
//! 16..32).

use super::{
    decode_blocks, encode_weighted_blocks, half,
    search::{extreme, fit_scale, inverse},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q5_0",
    len: 32,
    bytes: 22,
    gguf: Some(6),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, h0, h1, h2, h3, qs @ ..]: &[u8; 22], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        let qh = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
        for j in 0..16 {
            let low = u32::from(qs[j] & 15) | ((qh >> j) & 1) << 4;
            let high = u32::from(qs[j] >> 4) | ((qh >> (j + 16)) & 1) << 4;
            out[j] = (low as i32 - 16) as f32 * d;
            out[j + 16] = (high as i32 - 16) as f32 * d;
        }
    });
}

/// The weight of greatest magnitude becomes exactly -16 steps, as ggml's reference does it; with importances a scale is searched.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 32], given, [d0, d1, h0, h1, h2, h3, qs @ ..]: &mut [u8; 22]| {
            let d = match given {
                None => extreme(x) / -16.0,
                Some(_) => fit_scale(x, given, 16),
            };
            let inverse = inverse(d);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            let level = |v: f32| ((v * inverse + 16.5) as u8).min(31);
            let mut qh = 0;
            for j in 0..16 {
                let (low, high) = (level(x[j]), level(x[j + 16]));
                qs[j] = low & 15 | (high & 15) << 4;
                qh |= u32::from(low >> 4) << j | u32::from(high >> 4) << (j + 16);
            }
            [*h0, *h1, *h2, *h3] = qh.to_le_bytes();
        },
    );
}
