//! Answers: tokens, reuse, progress, ends, cancellation, several sequences at once.

use crate::fake::*;
use engine::{Engine, Error, Event, FinishReason, Limits, Request, Sampling, Stream};
use std::{sync::atomic::Ordering, time::Duration};

fn follows() -> (Engine, std::sync::Arc<Log>) {
    Setup::default().start(|prefix| Answer::Token(mixed(prefix)))
}

#[test]
fn tokens_follow_from_the_whole_prefix() {
    let (engine, log) = follows();
    for (n_prompt, n) in [(1, 5), (16, 5), (17, 200), (63, 3), (64, 3), (65, 130)] {
        engine.forget().unwrap();
        let before = log.rows();
        let tokens = prompt(n_prompt as u32, n_prompt);
        let outcome = drain(engine.generate(greedy(tokens.clone(), n)));
        assert_eq!(outcome.ids, continuation(&tokens, n));
        assert_eq!(outcome.reason(), FinishReason::Length);
        let stats = outcome.stats();
        assert_eq!((stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens), (n_prompt, 0, n));
        assert_eq!(stats.context_used, n_prompt + n);
        assert_eq!(stats.kv_bytes, ((n_prompt + n - 1).div_ceil(64) * 640) as u64);
        // The last token is never computed.
        assert_eq!(log.rows() - before, n_prompt + n - 1);
    }
}

#[test]
fn progress_comes_chunk_by_chunk() {
    let (engine, _) = follows();
    let outcome = drain(engine.generate(greedy(prompt(1, 40), 1)));
    assert_eq!(outcome.progress, [0, 16, 32, 40]);
    let outcome = drain(engine.generate(greedy(prompt(1, 60), 1)));
    assert_eq!(outcome.progress, [40, 56, 60]);
    let limits = Limits { context: 512, prefill_chunk: 300, max_sequences: 1 };
    let engine = Setup { limits, max_rows: 512, ..Setup::default() }.start(|prefix| Answer::Token(mixed(prefix))).0;
    let outcome = drain(engine.generate(greedy(prompt(1, 350), 1)));
    assert_eq!(outcome.progress, [0, 64, 128, 192, 256, 300, 350], "large chunks tell how far they are");
}

#[test]
fn a_conversation_computes_only_what_is_new() {
    let (engine, log) = follows();
    let mut tokens = prompt(1, 50);
    let first = drain(engine.generate(greedy(tokens.clone(), 20)));
    tokens.extend(&first.ids);
    tokens.extend(prompt(2, 30));
    assert_eq!(engine.cached_prefix(&tokens).unwrap(), 69);
    let before = log.rows();
    let second = drain(engine.generate(greedy(tokens.clone(), 10)));
    // All but the token sampled last, which was never computed.
    assert_eq!(second.stats().cached_tokens, 69);
    assert_eq!(second.ids, continuation(&tokens, 10));
    assert_eq!(log.rows() - before, 100 - 69 + 9);
    // The same again: only the last token of the prompt, for its logits.
    let again = drain(engine.generate(greedy(tokens.clone(), 10)));
    assert_eq!((again.stats().cached_tokens, again.ids), (99, second.ids));
    // Cut back, as /undo does.
    let undone = drain(engine.generate(greedy(tokens[..70].to_vec(), 10)));
    assert_eq!((undone.stats().cached_tokens, undone.ids), (69, continuation(&tokens[..70], 10)));
}

#[test]
fn conversations_beside_each_other_keep_their_prefixes() {
    let (engine, _) = follows();
    let (a, b) = (prompt(1, 200), prompt(2, 200));
    drain(engine.generate(greedy(a.clone(), 1)));
    drain(engine.generate(greedy(b.clone(), 1)));
    for tokens in [&a, &b] {
        let outcome = drain(engine.generate(greedy(tokens.clone(), 4)));
        assert_eq!((outcome.stats().cached_tokens, outcome.ids), (199, continuation(tokens, 4)));
    }
    let usage = engine.usage();
    assert_eq!((usage.cached_prefixes, usage.prefix_hits, usage.reused_positions), (2, 2, 398));
    // A long answer of one evicts the other, from its end.
    let long = drain(engine.generate(greedy(a.clone(), 700)));
    assert_eq!(long.ids, continuation(&a, 700));
    let left = engine.cached_prefix(&b).unwrap();
    assert!(left < 200 && left % 64 == 0, "{left}");
    let outcome = drain(engine.generate(greedy(b.clone(), 4)));
    assert_eq!(outcome.ids, continuation(&b, 4));
}

/// `/clear` and its like: another conversation under the same system prompt computes its own text only, and what it
/// leaves behind is still there.
#[test]
fn a_second_conversation_computes_only_its_own_text() {
    for n_system in [50, 64, 100, 300] {
        // One window of 8 blocks, 8 more for what is saved.
        let limits = Limits { context: 512, prefill_chunk: 16, max_sequences: 1 };
        let (engine, log) = Setup { limits, ..Setup::default() }.start(|prefix| Answer::Token(mixed(prefix)));
        let system = prompt(3, n_system);
        let with = |seed: u32| [system.clone(), vec![seed], prompt(seed, 20)].concat();
        drain(engine.generate(greedy(with(1), 100)));
        let rows = log.rows();
        let second = drain(engine.generate(greedy(with(2), 10)));
        assert_eq!((second.stats().cached_tokens, &second.ids), (n_system, &continuation(&with(2), 10)));
        assert_eq!(log.rows() - rows, 21 + 9, "its own text and its answer");
        // Back to the first, as /load does; then another answer to the same question, as /regen does; and back again.
        for n in [100, 1, 50, 100] {
            let first = drain(engine.generate(greedy(with(1), n)));
            assert_eq!((first.stats().cached_tokens, first.ids), (n_system + 20, continuation(&with(1), n)));
        }
        let longer = [with(1), continuation(&with(1), 100)].concat();
        assert_eq!(engine.cached_prefix(&longer).unwrap(), longer.len() - 1, "both conversations are kept");
        assert_eq!(engine.cached_prefix(&with(2)).unwrap(), n_system + 21);
        let usage = engine.usage();
        assert!(usage.budget_used_bytes <= usage.budget_bytes && usage.budget_bytes == 8 * 640, "{usage:?}");
        assert_eq!(usage.prefix_hits, 5);
        engine.forget().unwrap();
        assert_eq!(engine.cached_prefix(&longer).unwrap(), 0);
    }
}

#[test]
fn saved_prefixes_keep_to_their_budget() {
    for budget in [0, 2, 5] {
        let limits = Limits { context: 256, prefill_chunk: 16, max_sequences: 1 };
        let setup = Setup { limits, n_blocks: 4 + budget, ..Setup::default() };
        let (engine, _) = setup.start(|prefix| Answer::Token(mixed(prefix)));
        let mut kept = 0;
        for seed in 0..20 {
            let tokens = prompt(seed % 7, 30 + seed as usize * 9);
            let outcome = drain(engine.generate(greedy(tokens.clone(), 12)));
            assert_eq!(outcome.ids, continuation(&tokens, 12));
            let usage = engine.usage();
            assert_eq!(usage.budget_bytes, budget as u64 * 640);
            assert!(usage.budget_used_bytes <= usage.budget_bytes, "{usage:?}");
            assert!(usage.cached_bytes <= usage.budget_bytes + 4 * 640, "{usage:?}");
            // The conversation itself is not on the budget.
            let all = [tokens, outcome.ids].concat();
            assert_eq!(engine.cached_prefix(&all).unwrap(), all.len() - 1);
            kept = kept.max(usage.cached_prefixes);
        }
        assert_eq!(kept > 1, budget > 0, "{kept}");
    }
}

#[test]
fn several_sequences_give_the_same_tokens_as_alone() {
    let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(mixed(prefix)));
    let prompts: Vec<Vec<u32>> = (1..=6).map(|i| prompt(i, i as usize * 23)).collect();
    let streams: Vec<_> = prompts.iter().map(|tokens| engine.generate(greedy(tokens.clone(), 60))).collect();
    (0..1000).for_each(|_| permits.send(()).unwrap());
    for (tokens, outcome) in prompts.iter().zip(streams.into_iter().map(drain)) {
        assert_eq!(outcome.ids, continuation(tokens, 60));
        assert_eq!(outcome.reason(), FinishReason::Length);
    }
    let passes = log.passes.lock().unwrap();
    assert!(passes.iter().any(|rows| rows.len() == 4), "they ran together");
    assert!(passes.iter().all(|rows| rows.len() <= 4 && rows.iter().sum::<usize>() <= 16));
}

#[test]
fn a_shared_prefix_is_computed_once() {
    let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(mixed(prefix)));
    let system = prompt(3, 128);
    let with = |seed| [system.clone(), prompt(seed, 10)].concat();
    let first = engine.generate(greedy(with(1), 50));
    (0..9).for_each(|_| permits.send(()).unwrap()); // the prompt is computed
    while log.rows() < 138 {
        std::thread::yield_now();
    }
    let second = engine.generate(greedy(with(2), 50));
    (0..500).for_each(|_| permits.send(()).unwrap());
    let (first, second) = (drain(first), drain(second));
    assert_eq!(first.ids, continuation(&with(1), 50));
    assert_eq!(second.ids, continuation(&with(2), 50));
    assert_eq!(second.stats().cached_tokens, 128);
}

#[test]
fn too_few_blocks_for_all_set_the_youngest_aside() {
    let setup =
        Setup { n_blocks: 6, limits: Limits { context: 384, prefill_chunk: 16, max_sequences: 3 }, ..Setup::default() };
    let (engine, _) = setup.start(|prefix| Answer::Token(mixed(prefix)));
    let prompts: Vec<Vec<u32>> = (1..=3).map(|i| prompt(i, 60)).collect();
    let streams: Vec<_> = prompts.iter().map(|tokens| engine.generate(greedy(tokens.clone(), 250))).collect();
    for (tokens, outcome) in prompts.iter().zip(streams.into_iter().map(drain)) {
        assert_eq!(outcome.ids, continuation(tokens, 250));
    }
    assert_eq!(engine.usage().running, 0);
}

#[test]
fn the_end_token_ends() {
    let script = |prefix: &[u32]| Answer::Token(if prefix.len() == 5 { END } else { 0 });
    let (engine, _) = Setup::default().start(script);
    let outcome = drain(engine.generate(greedy(prompt(1, 3), 10)));
    assert_eq!((outcome.ids.as_slice(), outcome.text.as_str()), (&[0, 0][..], "aa"));
    assert_eq!((outcome.reason(), outcome.stats().completion_tokens), (FinishReason::Stop, 2));
    let request = Request { ignore_eos: true, ..greedy(prompt(1, 3), 4) };
    let outcome = drain(engine.generate(request));
    assert_eq!((outcome.ids.as_slice(), outcome.text.as_str()), (&[0, 0, END, 0][..], "aa<end>a"));
    assert_eq!(outcome.reason(), FinishReason::Length);
}

/// Ids that the model says one after the other, the stop strings; expected text and number of tokens.
fn check_text(ids: &'static [u32], stop: &[&str], text: &str, n: usize, reason: FinishReason) {
    let script = |prefix: &[u32]| Answer::Token(ids.get(prefix.len() - 3).copied().unwrap_or(END));
    let (engine, _) = Setup::default().start(script);
    let stop = stop.iter().map(|s| s.to_string()).collect();
    let outcome = drain(engine.generate(Request { stop, ..greedy(prompt(1, 3), 6) }));
    assert_eq!((outcome.text.as_str(), outcome.ids.len()), (text, n), "{ids:?}");
    assert_eq!(outcome.reason(), reason, "{ids:?}");
}

#[test]
fn stop_strings_and_held_back_text() {
    use FinishReason::*;
    check_text(&[0, 1, 2, 3], &["bc"], "a", 3, Stop);
    check_text(&[0, 1, 2, 3], &["cd", "bcd"], "a", 4, Stop);
    check_text(&[0, 1, 2, 3], &["x"], "abcd", 4, Stop);
    check_text(&[0, 23], &["xyz"], "ax", 2, Stop); // held back, then the end token: it comes out
    check_text(&[0, 0, 0, 0, 0, 23], &["xyz"], "aaaaax", 6, Length);
    check_text(&[0, 30, 25], &["yz"], "ax", 3, Stop);
    check_text(&[28, 29, 0], &[], "éa", 3, Stop);
    check_text(&[28, 29, 0], &["é"], "", 2, Stop);
    check_text(&[0, 28], &[], "a\u{fffd}", 2, Stop);
    check_text(&[0, 0, 0, 0, 0, 28], &[], "aaaaa\u{fffd}", 6, Length);
    check_text(&[0, CONTROL, 1], &["ab"], "", 3, Stop);
    check_text(&[0, 31, 1], &[], "ab", 3, Stop);
}

#[test]
fn limits_of_length_and_window() {
    let setup = Setup { limits: Limits { context: 20, prefill_chunk: 16, max_sequences: 1 }, ..Setup::default() };
    let (engine, log) = setup.start(|prefix| Answer::Token(mixed(prefix)));
    let run = |n: usize, max_tokens| drain(engine.generate(Request { max_tokens, ..greedy(prompt(1, n), 0) }));
    let outcome = run(15, None);
    assert_eq!((outcome.reason(), outcome.ids.len(), outcome.stats().context_used), (FinishReason::Context, 5, 20));
    let outcome = run(15, Some(5));
    assert_eq!((outcome.reason(), outcome.ids.len()), (FinishReason::Length, 5));
    let outcome = run(20, None);
    assert_eq!((outcome.reason(), outcome.ids.len()), (FinishReason::Context, 0));
    let outcome = run(4, Some(0));
    assert_eq!((outcome.reason(), outcome.ids.len()), (FinishReason::Length, 0));
    let before = log.rows();
    let outcome = run(21, None);
    assert!(matches!(outcome.end, Err(Error::ContextOverflow { prompt: 21, limit: 20 })), "{outcome:?}");
    assert!(matches!(run(0, None).end, Err(Error::EmptyPrompt)));
    assert_eq!(log.rows(), before, "no work for a request that cannot be");
    let outcome = drain(engine.generate(greedy(vec![1, 2, 99], 1)));
    assert!(matches!(outcome.end, Err(Error::TokenOutOfRange { id: 99, position: 2, n_vocab: 32 })));
    let sampling = Sampling { temperature: -1.0, ..Sampling::default() };
    let outcome = drain(engine.generate(Request { sampling, ..greedy(vec![1], 1) }));
    assert!(matches!(outcome.end, Err(Error::Sampling { name: "temperature", .. })));
}

#[test]
fn cancelled_while_prefilling_then_continued() {
    let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(mixed(prefix)));
    let tokens = prompt(1, 200);
    let stream = engine.generate(greedy(tokens.clone(), 5));
    (0..3).for_each(|_| permits.send(()).unwrap());
    while log.rows() < 48 {
        std::thread::yield_now();
    }
    stream.cancel();
    permits.send(()).unwrap(); // one pass may have begun
    let outcome = drain(stream);
    assert_eq!((outcome.reason(), outcome.ids.len()), (FinishReason::Interrupted, 0));
    let done = log.rows();
    assert!(done <= 64, "within one chunk: {done}");
    assert_eq!(engine.cached_prefix(&tokens).unwrap(), done);
    (0..100).for_each(|_| permits.send(()).unwrap());
    let outcome = drain(engine.generate(greedy(tokens.clone(), 5)));
    assert_eq!((outcome.stats().cached_tokens, outcome.ids), (done, continuation(&tokens, 5)));
}

/// Takes events until this much of the prompt is computed.
fn await_prefill(stream: &mut Stream, wanted: usize) {
    while !matches!(stream.recv(), Some(Event::Prefill { done, .. }) if done == wanted) {}
}

#[test]
fn a_pass_is_broken_off_as_if_it_had_not_been() {
    let setup = Setup { breaks_off: true, ..Setup::default() };
    let (engine, log, permits) = setup.gated(|prefix| Answer::Token(mixed(prefix)));
    let tokens = prompt(1, 200);
    let mut stream = engine.generate(greedy(tokens.clone(), 5));
    (0..3).for_each(|_| permits.send(()).unwrap());
    await_prefill(&mut stream, 48);
    stream.cancel(); // the next pass is planned, or will not be
    permits.send(()).unwrap();
    assert_eq!(drain(stream).reason(), FinishReason::Interrupted);
    assert_eq!(engine.cached_prefix(&tokens).unwrap(), 48);
    (0..100).for_each(|_| permits.send(()).unwrap());
    let outcome = drain(engine.generate(greedy(tokens.clone(), 5)));
    assert_eq!((outcome.stats().cached_tokens, outcome.ids), (48, continuation(&tokens, 5)));
    assert!(log.rows() <= 200 + 16 + 5);
}

#[test]
fn a_pass_goes_on_for_those_that_want_it() {
    let setup = Setup { breaks_off: true, ..Setup::default() };
    let (engine, log, permits) = setup.gated(|prefix| Answer::Token(mixed(prefix)));
    let (a, b) = (prompt(1, 100), prompt(2, 100));
    let mut first = engine.generate(greedy(a.clone(), 5));
    let mut second = engine.generate(greedy(b.clone(), 5));
    (0..4).for_each(|_| permits.send(()).unwrap());
    await_prefill(&mut second, 16);
    await_prefill(&mut first, 24);
    first.cancel();
    (0..100).for_each(|_| permits.send(()).unwrap());
    assert_eq!(drain(first).reason(), FinishReason::Interrupted);
    assert_eq!(drain(second).ids, continuation(&b, 5));
    assert_eq!(log.resets.load(Ordering::SeqCst), 0);
    assert_eq!(drain(engine.generate(greedy(a.clone(), 5))).ids, continuation(&a, 5));
}

#[test]
fn cancelled_while_decoding_then_continued() {
    for dropped in [false, true] {
        let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(mixed(prefix)));
        let tokens = prompt(1, 10);
        let mut stream = engine.generate(greedy(tokens.clone(), 500));
        (0..8).for_each(|_| permits.send(()).unwrap());
        let mut ids = Vec::new();
        while ids.len() < 8 {
            if let Some(Event::Token { id, .. }) = stream.recv() {
                ids.push(id);
            }
        }
        if dropped {
            drop(stream);
            permits.send(()).unwrap();
        } else {
            stream.canceller().cancel();
            permits.send(()).unwrap();
            let rest = drain(stream);
            assert_eq!(rest.reason(), FinishReason::Interrupted);
            assert!(rest.ids.len() <= 1);
            ids.extend(rest.ids);
        }
        while engine.usage().running > 0 {
            std::thread::yield_now();
        }
        let rows = log.rows();
        assert!(rows <= 10 + 8, "within one token: {rows}");
        let kept = [tokens, ids, prompt(2, 5)].concat();
        (0..100).for_each(|_| permits.send(()).unwrap());
        let outcome = drain(engine.generate(greedy(kept.clone(), 5)));
        assert_eq!(outcome.stats().cached_tokens, rows, "all that was computed is still there");
        assert_eq!(outcome.ids, continuation(&kept, 5));
    }
}

#[test]
fn cancelling_brings_out_held_back_text() {
    let (engine, _, permits) = Setup::default().gated(|_| Answer::Token(23));
    let mut stream = engine.generate(Request { stop: vec!["xxxxxxxxxy".into()], ..greedy(prompt(1, 3), 500) });
    (0..4).for_each(|_| permits.send(()).unwrap());
    let mut n = 0;
    while n < 4 {
        if let Some(Event::Token { text, .. }) = stream.recv() {
            assert_eq!(text, "");
            n += 1;
        }
    }
    stream.cancel();
    permits.send(()).unwrap();
    let rest = drain(stream);
    assert_eq!(rest.text.len(), 4 + rest.ids.len());
    assert_eq!(rest.reason(), FinishReason::Interrupted);
}

#[test]
fn cancelled_while_waiting() {
    let setup = Setup { limits: Limits { max_sequences: 1, ..Setup::default().limits }, ..Setup::default() };
    let (engine, log, permits) = setup.gated(|prefix| Answer::Token(mixed(prefix)));
    let first = engine.generate(greedy(prompt(1, 10), 5));
    let second = engine.generate(greedy(prompt(2, 10), 5));
    second.cancel();
    (0..100).for_each(|_| permits.send(()).unwrap());
    let second = drain(second);
    assert_eq!((second.reason(), second.stats().prompt_tokens), (FinishReason::Interrupted, 10));
    assert_eq!(drain(first).ids, continuation(&prompt(1, 10), 5));
    assert_eq!(log.rows(), 14);
}

#[test]
fn a_reader_that_does_not_read_stops_only_itself() {
    let (engine, log) = follows();
    let lazy = engine.generate(greedy(prompt(1, 10), 900));
    let outcome = drain(engine.generate(greedy(prompt(2, 10), 300)));
    assert_eq!(outcome.ids, continuation(&prompt(2, 10), 300));
    // The lazy one is set aside when its channel is full; nothing runs away.
    let rows = log.rows();
    assert!(rows < 10 + 300 + 10 + 100, "{rows}");
    let outcome = drain(lazy);
    assert_eq!(outcome.ids, continuation(&prompt(1, 10), 900));
    assert_eq!(outcome.text.len(), 900);
}

#[test]
fn the_seed_is_reported_and_reproduces() {
    let logits = |prefix: &[u32]| {
        let row = (0..N_VOCAB).map(|i| ((i * 5 + prefix.len()) % 9) as f32 * 0.3).collect();
        Answer::Logits(row)
    };
    let (engine, _) = Setup::default().start(logits);
    let run = |seed| {
        let sampling = Sampling { seed, temperature: 1.0, ..Sampling::default() };
        drain(engine.generate(Request { sampling, ignore_eos: true, ..greedy(prompt(1, 5), 40) }))
    };
    let first = run(None);
    assert_eq!(run(Some(first.stats().seed)).ids, first.ids);
    assert_ne!(run(Some(first.stats().seed ^ 1)).ids, first.ids);
    // Beside others, the draws are the same.
    let others: Vec<_> = (0..3).map(|i| engine.generate(greedy(prompt(i, 30), 100))).collect();
    assert_eq!(run(Some(first.stats().seed)).ids, first.ids);
    others.into_iter().for_each(|stream| drop(drain(stream)));
}

#[test]
fn dropping_the_engine_ends_its_streams() {
    let (engine, _) = follows();
    let stream = engine.generate(greedy(prompt(1, 10), 1000));
    drop(engine);
    let outcome = drain(stream);
    assert!(matches!(outcome.reason(), FinishReason::Interrupted | FinishReason::Error), "{outcome:?}");
}

#[test]
fn times_are_plausible() {
    let (engine, _, permits) = Setup::default().gated(|prefix| Answer::Token(mixed(prefix)));
    let stream = engine.generate(greedy(prompt(1, 10), 2));
    std::thread::sleep(Duration::from_millis(20));
    (0..2).for_each(|_| permits.send(()).unwrap());
    let outcome = drain(stream);
    let stats = outcome.stats();
    // The first pass could not begin before the permits came.
    assert!(stats.ttft_s >= 0.02 && stats.prefill_s <= stats.ttft_s && stats.decode_s >= 0.0, "{stats:?}");
}
