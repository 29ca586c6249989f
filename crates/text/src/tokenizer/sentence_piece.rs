//! SentencePiece's BPE (Kudo and Richardson 2018): characters are symbols, and the neighbours whose joint token has the
//! best score merge first. What is no token is spelled in byte tokens.

use super::merge::merge;
use super::vocabulary::Vocabulary;

/// What a blank is in the vocabulary: U+2581.
pub(super) const BLANK: &str = "\u{2581}";

/// Appends the tokens of `text`, in which blanks are already [`BLANK`]. A score below all means that nothing becomes the token.
pub(super) fn encode(vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
    let bytes = text.as_bytes();
    let token = |start: usize, end: usize| vocabulary.text_token(bytes.get(start..end)?);
    let pieces = text.char_indices().map(|(start, c)| {
        let end = start + c.len_utf8();
        (start, end, token(start, end))
    });
    let symbols = merge(pieces, |left, right| {
        let id = token(left.start, right.end)?;
        let score = vocabulary.score(id);
        (score != f32::NEG_INFINITY).then(|| (best_first(score), id))
    });
    for symbol in symbols {
        match symbol.token {
            Some(id) => out.push(id),
            None => spell(vocabulary, bytes.get(symbol.start..symbol.end).unwrap_or_default(), out),
        }
    }
}

/// Appends bytes as byte tokens; the unknown token, once, where one of them has none.
fn spell(vocabulary: &Vocabulary, bytes: &[u8], out: &mut Vec<u32>) {
    let spelled: Option<Vec<u32>> = bytes.iter().map(|&byte| vocabulary.byte_token(byte)).collect();
    match spelled {
        Some(ids) => out.extend(ids),
        None => out.extend(vocabulary.unknown),
    }
}

/// A number that is smaller the higher the score is. Equal scores, and the two zeros, give the same number.
fn best_first(score: f32) -> u32 {
    let score = if score == 0.0 { 0.0 } else { score };
    let bits = score.to_bits().cast_signed();
    // Negative floats order by magnitude the wrong way round.
    let ascending = if bits < 0 { bits ^ i32::MAX } else { bits };
    (!ascending).cast_unsigned() ^ (1 << 31)
}

#[cfg(test)]
mod tests {
    use super::super::table::TokenTable;
    use super::super::vocabulary::{TokenizerModel, Vocabulary};
    use super::*;

    #[test]
    fn scores_order_as_numbers_do() {
        let ascending = [f32::NEG_INFINITY, -1000.5, -1.0, -1e-30, 0.0, 1e-30, 2.0, f32::INFINITY];
        assert!(ascending.windows(2).all(|pair| best_first(pair[0]) > best_first(pair[1])));
        assert_eq!(best_first(-0.0), best_first(0.0));
    }

    #[test]
    fn the_best_score_merges_first() {
        let tokens = ["<unk>", "a", "b", "c", "ab", "bc", "abc", "<0xC3>", "<0xA9>"];
        let table = TokenTable::new(tokens.iter().map(|token| token.as_bytes()));
        let mut vocabulary = Vocabulary::new(TokenizerModel::SentencePiece, table);
        vocabulary.unknown = Some(0);
        let rows: [(&[f32], &str, &[u32]); 7] = [
            (&[0.0, 0.0, 0.0, 0.0, -1.0, -2.0, f32::NEG_INFINITY], "abc", &[4, 3]),
            (&[], "abc", &[6]),
            (&[0.0, 0.0, 0.0, 0.0, -2.0, -1.0, f32::NAN], "abc", &[6]),
            (&[0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0], "abab", &[4, 4]),
            (&[], "é", &[7, 8]),
            (&[], "ü", &[0]),
            (&[], "", &[]),
        ];
        for (scores, text, expected) in rows {
            vocabulary.scores = scores.to_vec();
            let mut out = Vec::new();
            encode(&vocabulary, text, &mut out);
            assert_eq!(out, expected, "{text}");
        }
    }
}
