//! Metadata values made in memory.

use crate::value::{Array, Text, Value, ValueType};
use tensor::SharedBytes;

impl Value {
    /// A text.
    pub fn text(text: &str) -> Value {
        Value::String(Text(SharedBytes::from_vec(text.as_bytes().to_vec())))
    }

    /// A list of texts, which need not be UTF-8.
    pub fn texts<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Value {
        let (mut bytes, mut starts) = (Vec::new(), vec![]);
        for text in texts {
            starts.push(bytes.len());
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        starts.push(bytes.len());
        Value::Array(Array::strings(SharedBytes::from_vec(bytes), starts))
    }

    fn list<const N: usize>(element: ValueType, elements: impl Iterator<Item = [u8; N]>) -> Value {
        let bytes: Vec<u8> = elements.flatten().collect();
        Value::Array(Array::fixed(element, bytes.len() / N, SharedBytes::from_vec(bytes)))
    }

    /// A list of numbers.
    pub fn floats(numbers: &[f32]) -> Value {
        Value::list(ValueType::F32, numbers.iter().map(|n| n.to_le_bytes()))
    }

    /// A list of integers.
    pub fn integers(numbers: &[i32]) -> Value {
        Value::list(ValueType::I32, numbers.iter().map(|n| n.to_le_bytes()))
    }

    /// A list of counts.
    pub fn counts(numbers: &[u32]) -> Value {
        Value::list(ValueType::U32, numbers.iter().map(|n| n.to_le_bytes()))
    }

    /// A list of truth values.
    pub fn flags(flags: &[bool]) -> Value {
        Value::list(ValueType::Bool, flags.iter().map(|&flag| [u8::from(flag)]))
    }

    /// A list of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::list(ValueType::U8, bytes.iter().map(|&byte| [byte]))
    }
}
