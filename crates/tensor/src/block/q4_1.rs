//! Q4_1: 32 weights share a half-precision scale `d` and minimum `m`; a weight is `q * d + m`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `m` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q4_1", len: 32, bytes: 20, gguf: 3, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, m0, m1, qs @ ..]: &[u8; 20], out: &mut [f32; 32]| {
        let (d, m) = (half(*d0, *d1), half(*m0, *m1));
        for j in 0..16 {
            out[j] = f32::from(qs[j] & 15) * d + m;
            out[j + 16] = f32::from(qs[j] >> 4) * d + m;
        }
    });
}
