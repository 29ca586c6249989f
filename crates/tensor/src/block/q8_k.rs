//! Q8_K: 256 weights share a single-precision scale `d`; a weight is `q * d`, `q` a signed byte.
//!
//! Bytes: `d` (4), `qs` (256), `bsums` (16 × 2: the sum of each 16 `q`, which dot products with K types use). It is the
//! type activations are rounded to, rarely found in files.

use super::{
    decode_blocks, encode_blocks,
    search::{extreme, inverse, round},
};
use crate::dtype::{Encode, Info};

pub(crate) const INFO: Info = Info {
    name: "Q8_K",
    len: 256,
    bytes: 292,
    gguf: Some(15),
    decode: Some(decode),
    encode: Some(Encode::Plain(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, d2, d3, rest @ ..]: &[u8; 292], out: &mut [f32; 256]| {
        let d = f32::from_le_bytes([*d0, *d1, *d2, *d3]);
        for j in 0..256 {
            out[j] = d * f32::from(rest[j] as i8);
        }
    });
}

/// The weight of greatest magnitude becomes -127 steps, as ggml's reference does it.
fn encode(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; 256], out: &mut [u8; 292]| {
        let d = extreme(x) / -127.0;
        let inverse = inverse(d);
        out[..4].copy_from_slice(&d.to_le_bytes());
        let qs: [i8; 256] = x.map(|v| round(v * inverse).min(127.0) as i8);
        for (group, qs) in qs.as_chunks::<16>().0.iter().enumerate() {
            let sum: i16 = qs.iter().map(|q| i16::from(*q)).sum();
            for (l, q) in qs.iter().enumerate() {
                out[4 + group * 16 + l] = *q as u8;
            }
            out[260 + group * 2..][..2].copy_from_slice(&sum.to_le_bytes());
        }
    });
}
