//! Q8_0: 32 weights share a half-precision scale `d`; a weight is `q * d`, `q` a signed byte.
//!
//! Bytes: `d` (2), `qs` (32).

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q8_0", len: 32, bytes: 34, gguf: 8, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 34], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        for j in 0..32 {
            out[j] = f32::from(qs[j] as i8) * d;
        }
    });
}
