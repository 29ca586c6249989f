//! The alphabet of byte-level BPE: each byte as a printable character, as GPT-2 introduced it.
//!
//! Bytes that are printable Latin-1 stand for themselves; the other 68 are the characters from U+0100 on, in order.

/// The character for a byte.
pub(super) fn to_char(byte: u8) -> char {
    let shifted = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => return char::from(byte),
        0..=0x20 => u32::from(byte),
        0x7f..=0xa0 => u32::from(byte) - 0x7f + 0x21,
        0xad => 0x43,
    };
    char::from_u32(0x100 + shifted).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte a character stands for.
pub(super) fn to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_are_each_others_inverse() {
        for byte in 0..=255 {
            assert_eq!(to_byte(to_char(byte)), Some(byte));
        }
        let rows = [(b' ', 'Ġ'), (b'\n', 'Ċ'), (0, 'Ā'), (0x7f, 'ġ'), (0xa0, 'ł'), (0xad, 'Ń'), (b'a', 'a')];
        for (byte, expected) in rows {
            assert_eq!(to_char(byte), expected);
        }
        assert_eq!(to_byte('\u{144}'), None);
        assert_eq!(to_byte(' '), None);
    }
}
