//! Many requests at random: shared prefixes, continuations, cancellations at any moment, too few blocks, failures. The
//! scripted model notices any block that two sequences write, any position that nobody computed, any state of another past.

use crate::fake::*;
use engine::{Event, Limits, sample::Xoshiro256};

struct Dice(Xoshiro256);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }
}

/// A panic for prefixes that hold this token.
const BAD: u32 = 25;

fn next(prefix: &[u32]) -> u32 {
    mixed(prefix) % 25
}

fn check(seed: u64, n_blocks: usize, max_sequences: usize, n_states: usize) {
    let limits = Limits { context: n_blocks.min(8) * 64, prefill_chunk: 24, max_sequences };
    let setup = Setup { n_blocks, limits, breaks_off: seed % 2 == 1, n_states, ..Setup::default() };
    let (engine, _) =
        setup.start(|prefix| if prefix.contains(&BAD) { Answer::Panic } else { Answer::Token(next(prefix)) });
    let mut dice = Dice(Xoshiro256::new(seed));
    let mut told: Vec<Vec<u32>> = vec![vec![1]];
    for _ in 0..40 {
        let mut streams = Vec::new();
        for _ in 0..=dice.below(5) {
            // Some earlier conversation, cut somewhere, and something new.
            let mut tokens = told[dice.below(told.len())].clone();
            tokens.truncate(1 + dice.below(tokens.len()));
            (0..dice.below(90)).for_each(|_| tokens.push(dice.below(25) as u32));
            tokens.truncate(limits.context - 1);
            let bad = dice.below(25) == 0;
            if bad {
                let at = dice.below(tokens.len());
                tokens[at] = BAD;
            }
            let stream = engine.generate(greedy(tokens.clone(), 1 + dice.below(80)));
            streams.push((tokens, bad, dice.below(3), stream));
        }
        for (tokens, bad, fate, mut stream) in streams {
            let mut all = tokens.clone();
            let patience = dice.below(40);
            while fate == 0 && all.len() < tokens.len() + patience {
                match stream.recv() {
                    Some(Event::Token { id, .. }) => all.push(id),
                    Some(_) => {}
                    None => break,
                }
            }
            if fate == 0 && dice.below(2) == 0 {
                drop(stream);
            } else {
                if fate == 0 {
                    stream.cancel();
                }
                let outcome = drain(stream);
                assert_eq!(outcome.end.is_err() && fate != 0, bad && fate != 0, "{seed}: {outcome:?}");
                all.extend(outcome.ids);
            }
            for at in tokens.len()..all.len() {
                assert_eq!(all[at], next(&all[..at]), "seed {seed}");
            }
            if !bad {
                told.push(all);
            }
        }
    }
    let usage = engine.usage();
    assert!(usage.blocks_used <= n_blocks && usage.waiting == 0, "{usage:?}");
}

#[test]
fn plenty_of_blocks() {
    (0..6).for_each(|seed| check(seed, 64, 4, 0));
}

#[test]
fn too_few_blocks() {
    (0..6).for_each(|seed| check(100 + seed, 9, 4, 0));
}

#[test]
fn one_at_a_time() {
    (0..4).for_each(|seed| check(200 + seed, 8, 1, 0));
}

/// Models with recurrent layers, with slots to spare and with hardly any.
#[test]
fn states() {
    for (seed, n_states) in [(300, 8), (301, 8), (302, 2), (303, 3), (304, 64), (305, 5)] {
        check(seed, 64, 4, n_states);
        check(seed + 100, 9, 4, n_states);
        check(seed + 200, 8, 1, n_states);
    }
}
