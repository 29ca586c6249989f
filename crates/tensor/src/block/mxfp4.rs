//! MXFP4 (OCP Microscaling Formats 1.0): 32 weights of E2M1 share a power of two `2^(e - 127)`.
//!
//! Bytes: `e` (1), `qs` (16). The low nibbles are weights 0..16, the high ones 16..32.

use super::{
    decode_blocks, encode_blocks,
    levels::{fours, pack_fours},
    search::extreme,
};
use crate::dtype::{Encode, Info};

pub(crate) const INFO: Info = Info {
    name: "MXFP4",
    len: 32,
    bytes: 17,
    gguf: Some(39),
    decode: Some(decode),
    encode: Some(Encode::Plain(encode)),
};

/// Twice the values of E2M1, sign in the upper bit: whole numbers.
pub(super) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of `2^(e - 127)`: subnormal for the two smallest exponents.
fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[e, qs @ ..]: &[u8; 17], out: &mut [f32; 32]| {
        let d = half_scale(*e);
        *out = fours(qs).map(|code| d * f32::from(DOUBLED[usize::from(code)]));
    });
}

/// Between two magnitudes (doubled): the nearest one is the number of these below it.
const BETWEEN: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// The code nearest to `v` (in doubled units), and what remains.
fn nearest(v: f32) -> u8 {
    let magnitude: u8 = BETWEEN.iter().map(|edge| u8::from(v.abs() > *edge)).sum();
    magnitude | u8::from(v < 0.0) << 3
}

/// Sum of squared errors of `x` with the exponent `e`.
fn error(x: &[f32; 32], e: u8) -> f32 {
    let d = half_scale(e);
    let inverse = 1.0 / d;
    x.iter().map(|v| (d * f32::from(DOUBLED[usize::from(nearest(v * inverse))]) - v).powi(2)).sum()
}

/// The exponent is that of the standard (the greatest weight's, less two) or a neighbour, whichever errs least.
fn encode(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; 32], [e, qs @ ..]: &mut [u8; 17]| {
        let exponent = (extreme(x).abs().to_bits() >> 23).saturating_sub(2).min(253) as u8;
        let candidates = [exponent, exponent.saturating_add(1), exponent.saturating_sub(1)];
        let mut best = (f32::INFINITY, exponent);
        for candidate in candidates {
            let error = error(x, candidate);
            if error < best.0 {
                best = (error, candidate);
            }
        }
        *e = best.1;
        let inverse = 1.0 / half_scale(*e);
        *qs = pack_fours(&x.map(|v| nearest(v * inverse)));
    });
}
