//! SentencePiece's unigram model (Kudo 2018): text is normalized by the model's own table, then cut into the tokens with
//! the highest sum of scores.

use super::prefixes::Prefixes;
use super::sentence_piece::BLANK;
use super::vocabulary::{Kind, Vocabulary};

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// What the search needs beyond the vocabulary.
#[derive(Debug)]
pub(super) struct Unigram {
    /// The tokens that text can be cut into.
    tokens: Prefixes,
    /// The tokens that normalization leaves alone.
    user_defined: Prefixes,
    unknown_score: f64,
}

impl Unigram {
    pub(super) fn new(vocabulary: &Vocabulary) -> Unigram {
        let of = |kinds: &[Kind]| {
            let ids = (0u32..).zip(&vocabulary.kinds).filter(|(_, kind)| kinds.contains(kind)).map(|(id, _)| id);
            Prefixes::new(&vocabulary.tokens, ids)
        };
        let normal = (0u32..).zip(&vocabulary.kinds).filter(|(_, kind)| **kind == Kind::Normal).map(|(id, _)| id);
        let worst = normal.map(|id| f64::from(vocabulary.score(id))).filter(|score| score.is_finite());
        Unigram {
            tokens: of(&[Kind::Normal, Kind::UserDefined, Kind::Unused]),
            user_defined: of(&[Kind::UserDefined]),
            unknown_score: worst.fold(0.0, f64::min) - UNKNOWN_PENALTY,
        }
    }

    /// Appends the tokens of `text`, in which blanks are plain blanks.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(vocabulary, text);
        let bytes = text.as_bytes();
        // For every place: the best sum of scores up to it, and the token (with its start) that ends there.
        let unreached = (f64::NEG_INFINITY, 0, None);
        let mut best: Vec<(f64, usize, Option<u32>)> = vec![unreached; bytes.len() + 1];
        if let Some(first) = best.first_mut() {
            first.0 = 0.0;
        }
        for (start, c) in text.char_indices() {
            let Some(&(sum, ..)) = best.get(start) else { continue };
            let mut improve = |end: usize, score: f64, token: Option<u32>| {
                if let Some(place) = best.get_mut(end).filter(|place| sum + score > place.0) {
                    *place = (sum + score, start, token);
                }
            };
            let mut has_single = false;
            for (length, id) in self.tokens.of(&vocabulary.tokens, bytes.get(start..).unwrap_or_default()) {
                let user_defined = vocabulary.kind(id) == Kind::UserDefined;
                let score = f64::from(vocabulary.score(id));
                improve(start + length, if user_defined { 0.0 } else { score.max(-1e30) }, Some(id));
                has_single |= length == c.len_utf8();
            }
            if !has_single {
                improve(start + c.len_utf8(), self.unknown_score, None);
            }
        }
        let first = out.len();
        let mut end = bytes.len();
        let mut after_unknown = false;
        while let Some(&(_, start, token)) = best.get(end).filter(|place| end > 0 && place.1 < end) {
            let spelled = vocabulary.byte_fallback && token.is_none();
            let bytes = bytes.get(start..end).filter(|_| spelled).unwrap_or_default();
            let bytes: Option<Vec<u32>> = bytes.iter().rev().map(|&byte| vocabulary.byte_token(byte)).collect();
            if let Some(ids) = bytes.filter(|ids| !ids.is_empty()) {
                out.extend(ids);
                end = start;
                continue;
            }
            // Unknown characters in a row are one unknown token.
            if !(token.is_none() && after_unknown) {
                out.extend(token.or(vocabulary.unknown));
            }
            after_unknown = token.is_none();
            end = start;
        }
        if let Some(added) = out.get_mut(first..) {
            added.reverse();
        }
    }

    /// SentencePiece's normalization: the model's replacements, blanks as [`BLANK`], runs of blanks made one.
    fn normalize(&self, vocabulary: &Vocabulary, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + BLANK.len());
        let mut blank_prepended = false;
        let mut in_word = false;
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, length) = self.normal_prefix(vocabulary, rest);
            for c in piece.chars() {
                if c != ' ' {
                    let wanted =
                        (vocabulary.add_space_prefix && !blank_prepended) || vocabulary.remove_extra_whitespaces;
                    let at_start = out.is_empty() && !vocabulary.add_space_prefix;
                    if !in_word && wanted && !at_start {
                        out.push_str(BLANK);
                        blank_prepended = true;
                    }
                    in_word = true;
                    out.push(c);
                } else {
                    in_word = false;
                    if !vocabulary.remove_extra_whitespaces {
                        out.push_str(BLANK);
                    }
                }
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        if vocabulary.trims_end {
            out.truncate(out.trim_end_matches(BLANK).len());
        }
        out
    }

    /// What the beginning of `text` becomes, and how many bytes of it that takes (at least one character).
    fn normal_prefix<'t>(&self, vocabulary: &'t Vocabulary, text: &'t str) -> (&'t str, usize) {
        let is_end = |length: usize| text.is_char_boundary(length);
        if let Some((length, _)) =
            self.user_defined.of(&vocabulary.tokens, text.as_bytes()).filter(|&(length, _)| is_end(length)).last()
        {
            return (text.get(..length).unwrap_or_default(), length);
        }
        match replacement(&vocabulary.charsmap, text.as_bytes()).filter(|&(_, length)| is_end(length)) {
            Some(found) => found,
            None => {
                let length = text.chars().next().map_or(1, char::len_utf8);
                (text.get(..length).unwrap_or_default(), length)
            }
        }
    }
}

/// The longest replacement of the table that `text` begins with, and how many bytes it replaces.
///
/// The table is SentencePiece's: the size of a double-array trie in bytes, the trie (32-bit units, as the Darts-clone
/// library lays them out), and the replacements, each ended by a zero byte. Every step is checked: the table is the file's.
fn replacement<'t>(table: &'t [u8], text: &[u8]) -> Option<(&'t str, usize)> {
    let (size, rest) = table.split_at_checked(4)?;
    let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(size.try_into().ok()?) as usize)?;
    let unit = |index: u32| {
        let at = (index as usize).checked_mul(4)?;
        Some(u32::from_le_bytes(trie.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let base = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let mut node = base(unit(0)?);
    let mut best = None;
    for (i, &byte) in text.iter().enumerate() {
        node ^= u32::from(byte);
        let Some(here) = unit(node).filter(|here| byte != 0 && here & (1 << 31 | 0xff) == u32::from(byte)) else {
            break;
        };
        node ^= base(here);
        if here >> 8 & 1 == 1 {
            best = unit(node).map(|leaf| ((leaf & (i32::MAX).cast_unsigned()) as usize, i + 1));
        }
    }
    let (at, length) = best?;
    let tail = replacements.get(at..)?;
    let end = tail.iter().position(|&byte| byte == 0)?;
    Some((std::str::from_utf8(tail.get(..end)?).ok()?, length))
}

#[cfg(test)]
mod tests {
    use super::super::table::TokenTable;
    use super::super::vocabulary::TokenizerModel;
    use super::*;

    fn vocabulary() -> Vocabulary {
        let tokens = ["<unk>", "\u{2581}", "\u{2581}ab", "a", "b", "abc", "c", "<x>"];
        let table = TokenTable::new(tokens.iter().map(|token| token.as_bytes()));
        let mut vocabulary = Vocabulary::new(TokenizerModel::Unigram, table);
        vocabulary.scores = vec![0.0, -2.0, -3.0, -4.0, -4.0, -3.5, -1.0, 0.0];
        vocabulary.kinds[0] = Kind::Unknown;
        vocabulary.kinds[7] = Kind::UserDefined;
        vocabulary.unknown = Some(0);
        vocabulary.add_space_prefix = true;
        vocabulary.remove_extra_whitespaces = true;
        vocabulary
    }

    #[test]
    fn the_best_sum_wins() {
        let vocabulary = vocabulary();
        let unigram = Unigram::new(&vocabulary);
        let rows: [(&str, &[u32]); 6] = [
            ("", &[]),
            ("ab", &[2]),
            ("abc", &[2, 6]),
            ("  ab   b ", &[2, 1, 4]),
            ("aéüb", &[1, 3, 0, 4]),
            ("<x>", &[1, 7]),
        ];
        for (text, expected) in rows {
            let mut out = Vec::new();
            unigram.encode(&vocabulary, text, &mut out);
            assert_eq!(out, expected, "{text}");
        }
    }

    /// A trie with the one entry "A" → "b": the root's children start at unit 1 << 8 ^ …, laid out by hand.
    #[test]
    fn replacements_come_from_the_table() {
        let mut units = vec![0u32; 512];
        units[0] = 256 << 10;
        units[256 ^ 0x41] = (1 << 10) | (1 << 8) | 0x41;
        units[256 ^ 0x41 ^ 1] = 1 << 31;
        let mut table = 2048u32.to_le_bytes().to_vec();
        table.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        table.extend(b"b\0");
        for (text, expected) in [("Ax", Some(("b", 1))), ("x", None), ("", None)] {
            assert_eq!(replacement(&table, text.as_bytes()), expected);
        }
        for cut in [0, 3, 4, 100, table.len() - 2, table.len() - 1] {
            assert_eq!(replacement(&table[..cut], b"A"), None, "{cut}");
        }
        let mut vocabulary = vocabulary();
        vocabulary.charsmap = table;
        let mut out = Vec::new();
        Unigram::new(&vocabulary).encode(&vocabulary, "A", &mut out);
        assert_eq!(out, [1, 4]);
    }
}
