//! The bytes of a pickle, taken off opcode by opcode with their operands: numbers, lines, strings.

use super::{Fault, Read, bad, opcode as op};
use crate::error::quoted;

/// A pickle's bytes and how far they are read.
pub(super) struct Program<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An integer, or what protocol 0 spells like one.
pub(super) enum Integer<'a> {
    Bool(bool),
    Small(i64),
    /// Beyond 64 bits: little-endian two's complement.
    Long(&'a [u8]),
}

impl<'a> Program<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn take(&mut self, len: u64) -> Read<&'a [u8]> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        match usize::try_from(len).ok().and_then(|len| left.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => truncated(format!("truncated: needs {len} bytes, {} are left", left.len())),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N as u64)?;
        bytes.first_chunk().copied().map_or_else(|| truncated("truncated"), Ok)
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        self.fixed().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Read<u16> {
        self.fixed().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// The rest of the line, without its end.
    pub(super) fn line(&mut self) -> Read<&'a [u8]> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return truncated("truncated: the line does not end");
        };
        self.at += end + 1;
        Ok(left.get(..end).unwrap_or_default())
    }

    /// The rest of the line as a decimal number.
    pub(super) fn decimal<T: std::str::FromStr>(&mut self) -> Read<T> {
        let line = self.line()?;
        let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        number.map_or_else(|| bad(format!("{} is no number in range", quoted(line))), Ok)
    }

    /// The operand of an opcode that makes an integer.
    pub(super) fn integer(&mut self, opcode: u8) -> Read<Integer<'a>> {
        let value = match opcode {
            op::BININT => i64::from(self.u32()?.cast_signed()),
            op::BININT1 => i64::from(self.u8()?),
            op::BININT2 => i64::from(self.u16()?),
            op::INT => match self.line()? {
                b"00" => return Ok(Integer::Bool(false)),
                b"01" => return Ok(Integer::Bool(true)),
                line => parse_decimal(line)?,
            },
            op::LONG => {
                let line = self.line()?;
                parse_decimal(line.strip_suffix(b"L").unwrap_or(line))?
            }
            _ => {
                let len = if opcode == op::LONG1 { u64::from(self.u8()?) } else { self.signed_len()? };
                let bytes = self.take(len)?;
                return Ok(small(bytes).map_or(Integer::Long(bytes), Integer::Small));
            }
        };
        Ok(Integer::Small(value))
    }

    /// A length that the format has as a signed number.
    fn signed_len(&mut self) -> Read<u64> {
        let len = self.u32()?.cast_signed();
        u64::try_from(len).or_else(|_| bad(format!("invalid: length {len} is negative")))
    }

    /// The operand of an opcode that makes a string of Python 2.
    pub(super) fn string(&mut self, opcode: u8) -> Read<&'a [u8]> {
        let len = match opcode {
            op::STRING => return unquoted(self.line()?),
            op::BINSTRING => self.signed_len()?,
            _ => u64::from(self.u8()?),
        };
        self.take(len)
    }

    /// The operand of an opcode that makes a string.
    pub(super) fn text(&mut self, opcode: u8) -> Read<&'a str> {
        let bytes = if opcode == op::UNICODE {
            self.line()?
        } else {
            let len = match opcode {
                op::SHORT_BINUNICODE => u64::from(self.u8()?),
                op::BINUNICODE => u64::from(self.u32()?),
                _ => self.u64()?,
            };
            self.take(len)?
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return bad(format!("invalid: the string {} is not UTF-8", quoted(bytes)));
        };
        if opcode == op::UNICODE && text.contains('\\') {
            return bad("a string with escapes, which is not supported");
        }
        Ok(text)
    }

    /// Moves over the operand of an opcode that makes bytes.
    pub(super) fn byte_string(&mut self, opcode: u8) -> Read<()> {
        let len = match opcode {
            op::SHORT_BINBYTES => u64::from(self.u8()?),
            op::BINBYTES => u64::from(self.u32()?),
            _ => self.u64()?,
        };
        self.take(len).map(drop)
    }
}

/// A string of protocol 0 without its quotes.
fn unquoted(line: &[u8]) -> Read<&[u8]> {
    let quote = line.first().filter(|quote| matches!(quote, b'\'' | b'"'));
    match quote.and_then(|quote| line.get(1..)?.strip_suffix(std::slice::from_ref(quote))) {
        Some(inner) if !inner.contains(&b'\\') => Ok(inner),
        _ => bad("invalid: a string without quotes, or with escapes, which is not supported"),
    }
}

pub(super) fn truncated<T>(problem: impl Into<String>) -> Read<T> {
    Err(Fault::Truncated(problem.into()))
}

fn parse_decimal(line: &[u8]) -> Read<i64> {
    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    number.map_or_else(|| bad(format!("{} is no integer of 64 bits", quoted(line))), Ok)
}

/// A little-endian two's complement integer, if it fits 64 bits.
fn small(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut all = [fill; 8];
    all.get_mut(..low.len())?.copy_from_slice(low);
    let value = i64::from_le_bytes(all);
    let fits = high.iter().all(|byte| *byte == fill) && (high.is_empty() || (value < 0) == negative);
    fits.then_some(value)
}
