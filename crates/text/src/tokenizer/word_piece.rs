//! BERT's WordPiece (Devlin et al. 2018): lower case, accents off, words and punctuation apart, and each word cut from the
//! left into the longest tokens. In GGUF files the first token of a word begins with U+2581 instead of the others with `##`.

use regex_automata::meta::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::sentence_piece::BLANK;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// A word with more characters than this is the unknown token, as in the original.
const LONGEST_WORD: usize = 100;

/// A punctuation mark or a Chinese character alone, or else everything up to the next of them or white space.
const WORDS: &str = concat!(
    r"[\p{P}$+<=>^`|~一-鿿㐀-䶿\x{20000}-\x{2a6df}\x{2a700}-\x{2ceaf}豈-\x{faff}\x{2f800}-\x{2fa1f}]",
    r"|[^\s\p{P}$+<=>^`|~一-鿿㐀-䶿\x{20000}-\x{2a6df}\x{2a700}-\x{2ceaf}豈-\x{faff}\x{2f800}-\x{2fa1f}]+",
);

/// The rule for words, compiled.
#[derive(Debug)]
pub(super) struct WordPiece {
    words: Regex,
}

impl WordPiece {
    pub(super) fn new() -> Result<WordPiece> {
        let words = Regex::new(WORDS).map_err(|e| Error::Vocabulary {
            key: "tokenizer.ggml.model".into(),
            problem: format!("the rule for words does not compile: {e}"),
        })?;
        Ok(WordPiece { words })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let is_kept = |c: &char| !is_combining_mark(*c) && *c != '\u{fffd}' && (!c.is_control() || c.is_whitespace());
        let text: String = text.nfd().filter(is_kept).flat_map(char::to_lowercase).collect();
        for found in self.words.find_iter(&text) {
            let word = text.get(found.range()).unwrap_or_default();
            match pieces(vocabulary, word) {
                Some(ids) => out.extend(ids),
                None => out.extend(vocabulary.unknown),
            }
        }
    }
}

/// The longest tokens that make up `word`, from the left; `None` when some part is no token.
fn pieces(vocabulary: &Vocabulary, word: &str) -> Option<Vec<u32>> {
    if word.chars().count() > LONGEST_WORD {
        return None;
    }
    let whole = [BLANK, word].concat();
    let mut rest = whole.as_bytes();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let longest = rest.len().min(vocabulary.tokens.longest());
        let (length, id) = (1..=longest).rev().find_map(|n| Some((n, vocabulary.text_token(rest.get(..n)?)?)))?;
        ids.push(id);
        rest = rest.get(length..)?;
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::super::table::TokenTable;
    use super::super::vocabulary::TokenizerModel;
    use super::*;

    #[test]
    fn words_are_cut_into_the_longest_pieces() {
        let tokens = ["[UNK]", "\u{2581}un", "aff", "able", "\u{2581}!", "\u{2581}中", "\u{2581}cafe", "a"];
        let table = TokenTable::new(tokens.iter().map(|token| token.as_bytes()));
        let mut vocabulary = Vocabulary::new(TokenizerModel::WordPiece, table);
        vocabulary.unknown = Some(0);
        let long = "a".repeat(101);
        let rows: [(&str, &[u32]); 6] = [
            ("Unaffable!", &[1, 2, 3, 4]),
            ("un 中un", &[1, 5, 1]),
            ("Café\u{0}", &[6]),
            ("unx", &[0]),
            (&long, &[0]),
            (" \t", &[]),
        ];
        let word_piece = WordPiece::new().unwrap();
        for (text, expected) in rows {
            let mut out = Vec::new();
            word_piece.encode(&vocabulary, text, &mut out);
            assert_eq!(out, expected, "{text}");
        }
    }
}
