//! The head of a GGUF file: header, metadata and tensor directory, read field by field with nothing trusted.
//!
//! Follows the GGUF specification (ggml, `docs/gguf.md`), versions 2 and 3, little endian.

use crate::{
    error::quoted,
    limits,
    value::{Array, LENGTH_BYTES, Text, Value, ValueType},
};
use std::ops::Range;
use tensor::SharedBytes;

/// Why a scan stopped.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The bytes at hand end before the file does: come back with at least this many.
    NeedMore(u64),
    /// The file contradicts the format.
    Bad(String),
}

/// What a scan step gives.
pub(crate) type Scanned<T> = Result<T, Fault>;

/// Shorthand for a contradiction.
pub(crate) fn bad<T>(problem: impl Into<String>) -> Scanned<T> {
    Err(Fault::Bad(problem.into()))
}

/// The numbers of value types in a GGUF file.
const VALUE_TYPES: &[(u32, ValueType)] = &[
    (0, ValueType::U8),
    (1, ValueType::I8),
    (2, ValueType::U16),
    (3, ValueType::I16),
    (4, ValueType::U32),
    (5, ValueType::I32),
    (6, ValueType::F32),
    (7, ValueType::Bool),
    (8, ValueType::String),
    (9, ValueType::Array),
    (10, ValueType::U64),
    (11, ValueType::I64),
    (12, ValueType::F64),
];

/// The number of a value type in a GGUF file; none: there is no such thing.
pub(crate) fn value_type_number(value_type: ValueType) -> Option<u32> {
    VALUE_TYPES.iter().find(|(_, t)| *t == value_type).map(|&(number, _)| number)
}

/// Bytes of an empty array: element type and length.
const LEAST_ARRAY_BYTES: u64 = 4 + 8;

/// A place in the head of a file.
pub(crate) struct Scan {
    bytes: SharedBytes,
    at: usize,
    file_len: u64,
    /// Arrays found inside arrays so far.
    n_nested: u64,
}

impl Scan {
    /// A scan of `bytes`, the beginning (or all) of a file of `file_len` bytes.
    pub(crate) fn new(bytes: SharedBytes, file_len: u64) -> Self {
        Self { bytes, at: 0, file_len, n_nested: 0 }
    }

    /// Bytes of the file read so far.
    pub(crate) fn position(&self) -> u64 {
        self.at as u64
    }

    /// Bytes between this place and the end of the file.
    pub(crate) fn left(&self) -> u64 {
        self.file_len.saturating_sub(self.position())
    }

    /// Moves over `len` bytes and gives where they were.
    fn skip(&mut self, len: u64, what: &str) -> Scanned<Range<usize>> {
        if len > self.left() {
            return bad(format!(
                "truncated: {what} needs {len} bytes at offset {}, the file ends after {}",
                self.at,
                self.left()
            ));
        }
        // Inside the file, so the sum does not overflow.
        let end = self.position().saturating_add(len);
        if end > limits::HEAD_BYTES {
            return bad(format!("{what} reaches beyond {} bytes of head, which is too large", limits::HEAD_BYTES));
        }
        match usize::try_from(end) {
            Ok(end) if end <= self.bytes.len() => {
                let range = self.at..end;
                self.at = end;
                Ok(range)
            }
            _ => Err(Fault::NeedMore(end)),
        }
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Scanned<[u8; N]> {
        let range = self.skip(N as u64, what)?;
        self.bytes.get(range).and_then(|b| b.first_chunk().copied()).ok_or(Fault::NeedMore(self.position()))
    }

    pub(crate) fn u32(&mut self, what: &str) -> Scanned<u32> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Scanned<u64> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    /// Refuses a count whose entries (of at least `entry_bytes`) cannot fit in the rest of the file.
    pub(crate) fn count(&mut self, what: &str, limit: u64, entry_bytes: u64) -> Scanned<u64> {
        let count = self.u64(what)?;
        if count > limit {
            return bad(format!("{what} {count} is too large (at most {limit})"));
        }
        if count.saturating_mul(entry_bytes) > self.left() {
            return bad(format!(
                "truncated: {what} {count} needs more bytes than the {} left in the file",
                self.left()
            ));
        }
        Ok(count)
    }

    /// A length and that many bytes: gives where the bytes are.
    fn prefixed(&mut self, what: &str, limit: u64) -> Scanned<Range<usize>> {
        let len = self.u64(what)?;
        if len > limit {
            return bad(format!("length {len} of {what} is too large (at most {limit} bytes)"));
        }
        self.skip(len, what)
    }

    /// A length and that many bytes.
    pub(crate) fn text(&mut self, what: &str, limit: u64) -> Scanned<SharedBytes> {
        let range = self.prefixed(what, limit)?;
        self.bytes.slice(range).ok_or(Fault::NeedMore(self.position()))
    }

    /// A type number and a value.
    pub(crate) fn value(&mut self) -> Scanned<Value> {
        match self.value_type("value type")? {
            ValueType::String => self.text("string", limits::STRING_BYTES).map(|bytes| Value::String(Text(bytes))),
            ValueType::Array => self.array(1).map(Value::Array),
            fixed => {
                let range = self.skip(fixed.width().unwrap_or_default() as u64, "value")?;
                let bytes = self.bytes.get(range).unwrap_or_default();
                fixed.read(bytes).ok_or_else(|| Fault::Bad(format!("{} is neither 0 nor 1", quoted(bytes))))
            }
        }
    }

    fn value_type(&mut self, what: &str) -> Scanned<ValueType> {
        let number = self.u32(what)?;
        let row = VALUE_TYPES.iter().find(|(n, _)| *n == number);
        row.map(|(_, kind)| *kind).ok_or_else(|| Fault::Bad(format!("unknown {what} {number}")))
    }

    fn array(&mut self, depth: u32) -> Scanned<Array> {
        let element = self.value_type("array element type")?;
        match element.width() {
            Some(width) => {
                let len = self.count("array length", u64::MAX, width as u64)?;
                let range = self.skip(len.saturating_mul(width as u64), "array")?;
                let bytes = self.bytes.slice(range).ok_or(Fault::NeedMore(self.position()))?;
                if element == ValueType::Bool && bytes.iter().any(|b| *b > 1) {
                    return bad("an array of bools has an element that is neither 0 nor 1");
                }
                let len = usize::try_from(len).or_else(|_| bad("array length is too large"))?;
                Ok(Array::fixed(element, len, bytes))
            }
            None if element == ValueType::String => self.strings(),
            None if depth < limits::ARRAY_DEPTH => {
                let len = self.count("array length", limits::NESTED_ARRAYS, LEAST_ARRAY_BYTES)?;
                self.n_nested = self.n_nested.saturating_add(len);
                if self.n_nested > limits::NESTED_ARRAYS {
                    return bad(format!("too many arrays in arrays (at most {})", limits::NESTED_ARRAYS));
                }
                let elements = (0..len).map(|_| self.array(depth + 1)).collect::<Scanned<_>>()?;
                Ok(Array::arrays(elements))
            }
            None => bad(format!("arrays are nested too deep (at most {})", limits::ARRAY_DEPTH)),
        }
    }

    /// An array of strings. A vocabulary has a hundred thousand of them, so the common case is kept to two comparisons; a
    /// string that does not fit is left to [`Scan::prefixed`], which knows why.
    fn strings(&mut self) -> Scanned<Array> {
        let len = self.count("array length", u64::MAX, LENGTH_BYTES as u64)?;
        let rest = self.bytes.slice(self.at..self.bytes.len()).ok_or(Fault::NeedMore(self.position()))?;
        let bytes: &[u8] = &rest;
        // Grown as strings are found, so that a count alone allocates nothing.
        let mut starts = Vec::new();
        let mut at = 0usize;
        for index in 0..len {
            starts.push(at);
            let tail = bytes.get(at..).unwrap_or_default();
            let next = tail.split_first_chunk().and_then(|(len, text)| {
                let len = u64::from_le_bytes(*len);
                let fits = len <= limits::STRING_BYTES && len <= text.len() as u64;
                if fits { at.checked_add(LENGTH_BYTES)?.checked_add(usize::try_from(len).ok()?) } else { None }
            });
            at = match next {
                Some(next) => next,
                None => return Err(self.misfit(at, index)),
            };
        }
        starts.push(at);
        self.skip(at as u64, "array")?;
        let bytes = rest.slice(0..at).ok_or(Fault::NeedMore(self.position()))?;
        Ok(Array::strings(bytes, starts))
    }

    /// Why the string `index`, `offset` bytes from here, does not fit.
    fn misfit(&mut self, offset: usize, index: u64) -> Fault {
        self.at = self.at.saturating_add(offset);
        match self.prefixed("string", limits::STRING_BYTES) {
            Err(Fault::Bad(problem)) => Fault::Bad(format!("element {index}: {problem}")),
            Err(more) => more,
            Ok(_) => Fault::NeedMore(self.position()),
        }
    }
}
