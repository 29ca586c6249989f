//! Plain element types: a "block" of one element, little endian.

use crate::dtype::{Encode, Info};
use half::{bf16, f16};

/// A half as a single, exactly, without branches: LLVM turns a loop over it into vector code on every machine.
///
/// A normal number needs its exponent's bias changed from 15 to 127; infinity and NaN need it changed twice. A subnormal
/// is put under an implied one, which is then subtracted.
fn half_to_single(bytes: [u8; 2]) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    const IMPLIED_ONE: u32 = (127 - 15 + 1) << 23;
    let half = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (half & 0x7fff) << 13;
    let special = if magnitude >= 31 << 23 { REBIAS } else { 0 };
    let normal = magnitude + REBIAS + special;
    let subnormal = f32::from_bits(magnitude + IMPLIED_ONE) - f32::from_bits(IMPLIED_ONE);
    let unsigned = if magnitude < 1 << 23 { subnormal.to_bits() } else { normal };
    f32::from_bits(unsigned | (half & 0x8000) << 16)
}

/// An OCP FP8 number with 4 bits of exponent (bias 7) and 3 of mantissa; all ones is NaN, there is no infinity.
fn e4m3_to_single(byte: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), f32::from(byte & 7));
    // Small integers times powers of two in the range of normal numbers: exact.
    let magnitude = match (exponent, byte & 7) {
        (0, _) => mantissa * f32::from_bits((127 - 9) << 23),
        (15, 7) => f32::NAN,
        _ => (mantissa + 8.0) * f32::from_bits((exponent + 127 - 10) << 23),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// A power of two with bias 127; all ones is NaN.
fn e8m0_to_single(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

macro_rules! plain {
    ($name:ident, $bytes:literal, $gguf:expr, $decode:expr, $encode:expr) => {
        pub(crate) const $name: Info = Info {
            name: stringify!($name),
            len: 1,
            bytes: $bytes,
            gguf: $gguf,
            decode: Some(|bytes, out| {
                for (b, o) in bytes.as_chunks::<$bytes>().0.iter().zip(out) {
                    *o = $decode(*b);
                }
            }),
            encode: $encode,
        };
    };
}

macro_rules! encode {
    ($bytes:literal, $encode:expr) => {
        Some(Encode::Plain(|values, out| {
            for (o, v) in out.as_chunks_mut::<$bytes>().0.iter_mut().zip(values) {
                *o = $encode(*v);
            }
        }))
    };
}

plain!(F32, 4, Some(0), f32::from_le_bytes, encode!(4, f32::to_le_bytes));
plain!(F16, 2, Some(1), half_to_single, encode!(2, |v| f16::from_f32(v).to_le_bytes()));
plain!(BF16, 2, Some(30), |b| bf16::from_le_bytes(b).to_f32(), encode!(2, |v| bf16::from_f32(v).to_le_bytes()));
plain!(F64, 8, Some(28), |b| f64::from_le_bytes(b) as f32, None);
plain!(F8_E4M3, 1, None, |[b]: [u8; 1]| e4m3_to_single(b), None);
// The same exponent as a half's: its upper byte.
plain!(F8_E5M2, 1, None, |[b]: [u8; 1]| half_to_single([0, b]), None);
plain!(F8_E8M0, 1, None, |[b]: [u8; 1]| e8m0_to_single(b), None);
plain!(BOOL, 1, None, |[b]: [u8; 1]| f32::from(u8::from(b != 0)), None);
plain!(U8, 1, None, |[b]: [u8; 1]| f32::from(b), None);
plain!(U16, 2, None, |b| f32::from(u16::from_le_bytes(b)), None);
plain!(U32, 4, None, |b| u32::from_le_bytes(b) as f32, None);
plain!(U64, 8, None, |b| u64::from_le_bytes(b) as f32, None);
plain!(I8, 1, Some(24), |b| f32::from(i8::from_le_bytes(b)), None);
plain!(I16, 2, Some(25), |b| f32::from(i16::from_le_bytes(b)), None);
plain!(I32, 4, Some(26), |b| i32::from_le_bytes(b) as f32, None);
plain!(I64, 8, Some(27), |b| i64::from_le_bytes(b) as f32, None);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn every_half_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (half_to_single(bits.to_le_bytes()), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan(), "{bits:04x}");
        }
    }

    #[test]
    fn eight_bit_floats() {
        #[track_caller]
        fn check(dtype: DType, byte: u8, expected: f32) {
            let mut out = [0.0];
            dtype.decode(&[byte], &mut out).unwrap();
            assert!(
                out[0].to_bits() == expected.to_bits() || out[0].is_nan() && expected.is_nan(),
                "{dtype} {byte:02x}"
            );
        }
        for (byte, expected) in [
            (0x00, 0.0),
            (0x80, -0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0xb9, -1.125),
            (0x7e, 448.0),
            (0x7f, f32::NAN),
            (0xff, f32::NAN),
        ] {
            check(DType::F8_E4M3, byte, expected);
        }
        for (byte, expected) in [
            (0x3c, 1.0),
            (0xbd, -1.25),
            (0x01, 2f32.powi(-16)),
            (0x7b, 57344.0),
            (0x7c, f32::INFINITY),
            (0x7d, f32::NAN),
        ] {
            check(DType::F8_E5M2, byte, expected);
        }
        for (byte, expected) in [(127, 1.0), (126, 0.5), (0, 2f32.powi(-127)), (254, 2f32.powi(127)), (255, f32::NAN)] {
            check(DType::F8_E8M0, byte, expected);
        }
    }
}
