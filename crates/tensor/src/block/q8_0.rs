//! Q8_0: 32 weights share a half-precision scale `d`; a weight is `q * d`, `q` a signed byte.
//!
//! Bytes: `d` (2), `qs` (32).

use super::{
    decode_blocks, encode_blocks, half,
    search::{extreme, inverse},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info =
    Info { name: "Q8_0", len: 32, bytes: 34, gguf: Some(8), decode: Some(decode), encode: Some(Encode::Plain(encode)) };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, qs @ ..]: &[u8; 34], out: &mut [f32; 32]| {
        let d = half(*d0, *d1);
        for j in 0..32 {
            out[j] = f32::from(qs[j] as i8) * d;
        }
    });
}

/// The weight of greatest magnitude becomes 127 steps; halves round away from zero, as ggml's reference does it.
fn encode(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; 32], [d0, d1, qs @ ..]: &mut [u8; 34]| {
        let d = extreme(x).abs() / 127.0;
        let inverse = inverse(d);
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        for j in 0..32 {
            let q = x[j] * inverse;
            // Halves away from zero: just under a half is added, since the sum itself rounds.
            qs[j] = (q + 0.499_999_97_f32.copysign(q)) as i8 as u8;
        }
    });
}
