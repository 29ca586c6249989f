//! Q4_0: 32 weights share a half-precision scale `d`; a weight is `(q - 8) * d`, `q` of 4 bits.
//!
//! Bytes: `d` (2), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q4_0", len: 32, bytes: 18, gguf: 2, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        for j in 0..16 {
            out[j] = (i32::from(qs[j] & 15) - 8) as f32 * d;
            out[j + 16] = (i32::from(qs[j] >> 4) - 8) as f32 * d;
        }
    });
}
