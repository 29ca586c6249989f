//! Plain element types: a "block" of one element, little endian.

use crate::dtype::Info;
use half::{bf16, f16};

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
plain!(F16, 2, 1, |b| f16::from_le_bytes(b).to_f32(), encode!(2, |v| f16::from_f32(v).to_le_bytes()));
plain!(BF16, 2, 30, |b| bf16::from_le_bytes(b).to_f32(), encode!(2, |v| bf16::from_f32(v).to_le_bytes()));
plain!(F64, 8, 28, |b| f64::from_le_bytes(b) as f32, None);
plain!(I8, 1, 24, |b| f32::from(i8::from_le_bytes(b)), None);
plain!(I16, 2, 25, |b| f32::from(i16::from_le_bytes(b)), None);
plain!(I32, 4, 26, |b| i32::from_le_bytes(b) as f32, None);
plain!(I64, 8, 27, |b| i64::from_le_bytes(b) as f32, None);
