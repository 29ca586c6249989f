//! Guessing ahead: it must never show, except in the number of passes.

use crate::fake::*;
use engine::{Canceller, Error, FinishReason, Limits, Request, Sampling, Speculation};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Says the letters `a` to `j` over and over, with a slip now and then: its text repeats, but not all of it.
fn refrain(prefix: &[u32]) -> u32 {
    let n = prefix.len() as u32;
    if n.is_multiple_of(23) { 20 + n / 23 % 5 } else { n % 10 }
}

/// Logits with one or two likely tokens, fixed by the place and the last token.
fn undecided(prefix: &[u32]) -> Answer {
    let mut row = vec![0.0; N_VOCAB];
    row[refrain(prefix) as usize] = 5.0;
    row[prefix.last().map_or(0, |&last| (last as usize + 3) % 26)] = 3.5;
    row[END as usize] = 0.5;
    Answer::Logits(row)
}

const ALL: [Speculation; 5] =
    [Speculation::Off, Speculation::Auto, Speculation::Fixed(1), Speculation::Fixed(4), Speculation::Fixed(15)];

/// The request's answer is the same however far it guesses, and so is what the cache holds afterwards. Gives the tokens
/// that came true with the longest drafts.
#[track_caller]
fn check(setup: &Setup, script: fn(&[u32]) -> Answer, request: &Request) -> usize {
    let mut first: Option<Outcome> = None;
    let mut accepted = 0;
    for speculation in ALL {
        let (engine, log) = setup.start(script);
        let outcome = drain(engine.generate(Request { speculation, ..request.clone() }));
        let stats = outcome.stats();
        assert!(stats.accepted_tokens <= stats.drafted_tokens);
        accepted = stats.accepted_tokens;
        let all = [request.tokens.as_slice(), &outcome.ids].concat();
        let cached = engine.cached_prefix(&all).unwrap();
        assert!(all.len() - cached <= 1, "{cached} of {}", all.len());
        if speculation == Speculation::Off {
            assert_eq!((stats.drafted_tokens, stats.accepted_tokens), (0, 0));
        }
        if let Some(first) = &first {
            assert_eq!(outcome.ids, first.ids, "{speculation:?}");
            assert_eq!((&outcome.text, outcome.reason()), (&first.text, first.reason()), "{speculation:?}");
            assert_eq!(stats.context_used, first.stats().context_used);
        }
        // What is in the cache is right: the conversation goes on as the model says.
        let rows = log.rows();
        let more = [all, vec![3]].concat();
        if more.len() < setup.limits.context {
            let next = drain(engine.generate(greedy(more.clone(), 1)));
            assert!(log.rows() - rows <= 2 && next.ids.len() == 1, "{:?}", next);
        }
        first.get_or_insert(outcome);
    }
    accepted
}

#[test]
fn answers_are_the_same_with_and_without() {
    let setup = Setup::default();
    let refrain: fn(&[u32]) -> Answer = |prefix| Answer::Token(refrain(prefix));
    assert!(check(&setup, refrain, &greedy(prompt(1, 10), 300)) > 100);
    // The prompt is what repeats.
    assert!(check(&setup, refrain, &greedy((0..40).map(|i| i % 10).collect(), 15)) > 5);
    check(&setup, |prefix| Answer::Token(mixed(prefix)), &greedy(prompt(1, 50), 300));
    check(&setup, |_| Answer::Token(0), &greedy(vec![0], 100));
    for seed in 0..20 {
        for temperature in [0.4, 1.0] {
            let sampling = Sampling {
                temperature,
                seed: Some(seed),
                repeat_penalty: 1.05,
                repeat_last_n: 12,
                ..Sampling::default()
            };
            check(&setup, undecided, &Request { sampling, ..greedy(prompt(1, 10), 200) });
        }
    }
}

#[test]
fn ends_inside_a_draft() {
    let refrain: fn(&[u32]) -> Answer = |prefix| Answer::Token(refrain(prefix));
    let setup = Setup::default();
    // Lengths: any place of the refrain and any place of a draft.
    for n in 1..60 {
        check(&setup, refrain, &greedy(prompt(1, 10), n));
    }
    // A stop string that comes late, across tokens that all come true.
    for stop in ["vabc", "cdwf", "jabuc", "x"] {
        check(&setup, refrain, &Request { stop: vec![stop.into()], ..greedy(prompt(1, 10), 200) });
    }
    // The window.
    for context in 60..90 {
        let limits = Limits { context, prefill_chunk: 16, max_sequences: 1 };
        let setup = Setup { limits, n_blocks: 2, ..Setup::default() };
        check(&setup, refrain, &Request { max_tokens: None, ..greedy(prompt(1, 10), 0) });
    }
    // The end token, which the text before also has.
    let ending: fn(&[u32]) -> Answer =
        |prefix| Answer::Token(if prefix.len() == 77 { END } else { self::refrain(prefix) });
    let mut tokens: Vec<u32> = (0..9).collect();
    tokens.extend([END, 5, END]);
    check(&setup, ending, &greedy(tokens.clone(), 200));
    check(&setup, ending, &Request { ignore_eos: true, ..greedy(tokens, 200) });
    // No room for drafts at all.
    let limits = Limits { context: 512, prefill_chunk: 1, max_sequences: 1 };
    assert_eq!(check(&Setup { limits, ..Setup::default() }, refrain, &greedy(prompt(1, 10), 100)), 0);
}

#[test]
fn a_refrain_takes_few_passes() {
    let (engine, log) = Setup::default().start(|prefix| Answer::Token(refrain(prefix)));
    let request = Request { speculation: Speculation::Fixed(7), ..greedy(prompt(1, 10), 400) };
    let outcome = drain(engine.generate(request));
    let stats = outcome.stats();
    let passes = log.passes.lock().unwrap().len();
    assert!(passes < 160 && stats.accepted_tokens > 240, "{passes} passes, {stats:?}");
    assert!(stats.accepted_tokens + passes >= 400);
}

/// When a pass takes the same time however many rows it has, guessing pays; when every row costs as much as a pass, it
/// is given up.
#[test]
fn it_decides_by_what_passes_cost() {
    let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(refrain(prefix)));
    let anything = Sampling { temperature: 0.01, ..Sampling::default() }; // drafts of any length
    let request = Request { sampling: anything, speculation: Speculation::Auto, ..greedy(prompt(1, 10), 200) };
    let stream = engine.generate(request);
    let clock = std::thread::spawn(move || {
        while permits.send(()).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let outcome = drain(stream);
    assert!(outcome.stats().accepted_tokens > 50, "{:?}", outcome.stats());
    assert!(log.passes.lock().unwrap().len() < 150);
    drop(engine);
    clock.join().unwrap();

    let (engine, _) = Setup::default().start(|prefix| {
        std::thread::sleep(Duration::from_millis(1)); // for every row
        Answer::Token(mixed(prefix))
    });
    let outcome = drain(engine.generate(Request { speculation: Speculation::Auto, ..greedy(prompt(1, 10), 600) }));
    assert!(outcome.stats().drafted_tokens < 60, "{:?}", outcome.stats());
}

#[test]
fn cancelled_while_a_draft_is_verified() {
    for at in [60, 66, 70] {
        for breaks_off in [false, true] {
            let canceller: Arc<Mutex<Option<Canceller>>> = Arc::default();
            let theirs = Arc::clone(&canceller);
            let setup = Setup { breaks_off, ..Setup::default() };
            let (engine, _) = setup.start(move |prefix| {
                if prefix.len() == at {
                    theirs.lock().unwrap().iter().for_each(Canceller::cancel);
                }
                Answer::Token(refrain(prefix))
            });
            let tokens = prompt(1, 10);
            // Held until the canceller is there.
            let mut hold = canceller.lock().unwrap();
            let stream =
                engine.generate(Request { speculation: Speculation::Fixed(15), ..greedy(tokens.clone(), 300) });
            *hold = Some(stream.canceller());
            drop(hold);
            let outcome = drain(stream);
            assert_eq!(outcome.reason(), FinishReason::Interrupted);
            let all = [tokens.as_slice(), &outcome.ids].concat();
            assert!(all.len() <= at + 1, "within one token: {} {at}", all.len());
            let cached = engine.cached_prefix(&all).unwrap();
            assert!(all.len() - cached <= 1);
            let rest = drain(engine.generate(greedy(all.clone(), 50)));
            assert_eq!(rest.stats().cached_tokens, cached);
            let whole = [outcome.ids, rest.ids].concat();
            let mut expected = tokens.clone();
            (0..whole.len()).for_each(|_| expected.push(refrain(&expected)));
            assert_eq!(whole, expected[tokens.len()..]);
        }
    }
}

/// A model that fails on text that nobody said, only guessed.
#[test]
fn a_guess_never_fails_an_answer() {
    for failure in [(|| Answer::Panic) as fn() -> Answer, || Answer::Error, || Answer::Logits(vec![f32::NAN; N_VOCAB])]
    {
        let (engine, _) = Setup::default().start(move |prefix| {
            let said = (10..prefix.len()).all(|n| prefix[n] == refrain(&prefix[..n]));
            if said { Answer::Token(refrain(prefix)) } else { failure() }
        });
        let request = Request { speculation: Speculation::Fixed(8), ..greedy(prompt(1, 10), 200) };
        let outcome = drain(engine.generate(request));
        assert_eq!((outcome.reason(), outcome.ids.len()), (FinishReason::Length, 200), "{:?}", outcome.end);
    }
}

#[test]
fn beside_others_nobody_guesses() {
    let (engine, log, permits) = Setup::default().gated(|prefix| Answer::Token(refrain(prefix)));
    let streams: Vec<_> = (0..3)
        .map(|i| {
            engine.generate(Request { speculation: Speculation::Fixed(4), ..greedy(prompt(i, 10), 60 + i as usize) })
        })
        .collect();
    (0..1000).for_each(|_| permits.send(()).unwrap());
    let alone: Vec<Vec<u32>> = (0..3)
        .map(|i| {
            let mut tokens = prompt(i, 10);
            (0..60 + i).for_each(|_| tokens.push(refrain(&tokens)));
            tokens.split_off(10)
        })
        .collect();
    assert_eq!(streams.into_iter().map(|stream| drain(stream).ids).collect::<Vec<_>>(), alone);
    let passes = log.passes.lock().unwrap();
    assert!(passes.iter().filter(|rows| rows.len() == 3).all(|rows| rows.iter().sum::<usize>() <= 16));
}

#[test]
fn lengths_outside_the_range_are_refused() {
    let (engine, _) = Setup::default().start(|_| Answer::Token(0));
    for n in [0, 16] {
        let request = Request { speculation: Speculation::Fixed(n), ..greedy(vec![1], 1) };
        let outcome = drain(engine.generate(request));
        assert!(matches!(outcome.end, Err(Error::Sampling { name: "speculation", .. })), "{outcome:?}");
    }
}
