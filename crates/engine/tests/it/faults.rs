//! What goes wrong in one request stays there.

use crate::fake::*;
use engine::{Engine, Error, FinishReason, Limits};
use std::sync::atomic::Ordering;

/// The token that makes the script fail.
const BAD: u32 = 25;

fn failing(how: fn() -> Answer) -> (Engine, std::sync::Arc<Log>) {
    Setup::default().start(move |prefix| if prefix.contains(&BAD) { how() } else { Answer::Token(mixed(prefix) % 25) })
}

fn good(seed: u32, n: usize) -> Vec<u32> {
    prompt(seed, n).into_iter().map(|t| t % 25).collect()
}

fn expected(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    (0..n).for_each(|_| tokens.push(mixed(&tokens) % 25));
    tokens.split_off(prompt.len())
}

#[test]
fn a_panic_fails_its_request_and_the_next_one_works() {
    let (engine, log) = failing(|| Answer::Panic);
    let before = drain(engine.generate(greedy(good(1, 30), 5)));
    assert_eq!(before.ids, expected(&good(1, 30), 5));
    let outcome = drain(engine.generate(greedy(vec![1, BAD], 5)));
    assert!(matches!(&outcome.end, Err(Error::Panicked { message }) if message == "scripted"), "{outcome:?}");
    let after = drain(engine.generate(greedy(good(1, 30), 5)));
    assert_eq!((after.ids, after.end.unwrap().1.cached_tokens), (before.ids, 0), "with a fresh cache");
    assert_eq!(log.resets.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_beside_others_fails_only_the_culprit() {
    let (engine, log) = failing(|| Answer::Panic);
    let prompts = [good(1, 40), good(2, 5), [good(3, 20), vec![BAD], good(4, 30)].concat(), good(5, 70)];
    let streams: Vec<_> = prompts.iter().map(|tokens| engine.generate(greedy(tokens.clone(), 50))).collect();
    let outcomes: Vec<_> = streams.into_iter().map(drain).collect();
    for (at, (tokens, outcome)) in prompts.iter().zip(outcomes).enumerate() {
        if at == 2 {
            assert!(matches!(outcome.end, Err(Error::Panicked { .. })), "{outcome:?}");
        } else {
            assert_eq!(outcome.ids, expected(tokens, 50), "{at}");
            assert_eq!(outcome.reason(), FinishReason::Length);
        }
    }
    assert!(log.resets.load(Ordering::SeqCst) >= 1);
}

#[test]
fn an_error_of_the_model_is_reported() {
    let (engine, log) = failing(|| Answer::Error);
    let others: Vec<_> = (1..3).map(|i| engine.generate(greedy(good(i, 10), 50))).collect();
    let outcome = drain(engine.generate(greedy(vec![1, BAD], 5)));
    assert!(matches!(&outcome.end, Err(Error::Model(error)) if error.to_string() == "scripted"), "{outcome:?}");
    for (i, outcome) in (1..3).zip(others.into_iter().map(drain)) {
        assert_eq!(outcome.ids, expected(&good(i, 10), 50));
    }
    assert_eq!(log.resets.load(Ordering::SeqCst), 0);
}

#[test]
fn no_finite_logit_is_an_error_of_that_request() {
    let (engine, _) = failing(|| Answer::Logits(vec![f32::NAN; N_VOCAB]));
    let tokens = [good(1, 70), vec![BAD]].concat();
    let outcome = drain(engine.generate(greedy(tokens.clone(), 5)));
    assert!(matches!(outcome.end, Err(Error::NoFiniteLogits { position: 70 })), "{outcome:?}");
    assert_eq!(engine.cached_prefix(&tokens).unwrap(), 0, "nothing of it is reused");
    assert_eq!(drain(engine.generate(greedy(good(1, 70), 5))).ids, expected(&good(1, 70), 5));
    assert_eq!(engine.usage().blocks_used, 2);
}

#[test]
fn some_finite_logits_are_enough() {
    let (engine, _) = failing(|| {
        let mut row = vec![f32::NAN; N_VOCAB];
        row[3] = -1e30;
        row[4] = f32::INFINITY;
        Answer::Logits(row)
    });
    assert_eq!(drain(engine.generate(greedy(vec![BAD], 2))).ids, [3, 3]);
}

#[test]
fn the_wrong_number_of_logits_is_an_error() {
    let (engine, _) = failing(|| Answer::Logits(vec![0.0; 3]));
    assert!(matches!(drain(engine.generate(greedy(vec![BAD], 2))).end, Err(Error::Model(_))));
    assert_eq!(drain(engine.generate(greedy(vec![1], 2))).ids, expected(&[1], 2));
}

#[test]
fn limits_are_checked_at_the_start() {
    let start = |context, prefill_chunk, max_sequences| {
        let limits = Limits { context, prefill_chunk, max_sequences };
        let result = std::panic::catch_unwind(|| {
            Setup { limits, ..Setup::default() }.start(|_| Answer::Token(0));
        });
        result.is_ok()
    };
    assert!(start(1024, 64, 4));
    assert!(!start(1025, 64, 4), "more than the cache");
    assert!(!start(0, 64, 4));
    assert!(!start(1024, 65, 4), "more than the model takes");
    assert!(!start(1024, 0, 4));
    assert!(!start(1024, 64, 0));
}

#[test]
fn a_stopped_engine_says_so() {
    let (engine, _) = failing(|| Answer::Panic);
    let running = engine.generate(greedy(good(1, 30), 400));
    engine.stop();
    engine.stop();
    assert!(matches!(drain(engine.generate(greedy(good(1, 30), 5))).end, Err(Error::Stopped)));
    // The answer in progress ended one way or the other, and nobody waits for it.
    let _ = drain(running);
}
