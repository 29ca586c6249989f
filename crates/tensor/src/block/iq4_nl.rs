//! IQ4_NL: 32 weights share a half-precision scale `d`; a weight is `d * VALUES[q]`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "IQ4_NL", len: 32, bytes: 18, gguf: 20, decode: Some(decode), encode: None };

/// The sixteen levels, denser near zero.
pub(super) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        for j in 0..16 {
            out[j] = d * f32::from(VALUES[usize::from(qs[j] & 15)]);
            out[j + 16] = d * f32::from(VALUES[usize::from(qs[j] >> 4)]);
        }
    });
}
