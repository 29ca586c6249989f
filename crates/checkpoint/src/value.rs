//! Metadata values: numbers, strings and arrays.
//!
//! Strings and arrays are views of the file's bytes: a vocabulary of 128 k tokens costs one scan and its offsets.

use crate::error::quoted;
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};
use tensor::SharedBytes;

/// The type of a metadata value, or of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
    Null,
}

impl ValueType {
    /// The name used in messages: `u32`, `string`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Null => "null",
        }
    }

    /// Bytes of a value of fixed width; `None` for strings, arrays and null.
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array | Self::Null => None,
        }
    }

    /// A value of fixed width from its little-endian bytes. `None`: wrong length, or a bool that is neither 0 nor 1.
    pub(crate) fn read(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            Self::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            Self::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            Self::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            Self::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            Self::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            Self::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            Self::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            Self::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            Self::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bool => match bytes {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            Self::String | Self::Array | Self::Null => return None,
        })
    }
}

/// A string of the file, as bytes: files in the wild hold strings that are not UTF-8.
#[derive(Clone, Debug)]
pub struct Text(pub(crate) SharedBytes);

impl Text {
    /// The bytes as they are in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The string with bytes that are not UTF-8 replaced by U+FFFD.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// A metadata value.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(Text),
    Array(Array),
    /// Present and expressly nothing, as JSON has it.
    Null,
}

impl Value {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::Null => ValueType::Null,
        }
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// The value of a float type; doubles are rounded.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The value of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The string, if it is one and is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => text.as_str(),
            _ => None,
        }
    }

    /// Type and, where it is short, value: the "found" of a message.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::String(text) => match text.as_str() {
                Some(text) => format!("string {}", quoted(text)),
                None => format!("string that is not UTF-8 ({})", quoted(text.as_bytes())),
            },
            Self::Array(array) => format!("array of {} {}", array.len(), array.element_type().name()),
            Self::Null => "null".to_owned(),
            scalar => format!("{} {scalar}", scalar.value_type().name()),
        }
    }
}

impl fmt::Display for Value {
    /// Numbers and bools plainly; strings and arrays by size only: their text is for the caller to escape.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(v) => write!(f, "{v}"),
            Self::F64(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::String(text) => write!(f, "string of {} bytes", text.as_bytes().len()),
            Self::Array(array) => write!(f, "{} × {}", array.len(), array.element_type().name()),
            Self::Null => f.write_str("null"),
            other => write!(f, "{}", other.as_integer().unwrap_or_default()),
        }
    }
}

/// An array of the file: its bytes and, where elements differ in length, where each begins.
#[derive(Clone)]
pub struct Array {
    element: ValueType,
    len: usize,
    bytes: SharedBytes,
    /// For strings: the offset into `bytes` of each one's length, then the end of the last.
    starts: Arc<Vec<usize>>,
    /// For arrays of arrays: the elements.
    nested: Arc<Vec<Array>>,
}

/// Bytes of the length before each string.
pub(crate) const LENGTH_BYTES: usize = 8;

impl Array {
    /// Elements of fixed width: `bytes` holds exactly `len` of them, and bools are known to be 0 or 1.
    pub(crate) fn fixed(element: ValueType, len: usize, bytes: SharedBytes) -> Self {
        Self { element, len, bytes, starts: Arc::default(), nested: Arc::default() }
    }

    /// Strings: `bytes` is `u64 length, bytes` again and again; `starts` has the offset of each length and the end.
    pub(crate) fn strings(bytes: SharedBytes, starts: Vec<usize>) -> Self {
        let len = starts.len().saturating_sub(1);
        Self { element: ValueType::String, len, bytes, starts: Arc::new(starts), nested: Arc::default() }
    }

    /// Arrays in an array.
    pub(crate) fn arrays(elements: Vec<Array>) -> Self {
        let (len, bytes) = (elements.len(), SharedBytes::from_vec(Vec::new()));
        Self { element: ValueType::Array, len, bytes, starts: Arc::default(), nested: Arc::new(elements) }
    }

    /// Where element `index` lies in `bytes`. `None` beyond the end.
    fn range(&self, index: usize) -> Option<Range<usize>> {
        let next = index.checked_add(1)?;
        match self.element.width() {
            _ if index >= self.len => None,
            Some(width) => Some(index.checked_mul(width)?..next.checked_mul(width)?),
            None => Some(self.starts.get(index)?.checked_add(LENGTH_BYTES)?..*self.starts.get(next)?),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The element at `index`. `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Value> {
        if self.element == ValueType::Array {
            return self.nested.get(index).cloned().map(Value::Array);
        }
        let range = self.range(index)?;
        match self.element {
            ValueType::String => self.bytes.slice(range).map(|bytes| Value::String(Text(bytes))),
            fixed => fixed.read(self.bytes.get(range)?),
        }
    }

    /// All elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.len).map_while(|index| self.get(index))
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} × {})", self.len, self.element.name())
    }
}

/// An array known to hold strings.
#[derive(Clone, Debug)]
pub struct StringArray(pub(crate) Array);

impl StringArray {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The bytes of the string at `index`; they need not be UTF-8. `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.0.bytes.get(self.0.range(index)?)
    }

    /// All strings in order, as bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}
