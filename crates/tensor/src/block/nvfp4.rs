//! NVFP4: 4 groups of 16 weights of E2M1 (OCP MX); each group has a scale that is an E4M3 without sign.
//!
//! Bytes: `scales` (4), `qs` (32: per group 8 bytes, whose low nibbles are its weights 0..8 and the high ones 8..16).

use super::{decode_blocks, mxfp4::DOUBLED};
use crate::dtype::Info;

pub(crate) const INFO: Info =
    Info { name: "NVFP4", len: 64, bytes: 36, gguf: Some(40), decode: Some(decode), encode: None };

/// Half of the number that `e` is: 4 bits of exponent (bias 7), 3 of mantissa. 0x7f, which is no number, counts as zero.
fn half_scale(e: u8) -> f32 {
    let (exponent, mantissa) = (e >> 3 & 15, f32::from(e & 7));
    match (e, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * (1.0 / 1024.0),
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((u32::from(exponent) + 127 - 8) << 23),
    }
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[s0, s1, s2, s3, qs @ ..]: &[u8; 36], out: &mut [f32; 64]| {
        let groups = [*s0, *s1, *s2, *s3].into_iter().zip(qs.as_chunks::<8>().0);
        for ((scale, qs), out) in groups.zip(out.as_chunks_mut::<16>().0) {
            let d = half_scale(scale);
            for j in 0..8 {
                out[j] = d * f32::from(DOUBLED[usize::from(qs[j] & 15)]);
                out[j + 8] = d * f32::from(DOUBLED[usize::from(qs[j] >> 4)]);
            }
        }
    });
}
