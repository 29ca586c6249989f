//! Added tokens of a `tokenizer.json`: found by their spelling before the model sees the text.
//!
//! The rules are those of the Hugging Face tokenizers library: the leftmost, then longest spelling wins, and a token may
//! want to stand as a word of its own or swallow the white space beside it. One rule is ours: control tokens are sought in
//! the text as it was written, never in its normalized form, so that what was typed can be told from what a template wrote.

use unicode_normalization::char::is_combining_mark;

use super::prefixes::Prefixes;
use super::table::TokenTable;

/// An added token, as the files describe it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    pub(super) single_word: bool,
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
    pub(super) normalized: bool,
    pub(super) special: bool,
}

/// Added tokens by the spelling they are sought with.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// The spelling of each of `tokens`.
    table: TokenTable,
    spellings: Prefixes,
}

/// An added token in a text: its place with the white space it swallows, its place without, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

impl AddedTokens {
    /// `tokens` with the spelling each is sought with.
    pub(super) fn new(tokens: Vec<(String, AddedToken)>) -> AddedTokens {
        let table = TokenTable::new(tokens.iter().map(|(spelling, _)| spelling.as_bytes()));
        let n = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let spellings = Prefixes::new(&table, 0..n);
        AddedTokens { tokens: tokens.into_iter().map(|(_, token)| token).collect(), table, spellings }
    }

    /// All tokens of `text` in order; those not `wanted` (token, place without white space) do not exist.
    pub(super) fn find(&self, text: &str, wanted: impl Fn(&AddedToken, usize, usize) -> bool) -> Vec<Match> {
        let mut matches = Vec::new();
        let mut from = 0;
        let mut at = 0;
        while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
            let here = self.spellings.of(&self.table, rest);
            let tokens = here.filter_map(|(length, index)| Some((at + length, self.tokens.get(index as usize)?)));
            let Some((stop, token)) = tokens.filter(|(stop, token)| wanted(token, at, *stop)).last() else {
                at += 1;
                continue;
            };
            let (before, after) = (text.get(from..at).unwrap_or_default(), text.get(stop..).unwrap_or_default());
            let whole = text.get(..at).unwrap_or_default();
            let touches = whole.chars().next_back().is_some_and(is_word) || after.chars().next().is_some_and(is_word);
            if token.single_word && touches {
                at = stop;
                continue;
            }
            let start = if token.lstrip { from + before.trim_end().len() } else { at };
            let end = if token.rstrip { text.len() - after.trim_start().len() } else { stop };
            matches.push(Match { start, end, id: token.id });
            (from, at) = (end, end);
        }
        matches
    }
}

/// What `\w` is to a regular expression.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || is_combining_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_leftmost_longest_with_their_white_space() {
        let token = |id: u32, content: &str, flags: &str| AddedToken {
            id,
            content: content.into(),
            single_word: flags.contains('w'),
            lstrip: flags.contains('l'),
            rstrip: flags.contains('r'),
            ..AddedToken::default()
        };
        let tokens = [token(10, "<a>", ""), token(11, "<a>b", ""), token(12, "<l>", "l"), token(13, "<r>", "r")];
        let tokens = tokens.into_iter().chain([token(14, "word", "w"), token(15, "日", "")]);
        let added = AddedTokens::new(tokens.map(|token| (token.content.clone(), token)).collect());
        type Row<'r> = (&'r str, &'r [(usize, usize, u32)]);
        let rows: [Row; 8] = [
            ("", &[]),
            ("<a><a>b", &[(0, 3, 10), (3, 7, 11)]),
            ("x  <l>  y", &[(1, 6, 12)]),
            ("x <r> \n y", &[(2, 8, 13)]),
            ("<r>  <l>", &[(0, 5, 13), (5, 8, 12)]),
            ("a word, words", &[(2, 6, 14)]),
            ("é word_ 日", &[(9, 12, 15)]),
            ("<a", &[]),
        ];
        for (text, expected) in rows {
            let found = added.find(text, |_, _, _| true);
            let found: Vec<_> = found.iter().map(|found| (found.start, found.end, found.id)).collect();
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(added.find("<a>b", |token, _, _| token.id != 11).first().map(|found| found.id), Some(10));
    }
}
