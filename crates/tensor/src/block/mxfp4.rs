//! MXFP4 (OCP Microscaling Formats 1.0): 32 weights of E2M1 share a power of two `2^(e - 127)`.
//!
//! Bytes: `e` (1), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::decode_blocks;
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "MXFP4", len: 32, bytes: 17, gguf: 39, decode: Some(decode), encode: None };

/// Twice the values of E2M1, sign in the upper bit: whole numbers.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of `2^(e - 127)`: subnormal for the two smallest exponents.
fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[e, qs @ ..]: &[u8; 17], out: &mut [f32; 32]| {
        let d = half_scale(*e);
        for j in 0..16 {
            out[j] = d * f32::from(DOUBLED[usize::from(qs[j] & 15)]);
            out[j + 16] = d * f32::from(DOUBLED[usize::from(qs[j] >> 4)]);
        }
    });
}
