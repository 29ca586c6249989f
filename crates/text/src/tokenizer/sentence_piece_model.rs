//! Reading a SentencePiece `.model`: a protocol buffer (`sentencepiece_model.proto`) of the pieces with their scores, and
//! the settings of the algorithm and its normalization.
//!
//! Only the fields that decide ids are looked at. Nothing is allocated that the bytes do not hold.

use super::TokenizerModel;
use super::table::TokenTable;
use super::vocabulary::{Kind, Vocabulary, shown_up_to};
use crate::error::{Error, Result};
use crate::limits;

/// The file in a model's directory.
pub(super) const FILE: &str = "tokenizer.model";

/// A field of a message: its number, and what it holds.
enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a message, in order; what is not a field ends it as an error.
struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'b>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = std::result::Result<(u64, Value<'b>), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field().ok_or(());
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn wrong(field: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: format!("{FILE}: {field}"), problem: shown_up_to(&problem.into(), 300) }
}

/// The fields of the message `name`.
fn fields<'b>(name: &'b str, bytes: &'b [u8]) -> impl Iterator<Item = Result<(u64, Value<'b>)>> + 'b {
    Fields { rest: bytes }
        .map(move |field| field.map_err(|()| wrong(name, "it is no SentencePiece model, or is cut off or damaged")))
}

/// The vocabulary in the bytes of a model.
pub(super) fn read(bytes: &[u8]) -> Result<Vocabulary> {
    let (mut spellings, mut kinds, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trainer, mut normalizer): (&[u8], &[u8]) = (&[], &[]);
    for field in fields("model", bytes) {
        match field? {
            (1, Value::Bytes(piece)) => {
                if spellings.len() >= limits::VOCABULARY_TOKENS {
                    return Err(wrong("pieces", format!("more than {} pieces", limits::VOCABULARY_TOKENS)));
                }
                let (spelling, score, kind) = read_piece(piece)?;
                spellings.push(spelling);
                scores.push(score);
                kinds.push(kind);
            }
            (2, Value::Bytes(bytes)) => trainer = bytes,
            (3, Value::Bytes(bytes)) => normalizer = bytes,
            _ => {}
        }
    }
    if spellings.is_empty() {
        return Err(wrong("pieces", "there are none"));
    }
    let mut vocabulary = Vocabulary::new(TokenizerModel::SentencePiece, TokenTable::new(spellings.into_iter()));
    (vocabulary.kinds, vocabulary.scores) = (kinds, scores);
    read_trainer(&mut vocabulary, trainer)?;
    read_normalizer(&mut vocabulary, normalizer)?;
    Ok(vocabulary)
}

fn read_piece(bytes: &[u8]) -> Result<(&[u8], f32, Kind)> {
    let mut piece = ([].as_slice(), 0.0, Kind::Normal);
    for field in fields("pieces", bytes) {
        match field? {
            (1, Value::Bytes(spelling)) => piece.0 = spelling,
            (2, Value::Number(bits)) => piece.1 = f32::from_bits(u32::try_from(bits).unwrap_or_default()),
            (3, Value::Number(kind)) => piece.2 = Kind::from_number(i32::try_from(kind).unwrap_or_default()),
            _ => {}
        }
    }
    Ok(piece)
}

fn read_trainer(vocabulary: &mut Vocabulary, bytes: &[u8]) -> Result<()> {
    let (mut bos, mut eos, mut unknown, mut model) = (1, 2, 0, 1);
    for field in fields("trainer_spec", bytes) {
        match field? {
            (3, Value::Number(number)) => model = number,
            (24, Value::Number(1)) => {
                return Err(wrong(
                    "trainer_spec",
                    "blanks at the end of words (treat_whitespace_as_suffix) are not supported",
                ));
            }
            (35, Value::Number(number)) => vocabulary.byte_fallback = number != 0,
            (40, Value::Number(number)) => unknown = number,
            (41, Value::Number(number)) => bos = number,
            (42, Value::Number(number)) => eos = number,
            _ => {}
        }
    }
    vocabulary.model = match model {
        1 => TokenizerModel::Unigram,
        2 => TokenizerModel::SentencePiece,
        other => return Err(wrong("trainer_spec", format!("model type {other} is unknown (known: 1 unigram, 2 BPE)"))),
    };
    // -1 means that there is none.
    let of_kind = |id: u64, kind: Kind| u32::try_from(id).ok().filter(|&id| vocabulary.kind(id) == kind);
    let (bos, eos) = (of_kind(bos, Kind::Control), of_kind(eos, Kind::Control));
    vocabulary.unknown = of_kind(unknown, Kind::Unknown);
    (vocabulary.bos, vocabulary.eos) = (bos, eos);
    Ok(())
}

fn read_normalizer(vocabulary: &mut Vocabulary, bytes: &[u8]) -> Result<()> {
    vocabulary.add_space_prefix = true;
    vocabulary.remove_extra_whitespaces = true;
    for field in fields("normalizer_spec", bytes) {
        match field? {
            (2, Value::Bytes(charsmap)) => vocabulary.charsmap = charsmap.to_vec(),
            (3, Value::Number(number)) => vocabulary.add_space_prefix = number != 0,
            (4, Value::Number(number)) => vocabulary.remove_extra_whitespaces = number != 0,
            (5, Value::Number(0)) => {
                return Err(wrong("normalizer_spec", "plain blanks (escape_whitespaces) are not supported"));
            }
            _ => {}
        }
    }
    vocabulary.trims_end = vocabulary.remove_extra_whitespaces;
    let normalizes = !vocabulary.charsmap.is_empty() || vocabulary.remove_extra_whitespaces;
    if vocabulary.model == TokenizerModel::SentencePiece && normalizes {
        return Err(wrong("normalizer_spec", "BPE with normalization of its own is not supported"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    #[test]
    fn models_are_read_and_damage_is_named() {
        let piece = |spelling: &[u8], kind: u8| {
            message(1, &[message(1, spelling), vec![2 << 3 | 5, 0, 0, 0x80, 0xbf, 3 << 3, kind]].concat())
        };
        let pieces = [piece(b"<unk>", 2), piece(b"<s>", 3), piece(b"</s>", 3), piece(b"a", 1)].concat();
        let trainer = message(2, &[3 << 3, 2]);
        let normalizer = message(3, &[3 << 3, 0, 4 << 3, 0]);
        let whole = [pieces.clone(), trainer.clone(), normalizer.clone()].concat();
        let vocabulary = read(&whole).unwrap();
        assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (Some(1), Some(2), Some(0)));
        assert_eq!((vocabulary.tokens.find(b"a"), vocabulary.score(3)), (Some(3), -1.0));
        assert!(!vocabulary.add_space_prefix && vocabulary.model == TokenizerModel::SentencePiece);
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
        let rows: [(Vec<u8>, &str); 7] = [
            (vec![], "pieces"),
            (b"IQ== 0\nIg== 1\n".to_vec(), "model"),
            (whole[..whole.len() - 1].to_vec(), "model"),
            (message(1, &[0x0a, 200]), "pieces"),
            ([pieces.clone(), message(2, &[3 << 3, 3])].concat(), "type 3"),
            ([pieces.clone(), message(2, &[0xc0, 1, 1])].concat(), "treat_whitespace_as_suffix"),
            ([pieces, trainer].concat(), "normalizer_spec"),
        ];
        for (bytes, expected) in rows {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(expected), "{error} has not {expected}");
        }
    }
}
