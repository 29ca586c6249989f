//! Q5_0: 32 weights share a half-precision scale `d`; a weight is `(q - 16) * d`, `q` of 5 bits.
//!
//! Bytes: `d` (2), `qh` (4: bit `i` is the fifth bit of weight `i`), `qs` (16: low nibbles are weights 0..16, high ones
//! 16..32).

use super::{
    decode_blocks, encode_weighted_blocks, half,
    levels::{around_zero, fives, pack_fives},
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
        *out = fives([*h0, *h1, *h2, *h3], qs).map(|level| (i32::from(level) - 16) as f32 * d);
    });
}

fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 32], given, [d0, d1, h0, h1, h2, h3, qs @ ..]: &mut [u8; 22]| {
            let (d, levels) = around_zero(x, given, 16);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            ([*h0, *h1, *h2, *h3], *qs) = pack_fives(&levels);
        },
    );
}
