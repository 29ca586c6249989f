//! TQ1_0: 256 weights share a half-precision scale `d`; a weight is `(t - 1) * d`, `t` a digit of base three.
//!
//! Bytes: `qs` (48), `qh` (4), `d` (2). A byte is a fraction of 256 whose first five base-three digits (four in `qh`) are
//! weights; it is rounded up, so that multiplying by three makes the digits come out on top one after the other. Digit `i`
//! of bytes 0..32 are weights `32 * i ..`, of bytes 32..48 weights `160 + 16 * i ..`, of `qh` weights `240 + 4 * i ..`.

use super::{decode_blocks, encode_blocks, half, search::ternary};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "TQ1_0",
    len: 256,
    bytes: 54,
    gguf: Some(34),
    decode: Some(decode),
    encode: Some(Encode::Plain(encode)),
};

/// Runs of bytes: the first one, how many, and the weight that the first digit of the first byte is.
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 0), (32, 16, 160), (48, 4, 240)];
/// Digits of a byte.
const DIGITS: usize = 5;

/// Calls `each` with a byte, one of its digits and the weight that it is.
fn for_each_digit(mut each: impl FnMut(usize, usize, usize)) {
    for (first, n_bytes, weight) in RUNS {
        let n_digits = if n_bytes == 4 { DIGITS - 1 } else { DIGITS };
        for digit in 0..n_digits {
            for byte in 0..n_bytes {
                each(first + byte, digit, weight + digit * n_bytes + byte);
            }
        }
    }
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    const POWERS: [u8; DIGITS] = [1, 3, 9, 27, 81];
    decode_blocks(bytes, out, |[qs @ .., d0, d1]: &[u8; 54], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        for_each_digit(|byte, digit, weight| {
            let level = (u16::from(qs[byte].wrapping_mul(POWERS[digit])) * 3) >> 8;
            out[weight] = d * (f32::from(level) - 1.0);
        });
    });
}

fn encode(values: &[f32], out: &mut [u8]) {
    const POWERS: [u16; DIGITS] = [81, 27, 9, 3, 1];
    encode_blocks(values, out, |x: &[f32; 256], [qs @ .., d0, d1]: &mut [u8; 54]| {
        let (d, levels) = ternary(x);
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        let mut numbers = [0u16; 52];
        for_each_digit(|byte, digit, weight| numbers[byte] += u16::from(levels[weight]) * POWERS[digit]);
        *qs = numbers.map(|number| (number * 256).div_ceil(243) as u8);
    });
}
