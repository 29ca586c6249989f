//! Finding the tokens that a text begins with.
//!
//! The tokens are kept sorted by spelling, and the search narrows the range of candidates byte by byte, so that thousands
//! of them cost little more than one, and nothing is copied.

use super::table::TokenTable;

/// Spellings longer than this are not looked for; none is known over 100 bytes. Bounds the work per byte of text.
const LONGEST: usize = 512;

/// Ids of tokens, sorted by spelling.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    ids: Vec<u32>,
    /// The first bytes that any spelling has.
    first: Vec<bool>,
}

impl Prefixes {
    /// The tokens `ids`, without the empty and the overlong ones; of equal spellings the first.
    pub(super) fn new(tokens: &TokenTable, ids: impl Iterator<Item = u32>) -> Prefixes {
        let spelling = |id: u32| tokens.get(id).unwrap_or_default();
        let mut ids: Vec<u32> = ids.filter(|&id| (1..=LONGEST).contains(&spelling(id).len())).collect();
        ids.sort_by(|&a, &b| (spelling(a), a).cmp(&(spelling(b), b)));
        ids.dedup_by(|later, first| spelling(*later) == spelling(*first));
        let mut first = vec![false; 256];
        for byte in ids.iter().filter_map(|&id| spelling(id).first()) {
            if let Some(flag) = first.get_mut(usize::from(*byte)) {
                *flag = true;
            }
        }
        Prefixes { ids, first }
    }

    /// Every token that `text` begins with, shortest first, as its length and id.
    pub(super) fn of<'a>(&'a self, tokens: &'a TokenTable, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let possible = text.first().is_some_and(|&byte| self.first.get(usize::from(byte)) == Some(&true));
        let mut candidates = if possible { self.ids.as_slice() } else { &[] };
        text.iter()
            .enumerate()
            .map_while(move |(depth, byte)| {
                let at = |id: &u32| tokens.get(*id).and_then(|spelling| spelling.get(depth).copied());
                let from = candidates.partition_point(|id| at(id) < Some(*byte));
                let to = candidates.partition_point(|id| at(id) <= Some(*byte));
                candidates = candidates.get(from..to)?;
                // Sorted: the one that ends here, if any, comes before all that go on.
                let &id = candidates.first()?;
                let length = depth + 1;
                Some((tokens.get(id).map(<[u8]>::len) == Some(length)).then_some((length, id)))
            })
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_are_found_shortest_first() {
        let words = ["a", "ab", "abc", "b", "", "ab", "<|x|>", "<|"];
        let tokens = TokenTable::new(words.iter().map(|word| word.as_bytes()));
        let prefixes = Prefixes::new(&tokens, 0..8);
        let rows: [(&str, &[(usize, u32)]); 5] =
            [("abcd", &[(1, 0), (2, 1), (3, 2)]), ("b", &[(1, 3)]), ("c", &[]), ("", &[]), ("<|x|", &[(2, 7)])];
        for (text, expected) in rows {
            assert_eq!(prefixes.of(&tokens, text.as_bytes()).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(Prefixes::default().of(&tokens, b"a").count(), 0);
    }
}
