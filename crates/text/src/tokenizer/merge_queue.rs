//! The queue of pairs that could merge: by rank, then from left to right.
//!
//! A heap of a million pairs is slow, and most of its work is for nothing: the pairs of one rank are nearly always found from
//! left to right. So each rank has a list that is appended to and read from the front; only a pair that comes late, left of
//! one that waits already, goes to a heap. (A bucket queue with the lists of all buckets in one arena.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// No node.
const NONE: u32 = u32::MAX;

/// A pair that could merge. The order is that of the queue: what is smallest goes first, the leftmost among equals. A long
/// word has a million of them, which is why they are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    /// Its rank.
    pub(super) order: u32,
    /// Its left symbol.
    pub(super) left: u32,
    /// Where the right one ended when the pair was found.
    pub(super) end: u32,
    /// The token that it merges into.
    pub(super) merged: u32,
}

/// A pair in its rank's list.
#[derive(Debug)]
struct Node {
    left: u32,
    end: u32,
    merged: u32,
    next: u32,
}

/// The list of one rank.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    /// The left symbol of the last one.
    last_left: u32,
}

/// See the top.
#[derive(Debug, Default)]
pub(super) struct Queue {
    nodes: Vec<Node>,
    /// The nodes that are free: a list.
    free: Option<u32>,
    lists: Vec<List>,
    /// The list of each rank seen so far.
    list_of: HashMap<u32, u32>,
    /// The ranks whose lists hold something.
    waiting: BinaryHeap<Reverse<(u32, u32)>>,
    /// Pairs that came late.
    late: BinaryHeap<Reverse<Pair>>,
}

impl Queue {
    /// Adds a pair.
    pub(super) fn push(&mut self, pair: Pair) {
        if self.append(pair).is_none() {
            self.late.push(Reverse(pair));
        }
    }

    /// Takes the best pair.
    pub(super) fn pop(&mut self) -> Option<Pair> {
        let listed = self.front();
        match (listed, self.late.peek()) {
            (Some(pair), Some(Reverse(late))) if pair <= *late => self.take(pair),
            (Some(pair), None) => self.take(pair),
            _ => self.late.pop().map(|Reverse(pair)| pair),
        }
    }

    /// Appends to the list of the pair's rank. `None`: it comes late (or there is no room for any more).
    fn append(&mut self, pair: Pair) -> Option<()> {
        let next_list = u32::try_from(self.lists.len()).ok()?;
        let number = *self.list_of.entry(pair.order).or_insert(next_list);
        if number == next_list {
            self.lists.push(List { first: NONE, last: NONE, last_left: 0 });
        }
        let list = self.lists.get_mut(number as usize)?;
        let is_empty = list.first == NONE;
        if !is_empty && pair.left < list.last_left {
            return None;
        }
        let node = Node { left: pair.left, end: pair.end, merged: pair.merged, next: NONE };
        let at = match self.free {
            Some(at) => {
                let slot = self.nodes.get_mut(at as usize)?;
                self.free = Some(slot.next).filter(|next| *next != NONE);
                *slot = node;
                at
            }
            None => {
                let at = u32::try_from(self.nodes.len()).ok().filter(|at| *at != NONE)?;
                self.nodes.push(node);
                at
            }
        };
        let last = list.last;
        (list.last, list.last_left) = (at, pair.left);
        if is_empty {
            list.first = at;
            self.waiting.push(Reverse((pair.order, number)));
        } else {
            self.nodes.get_mut(last as usize)?.next = at;
        }
        Some(())
    }

    /// The first pair of the best list.
    fn front(&self) -> Option<Pair> {
        let Reverse((order, number)) = *self.waiting.peek()?;
        let node = self.nodes.get(self.lists.get(number as usize)?.first as usize)?;
        Some(Pair { order, left: node.left, end: node.end, merged: node.merged })
    }

    /// Removes [`Queue::front`], which is `pair`.
    fn take(&mut self, pair: Pair) -> Option<Pair> {
        let Reverse((_, number)) = *self.waiting.peek()?;
        let list = self.lists.get_mut(number as usize)?;
        let at = list.first;
        let node = self.nodes.get_mut(at as usize)?;
        list.first = node.next;
        node.next = self.free.unwrap_or(NONE);
        self.free = Some(at);
        if list.first == NONE {
            self.waiting.pop();
        }
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn from_left_to_right_nothing_comes_late() {
        let mut queue = Queue::default();
        for order in [3, 1, 2] {
            (0..1000).for_each(|left| queue.push(Pair { order, left, end: left + 2, merged: order }));
        }
        assert!(queue.late.is_empty());
        let popped: Vec<(u32, u32)> = std::iter::from_fn(|| queue.pop()).map(|pair| (pair.order, pair.left)).collect();
        let expected: Vec<(u32, u32)> = (1..4).flat_map(|order| (0..1000).map(move |left| (order, left))).collect();
        assert_eq!(popped, expected);
        // What is taken makes room for what comes.
        let n_nodes = queue.nodes.len();
        (0..1000).for_each(|left| queue.push(Pair { order: 9, left, end: left, merged: 0 }));
        assert_eq!(queue.nodes.len(), n_nodes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Any mixture of pushes and pops, against a sorted list.
        #[test]
        fn the_smallest_comes_first(steps in prop::collection::vec((any::<bool>(), 0u32..4, 0u32..20), 0..200)) {
            let (mut queue, mut plain) = (Queue::default(), BinaryHeap::new());
            for (number, (is_push, order, left)) in (0u32..).zip(steps) {
                if is_push {
                    let pair = Pair { order, left, end: number, merged: 0 };
                    queue.push(pair);
                    plain.push(Reverse((order, left)));
                } else {
                    let popped = queue.pop().map(|pair| (pair.order, pair.left));
                    prop_assert_eq!(popped, plain.pop().map(|Reverse(pair)| pair));
                }
            }
        }
    }
}
