//! Q2_K: 16 groups of 16 weights; a weight is `d * s * q - dmin * m`, with `q` of 2 bits and `s`, `m` of 4 bits a group.
//!
//! Bytes: `scales` (16: low nibble `s`, high nibble `m`), `qs` (64), `d` (2), `dmin` (2). Each half of 128 weights has 32
//! bytes of `qs`: bits 0..2 are its weights 0..32, bits 2..4 its weights 32..64 and so on.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    search::{levels_above_min, scales_and_mins},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q2_K",
    len: 256,
    bytes: 84,
    gguf: Some(10),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

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

/// Scale and minimum of each group by search, then both rounded to 4 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(values, importance, out, |x: &[f32; 256], given, out: &mut [u8; 84]| {
        let (fits, d, dmin) = scales_and_mins::<16, 16>(x, given, 3, 15);
        out[80..82].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        out[82..84].copy_from_slice(&f16::from_f32(dmin).to_le_bytes());
        out[..80].fill(0);
        for (group, x) in x.as_chunks::<16>().0.iter().enumerate() {
            let (scale, min) = fits[group];
            out[group] = scale | min << 4;
            let qs = levels_above_min(x, d * f32::from(scale), dmin * f32::from(min), 3);
            let at = 16 + group / 8 * 32 + group % 2 * 16;
            let shift = group % 8 / 2 * 2;
            for (out, q) in out[at..at + 16].iter_mut().zip(qs) {
                *out |= q << shift;
            }
        }
    });
}
