//! Who owns which block of the KV cache, and which finished prefixes are still in it. Counts references only: the
//! numbers themselves live on the device.
//!
//! A block is written by one sequence only. Once it is full it may be shared, because the position that a token has
//! and the tokens before it fix its keys and values; of one that is not, a new sequence gets a copy. Finished sequences
//! stay as cached prefixes until their blocks are needed, or until there are more of them than the budget allows: then
//! the least recently used one gives up blocks from its end.
//!
//! A model with recurrent layers keeps states besides (`states.rs`), and what can be used of a prefix ends where there is
//! one.
//!
//! The budget is for what lies beside the windows: the prefix used last belongs to the window that nobody uses at this
//! moment (in a chat: the conversation itself, between two turns), and does not count.

use crate::states::{self, Slots, Snapshot};
use compute::KV_BLOCK;

/// Blocks, free list and cached prefixes.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Owners of each block: running sequences and cached prefixes.
    owners: Vec<u32>,
    /// Blocks without owner, lowest number last, so that a small conversation touches little memory.
    free: Vec<u32>,
    /// Least recently used first.
    cached: Vec<Cached>,
    clock: u64,
    /// Starts that could use something, and the positions they used.
    hits: (usize, usize),
    /// Blocks that cached prefixes may hold beside the windows.
    budget: usize,
    /// Windows that no sequence uses.
    n_idle: usize,
    /// See [`Blocks::n_saved`].
    n_saved: (usize, usize),
    /// For counting, kept for its memory.
    left: Vec<u32>,
    /// For states; none in models without.
    slots: Slots,
}

/// A finished sequence whose keys and values are still there.
#[derive(Debug)]
struct Cached {
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    /// By position; the last is after all tokens.
    states: Vec<Snapshot>,
    last_used: u64,
}

/// The start of a new sequence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// Its blocks so far.
    pub(crate) blocks: Vec<u32>,
    /// Positions in them that need not be computed, once the copy is made.
    pub(crate) n_computed: usize,
    /// The block to copy into the last of its own; it is held until [`Blocks::begun`].
    pub(crate) copy_from: Option<u32>,
    /// The states that it may go back to; the last is after its computed positions.
    pub(crate) states: Vec<Snapshot>,
}

impl Blocks {
    /// `budget`: blocks that cached prefixes may hold beside the windows. `n_states`: slots for states.
    pub(crate) fn new(n_blocks: usize, budget: usize, n_states: usize) -> Self {
        let n = u32::try_from(n_blocks).unwrap_or(u32::MAX);
        let (owners, free) = (vec![0; n as usize], (0..n).rev().collect());
        let left = Vec::with_capacity(n as usize);
        let slots = Slots::new(n_states);
        Blocks {
            owners,
            free,
            cached: Vec::new(),
            clock: 0,
            hits: (0, 0),
            budget,
            n_idle: 0,
            n_saved: (0, 0),
            left,
            slots,
        }
    }

    /// As new, but counting on: what the cache held is lost.
    pub(crate) fn anew(&self) -> Self {
        Blocks { hits: self.hits, ..Blocks::new(self.owners.len(), self.budget, self.slots.len()) }
    }

    /// Blocks with an owner.
    pub(crate) fn n_used(&self) -> usize {
        self.owners.len() - self.free.len()
    }

    /// Cached prefixes.
    pub(crate) fn n_cached(&self) -> usize {
        self.cached.len()
    }

    /// Starts that could use something, and the positions they used.
    pub(crate) fn hits(&self) -> (usize, usize) {
        self.hits
    }

    /// Blocks that cached prefixes may hold beside the windows.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Blocks that nobody but cached prefixes owns: all of them, and those beside the windows. The latter are at most the
    /// budget after [`Blocks::keep_to_budget`].
    pub(crate) fn n_saved(&self) -> (usize, usize) {
        self.n_saved
    }

    /// Lets the least recently used prefixes give up blocks until those beside the `n_idle` windows that no sequence uses
    /// keep to the budget.
    pub(crate) fn keep_to_budget(&mut self, n_idle: usize) {
        self.n_idle = n_idle;
        self.count();
        let mut excess = self.n_saved.1.saturating_sub(self.budget);
        while excess > 0 && self.cached.len() > n_idle {
            let n_free = self.free.len();
            self.cut_oldest();
            excess = excess.saturating_sub(self.free.len() - n_free);
        }
        self.count();
    }

    fn count(&mut self) {
        let n_beside = self.cached.len().saturating_sub(self.n_idle);
        self.n_saved = (self.n_only_of(self.cached.len()), self.n_only_of(n_beside));
    }

    /// Blocks that have no owner but the first `n` cached prefixes.
    fn n_only_of(&mut self, n: usize) -> usize {
        let Blocks { left, owners, cached, .. } = self;
        left.clone_from(owners);
        let blocks = cached.iter().take(n).flat_map(|cached| &cached.blocks);
        blocks.fold(0, |n, &block| {
            let left = &mut left[block as usize];
            *left -= 1;
            n + usize::from(*left == 0)
        })
    }

    /// Blocks that are free or would become so if every cached prefix went.
    pub(crate) fn n_available(&mut self) -> usize {
        self.free.len() + self.n_only_of(self.cached.len())
    }

    /// Makes `blocks` hold `n_positions`, evicting cached prefixes as needed. False, and nothing taken, if it cannot.
    pub(crate) fn grow(&mut self, blocks: &mut Vec<u32>, n_positions: usize) -> bool {
        let had = blocks.len();
        while blocks.len() < n_positions.div_ceil(KV_BLOCK) {
            let Some(block) = self.take() else {
                self.release(blocks.drain(had..));
                return false;
            };
            blocks.push(block);
        }
        true
    }

    /// Whether the model keeps states.
    pub(crate) fn has_states(&self) -> bool {
        self.slots.len() > 0
    }

    /// Of the first `n` positions of a sequence with these states, those that can be used.
    pub(crate) fn usable(&self, n: usize, states: &[Snapshot]) -> usize {
        if self.has_states() { states::last_within(states, n) } else { n }
    }

    /// A free slot for states.
    pub(crate) fn take_slot(&mut self) -> Option<u32> {
        self.slots.take()
    }

    /// Lets a state go that someone may go back to: of the prefix used longest ago that has more than its last, then of
    /// `running` sequences, whoever else holds it. Where there is none, the oldest prefix goes. False: nothing is left.
    pub(crate) fn reclaim(&mut self, running: &mut [&mut Vec<Snapshot>]) -> bool {
        let Blocks { cached, slots, .. } = self;
        let all = || cached.iter().map(|cached| &cached.states);
        let lasts: Vec<u32> =
            all().chain(running.iter().map(|r| &**r)).filter_map(|s| s.last()).map(|s| s.slot).collect();
        let between = |states: &Vec<Snapshot>| states::least_worth(states, |slot| !lasts.contains(&slot));
        let found = all().find_map(between).or_else(|| running.iter().find_map(|states| between(states)));
        if let Some(slot) = found {
            let of_running = running.iter_mut().map(|states| &mut **states);
            for states in cached.iter_mut().map(|cached| &mut cached.states).chain(of_running) {
                if let Some(at) = states.iter().position(|state| state.slot == slot) {
                    states.remove(at);
                    slots.release([slot]);
                }
            }
            return true;
        }
        if self.cached.is_empty() {
            return false;
        }
        let oldest = self.cached.remove(0);
        self.give_up(oldest);
        self.count();
        true
    }

    /// Gives slots back.
    pub(crate) fn release_states(&mut self, states: impl IntoIterator<Item = Snapshot>) {
        self.slots.release(states.into_iter().map(|state| state.slot));
    }

    /// Lets all of a prefix go.
    fn give_up(&mut self, cached: Cached) {
        self.release(cached.blocks);
        self.release_states(cached.states);
    }

    /// Gives blocks back.
    pub(crate) fn release(&mut self, blocks: impl IntoIterator<Item = u32>) {
        for block in blocks {
            let owners = &mut self.owners[block as usize];
            *owners -= 1;
            if *owners == 0 {
                self.free.push(block);
            }
        }
    }

    /// Keeps what a finished sequence computed: `tokens` are exactly the computed ones.
    pub(crate) fn keep(
        &mut self,
        mut tokens: Vec<u32>,
        mut blocks: Vec<u32>,
        n_computed: usize,
        mut states: Vec<Snapshot>,
    ) {
        let n_computed = self.usable(n_computed, &states);
        tokens.truncate(n_computed);
        self.slots.truncate(&mut states, n_computed);
        let n_blocks = n_computed.div_ceil(KV_BLOCK).min(blocks.len());
        self.release(blocks.drain(n_blocks..));
        if tokens.is_empty() || blocks.is_empty() {
            self.release(blocks);
            self.release_states(states);
            return;
        }
        self.clock += 1;
        if let Some(longer) = self.cached.iter_mut().find(|cached| cached.tokens.starts_with(&tokens)) {
            longer.last_used = self.clock;
            self.slots.merge(&mut longer.states, states);
            self.release(blocks);
            self.cached.sort_by_key(|cached| cached.last_used);
            return;
        }
        while let Some(at) = self.cached.iter().position(|cached| tokens.starts_with(&cached.tokens)) {
            let shorter = self.cached.remove(at);
            self.release(shorter.blocks);
            self.slots.merge(&mut states, shorter.states);
        }
        self.cached.push(Cached { tokens, blocks, states, last_used: self.clock });
    }

    /// The longest start for `tokens`, at most `most` positions, from the cached prefixes or from running sequences (their
    /// computed tokens, blocks and states). A prefix that is used to its end is taken over; of any other, whole blocks are shared
    /// and the rest is to be copied, so that it can be used again.
    pub(crate) fn start<'a>(
        &mut self,
        tokens: &[u32],
        most: usize,
        running: impl Iterator<Item = (&'a [u32], &'a [u32], &'a [Snapshot])>,
    ) -> Start {
        let wanted = &tokens[..most.min(tokens.len())];
        let shared = running
            .map(|(theirs, blocks, states)| (self.usable(common(wanted, theirs), states), blocks, states))
            .max_by_key(|(n, ..)| *n);
        let (n_shared, blocks, states) = shared.unwrap_or((0, &[], &[]));
        let offers = self.cached.iter().enumerate().map(|(at, cached)| {
            let n = self.usable(common(wanted, &cached.tokens), &cached.states);
            (n, n == cached.tokens.len(), cached.last_used, at)
        });
        let Some((n, is_whole, _, at)) = offers.max().filter(|offer| offer.0 > 0 && offer.0 >= n_shared) else {
            return self.share(&blocks[..n_shared.div_ceil(KV_BLOCK)], n_shared, states);
        };
        // The block that would be written further must have no other owner.
        let goes_on = |block: &u32| n.is_multiple_of(KV_BLOCK) || self.owners[*block as usize] == 1;
        if is_whole && self.cached[at].blocks.last().is_none_or(goes_on) {
            let cached = self.cached.remove(at);
            return Start { blocks: cached.blocks, n_computed: n, copy_from: None, states: cached.states };
        }
        self.clock += 1;
        self.cached[at].last_used = self.clock;
        let blocks = self.cached[at].blocks[..n.div_ceil(KV_BLOCK)].to_vec();
        let states = self.cached[at].states.clone();
        self.cached.sort_by_key(|cached| cached.last_used);
        self.share(&blocks, n, &states)
    }

    /// The copy of a start was made, or could not be: then the start ends with its last whole block, and where there are
    /// states with one of them that ends a block.
    pub(crate) fn begun(&mut self, start: &mut Start, copied: bool) {
        if let Some(from) = start.copy_from.take() {
            self.release([from]);
            if !copied {
                self.release(start.blocks.pop());
                self.shorten(start);
            }
        }
        if start.n_computed > 0 {
            self.hits = (self.hits.0 + 1, self.hits.1 + start.n_computed);
        }
    }

    /// Cuts a start that lost its last block, which was not whole.
    fn shorten(&mut self, start: &mut Start) {
        let n = self.usable(whole_blocks(start.n_computed), &start.states);
        start.n_computed = if n.is_multiple_of(KV_BLOCK) { n } else { 0 };
        self.release(start.blocks.drain(start.n_computed / KV_BLOCK..));
        self.slots.truncate(&mut start.states, start.n_computed);
    }

    /// Tokens of this prefix that could be used of a cached prefix.
    pub(crate) fn longest_cached(&self, tokens: &[u32]) -> usize {
        let usable = |cached: &Cached| self.usable(common(tokens, &cached.tokens), &cached.states);
        self.cached.iter().map(usable).max().unwrap_or(0)
    }

    /// Forgets the cached prefixes that hold any of these blocks: their numbers are not to be trusted.
    pub(crate) fn distrust(&mut self, blocks: &[u32]) {
        while let Some(at) = self.cached.iter().position(|cached| cached.blocks.iter().any(|b| blocks.contains(b))) {
            let cached = self.cached.remove(at);
            self.give_up(cached);
        }
        self.count();
    }

    /// Forgets all cached prefixes.
    pub(crate) fn forget(&mut self) {
        for cached in std::mem::take(&mut self.cached) {
            self.give_up(cached);
        }
        self.count();
    }

    fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            while self.free.is_empty() && !self.cached.is_empty() {
                self.cut_oldest();
            }
            self.count();
        }
        let block = self.free.pop()?;
        self.owners[block as usize] = 1;
        Some(block)
    }

    /// Takes the last block from the least recently used prefix, which there must be, and what no state is left for. It goes
    /// as a whole once it has none left, or when what is left begins another prefix too.
    fn cut_oldest(&mut self) {
        let mut oldest = self.cached.remove(0);
        self.release(oldest.blocks.pop());
        let n = self.usable(oldest.blocks.len() * KV_BLOCK, &oldest.states);
        oldest.tokens.truncate(n);
        self.slots.truncate(&mut oldest.states, n);
        let n_blocks = oldest.tokens.len().div_ceil(KV_BLOCK);
        self.release(oldest.blocks.drain(n_blocks..));
        if self.cached.iter().any(|cached| cached.tokens.starts_with(&oldest.tokens)) {
            self.give_up(oldest);
        } else if !oldest.blocks.is_empty() {
            self.cached.insert(0, oldest);
        }
    }

    /// A start of `n` positions in blocks of another: whole ones are shared, the last one is copied if it is not whole
    /// and there is a block for the copy. States are shared.
    fn share(&mut self, blocks: &[u32], n: usize, states: &[Snapshot]) -> Start {
        let states: Vec<Snapshot> = states.iter().copied().filter(|state| state.n <= n).collect();
        states.iter().for_each(|state| self.slots.share(state.slot));
        let mut start = Start { blocks: blocks.to_vec(), n_computed: n, copy_from: None, states };
        for &block in &start.blocks {
            self.owners[block as usize] += 1;
        }
        if !n.is_multiple_of(KV_BLOCK) {
            start.copy_from = start.blocks.pop();
            match self.take() {
                Some(own) => start.blocks.push(own),
                None => {
                    self.release(start.copy_from.take());
                    self.shorten(&mut start);
                }
            }
        }
        start
    }
}

fn whole_blocks(n: usize) -> usize {
    n - n % KV_BLOCK
}

/// Length of the common prefix.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(from: u32, n: usize) -> Vec<u32> {
        (from..).take(n).collect()
    }

    /// A sequence that ran to its end and is cached.
    fn finished(blocks: &mut Blocks, tokens: &[u32]) {
        let mut own = Vec::new();
        assert!(blocks.grow(&mut own, tokens.len()));
        blocks.keep(tokens.to_vec(), own, tokens.len(), Vec::new());
    }

    /// A sequence that begins, and whose copy succeeds or not.
    fn started(blocks: &mut Blocks, tokens: &[u32], most: usize, copied: bool) -> Start {
        let mut start = blocks.start(tokens, most, std::iter::empty());
        blocks.begun(&mut start, copied);
        start
    }

    /// Every block is either free or has the owners that the lists say.
    fn consistent(blocks: &Blocks, live: &[&[u32]]) {
        let mut owners = vec![0; blocks.owners.len()];
        let cached = blocks.cached.iter().map(|c| c.blocks.as_slice());
        for &block in cached.chain(live.iter().copied()).flatten() {
            owners[block as usize] += 1;
        }
        assert_eq!(owners, blocks.owners);
        let free = owners.iter().filter(|&&n| n == 0).count();
        assert_eq!(free, blocks.free.len());
        assert!(blocks.cached.iter().all(|c| c.tokens.len() <= c.blocks.len() * KV_BLOCK));
        assert!(blocks.cached.is_sorted_by_key(|c| c.last_used));
    }

    /// What a new sequence can use of one cached prefix of `cached` tokens that agrees for `agree` tokens.
    fn check(cached: usize, agree: usize, expected: usize, left: usize) {
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, cached));
        let mut tokens = run(0, agree);
        tokens.extend(run(9000, 10));
        let start = started(&mut blocks, &tokens, tokens.len() - 1, true);
        assert_eq!(start.n_computed, expected, "{cached} {agree}");
        assert_eq!(start.blocks.len(), expected.div_ceil(KV_BLOCK));
        assert_eq!(blocks.longest_cached(&run(0, cached)), left, "{cached} {agree}");
        consistent(&blocks, &[&start.blocks]);
    }

    #[test]
    fn reuse() {
        check(100, 100, 100, 0); // continued: taken over
        check(300, 90, 90, 300); // cut inside a block: its part is copied
        check(700, 90, 90, 700);
        check(700, 128, 128, 700); // at a block border nothing is copied
        check(128, 128, 128, 0);
        check(700, 10, 10, 700);
        check(40, 30, 30, 40);
        check(40, 0, 0, 40);
    }

    #[test]
    fn a_shared_block_is_never_written() {
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, 500));
        let shared = started(&mut blocks, &run(0, 129), 128, true);
        assert_eq!(shared.n_computed, 128);
        let own = started(&mut blocks, &run(0, 420), 419, true);
        assert_eq!((own.n_computed, &own.blocks[..2]), (419, shared.blocks.as_slice()));
        assert!(blocks.cached.iter().all(|cached| cached.blocks.last() != own.blocks.last()), "a block of its own");
        consistent(&blocks, &[&shared.blocks, &own.blocks]);
        // One that could be continued, but whose last block has a second owner, is copied too.
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, 100));
        let held = blocks.start(&run(0, 200), 90, std::iter::empty());
        let other = started(&mut blocks, &run(0, 200), 199, true);
        assert_eq!((other.n_computed, blocks.n_cached()), (100, 1));
        let mut held = held;
        blocks.begun(&mut held, true);
        consistent(&blocks, &[&held.blocks, &other.blocks]);
        assert_eq!(blocks.hits(), (2, 190));
    }

    #[test]
    fn without_a_copy_whole_blocks_are_shared() {
        // The copy fails.
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, 300));
        let start = started(&mut blocks, &run(0, 200), 199, false);
        assert_eq!((start.n_computed, start.blocks.len(), blocks.hits()), (192, 3, (1, 192)));
        consistent(&blocks, &[&start.blocks]);
        // There is no block for it: not even by taking from the prefix itself.
        let mut blocks = Blocks::new(2, 2, 0);
        finished(&mut blocks, &run(0, 128));
        let mut own = Vec::new();
        let start = started(&mut blocks, &run(0, 100), 99, true);
        assert_eq!(start.n_computed, 64, "the block to copy from is held, and there is no other");
        assert!(blocks.grow(&mut own, 64));
        consistent(&blocks, &[&start.blocks, &own]);
    }

    /// Conversations one after the other, some going on, some branching off, some new: what is kept beside the window
    /// never exceeds the budget, and the last one is always whole.
    #[test]
    fn the_budget_holds() {
        for (budget, n_windows) in [(0, 1), (3, 1), (40, 1), (5, 2)] {
            let n_blocks = 10 * n_windows + budget;
            let mut blocks = Blocks::new(n_blocks, budget, 0);
            let mut past: Vec<Vec<u32>> = Vec::new();
            let mut dice = 12_345u32;
            let mut roll = |n: u32| {
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (dice >> 16) % n
            };
            for turn in 0..300 {
                let mut tokens = match past.get(roll(past.len() as u32 + 1) as usize) {
                    Some(earlier) => earlier[..1 + roll(earlier.len() as u32) as usize].to_vec(),
                    None => Vec::new(),
                };
                tokens.truncate(600);
                tokens.extend(run(turn * 1000, 1 + roll(640 - tokens.len() as u32) as usize));
                let mut start = blocks.start(&tokens, tokens.len() - 1, std::iter::empty());
                blocks.begun(&mut start, roll(10) > 0);
                blocks.keep_to_budget(n_windows - 1);
                assert!(blocks.n_saved().1 <= budget, "{:?} of {budget}", blocks.n_saved());
                assert!(blocks.grow(&mut start.blocks, tokens.len()), "the window is always there");
                consistent(&blocks, &[&start.blocks]);
                blocks.keep(tokens.clone(), start.blocks, tokens.len(), Vec::new());
                blocks.keep_to_budget(n_windows);
                assert!(blocks.n_saved().1 <= budget && blocks.n_saved().0 <= n_blocks);
                assert_eq!(blocks.longest_cached(&tokens), tokens.len());
                consistent(&blocks, &[]);
                past.push(tokens);
            }
            assert!(blocks.n_cached() > 1 || budget == 0);
        }
    }

    #[test]
    fn running_sequences_share_what_they_have() {
        let mut blocks = Blocks::new(16, 16, 0);
        let (tokens, mut own) = (run(0, 150), Vec::new());
        assert!(blocks.grow(&mut own, 150));
        let mut start = blocks.start(&run(0, 400), 399, [(tokens.as_slice(), own.as_slice(), &[][..])].into_iter());
        assert_eq!((start.n_computed, start.copy_from), (150, Some(own[2])));
        blocks.begun(&mut start, true);
        assert_eq!(start.blocks[..2], own[..2]);
        assert_ne!(start.blocks[2], own[2]);
        consistent(&blocks, &[&own, &start.blocks]);
        blocks.release(own);
        consistent(&blocks, &[&start.blocks]);
    }

    #[test]
    fn the_least_recently_used_gives_way_from_its_end() {
        let mut blocks = Blocks::new(6, 6, 0);
        finished(&mut blocks, &run(0, 192));
        finished(&mut blocks, &run(1000, 192));
        assert_eq!((blocks.n_used(), blocks.n_available()), (6, 6));
        let mut own = Vec::new();
        assert!(blocks.grow(&mut own, 65));
        assert_eq!(blocks.longest_cached(&run(0, 192)), 64);
        assert_eq!(blocks.longest_cached(&run(1000, 192)), 192);
        assert_eq!(blocks.n_available(), 4);
        assert!(!blocks.grow(&mut own, 7 * 64), "more than there is");
        assert_eq!(own.len(), 2, "and nothing taken");
        consistent(&blocks, &[&own]);
        assert!(blocks.grow(&mut own, 6 * 64));
        assert_eq!(blocks.n_cached(), 0);
        consistent(&blocks, &[&own]);
    }

    #[test]
    fn keep_holds_each_prefix_once() {
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, 100));
        finished(&mut blocks, &run(0, 60)); // inside the first
        assert_eq!(blocks.n_cached(), 1);
        finished(&mut blocks, &run(0, 300)); // holds the first
        assert_eq!((blocks.n_cached(), blocks.n_used()), (1, 5));
        finished(&mut blocks, &run(7, 10));
        assert_eq!(blocks.n_cached(), 2);
        blocks.keep(run(50, 5), Vec::new(), 0, Vec::new()); // nothing computed: nothing kept
        assert_eq!(blocks.n_cached(), 2);
        consistent(&blocks, &[]);
        blocks.forget();
        assert_eq!((blocks.n_used(), blocks.n_cached()), (0, 0));
    }

    #[test]
    fn distrust_forgets_what_shares_a_block() {
        let mut blocks = Blocks::new(16, 16, 0);
        finished(&mut blocks, &run(0, 700));
        finished(&mut blocks, &run(1000, 100));
        let start = started(&mut blocks, &run(0, 70), 69, true);
        blocks.distrust(&start.blocks);
        assert_eq!(blocks.n_cached(), 1);
        consistent(&blocks, &[&start.blocks]);
    }

    /// A state that running sequences share goes from all of them; one that is the last of any stays.
    #[test]
    fn states_of_running_sequences() {
        let mut blocks = Blocks::new(16, 16, 4);
        let mut one: Vec<Snapshot> =
            [10, 20, 30].into_iter().map(|n| Snapshot { n, slot: blocks.take_slot().unwrap() }).collect();
        let mut other = one[..2].to_vec();
        other.iter().for_each(|state| blocks.slots.share(state.slot));
        assert!(blocks.reclaim(&mut [&mut one, &mut other]));
        assert_eq!((one.len(), other.len()), (2, 1), "the first went");
        consistent_states(&blocks, &[&one, &other]);
        assert!(!blocks.reclaim(&mut [&mut one, &mut other]), "the second is the last of the other");
        blocks.release_states(other.drain(..));
        assert!(blocks.reclaim(&mut [&mut one, &mut other]));
        consistent_states(&blocks, &[&one]);
        assert!(!blocks.reclaim(&mut [&mut one]));
    }

    /// A finished sequence with states after these positions.
    fn finished_with(blocks: &mut Blocks, tokens: &[u32], positions: &[usize]) {
        let mut own = Vec::new();
        assert!(blocks.grow(&mut own, tokens.len()));
        let states = positions.iter().map(|&n| Snapshot { n, slot: blocks.take_slot().unwrap() }).collect();
        blocks.keep(tokens.to_vec(), own, tokens.len(), states);
    }

    /// Every slot is either free or has the owners that the lists say.
    fn consistent_states(blocks: &Blocks, live: &[&[Snapshot]]) {
        let (owners, n_free) = blocks.slots.owners();
        let mut expected = vec![0; owners.len()];
        let cached = blocks.cached.iter().map(|c| c.states.as_slice());
        cached.chain(live.iter().copied()).flatten().for_each(|state| expected[state.slot as usize] += 1);
        assert_eq!((owners, n_free), (&expected[..], expected.iter().filter(|&&n| n == 0).count()));
        assert!(blocks.cached.iter().all(|c| c.states.last().is_some_and(|last| last.n == c.tokens.len())));
        assert!(blocks.cached.iter().all(|c| c.states.is_sorted_by(|a, b| a.n < b.n)));
    }

    /// With states, a prefix is used up to the last of them that lies within what agrees.
    #[test]
    fn reuse_ends_at_a_state() {
        #[track_caller]
        fn check(cached: usize, positions: &[usize], agree: usize, copied: bool, expected: usize) {
            let mut blocks = Blocks::new(16, 16, 8);
            finished_with(&mut blocks, &run(0, cached), positions);
            let mut tokens = run(0, agree);
            tokens.extend(run(9000, 10));
            assert_eq!(blocks.longest_cached(&tokens), states::last_within(&blocks.cached[0].states, agree));
            let start = started(&mut blocks, &tokens, tokens.len() - 1, copied);
            assert_eq!((start.n_computed, start.blocks.len()), (expected, expected.div_ceil(KV_BLOCK)));
            assert_eq!(start.states.last().map_or(0, |last| last.n), expected);
            consistent(&blocks, &[&start.blocks]);
            consistent_states(&blocks, &[&start.states]);
        }
        check(100, &[100], 100, true, 100); // taken over
        check(100, &[40, 100], 99, true, 40);
        check(100, &[40, 100], 30, true, 0);
        check(300, &[64, 130, 300], 200, true, 130);
        check(300, &[64, 130, 300], 200, false, 64); // no copy: the last state that ends a block
        check(300, &[60, 130, 300], 200, false, 0);
        check(300, &[128, 300], 200, true, 128);
    }

    #[test]
    fn states_are_given_up_and_merged() {
        let mut blocks = Blocks::new(16, 16, 6);
        finished_with(&mut blocks, &run(0, 200), &[50, 120, 200]);
        finished_with(&mut blocks, &run(1000, 100), &[99, 100]);
        consistent_states(&blocks, &[]);
        // One is free, then the older prefix gives up its own, the other does, and the older one goes.
        let mut taken = Vec::new();
        for expected in [2, 2, 2, 2, 1] {
            let slot = blocks.take_slot().or_else(|| blocks.reclaim(&mut []).then(|| blocks.take_slot())?);
            taken.push(Snapshot { n: taken.len(), slot: slot.unwrap() });
            assert_eq!(blocks.n_cached(), expected);
            consistent_states(&blocks, &[&taken]);
        }
        assert_eq!(blocks.longest_cached(&run(1000, 100)), 100);
        blocks.release_states(taken);
        // A longer prefix takes over the states of the shorter one; a shorter one adds its own.
        finished_with(&mut blocks, &run(1000, 300), &[300]);
        finished_with(&mut blocks, &run(1000, 80), &[80]);
        assert_eq!((blocks.n_cached(), blocks.longest_cached(&run(1000, 90))), (1, 80));
        assert_eq!(blocks.longest_cached(&run(1000, 299)), 100);
        consistent_states(&blocks, &[]);
        // Cut from its end, it ends with a state.
        blocks.cut_oldest();
        assert_eq!(blocks.cached[0].tokens.len(), 100);
        consistent(&blocks, &[]);
        consistent_states(&blocks, &[]);
        blocks.forget();
        consistent_states(&blocks, &[]);
        assert_eq!((blocks.n_used(), blocks.slots.owners().1), (0, 6));
    }
}
