//! Rows of logits and measurements.

use crate::fake::*;
use engine::{BenchRequest, Error, Limits};
use std::ops::ControlFlow;

/// The best token of each row.
fn rows(engine: &engine::Engine, tokens: &[u32], from: usize) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    let taken = engine.logits(tokens, from, |first, values| {
        assert_eq!(values.len() % N_VOCAB, 0);
        for (i, row) in values.chunks(N_VOCAB).enumerate() {
            let best = (0..N_VOCAB).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            found.push((first + i, best as u32));
        }
        ControlFlow::Continue(())
    });
    taken.unwrap();
    found
}

#[test]
fn every_row_from_the_first_wanted() {
    let (engine, _) = Setup::default().start(|prefix| Answer::Token(mixed(prefix)));
    let tokens = prompt(1, 150);
    let expected: Vec<(usize, u32)> = (0..150).map(|i| (i, mixed(&tokens[..=i]))).collect();
    assert_eq!(rows(&engine, &tokens, 0), expected);
    // A cached prefix must not hide rows.
    drain(engine.generate(greedy(tokens.clone(), 1)));
    assert_eq!(rows(&engine, &tokens, 0), expected);
    assert_eq!(rows(&engine, &tokens, 149), expected[149..]);
    assert_eq!(rows(&engine, &tokens, 77), expected[77..]);
    assert_eq!(rows(&engine, &tokens, 150), []);
}

#[test]
fn beside_answers_and_each_other() {
    let (engine, _) = Setup::default().start(|prefix| Answer::Token(mixed(prefix)));
    let answer = engine.generate(greedy(prompt(9, 20), 100));
    let (a, b) = (prompt(1, 100), prompt(2, 100));
    let best = |tokens: &[u32]| (0..100).map(|i| (i, mixed(&tokens[..=i]))).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| rows(&engine, &b, 0));
        assert_eq!(rows(&engine, &a, 0), best(&a));
        assert_eq!(other.join().unwrap(), best(&b));
    });
    assert_eq!(drain(answer).ids, continuation(&prompt(9, 20), 100));
}

#[test]
fn breaking_off_and_failing() {
    let (engine, _) =
        Setup::default().start(|prefix| if prefix.contains(&25) { Answer::Panic } else { Answer::Token(1) });
    let broken = engine.logits(&[1; 500], 0, |_, _| ControlFlow::Break(()));
    assert!(matches!(broken, Err(Error::Interrupted)));
    let (slow, _, permits) = Setup::default().gated(|_| Answer::Token(1));
    let mut calls = 0;
    let broken = slow.logits(&[1; 500], 499, |first, block| {
        assert_eq!((first, block.len()), (499, 0), "nothing is ready");
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(broken, Err(Error::Interrupted)));
    drop(permits);
    let failed = engine.logits(&[25], 0, |_, _| ControlFlow::Continue(()));
    assert!(matches!(failed, Err(Error::Panicked { .. })));
    assert!(matches!(engine.logits(&[], 0, |_, _| ControlFlow::Continue(())), Err(Error::EmptyPrompt)));
    assert_eq!(rows(&engine, &[1, 2], 0).len(), 2);
}

#[test]
fn bench_computes_what_it_says() {
    let limits = Limits { context: 512, prefill_chunk: 16, max_sequences: 1 };
    let setup = Setup { limits, ..Setup::default() };
    let (engine, log) = setup.start(|_| Answer::Token(0));
    let request = BenchRequest { prompt_tokens: 40, gen_tokens: 7, depth: 10, parallel: 3, ..BenchRequest::default() };
    let timings = engine.bench(&request).unwrap();
    assert!(timings.prefill_s > 0.0 && timings.decode_s > 0.0);
    assert_eq!(log.rows(), 3 * (10 + 40 + 7));
    assert_eq!(log.passes.lock().unwrap().last().unwrap(), &[1, 1, 1]);
    assert_eq!(engine.usage().blocks_used, 0);
    let none = BenchRequest::default();
    assert_eq!(engine.bench(&none).unwrap(), Default::default());
    let many = BenchRequest { parallel: 9, depth: 200, ..request.clone() };
    assert!(matches!(engine.bench(&many), Err(Error::CacheTooSmall { needed: 2304, available: 1024 })));
    let deep = BenchRequest { depth: 600, ..request.clone() };
    assert!(matches!(engine.bench(&deep), Err(Error::ContextOverflow { prompt: 640, limit: 512 })));
    assert!(engine.bench(&BenchRequest { parallel: 0, ..request.clone() }).is_err());
    assert!(engine.bench(&BenchRequest { pass_tokens: 0, ..request }).is_err());
}

/// Passes of `pass_tokens` rows a sequence, and what they are told to bring.
#[test]
fn bench_measures_passes_of_several_tokens() {
    for (parallel, pass_tokens, all_logits) in [(1, 4, true), (1, 4, false), (3, 5, true)] {
        let (engine, log) = Setup::default().start(|prefix| Answer::Token(mixed(prefix)));
        let request =
            BenchRequest { gen_tokens: 18, depth: 9, parallel, pass_tokens, all_logits, ..BenchRequest::default() };
        let timings = engine.bench(&request).unwrap();
        assert_eq!(timings.pass_s.len(), 18usize.div_ceil(pass_tokens));
        assert_eq!(timings.decode_s, timings.pass_s.iter().sum::<f64>());
        assert_eq!(log.rows(), parallel * (9 + 18));
        let passes = log.passes.lock().unwrap();
        let decoding = &passes[passes.len() - timings.pass_s.len()..];
        assert!(decoding[..3].iter().all(|rows| *rows == vec![pass_tokens; parallel]), "{decoding:?}");
    }
    let (engine, _) = Setup::default().start(|_| Answer::Token(0));
    let wide = BenchRequest { gen_tokens: 65, pass_tokens: 65, ..BenchRequest::default() };
    assert!(matches!(engine.bench(&wide), Err(Error::Config { name: "pass_tokens", .. })));
}
