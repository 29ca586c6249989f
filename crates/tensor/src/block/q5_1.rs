//! Q5_1: 32 weights share a half-precision scale `d` and minimum `m`; a weight is `q * d + m`, `q` of 5 bits.
//!
//! Bytes: `d` (2), `m` (2), `qh` (4: bit `i` is the fifth bit of weight `i`), `qs` (16: low nibbles are weights 0..16,
//! high ones 16..32).

use super::{
    decode_blocks, encode_weighted_blocks, half,
    levels::{above_min, fives, pack_fives},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q5_1",
    len: 32,
    bytes: 24,
    gguf: Some(7),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, m0, m1, h0, h1, h2, h3, qs @ ..]: &[u8; 24], out: &mut [f32; 32]| {
        let (d, m) = (half(*d0, *d1), half(*m0, *m1));
        *out = fives([*h0, *h1, *h2, *h3], qs).map(|level| f32::from(level) * d + m);
    });
}

fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 32], given, [d0, d1, m0, m1, h0, h1, h2, h3, qs @ ..]: &mut [u8; 24]| {
            let (d, min, levels) = above_min(x, given, 31);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            [*m0, *m1] = f16::from_f32(min).to_le_bytes();
            ([*h0, *h1, *h2, *h3], *qs) = pack_fives(&levels);
        },
    );
}
