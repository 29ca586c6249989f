//! What a new sequence can use of what is there, what the budget leaves, and that every block and slot has the owners that the
//! lists say.

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
    assert_eq!(owners, blocks.owners.counts());
    let free = owners.iter().filter(|&&n| n == 0).count();
    assert_eq!(free, blocks.owners.n_free());
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
    let (owners, n_free) = (blocks.slots.counts(), blocks.slots.n_free());
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
    assert_eq!((blocks.n_used(), blocks.slots.n_free()), (0, 6));
}
