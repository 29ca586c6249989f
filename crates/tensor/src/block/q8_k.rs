//! Q8_K: 256 weights share a single-precision scale `d`; a weight is `q * d`, `q` a signed byte.
//!
//! Bytes: `d` (4), `qs` (256), `bsums` (16 × 2: the sum of each 16 `q`, which dot products with K types use). It is the
//! type activations are rounded to, rarely found in files.

use super::decode_blocks;
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q8_K", len: 256, bytes: 292, gguf: 15, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, d2, d3, rest @ ..]: &[u8; 292], out: &mut [f32; 256]| {
        let d = f32::from_le_bytes([*d0, *d1, *d2, *d3]);
        for j in 0..256 {
            out[j] = d * f32::from(rest[j] as i8);
        }
    });
}
