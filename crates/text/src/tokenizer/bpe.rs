//! Byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2): words are cut by the pre-tokenizer, each byte is a symbol,
//! and neighbours merge in the order of the list of merges.

use std::collections::HashMap;

use super::byte_text;
use super::merge::merge;
use super::table::{Merge, PairTable};
use super::vocabulary::Vocabulary;

/// Words up to this many bytes are merged by scanning, longer ones by the heap.
const SHORT: usize = 32;

/// The merges, ready to look up.
#[derive(Debug)]
pub(super) struct Bpe {
    pairs: PairTable,
    /// The symbol of each byte: a token, or a number past the vocabulary where only merges know it.
    bytes: Vec<Option<u32>>,
}

impl Bpe {
    pub(super) fn new(vocabulary: &Vocabulary) -> Bpe {
        let mut pairs = PairTable::with_capacity(vocabulary.merges.len());
        // Parts and results that are no tokens get numbers past the vocabulary: such merges still take place.
        let mut others: HashMap<Vec<u8>, u32> = HashMap::new();
        let n_vocab = vocabulary.tokens.len();
        let mut symbol = |spelling: &[u8]| {
            vocabulary.text_token(spelling).or_else(|| {
                let next = u32::try_from(n_vocab.checked_add(others.len())?).ok()?;
                Some(*others.entry(spelling.to_vec()).or_insert(next))
            })
        };
        let mut whole = Vec::new();
        for rank in 0..u32::try_from(vocabulary.merges.len()).unwrap_or(u32::MAX) {
            let Some((left, right)) = vocabulary.merges.get(rank as usize).and_then(parts) else { continue };
            whole.clear();
            whole.extend_from_slice(left);
            whole.extend_from_slice(right);
            if let (Some(left), Some(right), Some(merged)) = (symbol(left), symbol(right), symbol(&whole)) {
                pairs.insert(Merge { left, right, rank, merged });
            }
        }
        let bytes = (0..=255).map(|byte| {
            let mut buffer = [0; 4];
            let spelling = byte_text::to_char(byte).encode_utf8(&mut buffer).as_bytes();
            vocabulary.text_token(spelling).or_else(|| others.get(spelling).copied())
        });
        let bytes = bytes.collect();
        Bpe { pairs, bytes }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut spelling = String::new();
        vocabulary.splitter.split(text, &mut |word| {
            if vocabulary.ignore_merges {
                spelling.clear();
                spelling.extend(word.bytes().map(byte_text::to_char));
                if let Some(id) = vocabulary.text_token(spelling.as_bytes()) {
                    out.push(id);
                    return;
                }
            }
            if word.len() <= SHORT {
                self.encode_short(vocabulary, word.as_bytes(), out);
            } else {
                self.encode_long(vocabulary, word.as_bytes(), out);
            }
        });
    }

    fn symbol(&self, byte: u8) -> Option<u32> {
        self.bytes.get(usize::from(byte)).copied().flatten()
    }

    fn find(&self, left: Option<u32>, right: Option<u32>) -> Option<Merge> {
        self.pairs.find(left?, right?)
    }

    /// The same as [`Bpe::encode_long`], without its heap: for a few symbols, looking at all is faster.
    fn encode_short(&self, vocabulary: &Vocabulary, word: &[u8], out: &mut Vec<u32>) {
        /// A symbol, how many bytes it has, and its merge with the one after it.
        type Symbol = (Option<u32>, usize, Option<Merge>);
        let mut buffer: [Symbol; SHORT] = [(None, 0, None); SHORT];
        let mut n = 0;
        for (slot, &byte) in buffer.iter_mut().zip(word) {
            *slot = (self.symbol(byte), 1, None);
            n += 1;
        }
        let Some(symbols) = buffer.get_mut(..n) else { return };
        for i in 1..symbols.len() {
            symbols[i - 1].2 = self.find(symbols[i - 1].0, symbols[i].0);
        }
        loop {
            let ranked = symbols.get(..n).unwrap_or_default().iter().enumerate();
            let best = ranked.filter_map(|(i, symbol)| symbol.2.map(|merge| (merge.rank, i, merge.merged))).min();
            let Some((_, i, merged)) = best.filter(|&(_, i, _)| i + 1 < n) else { break };
            symbols[i] = (Some(merged), symbols[i].1 + symbols[i + 1].1, None);
            symbols.copy_within(i + 2..n, i + 1);
            n -= 1;
            if i + 1 < n {
                symbols[i].2 = self.find(symbols[i].0, symbols[i + 1].0);
            }
            if i > 0 {
                symbols[i - 1].2 = self.find(symbols[i - 1].0, symbols[i].0);
            }
        }
        let mut start = 0;
        for &(token, length, _) in symbols.get(..n).unwrap_or_default() {
            self.push(vocabulary, token, word.get(start..start + length).unwrap_or_default(), out);
            start += length;
        }
    }

    fn encode_long(&self, vocabulary: &Vocabulary, word: &[u8], out: &mut Vec<u32>) {
        let pieces = word.iter().enumerate().map(|(i, &byte)| (i, i + 1, self.symbol(byte)));
        let find = |left: &super::merge::Symbol, right: &super::merge::Symbol| {
            self.find(left.token, right.token).map(|merge| (merge.rank, merge.merged))
        };
        for symbol in merge(pieces, find) {
            self.push(vocabulary, symbol.token, word.get(symbol.start..symbol.end).unwrap_or_default(), out);
        }
    }

    /// Appends a finished symbol; one that is no token is spelled byte by byte, and bytes without a token are left out.
    fn push(&self, vocabulary: &Vocabulary, symbol: Option<u32>, bytes: &[u8], out: &mut Vec<u32>) {
        let is_token = |id: &u32| (*id as usize) < vocabulary.tokens.len();
        match symbol.filter(is_token) {
            Some(id) => out.push(id),
            None => out.extend(bytes.iter().filter_map(|&byte| self.symbol(byte)).filter(is_token)),
        }
    }
}

/// A merge's two parts: separated by the first blank that is not at the very start.
fn parts(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = 1 + merge.get(1..)?.iter().position(|&byte| byte == b' ')?;
    Some((merge.get(..at)?, merge.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::super::split::{PreTokenizer, Splitter};
    use super::super::table::{Strings, TokenTable};
    use super::super::vocabulary::TokenizerModel;
    use super::*;

    fn encode(tokens: &[&str], merges: &[&str], text: &str) -> Vec<u32> {
        let tokens = TokenTable::new(tokens.iter().map(|token| token.as_bytes()));
        let mut vocabulary = Vocabulary::new(TokenizerModel::Bpe, tokens);
        vocabulary.merges = Strings::new(merges.iter().map(|merge| merge.as_bytes()));
        vocabulary.splitter = Splitter::new(PreTokenizer::find("gpt-2").unwrap()).unwrap();
        let bpe = Bpe::new(&vocabulary);
        let mut long = Vec::new();
        vocabulary.splitter.split(text, &mut |word| bpe.encode_long(&vocabulary, word.as_bytes(), &mut long));
        let mut out = Vec::new();
        bpe.encode(&vocabulary, text, &mut out);
        assert_eq!(out, long, "{text}");
        out
    }

    #[test]
    fn merges_go_by_rank_then_place() {
        let tokens = ["a", "b", "c", "ab", "bc", "abc", "Ġ", "Ġa"];
        let rows: [(&[&str], &str, &[u32]); 6] = [
            (&[], "abc", &[0, 1, 2]),
            (&["a b", "b c"], "abc", &[3, 2]),
            (&["b c", "a b", "a bc"], "abc", &[5]),
            (&["a b"], "abab", &[3, 3]),
            (&["Ġ a"], "a a", &[0, 7]),
            (&["a b", "ab c"], "abcx", &[5]),
        ];
        for (merges, text, expected) in rows {
            assert_eq!(encode(&tokens, merges, text), expected, "{merges:?} {text}");
        }
    }

    #[test]
    fn bad_merges_do_no_harm() {
        let tokens = ["a", "b", "ab", "ba", "aba", "bab", "c"];
        let rows: [(&[&str], &str, &[u32]); 4] = [
            (&["qq zz", "a b"], "abc", &[2, 6]),
            (&["a b", "ab a", "aba b", "b a", "ba b", "bab a"], "abab", &[2, 2]),
            (&["ab", "", " ", "  a", "a "], "ab", &[0, 1]),
            (&["a c", "ac b"], "acb", &[0, 6, 1]),
        ];
        for (merges, text, expected) in rows {
            assert_eq!(encode(&tokens, merges, text), expected, "{merges:?} {text}");
        }
        assert_eq!(encode(&[], &["a b"], "ab"), [0u32; 0]);
    }
}
