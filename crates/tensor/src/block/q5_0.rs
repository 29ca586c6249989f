//! Q5_0: 32 weights share a half-precision scale `d`; a weight is `(q - 16) * d`, `q` of 5 bits.
//!
//! Bytes: `d` (2), `qh` (4: bit `i` is the fifth bit of weight `i`), `qs` (16: low nibbles are weights 0..16, high ones
//! 16..32).

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q5_0", len: 32, bytes: 22, gguf: 6, decode: Some(decode), encode: None };

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
