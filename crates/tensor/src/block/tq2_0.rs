//! TQ2_0: 256 weights share a half-precision scale `d`; a weight is `(q - 1) * d`, `q` of 2 bits, of which 0, 1 and 2 are
//! used.
//!
//! Bytes: `qs` (64), `d` (2). Each half of 128 weights has 32 bytes: bits 0..2 are its weights 0..32, bits 2..4 its weights
//! 32..64 and so on.

use super::{decode_blocks, encode_blocks, half, search::ternary};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "TQ2_0",
    len: 256,
    bytes: 66,
    gguf: Some(35),
    decode: Some(decode),
    encode: Some(Encode::Plain(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[qs @ .., d0, d1]: &[u8; 66], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (out, q) in out.iter_mut().zip(&qs[i / 4 * 32..][..32]) {
                *out = d * (f32::from(q >> (i % 4 * 2) & 3) - 1.0);
            }
        }
    });
}

fn encode(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; 256], [qs @ .., d0, d1]: &mut [u8; 66]| {
        let (d, levels) = ternary(x);
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        qs.fill(0);
        for (i, levels) in levels.as_chunks::<32>().0.iter().enumerate() {
            for (q, level) in qs[i / 4 * 32..][..32].iter_mut().zip(levels) {
                *q |= level << (i % 4 * 2);
            }
        }
    });
}
