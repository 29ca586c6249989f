//! The wire format of protocol buffers: numbered fields of four kinds, as the encoding document of Protocol Buffers has it.
//!
//! What belongs here: walking the fields of a message where they lie, nothing copied. What does not: which messages there
//! are (`format/onnx/proto.rs`). Groups, the deprecated kinds 3 and 4, are refused: no format that is read here has them.

/// What is wrong with a message, and at which byte of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) problem: String,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    /// Text, bytes, a message or packed numbers.
    Bytes(Message<'a>),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// Where it begins in the file.
    pub(crate) at: u64,
}

/// Bytes of the file with a length of their own, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: u64,
}

impl<'a> Message<'a> {
    /// Its fields in order; the first error ends them.
    pub(crate) fn fields(self) -> Fields<'a> {
        Fields { rest: self }
    }

    /// Its bytes as text.
    pub(crate) fn text(self) -> Result<&'a str, Fault> {
        let invalid = |_| Fault { at: self.at, problem: "a text that is not UTF-8".to_owned() };
        std::str::from_utf8(self.bytes).map_err(invalid)
    }

    /// Its bytes as numbers one after another, each of variable length.
    pub(crate) fn varints(self) -> impl Iterator<Item = Result<u64, Fault>> + 'a {
        let mut rest = self;
        std::iter::from_fn(move || {
            let number = (!rest.bytes.is_empty()).then(|| rest.varint());
            if matches!(number, Some(Err(_))) {
                rest.bytes = &[];
            }
            number
        })
    }

    fn fault<T>(&self, problem: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.at, problem: problem.into() })
    }

    /// Cuts off the first `n` bytes.
    fn take(&mut self, n: u64) -> Result<Message<'a>, Fault> {
        match usize::try_from(n).ok().and_then(|n| self.bytes.split_at_checked(n)) {
            Some((bytes, rest)) => {
                let taken = Message { bytes, at: self.at };
                *self = Message { bytes: rest, at: self.at.saturating_add(n) };
                Ok(taken)
            }
            None => self.fault(format!("truncated: {n} bytes are announced, {} are left", self.bytes.len())),
        }
    }

    /// Seven bits a byte, the lowest first; the last byte has no eighth bit.
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut number = 0u64;
        for (index, &byte) in self.bytes.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for the one bit that is left.
            if index == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.take(index as u64 + 1)?;
                return Ok(number);
            }
        }
        self.fault("truncated, or a number of more than 64 bits")
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.take(N as u64)?;
        match taken.bytes.first_chunk() {
            Some(array) => Ok(*array),
            None => taken.fault("truncated"),
        }
    }
}

/// The fields of a message.
pub(crate) struct Fields<'a> {
    rest: Message<'a>,
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Field<'a>, Fault> {
        let at = self.rest.at;
        let key = self.rest.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number != 0);
        let Some(number) = number else { return Err(Fault { at, problem: format!("invalid field key {key}") }) };
        let value = match key & 7 {
            0 => Value::Varint(self.rest.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.rest.array()?)),
            2 => {
                let len = self.rest.varint()?;
                Value::Bytes(self.rest.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.rest.array()?)),
            kind => return Err(Fault { at, problem: format!("invalid wire type {kind} of field {number}") }),
        };
        Ok(Field { number, value, at })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest.bytes = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    /// The number, if it is one of variable length.
    pub(crate) fn varint(&self) -> Result<u64, Fault> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => self.unexpected("a number"),
        }
    }

    /// The bytes, if it has a length.
    pub(crate) fn message(&self) -> Result<Message<'a>, Fault> {
        match self.value {
            Value::Bytes(message) => Ok(message),
            _ => self.unexpected("a message or text"),
        }
    }

    /// The text, if it has a length and is UTF-8.
    pub(crate) fn text(&self) -> Result<&'a str, Fault> {
        self.message()?.text()
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, Fault> {
        Err(Fault {
            at: self.at,
            problem: format!("invalid wire type of field {}: {expected} was expected", self.number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, String> {
        let fields = Message { bytes, at: 100 }.fields();
        let fields = fields.map(|field| field.map(|f| (f.number, f.value)));
        fields.collect::<Result<_, _>>().map_err(|fault| format!("{}: {}", fault.at, fault.problem))
    }

    #[test]
    fn fields_of_every_kind() {
        let bytes = [0x08, 0x96, 1, 0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(Message { bytes: b"hi", at: 105 })),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(read(&bytes).unwrap(), expected);
        assert_eq!(read(&[]).unwrap(), []);
        let most = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(&most).unwrap(), [(1, Value::Varint(u64::MAX))]);
    }

    #[test]
    fn damage_is_named_with_its_place() {
        #[track_caller]
        fn check(bytes: &[u8], expected: &str) {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        check(&[0x08], "101: truncated");
        check(&[0x08, 0xff], "101: truncated");
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "more than 64 bits");
        check(&[0x12, 3, b'h', b'i'], "102: truncated: 3 bytes are announced, 2 are left");
        check(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], "18446744073709551615 bytes");
        check(&[0x00, 0], "100: invalid field key 0");
        check(&[0x0f, 1], "wire type 7");
        check(&[0x0b, 1], "wire type 3");
        check(&[0x0d, 1, 2], "truncated");
        check(&[0x08, 1, 0x09], "103: truncated");
    }

    #[test]
    fn packed_numbers() {
        let read = |bytes| Message { bytes, at: 0 }.varints().collect::<Result<Vec<_>, _>>();
        assert_eq!(read(&[1, 0x80, 1, 0]).unwrap(), [1, 128, 0]);
        assert_eq!(read(&[1, 0x80]).unwrap_err().at, 1);
    }

    #[test]
    fn fields_of_another_kind_are_refused() {
        let fields: Vec<_> = Message { bytes: &[0x08, 1, 0x12, 1, 0xff], at: 0 }.fields().map(Result::unwrap).collect();
        assert!(fields[0].text().unwrap_err().problem.contains("wire type of field 1"));
        assert!(fields[1].varint().unwrap_err().problem.contains("a number was expected"));
        assert!(fields[1].text().unwrap_err().problem.contains("not UTF-8"));
    }
}
