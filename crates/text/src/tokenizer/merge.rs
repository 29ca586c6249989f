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

/// A pair that could merge. The order is that of the heap: what is smallest goes first, the leftmost among equals. A long
/// word has a million of them, which is why they are small.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    order: u32,
    left: u32,
    /// Where the right one ended when the pair was found. A pair whose symbols have changed since is stale: the end of
    /// what follows the left one has moved on.
    end: u32,
    merged: u32,
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
        Some(Reverse(Pair { order, left: u32::try_from(left).ok()?, end: u32::try_from(r.end).ok()?, merged }))
    };
    let mut heap: BinaryHeap<_> =
        (1..symbols.len()).filter_map(|right| candidate(&symbols, right - 1, right)).collect();
    while let Some(Reverse(pair)) = heap.pop() {
        let at = pair.left as usize;
        let Some(&left) = symbols.get(at) else { continue };
        let Some(&right) = symbols.get(left.next) else { continue };
        // A symbol that was merged away is empty.
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
        heap.extend(candidate(&symbols, left.previous, at));
        heap.extend(candidate(&symbols, at, right.next));
    }
    symbols.retain(|symbol| symbol.start != symbol.end);
    symbols
}
