//! Merging neighbours, best first: the loop that byte-level BPE and SentencePiece share.
//!
//! Symbols are a linked list over the pieces of one word; a [`Queue`] holds the pairs that could merge. Each merge makes at
//! most two new pairs. They nearly always come from left to right within their rank, and then a word of n pieces costs O(n);
//! it costs O(n log n) whatever is in it.

use super::merge_queue::{Pair, Queue};

/// No symbol.
const NONE: usize = usize::MAX;

/// A piece of the word: the bytes `start..end` of it, and its token where it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) token: Option<u32>,
    previous: usize,
    next: usize,
}

/// Merges `pieces` (ranges of the word's bytes, in order, with the token of each) until no pair merges any more. (In a word
/// of 4 GiB, no pair beyond that merges.)
///
/// `find` says how early the pair of two symbols merges, and into which token.
pub(super) fn merge(
    pieces: impl Iterator<Item = (usize, usize, Option<u32>)>,
    find: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = pieces
        .enumerate()
        .map(|(i, (start, end, token))| Symbol { start, end, token, previous: i.wrapping_sub(1), next: i + 1 })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.next = NONE;
    }
    let candidate = |symbols: &[Symbol], left: usize, right: usize| {
        let (l, r) = (symbols.get(left)?, symbols.get(right)?);
        let (order, merged) = find(l, r)?;
        Some(Pair { order, left: u32::try_from(left).ok()?, end: u32::try_from(r.end).ok()?, merged })
    };
    let mut queue = Queue::default();
    (1..symbols.len()).filter_map(|right| candidate(&symbols, right - 1, right)).for_each(|pair| queue.push(pair));
    while let Some(pair) = queue.pop() {
        let at = pair.left as usize;
        let Some(&left) = symbols.get(at) else { continue };
        let Some(&right) = symbols.get(left.next) else { continue };
        // A symbol that was merged away is empty. A pair whose symbols have changed since is stale: the end of what
        // follows the left one has moved on.
        if left.start == left.end || right.end != pair.end as usize {
            continue;
        }
        if let Some(symbol) = symbols.get_mut(at) {
            *symbol = Symbol { end: right.end, token: Some(pair.merged), next: right.next, ..left };
        }
        if let Some(symbol) = symbols.get_mut(left.next) {
            symbol.start = symbol.end;
        }
        if let Some(symbol) = symbols.get_mut(right.next) {
            symbol.previous = at;
        }
        let before = candidate(&symbols, left.previous, at);
        let after = candidate(&symbols, at, right.next);
        before.into_iter().chain(after).for_each(|pair| queue.push(pair));
    }
    symbols.retain(|symbol| symbol.start != symbol.end);
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: the best pair of all, the leftmost among equals, again and again.
    fn plain(word: &[u32], find: impl Fn(u32, u32) -> Option<(u32, u32)>) -> Vec<u32> {
        let mut word = word.to_vec();
        loop {
            let pairs = word.windows(2).enumerate();
            let best = pairs.filter_map(|(i, pair)| find(pair[0], pair[1]).map(|(order, id)| (order, i, id))).min();
            let Some((_, i, id)) = best else { return word };
            word.splice(i..i + 2, [id]);
        }
    }

    fn merged(word: &[u32], find: impl Fn(u32, u32) -> Option<(u32, u32)>) -> Vec<u32> {
        let pieces = word.iter().enumerate().map(|(i, token)| (i, i + 1, Some(*token)));
        let symbols = merge(pieces, |left, right| find(left.token?, right.token?));
        symbols.iter().filter_map(|symbol| symbol.token).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Rules over few tokens, with ties and with merges that lead to better ones.
        #[test]
        fn the_best_pair_goes_first(
            word in prop::collection::vec(0u32..4, 0..60),
            rules in prop::collection::vec(((0u32..8, 0u32..8), (0u32..5, 4u32..8)), 0..20),
        ) {
            let find = |left: u32, right: u32| {
                rules.iter().find(|(pair, _)| *pair == (left, right)).map(|(_, rule)| *rule)
            };
            prop_assert_eq!(merged(&word, find), plain(&word, find));
        }
    }
}
