//! Who owns which block of the KV cache, and which finished prefixes are still in it. Counts references only: the
//! numbers themselves live on the device.
//!
//! A block is written by one sequence only. Once it is full it may be shared, because the position that a token has
//! and the tokens before it fix its keys and values. Finished sequences stay as cached prefixes until their blocks are
//! needed; then the least recently used one gives up blocks from its end.

use compute::KV_BLOCK;

/// Blocks, free list and cached prefixes.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Owners of each block: running sequences and cached prefixes.
    owners: Vec<u32>,
    /// Blocks without owner, lowest number last, so that a small conversation touches little memory.
    free: Vec<u32>,
    cached: Vec<Cached>,
    clock: u64,
    /// Starts that could use something, and the positions they used.
    hits: (usize, usize),
}

/// A finished sequence whose keys and values are still there.
#[derive(Debug)]
struct Cached {
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    last_used: u64,
}

/// A cut inside a block takes the rest of the cached prefix from whoever might want it again; sharing whole blocks
/// instead costs up to a block of recomputation. The rest is given up when it is at most this many tokens: an answer
/// that is undone or made again, but not another conversation that begins in the same way.
const GIVEN_UP: usize = 512;

/// The start of a new sequence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// Its blocks so far.
    pub(crate) blocks: Vec<u32>,
    /// Positions in them that need not be computed.
    pub(crate) n_computed: usize,
}

impl Blocks {
    pub(crate) fn new(n_blocks: usize) -> Self {
        let n = u32::try_from(n_blocks).unwrap_or(u32::MAX);
        Blocks { owners: vec![0; n as usize], free: (0..n).rev().collect(), cached: Vec::new(), clock: 0, hits: (0, 0) }
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

    /// Keeps counting where another left off.
    pub(crate) fn counting_from(mut self, hits: (usize, usize)) -> Self {
        self.hits = hits;
        self
    }

    /// Blocks that are free or would become so if every cached prefix went.
    pub(crate) fn n_available(&self) -> usize {
        let mut left = self.owners.clone();
        for &block in self.cached.iter().flat_map(|cached| &cached.blocks) {
            left[block as usize] -= 1;
        }
        left.iter().filter(|&&owners| owners == 0).count()
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
    pub(crate) fn keep(&mut self, mut tokens: Vec<u32>, mut blocks: Vec<u32>, n_computed: usize) {
        tokens.truncate(n_computed);
        let n_blocks = n_computed.div_ceil(KV_BLOCK).min(blocks.len());
        self.release(blocks.drain(n_blocks..));
        if tokens.is_empty() || blocks.is_empty() {
            self.release(blocks);
            return;
        }
        self.clock += 1;
        if let Some(longer) = self.cached.iter_mut().find(|cached| cached.tokens.starts_with(&tokens)) {
            longer.last_used = self.clock;
            self.release(blocks);
            return;
        }
        while let Some(at) = self.cached.iter().position(|cached| tokens.starts_with(&cached.tokens)) {
            let shorter = self.cached.swap_remove(at);
            self.release(shorter.blocks);
        }
        self.cached.push(Cached { tokens, blocks, last_used: self.clock });
    }

    /// The longest usable start for `tokens`, at most `most` positions, from the cached prefixes or from running
    /// sequences (their computed tokens and blocks).
    pub(crate) fn start<'a>(
        &mut self,
        tokens: &[u32],
        most: usize,
        running: impl Iterator<Item = (&'a [u32], &'a [u32])>,
    ) -> Start {
        let wanted = &tokens[..most.min(tokens.len())];
        let shared = running.map(|(theirs, blocks)| (whole_blocks(common(wanted, theirs)), blocks));
        let shared = shared.max_by_key(|(n, _)| *n).unwrap_or((0, &[]));
        let offer = |(at, cached): (usize, &Cached)| {
            let (n, take_over) = self.usable(wanted, cached);
            (n, cached.last_used, at, take_over)
        };
        let best = self.cached.iter().enumerate().map(offer).max();
        let start = match best {
            Some((n, _, at, true)) if n > 0 && n >= shared.0 => self.take_over(at, n),
            Some((n, _, at, false)) if n > 0 && n >= shared.0 => {
                self.clock += 1;
                let (clock, cached) = (self.clock, &mut self.cached[at]);
                cached.last_used = clock;
                let blocks = cached.blocks[..n / KV_BLOCK].to_vec();
                self.share(blocks, n)
            }
            _ => self.share(shared.1[..shared.0 / KV_BLOCK].to_vec(), shared.0),
        };
        if start.n_computed > 0 {
            self.hits = (self.hits.0 + 1, self.hits.1 + start.n_computed);
        }
        start
    }

    /// Tokens of this prefix that are in a cached prefix.
    pub(crate) fn longest_cached(&self, tokens: &[u32]) -> usize {
        self.cached.iter().map(|cached| common(tokens, &cached.tokens)).max().unwrap_or(0)
    }

    /// Forgets the cached prefixes that hold any of these blocks: their numbers are not to be trusted.
    pub(crate) fn distrust(&mut self, blocks: &[u32]) {
        while let Some(at) = self.cached.iter().position(|cached| cached.blocks.iter().any(|b| blocks.contains(b))) {
            let cached = self.cached.swap_remove(at);
            self.release(cached.blocks);
        }
    }

    /// Forgets all cached prefixes.
    pub(crate) fn forget(&mut self) {
        for cached in std::mem::take(&mut self.cached) {
            self.release(cached.blocks);
        }
    }

    fn take(&mut self) -> Option<u32> {
        while self.free.is_empty() {
            let oldest = (0..self.cached.len()).min_by_key(|&at| self.cached[at].last_used)?;
            let cached = &mut self.cached[oldest];
            let Some(block) = cached.blocks.pop() else {
                self.cached.swap_remove(oldest);
                continue;
            };
            cached.tokens.truncate(cached.blocks.len() * KV_BLOCK);
            self.release([block]);
        }
        let block = self.free.pop()?;
        self.owners[block as usize] = 1;
        Some(block)
    }

    /// Positions of a cached prefix that `wanted` can use, and whether it takes the prefix over (else it shares whole
    /// blocks).
    fn usable(&self, wanted: &[u32], cached: &Cached) -> (usize, bool) {
        let n = common(wanted, &cached.tokens);
        let (whole, lost) = (whole_blocks(n), cached.tokens.len() - n);
        if n == whole {
            return (n, lost == 0);
        }
        // The block that would be written further must have no other owner.
        let own = cached.blocks.get(n / KV_BLOCK).is_some_and(|&block| self.owners[block as usize] == 1);
        if own && lost <= GIVEN_UP { (n, true) } else { (whole, false) }
    }

    fn take_over(&mut self, at: usize, n: usize) -> Start {
        let mut blocks = self.cached.swap_remove(at).blocks;
        let keep = n.div_ceil(KV_BLOCK).min(blocks.len());
        self.release(blocks.drain(keep..));
        Start { blocks, n_computed: n }
    }

    fn share(&mut self, blocks: Vec<u32>, n: usize) -> Start {
        for &block in &blocks {
            self.owners[block as usize] += 1;
        }
        Start { blocks, n_computed: n }
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
        blocks.keep(tokens.to_vec(), own, tokens.len());
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
    }

    /// What a new sequence can use of one cached prefix of `cached` tokens that agrees for `agree` tokens.
    fn check(cached: usize, agree: usize, expected: usize, left: usize) {
        let mut blocks = Blocks::new(16);
        finished(&mut blocks, &run(0, cached));
        let mut tokens = run(0, agree);
        tokens.extend(run(9000, 10));
        let start = blocks.start(&tokens, tokens.len() - 1, std::iter::empty());
        assert_eq!(start.n_computed, expected, "{cached} {agree}");
        assert_eq!(start.blocks.len(), expected.div_ceil(KV_BLOCK));
        assert_eq!(blocks.longest_cached(&run(0, cached)), left, "{cached} {agree}");
        consistent(&blocks, &[&start.blocks]);
    }

    #[test]
    fn reuse() {
        check(100, 100, 100, 0); // continued: taken over
        check(300, 90, 90, 0); // a short end is given up
        check(700, 90, 64, 700); // a long one is not: whole blocks are shared
        check(700, 128, 128, 700); // at a block border nothing is lost
        check(128, 128, 128, 0);
        check(700, 10, 0, 700);
        check(40, 30, 30, 0);
        check(40, 0, 0, 40);
    }

    #[test]
    fn a_shared_block_is_never_written() {
        let mut blocks = Blocks::new(16);
        finished(&mut blocks, &run(0, 500));
        let shared = blocks.start(&run(0, 129), 128, std::iter::empty());
        assert_eq!(shared.n_computed, 128);
        // The cached one can be cut to 420 by the next, which may then only write behind it.
        let own = blocks.start(&run(0, 420), 419, std::iter::empty());
        assert_eq!(own.n_computed, 419);
        consistent(&blocks, &[&shared.blocks, &own.blocks]);
        // A prefix whose partial block has a second owner is only shared up to that block.
        let mut blocks = Blocks::new(16);
        finished(&mut blocks, &run(0, 128));
        let other = blocks.start(&run(0, 200), 64, std::iter::empty());
        assert_eq!(other.n_computed, 64);
        let again = blocks.start(&run(0, 200), 63, std::iter::empty());
        assert_eq!(again.n_computed, 0);
        consistent(&blocks, &[&other.blocks, &again.blocks]);
    }

    #[test]
    fn running_sequences_share_whole_blocks() {
        let mut blocks = Blocks::new(16);
        let (tokens, mut own) = (run(0, 150), Vec::new());
        assert!(blocks.grow(&mut own, 150));
        let start = blocks.start(&run(0, 400), 399, [(tokens.as_slice(), own.as_slice())].into_iter());
        assert_eq!((start.n_computed, start.blocks.as_slice()), (128, &own[..2]));
        consistent(&blocks, &[&own, &start.blocks]);
        blocks.release(own);
        consistent(&blocks, &[&start.blocks]);
    }

    #[test]
    fn the_least_recently_used_gives_way_from_its_end() {
        let mut blocks = Blocks::new(6);
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
        let mut blocks = Blocks::new(16);
        finished(&mut blocks, &run(0, 100));
        finished(&mut blocks, &run(0, 60)); // inside the first
        assert_eq!(blocks.n_cached(), 1);
        finished(&mut blocks, &run(0, 300)); // holds the first
        assert_eq!((blocks.n_cached(), blocks.n_used()), (1, 5));
        finished(&mut blocks, &run(7, 10));
        assert_eq!(blocks.n_cached(), 2);
        blocks.keep(run(50, 5), Vec::new(), 0); // nothing computed: nothing kept
        assert_eq!(blocks.n_cached(), 2);
        consistent(&blocks, &[]);
        blocks.forget();
        assert_eq!((blocks.n_used(), blocks.n_cached()), (0, 0));
    }

    #[test]
    fn distrust_forgets_what_shares_a_block() {
        let mut blocks = Blocks::new(16);
        finished(&mut blocks, &run(0, 700));
        finished(&mut blocks, &run(1000, 100));
        let start = blocks.start(&run(0, 70), 69, std::iter::empty());
        blocks.distrust(&start.blocks);
        assert_eq!(blocks.n_cached(), 1);
        consistent(&blocks, &[&start.blocks]);
    }
}
