//! BPE by rank, as the tiktoken library defines it: byte-level BPE without a list of merges. Any two neighbours whose joint
//! spelling is a token may merge, the one with the lowest id first, and a word that is a token is taken whole.
//!
//! (A list of merges made from such a vocabulary is nearly the same and not quite: tokens that only a merge of higher rank
//! leads to would be lost.)

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::byte_text;
use super::merge::merge;
use super::vocabulary::Vocabulary;

/// Appends the tokens of `text`. Every byte has a token: whoever made the vocabulary has seen to that.
pub(super) fn encode(vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
    let text = match vocabulary.composes && !is_nfc(text) {
        true => Cow::Owned(text.nfc().collect()),
        false => Cow::Borrowed(text),
    };
    let mut spelling = String::new();
    vocabulary.splitter.split(&text, &mut |word| {
        spelling.clear();
        spelling.extend(word.bytes().map(byte_text::to_char));
        if let Some(id) = vocabulary.text_token(spelling.as_bytes()) {
            out.push(id);
            return;
        }
        let token = |start: usize, end: usize| vocabulary.text_token(spelling.as_bytes().get(start..end)?);
        let pieces = spelling.char_indices().map(|(start, c)| {
            let end = start + c.len_utf8();
            (start, end, token(start, end))
        });
        let symbols = merge(pieces, |left, right| token(left.start, right.end).map(|id| (id, id)));
        out.extend(symbols.into_iter().filter_map(|symbol| symbol.token));
    });
}

#[cfg(test)]
mod tests {
    use super::super::split::{PreTokenizer, Splitter};
    use super::super::table::TokenTable;
    use super::super::vocabulary::TokenizerModel;
    use super::*;

    #[test]
    fn the_lowest_rank_merges_first_whatever_leads_to_it() {
        let tokens = ["a", "b", "c", "ab", "abc", "bc", "x", "abcx", "e", "é", "Ã", "©"];
        let table = TokenTable::new(tokens.iter().map(|token| token.as_bytes()));
        let mut vocabulary = Vocabulary::new(TokenizerModel::Bpe, table);
        vocabulary.splitter = Splitter::new(PreTokenizer::find("gpt-2").unwrap()).unwrap();
        let rows: [(bool, &str, &[u32]); 7] = [
            (false, "ab", &[3]),
            (false, "abcab", &[4, 3]),
            (false, "bcx", &[5, 6]),
            (false, "abcxa", &[7, 0]),
            (false, "", &[]),
            (false, "e\u{301}", &[8]),
            (true, "e\u{301}", &[10, 11]),
        ];
        for (composes, text, expected) in rows {
            vocabulary.composes = composes;
            let mut out = Vec::new();
            encode(&vocabulary, text, &mut out);
            assert_eq!(out, expected, "{text}");
        }
    }
}
