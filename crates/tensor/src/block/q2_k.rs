//! Q2_K: 16 groups of 16 weights; a weight is `d * s * q - dmin * m`, with `q` of 2 bits and `s`, `m` of 4 bits a group.
//!
//! Bytes: `scales` (16: low nibble `s`, high nibble `m`), `qs` (64), `d` (2), `dmin` (2). Each half of 128 weights has 32
//! bytes of `qs`: bits 0..2 are its weights 0..32, bits 2..4 its weights 32..64 and so on.

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q2_K", len: 256, bytes: 84, gguf: 10, decode: Some(decode), encode: None };

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |block: &[u8; 84], out: &mut [f32; 256]| {
        let (d, dmin) = (half(block[80], block[81]), half(block[82], block[83]));
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = block[group % 16];
            let (dl, ml) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
            let shift = group % 8 / 2 * 2;
            let qs = &block[16 + group / 8 % 2 * 32 + group % 2 * 16..][..16];
            for (out, q) in out.iter_mut().zip(qs) {
                *out = dl * f32::from((q >> shift) & 3) - ml;
            }
        }
    });
}
