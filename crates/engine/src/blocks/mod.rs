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

use crate::owners::Owners;
use crate::states::{self, Snapshot};
use compute::KV_BLOCK;

/// Blocks, free list and cached prefixes.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Owners of each block: running sequences and cached prefixes.
    owners: Owners,
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
    slots: Owners,
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
        let owners = Owners::new(n_blocks);
        Blocks {
            left: Vec::with_capacity(owners.len()),
            owners,
            cached: Vec::new(),
            clock: 0,
            hits: (0, 0),
            budget,
            n_idle: 0,
            n_saved: (0, 0),
            slots: Owners::new(n_states),
        }
    }

    /// As new, but counting on: what the cache held is lost.
    pub(crate) fn anew(&self) -> Self {
        Blocks { hits: self.hits, ..Blocks::new(self.owners.len(), self.budget, self.slots.len()) }
    }

    /// Blocks with an owner.
    pub(crate) fn n_used(&self) -> usize {
        self.owners.len() - self.owners.n_free()
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
            let n_free = self.owners.n_free();
            self.cut_oldest();
            excess = excess.saturating_sub(self.owners.n_free() - n_free);
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
        left.clear();
        left.extend_from_slice(owners.counts());
        let blocks = cached.iter().take(n).flat_map(|cached| &cached.blocks);
        blocks.fold(0, |n, &block| {
            let left = &mut left[block as usize];
            *left -= 1;
            n + usize::from(*left == 0)
        })
    }

    /// Blocks that are free or would become so if every cached prefix went.
    pub(crate) fn n_available(&mut self) -> usize {
        self.owners.n_free() + self.n_only_of(self.cached.len())
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
        self.owners.release(blocks);
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
        states::truncate(&mut self.slots, &mut states, n_computed);
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
            states::merge(&mut self.slots, &mut longer.states, states);
            self.release(blocks);
            self.cached.sort_by_key(|cached| cached.last_used);
            return;
        }
        while let Some(at) = self.cached.iter().position(|cached| tokens.starts_with(&cached.tokens)) {
            let shorter = self.cached.remove(at);
            self.release(shorter.blocks);
            states::merge(&mut self.slots, &mut states, shorter.states);
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
        let goes_on = |block: &u32| n.is_multiple_of(KV_BLOCK) || self.owners.counts()[*block as usize] == 1;
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
        states::truncate(&mut self.slots, &mut start.states, start.n_computed);
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
        if self.owners.n_free() == 0 {
            while self.owners.n_free() == 0 && !self.cached.is_empty() {
                self.cut_oldest();
            }
            self.count();
        }
        self.owners.take()
    }

    /// Takes the last block from the least recently used prefix, which there must be, and what no state is left for. It goes
    /// as a whole once it has none left, or when what is left begins another prefix too.
    fn cut_oldest(&mut self) {
        let mut oldest = self.cached.remove(0);
        self.release(oldest.blocks.pop());
        let n = self.usable(oldest.blocks.len() * KV_BLOCK, &oldest.states);
        oldest.tokens.truncate(n);
        states::truncate(&mut self.slots, &mut oldest.states, n);
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
        start.blocks.iter().for_each(|&block| self.owners.share(block));
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
mod tests;
