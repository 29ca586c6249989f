//! The whole stack on a trained model: the greedy continuation of every prompt is the reference's, alone and side by
//! side, whatever the chunks, the cache and the cancellations in between.

use crate::fake::{drain, greedy};
use checkpoint::{Checkpoint, OpenOptions};
use compute::{
    KvType, Precision,
    cpu::{CpuDevice, CpuOptions},
};
use engine::{AdapterChange, Engine, EngineConfig, Event, FinishReason, Request, Sampling, Speculation, window};
use model::{Decoder, LoadOptions};
use serde_json::Value;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use text::{EncodeOptions, Tokenizer};

/// The folder of the trained model, if it is there; CI must have it.
fn stories() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = ["fixtures/stories260K", "../shared/fixtures/stories260K"].map(|path| root.join(path));
    let found = found.into_iter().find(|path| path.join("reference.json").is_file());
    if found.is_none() {
        println!("skipped: no fixtures/stories260K");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has no fixtures/stories260K");
    }
    found
}

struct Case {
    prompt: Vec<u32>,
    text: String,
    greedy: Vec<u32>,
}

fn cases(folder: &Path, file: &str) -> Vec<Case> {
    let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    };
    let prompts = reference["prompts"].as_array().unwrap();
    let answers = reference["gguf"][file].as_array().unwrap();
    prompts
        .iter()
        .zip(answers)
        .map(|(prompt, answer)| Case {
            prompt: ids(&prompt["ids"]),
            text: prompt["text"].as_str().unwrap().to_string(),
            greedy: ids(&answer["exact"]["greedy"]),
        })
        .collect()
}

fn load(
    folder: &Path,
    file: &str,
    precision: Precision,
    max_sequences: usize,
    prefill_chunk: usize,
) -> (Engine, Tokenizer) {
    load_with(folder, file, precision, KvType::F32, max_sequences, prefill_chunk)
}

fn load_with(
    folder: &Path,
    file: &str,
    precision: Precision,
    kv_type: KvType,
    max_sequences: usize,
    prefill_chunk: usize,
) -> (Engine, Tokenizer) {
    let checkpoint = Checkpoint::open(&folder.join(file), &OpenOptions::default()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let device = CpuDevice::new(CpuOptions { threads: Some(2), precision, isa: None }).unwrap();
    let options = LoadOptions { max_rows: 64, ..LoadOptions::default() };
    let decoder = Decoder::load(&checkpoint, Arc::new(device), &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let engine = Engine::start(EngineConfig {
        decoder,
        tokenizer: tokenizer.clone(),
        context: 256,
        kv_type,
        prefill_chunk,
        max_sequences,
        saved_positions: 256,
    });
    (engine.unwrap(), tokenizer)
}

fn request(case: &Case) -> Request {
    Request { ignore_eos: true, ..greedy(case.prompt.clone(), case.greedy.len()) }
}

const FLOATS: [&str; 3] = ["stories260K-f32.gguf", "stories260K-f16.gguf", "stories260K-bf16.gguf"];

#[test]
fn greedy_answers_are_the_reference() {
    let Some(folder) = stories() else { return };
    for file in FLOATS {
        for precision in [Precision::F32, Precision::Fast] {
            let (engine, tokenizer) = load(&folder.join("gguf"), file, precision, 1, 8);
            for case in cases(&folder, file) {
                let outcome = drain(engine.generate(request(&case)));
                assert_eq!(outcome.ids, case.greedy, "{file} {precision:?} {}", case.text);
                assert_eq!(outcome.reason(), FinishReason::Length);
                // The text is what the answer adds to the prompt's.
                let all = tokenizer.decode(&[case.prompt.as_slice(), &case.greedy].concat());
                let before = tokenizer.decode(&case.prompt);
                assert_eq!(outcome.text, String::from_utf8_lossy(&all[before.len()..]), "{file} {}", case.text);
            }
        }
    }
}

#[test]
fn side_by_side_is_the_same() {
    let Some(folder) = stories() else { return };
    for file in FLOATS {
        let cases = cases(&folder, file);
        for (together, chunk) in [(2, 64), (2, 5), (4, 16)] {
            let (engine, _) = load(&folder.join("gguf"), file, Precision::F32, together, chunk);
            let streams: Vec<_> = cases.iter().map(|case| engine.generate(request(case))).collect();
            for (case, outcome) in cases.iter().zip(streams.into_iter().map(drain)) {
                assert_eq!(outcome.ids, case.greedy, "{file} {together} {chunk} {}", case.text);
            }
        }
    }
}

#[test]
fn continuing_after_a_cancellation_is_the_same() {
    let Some(folder) = stories() else { return };
    let (engine, _) = load(&folder.join("gguf"), FLOATS[0], Precision::F32, 1, 8);
    for case in cases(&folder, FLOATS[0]) {
        let mut stream = engine.generate(Request { max_tokens: None, ..request(&case) });
        let mut tokens = case.prompt.clone();
        while tokens.len() < case.prompt.len() + 20 {
            if let Some(Event::Token { id, .. }) = stream.recv() {
                tokens.push(id);
            }
        }
        drop(stream);
        let left = case.greedy.len() - 20;
        let rest = drain(engine.generate(Request { ignore_eos: true, ..greedy(tokens.clone(), left) }));
        assert_eq!(rest.ids, case.greedy[20..], "{}", case.text);
        assert_eq!(rest.stats().cached_tokens, tokens.len() - 1, "nothing is computed twice");
    }
}

/// Branches that leave each other inside a block go on in copies of it: every answer is the one it would be alone.
#[test]
fn branches_answer_as_if_they_were_alone() {
    let Some(folder) = stories() else { return };
    for kv_type in [KvType::F32, KvType::F16] {
        let start = || load_with(&folder.join("gguf"), FLOATS[0], Precision::F32, kv_type, 1, 32).0;
        let whole: Vec<u32> = cases(&folder, FLOATS[0]).into_iter().flat_map(|case| case.greedy).take(150).collect();
        let together = start();
        drain(together.generate(greedy(whole.clone(), 20)));
        for at in [1, 63, 64, 65, 100, 149] {
            let mut branch = whole[..at].to_vec();
            branch.extend(whole[..20].iter().rev());
            let ask = |engine: &Engine| {
                let outcome = drain(engine.generate(Request { ignore_eos: true, ..greedy(branch.clone(), 30) }));
                (outcome.stats().cached_tokens, outcome.ids)
            };
            let (cached, ids) = ask(&together);
            assert!(cached >= at, "{cached} of {at}");
            assert_eq!((0, ids), ask(&start()), "{kv_type:?} {at}");
        }
        assert_eq!(together.cached_prefix(&whole).unwrap(), whole.len());
    }
}

/// The answer does not depend on how far was guessed, to the last token: in `Precision::F32` never, in `Precision::Fast`
/// while drafts are short, as they are by themselves when the answer has to be reproducible.
#[test]
fn guessing_ahead_changes_no_token() {
    let Some(folder) = stories() else { return };
    use Speculation::{Auto, Fixed};
    let integers = ["stories260K-ff192-Q4_0.gguf", "stories260K-mixed-Q8_0.gguf", "stories260K-ff192-IQ4_NL.gguf"];
    let exact = FLOATS.into_iter().map(|file| (file, Precision::F32, [Fixed(1), Fixed(15), Auto]));
    let fast =
        FLOATS[2..].iter().copied().chain(integers).map(|file| (file, Precision::Fast, [Fixed(1), Fixed(2), Auto]));
    for (file, precision, speculations) in exact.chain(fast) {
        let cases = cases(&folder, file);
        let samplings = [
            Sampling::greedy(),
            Sampling { temperature: 0.3, seed: Some(3), ..Sampling::default() },
            Sampling { temperature: 1.0, seed: Some(4), repeat_penalty: 1.1, top_k: 20, ..Sampling::default() },
        ];
        for sampling in samplings {
            let answers = |speculation| -> (Vec<Vec<u32>>, usize) {
                let (engine, _) = load(&folder.join("gguf"), file, precision, 1, 32);
                let ask = |case: &Case| {
                    // What repeats is in the prompt already.
                    let mut tokens = [case.prompt.as_slice(), &case.greedy, &case.prompt].concat();
                    tokens.truncate(192);
                    let request = Request {
                        ignore_eos: true,
                        sampling: sampling.clone(),
                        max_tokens: Some(64),
                        tokens,
                        ..Request::default()
                    };
                    let outcome = drain(engine.generate(Request { speculation, ..request }));
                    (outcome.stats().accepted_tokens, outcome.ids)
                };
                let (accepted, ids): (Vec<usize>, Vec<Vec<u32>>) = cases.iter().take(2).map(ask).unzip();
                (ids, accepted.iter().sum())
            };
            let (without, _) = answers(Speculation::Off);
            for speculation in speculations {
                let (with, accepted) = answers(speculation);
                assert_eq!(with, without, "{file} {precision:?} {speculation:?} {sampling:?}");
                assert!(accepted > 0 || speculation == Auto, "{file} {precision:?} {speculation:?} {sampling:?}");
            }
        }
    }
}

#[test]
fn logits_rows_agree_with_the_answer() {
    let Some(folder) = stories() else { return };
    let (engine, _) = load(&folder.join("gguf"), FLOATS[0], Precision::F32, 1, 8);
    let n_vocab = engine.info().n_vocab;
    for case in cases(&folder, FLOATS[0]) {
        let tokens = [case.prompt.as_slice(), &case.greedy].concat();
        let mut best = Vec::new();
        let from = case.prompt.len() - 1;
        let rows = engine.logits(&tokens, from, |first, block| {
            assert_eq!(first, from + best.len());
            best.extend(
                block
                    .chunks(n_vocab)
                    .map(|row| (0..n_vocab).reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap() as u32),
            );
            ControlFlow::Continue(())
        });
        rows.unwrap();
        assert_eq!(best[..case.greedy.len()], case.greedy);
    }
}

#[test]
fn sampled_text_is_whole_and_reproducible() {
    let Some(folder) = stories() else { return };
    let (engine, tokenizer) = load(&folder.join("gguf"), FLOATS[0], Precision::F32, 2, 32);
    let prompt = tokenizer.encode("One day", EncodeOptions { bos_eos: true, special: false });
    let run = |seed| {
        let sampling = Sampling { temperature: 1.0, repeat_penalty: 1.1, seed: Some(seed), ..Sampling::default() };
        drain(engine.generate(Request { sampling, ..greedy(prompt.clone(), 100) }))
    };
    let (a, b) = (run(1), run(2));
    assert_ne!(a.ids, b.ids);
    assert_eq!(run(1).ids, a.ids);
    assert!(a.text.len() > 50 && !a.text.contains('\u{fffd}'), "{}", a.text);
}

#[test]
fn the_window_is_counted_exactly() {
    let Some(folder) = stories() else { return };
    let (engine, tokenizer) = load(&folder.join("gguf"), FLOATS[0], Precision::F32, 1, 32);
    let template = text::ChatTemplate::builtin("chatml").unwrap();
    let renderer = window::Renderer::new(&tokenizer, Some(&template));
    let (once, often) = ("Once upon a time there was a cat. ", "Once upon a time there was a cat. ".repeat(4));
    let talk = [
        (text::Role::System, once),
        (text::Role::User, often.as_str()),
        (text::Role::Assistant, often.as_str()),
        (text::Role::User, once),
    ];
    let all = renderer.tokens(talk, None).unwrap();
    assert!(all.len() <= engine.context(), "{}", all.len());
    let fit = |context, reserve| match renderer.fit(&talk, None, window::Window { context, reserve }).unwrap() {
        window::Fit::Fits(fitted) => Ok(fitted),
        window::Fit::TooLong { prompt } => Err(prompt),
    };
    let fitted = fit(all.len() + 1, 1).unwrap();
    assert_eq!((fitted.tokens.as_slice(), fitted.leaving), (all.as_slice(), 0..0));
    let fitted = fit(all.len() + 1, 2).unwrap();
    assert_eq!((fitted.leaving, fitted.wanted), (1..3, all.len()));
    let least = renderer.tokens([talk[0], talk[3]], None).unwrap();
    assert_eq!(fitted.tokens, least);
    assert_eq!(fit(least.len(), 0), Err(least.len()), "no room for a token of answer");
}

/// Every family in the repository, both its prompts at once, through the whole engine. Where transformers and llama.cpp
/// answer differently (fixtures/README.md says where), either is right for a GGUF.
#[test]
fn every_family_answers_as_its_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = ["fixtures/archs", "../shared/fixtures/archs"].map(|path| root.join(path));
    let found = found.into_iter().find(|path| path.is_dir()).expect("the repository holds fixtures/archs");
    let numbers = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let mut checked = 0;
    for entry in std::fs::read_dir(found).unwrap() {
        let folder = entry.unwrap().path();
        let checkpoint = Checkpoint::open(&folder.join("model.gguf"), &OpenOptions::default()).unwrap();
        let family = checkpoint.metadata().str("general.architecture").unwrap().map(str::to_string);
        if family.is_none_or(|name| model::Architecture::find(&name).is_err()) {
            continue;
        }
        let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("ref.json")).unwrap()).unwrap();
        let other = &reference["llama_cpp"];
        let prompts = [(&reference, other), (&reference["short"], &other["short"])];
        let (engine, _) = load(&folder, "model.gguf", Precision::F32, 2, 16);
        let ask = |prompt: &Value| {
            let n = numbers(&prompt["greedy"]).len();
            engine.generate(Request { ignore_eos: true, ..greedy(numbers(&prompt["ids"]), n) })
        };
        let streams = prompts.map(|(prompt, _)| ask(prompt));
        for ((prompt, other), outcome) in prompts.iter().zip(streams.into_iter().map(drain)) {
            if prompt["greedy_min_gap"].as_f64().unwrap() < 0.005 {
                continue;
            }
            let right =
                [&prompt["greedy"], &other["greedy"]].map(|ids| if ids.is_array() { numbers(ids) } else { vec![] });
            assert!(right.contains(&outcome.ids), "{}: {outcome:?}, expected one of {right:?}", folder.display());
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked} answers checked");
}

/// The same request to a fresh engine brings the same tokens, with several threads and integer kernels too.
#[test]
fn fast_answers_are_reproducible() {
    let Some(folder) = stories() else { return };
    for file in ["stories260K-ff192-Q4_0.gguf", "stories260K-mixed-Q8_0.gguf"] {
        let cases = cases(&folder, file);
        let answers = || -> Vec<Vec<u32>> {
            let (engine, _) = load(&folder.join("gguf"), file, Precision::Fast, 1, 16);
            let sampling = Sampling { temperature: 1.0, seed: Some(7), ..Sampling::default() };
            let ask = |case| Request { sampling: sampling.clone(), ..request(case) };
            cases.iter().map(|case| drain(engine.generate(ask(case))).ids).collect()
        };
        let first = answers();
        assert_eq!(answers(), first, "{file}");
        assert!(first.iter().all(|ids| ids.len() == 64));
    }
}

/// An adapter changes answers, nothing computed before it is used after it, and without it the answer is the old one.
#[test]
fn adapters_come_and_go() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let (folder, adapter) = (root.join("archs/llama"), root.join("adapters/llama/one.gguf"));
    let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("ref.json")).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(reference["ids"].clone()).unwrap();
    let (engine, _) = load(&folder, "model.gguf", Precision::F32, 1, 16);
    let answer = || {
        let outcome = drain(engine.generate(Request { ignore_eos: true, ..greedy(ids.clone(), 8) }));
        (outcome.ids, outcome.end.unwrap().1.cached_tokens)
    };
    let open = |path: &Path| Box::new(Checkpoint::open_adapter(path, &OpenOptions::default()).unwrap());
    let (before, _) = answer();
    assert!(engine.cached_prefix(&ids).unwrap() > 0);
    let refused = engine.adapt(AdapterChange::Add { source: open(&folder.join("model.gguf")), scale: 1.0 });
    assert!(refused.unwrap_err().to_string().contains("no adapter"));
    let infos = engine.adapt(AdapterChange::Add { source: open(&adapter), scale: 1.0 }).unwrap();
    assert_eq!(infos.len(), 1);
    assert_eq!(engine.cached_prefix(&ids).unwrap(), 0);
    let (with, cached) = answer();
    assert_eq!(cached, 0);
    assert_ne!(with, before);
    // Changes wait for the answer in progress.
    let stream = engine.generate(Request { ignore_eos: true, ..greedy(ids.clone(), 8) });
    engine.adapt(AdapterChange::Scale { index: 0, scale: 0.0 }).unwrap();
    assert_eq!(drain(stream).ids, with);
    assert_eq!(answer(), (before.clone(), 0));
    engine.adapt(AdapterChange::Remove { index: 0 }).unwrap();
    assert!(engine.adapt(AdapterChange::Remove { index: 0 }).is_err());
    assert_eq!(answer(), (before, 0));
}
