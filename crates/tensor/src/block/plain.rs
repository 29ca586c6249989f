//! Plain element types: a "block" of one element, little endian.

use crate::dtype::Info;
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

macro_rules! plain {
    ($name:ident, $bytes:literal, $gguf:literal, $decode:expr, $encode:expr) => {
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
        Some(|values, out| {
            for (o, v) in out.as_chunks_mut::<$bytes>().0.iter_mut().zip(values) {
                *o = $encode(*v);
            }
        })
    };
}

plain!(F32, 4, 0, f32::from_le_bytes, encode!(4, f32::to_le_bytes));
plain!(F16, 2, 1, half_to_single, encode!(2, |v| f16::from_f32(v).to_le_bytes()));
plain!(BF16, 2, 30, |b| bf16::from_le_bytes(b).to_f32(), encode!(2, |v| bf16::from_f32(v).to_le_bytes()));
plain!(F64, 8, 28, |b| f64::from_le_bytes(b) as f32, None);
plain!(I8, 1, 24, |b| f32::from(i8::from_le_bytes(b)), None);
plain!(I16, 2, 25, |b| f32::from(i16::from_le_bytes(b)), None);
plain!(I32, 4, 26, |b| i32::from_le_bytes(b) as f32, None);
plain!(I64, 8, 27, |b| i64::from_le_bytes(b) as f32, None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (half_to_single(bits.to_le_bytes()), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan(), "{bits:04x}");
        }
    }
}
