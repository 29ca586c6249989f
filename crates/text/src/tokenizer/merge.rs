//! Merging neighbours, best first: the loop that byte-level BPE and SentencePiece share.
//!
//! Symbols are a linked list over the pieces of one word; a heap holds the pairs that could merge. Each merge makes at
//! most two new pairs, so a word of n pieces costs O(n log n), whatever is in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

/// A pair that could merge. The order is that of the heap: what is smallest goes first, the leftmost among equals.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair<K> {
    order: K,
    left: usize,
    right: usize,
    /// Ends of both when the pair was found; a pair whose symbols have changed since is stale.
    ends: (usize, usize),
    merged: u32,
}

/// Merges `pieces` (ranges of the word's bytes, in order, with the token of each) until no pair merges any more.
///
/// `find` says how early the pair of two symbols merges, and into which token.
pub(super) fn merge<K: Ord>(
    pieces: impl Iterator<Item = (usize, usize, Option<u32>)>,
    find: impl Fn(&Symbol, &Symbol) -> Option<(K, u32)>,
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
        Some(Reverse(Pair { order, left, right, ends: (l.end, r.end), merged }))
    };
    let mut heap: BinaryHeap<_> =
        (1..symbols.len()).filter_map(|right| candidate(&symbols, right - 1, right)).collect();
    while let Some(Reverse(pair)) = heap.pop() {
        let (Some(&left), Some(&right)) = (symbols.get(pair.left), symbols.get(pair.right)) else { continue };
        // A symbol that was merged away is empty.
        let gone = left.start == left.end || right.start == right.end;
        if gone || (left.end, right.end) != pair.ends || left.next != pair.right {
            continue;
        }
        if let Some(symbol) = symbols.get_mut(pair.left) {
            *symbol = Symbol { end: right.end, token: Some(pair.merged), next: right.next, ..left };
        }
        if let Some(symbol) = symbols.get_mut(pair.right) {
            symbol.start = symbol.end;
        }
        if let Some(symbol) = symbols.get_mut(right.next) {
            symbol.previous = pair.left;
        }
        heap.extend(candidate(&symbols, left.previous, pair.left));
        heap.extend(candidate(&symbols, pair.left, right.next));
    }
    symbols.retain(|symbol| symbol.start != symbol.end);
    symbols
}
