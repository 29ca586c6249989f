//! Q4_K: 8 groups of 32 weights; a weight is `d * s * q - dmin * m`, with `q` of 4 bits and `s`, `m` of 6 bits a group.
//!
//! Bytes: `d` (2), `dmin` (2), `scales` (12, see [`scale_and_min`]), `qs` (128). Each 32 bytes of `qs` are two groups: the
//! low nibbles, then the high ones.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    search::{levels_above_min, scales_and_mins},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "Q4_K",
    len: 256,
    bytes: 144,
    gguf: Some(12),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

/// Scale and minimum of group `i` (of 8), as Q4_K and Q5_K pack them. The first four of each take the low six bits of
/// bytes 0..4 and 4..8; the others are a nibble of bytes 8..12 under the two upper bits of those bytes.
pub(super) fn scale_and_min(scales: &[u8; 12], i: usize) -> (u8, u8) {
    let i = i % 8;
    if i < 4 {
        (scales[i] & 63, scales[i + 4] & 63)
    } else {
        let low = scales[i + 4];
        (low & 15 | scales[i - 4] >> 6 << 4, low >> 4 | scales[i] >> 6 << 4)
    }
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, m0, m1, rest @ ..]: &[u8; 144], out: &mut [f32; 256]| {
        let (d, dmin) = (half(*d0, *d1), half(*m0, *m1));
        let scales: [u8; 12] = std::array::from_fn(|i| rest[i]);
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&scales, group);
            let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = group % 2 * 4;
            let qs = &rest[12 + group / 2 % 4 * 32..][..32];
            for (out, q) in out.iter_mut().zip(qs) {
                *out = dl * f32::from((q >> shift) & 15) - ml;
            }
        }
    });
}

/// The inverse of [`scale_and_min`] for all groups; scales and minima have 6 bits.
pub(super) fn pack_scales(fits: &[(u8, u8); 8]) -> [u8; 12] {
    let mut scales = [0; 12];
    for i in 0..4 {
        let ((scale, min), (upper_scale, upper_min)) = (fits[i], fits[i + 4]);
        scales[i] = scale | upper_scale >> 4 << 6;
        scales[i + 4] = min | upper_min >> 4 << 6;
        scales[i + 8] = upper_scale & 15 | (upper_min & 15) << 4;
    }
    scales
}

/// Scale and minimum of each group by search, then both rounded to 6 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 256], given, [d0, d1, m0, m1, rest @ ..]: &mut [u8; 144]| {
            let (fits, d, dmin) = scales_and_mins::<8, 32>(x, given, 15, 63);
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            [*m0, *m1] = f16::from_f32(dmin).to_le_bytes();
            rest.fill(0);
            for (group, x) in x.as_chunks::<32>().0.iter().enumerate() {
                let (scale, min) = fits[group];
                let qs = levels_above_min(x, d * f32::from(scale), dmin * f32::from(min), 15);
                for (l, q) in qs.into_iter().enumerate() {
                    rest[12 + group / 2 * 32 + l] |= q << (group % 2 * 4);
                }
            }
            rest[..12].copy_from_slice(&pack_scales(&fits));
        },
    );
}
