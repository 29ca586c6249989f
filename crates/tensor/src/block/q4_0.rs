//! Q4_0: 32 weights share a half-precision scale `d`; a weight is `(q - 8) * d`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    levels::{around_zero, fours, pack_fours},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q4_0",
    len: 32,
    bytes: 18,
    gguf: Some(2),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        *out = fours(qs).map(|level| (i32::from(level) - 8) as f32 * d);
    });
}

fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(values, importance, out, |x: &[f32; 32], given, [d0, d1, qs @ ..]: &mut [u8; 18]| {
        let (d, levels) = around_zero(x, given, 8);
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        *qs = pack_fours(&levels);
    });
}
