//! Models with recurrent layers: what can be used again ends where a state was kept, and every answer is the one of a fresh
//! engine, whatever was kept.

use crate::fake::*;
use checkpoint::{Checkpoint, OpenOptions};
use compute::cpu::{CpuDevice, CpuOptions};
use compute::{KV_BLOCK, KvCache, KvType, Precision};
use engine::{Batch, Engine, Error, Forward, Info, Limits, Request, Result, Speculation};
use model::{Decoder, LoadOptions};
use std::{ops::ControlFlow, path::Path, sync::Arc};

fn ask(engine: &Engine, tokens: &[u32], n: usize) -> (Vec<u32>, usize) {
    let request = Request { ignore_eos: true, speculation: Speculation::Fixed(3), ..greedy(tokens.to_vec(), n) };
    let outcome = drain(engine.generate(request));
    assert_eq!(outcome.ids.len(), n, "{outcome:?}");
    (outcome.ids.clone(), outcome.stats().cached_tokens)
}

#[test]
fn what_is_used_again() {
    let limits = Limits { max_sequences: 1, ..Setup::default().limits };
    let (engine, _) = Setup { n_states: 8, limits, ..Setup::default() }.start(|p| Answer::Token(mixed(p)));
    let right = |tokens: &[u32], n| continuation(tokens, n);
    let first = prompt(1, 200);
    let (answer, cached) = ask(&engine, &first, 30);
    assert_eq!((answer.clone(), cached), (right(&first, 30), 0));
    // Another answer to the same question.
    assert_eq!(ask(&engine, &first, 30), (right(&first, 30), 199));
    // The next question; a word more than what was computed.
    let whole = [first.as_slice(), &answer].concat();
    let second = [whole.as_slice(), &prompt(2, 50)].concat();
    assert_eq!(engine.cached_prefix(&second).unwrap(), 229);
    assert_eq!(ask(&engine, &second, 20), (right(&second, 20), 229));
    // That question taken back, and its answer made anew.
    let other = [whole.as_slice(), &prompt(3, 40)].concat();
    assert_eq!(ask(&engine, &second, 20), (right(&second, 20), 249 + 30));
    assert_eq!(ask(&engine, &other, 20).0, right(&other, 20));
    let (answer, cached) = ask(&engine, &other, 5);
    assert_eq!(answer, right(&other, 5));
    assert!((200..270).contains(&cached), "{cached}");
    // Somewhere in the middle of the first.
    let early = [&first[..120], &prompt(4, 30)].concat();
    let (answer, cached) = ask(&engine, &early, 10);
    assert_eq!(answer, right(&early, 10));
    assert!(cached <= 120, "{cached}");
}

#[test]
fn rows_of_logits() {
    let (engine, _) = Setup { n_states: 4, ..Setup::default() }.start(|p| Answer::Token(mixed(p)));
    let tokens = prompt(1, 100);
    ask(&engine, &tokens, 10);
    let mut n = 0;
    let rows = engine.logits(&tokens, 30, |first, block| {
        assert_eq!(first, 30 + n);
        for row in block.chunks(N_VOCAB) {
            let best = (0..N_VOCAB).find(|&i| row[i] > 1.0).unwrap();
            assert_eq!(best as u32, mixed(&tokens[..=30 + n]));
            n += 1;
        }
        ControlFlow::Continue(())
    });
    rows.unwrap();
    assert_eq!(n, 70);
}

/// A decoder of a fixture, which has no tokenizer.
struct Real {
    decoder: Decoder,
    cache: KvCache,
    n_positions: usize,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Model(error.to_string().into())
}

impl Forward for Real {
    fn info(&self) -> Info {
        let states = &self.cache.spec().states;
        Info {
            n_vocab: self.decoder.hyper().n_vocab,
            trained_context: self.decoder.hyper().context_length,
            n_blocks: self.cache.spec().n_blocks,
            max_rows: self.decoder.max_rows(),
            max_logits: self.decoder.max_rows(),
            n_states: states.n_slots,
            states_bytes: (states.layers.iter().sum::<usize>() * states.n_slots * 4) as u64,
            kv_bytes: self.cache.bytes() as u64,
            weights_bytes: 0,
            scratch_bytes: 0,
            device: self.decoder.device().info(),
        }
    }

    fn forward(&mut self, batch: &Batch, stop: &dyn Fn(f32) -> bool) -> Result<&[f32]> {
        self.decoder.forward_until(batch, &mut self.cache, stop).map_err(failed)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        self.decoder.device().copy_kv_block(&mut self.cache, from, to).map_err(failed)
    }

    fn reset(&mut self) -> Result<()> {
        self.cache = self.decoder.new_cache(self.n_positions, KvType::F32).map_err(failed)?;
        Ok(())
    }
}

fn start(name: &str, chunk: usize, max_sequences: usize) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families").join(name).join("hf");
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    let options = CpuOptions { threads: Some(2), precision: Precision::F32, isa: None };
    let device = Arc::new(CpuDevice::new(options).unwrap());
    let load = LoadOptions { max_rows: 512, ..LoadOptions::default() };
    let decoder = Decoder::load(&checkpoint, device, &load, &mut |_| ControlFlow::Continue(())).unwrap();
    let n_positions = 16 * KV_BLOCK;
    let cache = decoder.new_cache(n_positions, KvType::F32).unwrap();
    assert!(cache.spec().states.n_slots >= 8, "{name}");
    let limits = Limits { context: 256, prefill_chunk: chunk, max_sequences };
    Engine::with_parts(Box::new(Real { decoder, cache, n_positions }), Arc::new(Letters), limits).unwrap()
}

/// Conversations that go on, begin again, go back and branch, alone and side by side, in passes of any size.
#[test]
fn answers_of_models_with_states() {
    for name in ["lfm2", "qwen3_next"] {
        let ids = |seed, n| -> Vec<u32> { prompt(seed, n).into_iter().map(|id| id + 3).collect() };
        let first = ids(1, 90);
        let alone = |tokens: &[u32], n| ask(&start(name, 512, 1), tokens, n).0;
        let answer = alone(&first, 12);
        let second = [first.as_slice(), &answer, &ids(2, 20)].concat();
        let other = [first.as_slice(), &answer, &ids(3, 25)].concat();
        let early = [&first[..70], &ids(4, 9)].concat();
        for chunk in [1, 3, 512] {
            let engine = start(name, chunk, 2);
            assert_eq!(ask(&engine, &first, 12), (answer.clone(), 0), "{name} {chunk}");
            assert_eq!(ask(&engine, &first, 12), (answer.clone(), 89), "{name} {chunk}");
            let (tokens, cached) = ask(&engine, &second, 8);
            assert_eq!((tokens, cached), (alone(&second, 8), 101), "{name} {chunk}");
            let (tokens, cached) = ask(&engine, &other, 8);
            assert_eq!(tokens, alone(&other, 8), "{name} {chunk}");
            assert!((80..=101).contains(&cached), "{name} {chunk}: {cached}");
            assert_eq!(ask(&engine, &early, 8).0, alone(&early, 8), "{name} {chunk}");
            let streams = [&first, &early]
                .map(|tokens| engine.generate(Request { ignore_eos: true, ..greedy(tokens.clone(), 12) }));
            let both = streams.map(|stream| drain(stream).ids);
            assert_eq!(both, [answer.clone(), alone(&early, 12)], "{name} {chunk}");
        }
    }
}
