//! Q4_1: 32 weights share a half-precision scale `d` and minimum `m`; a weight is `q * d + m`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `m` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    levels::{above_min, fours, pack_fours},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q4_1",
    len: 32,
    bytes: 20,
    gguf: Some(3),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, m0, m1, qs @ ..]: &[u8; 20], out: &mut [f32; 32]| {
        let (d, m) = (half(*d0, *d1), half(*m0, *m1));
        *out = fours(qs).map(|level| f32::from(level) * d + m);
    });
}

fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 32], given, [d0, d1, m0, m1, qs @ ..]: &mut [u8; 20]| {
            let (d, min, levels) = above_min(x, given, 15);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            [*m0, *m1] = f16::from_f32(min).to_le_bytes();
            *qs = pack_fours(&levels);
        },
    );
}
