//! One result, however the tokens are fed: in one pass, in chunks, one by one, beside other sequences, elsewhere in the
//! cache.

use crate::fixtures::{find_or_skip, ids, json, max_difference};
use crate::running::{all_logits, batch, blocks, cache, load, states};
use compute::{KvType, Precision, SequenceRows, StateRows};
use model::{Batch, Decoder};

/// Families that differ in what attention sees, and such as keep states.
const NAMES: &[&str] = &[
    "archs/llama",
    "archs/gemma2",
    "archs/gemma3",
    "archs/phi3",
    "archs/qwen3_moe",
    "families/lfm2",
    "families/qwen3_next",
    "families/qwen3_5",
    "families/gemma3n",
    "families/gemma4",
    "families/gemma4-experts",
];

/// Sums may be taken in another order, no more.
const BOUND: f32 = 2e-4;

fn each(check: impl Fn(&str, &dyn Fn(usize) -> Decoder, &[u32])) {
    for name in NAMES {
        let Some(folder) = find_or_skip(name, true) else { continue };
        let tokens = ids(&json(&folder.join("ref.json"))["ids"]);
        check(name, &|max_rows| load(&folder.join("model.gguf"), Precision::F32, max_rows), &tokens);
    }
}

#[test]
fn chunks_equal_one_pass() {
    each(|name, load, tokens| {
        let expected = all_logits(&mut load(512), tokens);
        for max_rows in [1, 7, 16] {
            let difference = max_difference(&all_logits(&mut load(max_rows), tokens), &expected);
            assert!(difference <= BOUND, "{name} in chunks of {max_rows}: {difference}");
        }
    });
}

#[test]
fn decode_equals_prefill() {
    each(|name, load, tokens| {
        let mut decoder = load(512);
        let expected = all_logits(&mut decoder, tokens);
        let mut cache = cache(&decoder);
        let mut got = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            got.extend_from_slice(decoder.forward(&batch(&[token], position, 0), &mut cache).unwrap());
        }
        let difference = max_difference(&got, &expected);
        assert!(difference <= BOUND, "{name}: {difference}");
    });
}

#[test]
fn sequences_do_not_see_each_other() {
    each(|name, load, tokens| {
        // A chunk of 16 rows cuts the second sequence.
        for max_rows in [512, 16] {
            let mut decoder = load(max_rows);
            let parts = [&tokens[..9], &tokens[9..30], &tokens[30..]];
            let expected: Vec<f32> = parts.iter().flat_map(|part| all_logits(&mut decoder, part)).collect();
            let mut whole = Batch::default();
            for (number, part) in parts.iter().enumerate() {
                let start = whole.tokens.len();
                whole.tokens.extend_from_slice(part);
                whole.rows.positions.extend(0..part.len() as u32);
                // Their blocks in any order.
                let rows = start..start + part.len();
                whole.rows.sequences.push(SequenceRows {
                    rows,
                    blocks: blocks(2 - number),
                    states: states(0, 2 - number),
                });
            }
            whole.logits = (0..tokens.len() as u32).collect();
            let mut cache = cache(&decoder);
            let difference = max_difference(decoder.forward(&whole, &mut cache).unwrap(), &expected);
            assert!(difference <= BOUND, "{name}, {max_rows} rows: {difference}");
        }
    });
}

#[test]
fn only_wanted_rows_come_back() {
    each(|name, load, tokens| {
        let mut decoder = load(16);
        let expected = all_logits(&mut decoder, tokens);
        let n_vocab = decoder.hyper().n_vocab;
        let mut some = batch(tokens, 0, 0);
        some.logits = vec![0, 15, 16, tokens.len() as u32 - 1];
        let mut cache = cache(&decoder);
        let got = decoder.forward(&some, &mut cache).unwrap().to_vec();
        let rows = some.logits.iter().flat_map(|&row| &expected[row as usize * n_vocab..][..n_vocab]);
        let difference = max_difference(&got, &rows.copied().collect::<Vec<_>>());
        assert!(difference <= BOUND, "{name}: {difference}");
        some.logits.clear();
        assert!(decoder.forward(&some, &mut cache).unwrap().is_empty());
    });
}

#[test]
fn a_half_precision_cache_is_close() {
    each(|name, load, tokens| {
        let mut decoder = load(512);
        let expected = all_logits(&mut decoder, tokens);
        let std = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        let mut cache = decoder.new_cache(256, KvType::F16).unwrap();
        let difference = max_difference(decoder.forward(&batch(tokens, 0, 0), &mut cache).unwrap(), &expected);
        assert!(difference <= 0.02 * std, "{name}: {difference}");
    });
}

#[test]
fn wrong_batches_are_errors() {
    each(|name, load, tokens| {
        let mut decoder = load(512);
        let mut cache = cache(&decoder);
        let mut check = |change: &dyn Fn(&mut Batch)| {
            let mut wrong = batch(&tokens[..4], 0, 0);
            change(&mut wrong);
            assert!(decoder.forward(&wrong, &mut cache).is_err(), "{name}: {wrong:?}");
        };
        check(&|b| b.tokens[2] = 1 << 20);
        check(&|b| b.tokens.truncate(3));
        check(&|b| b.logits = vec![4]);
        check(&|b| b.rows.sequences[0].blocks.clear());
        check(&|b| b.rows.sequences[0].blocks = vec![1 << 20]);
        assert!(decoder.forward(&batch(&tokens[..4], 0, 0), &mut cache).is_ok(), "{name}");
    });
}

/// Broken off anywhere, a pass leaves what the cache held before it, and the same pass can be run again.
#[test]
fn a_pass_can_be_broken_off() {
    each(|name, load, tokens| {
        let mut decoder = load(16);
        let expected = all_logits(&mut decoder, tokens);
        let n_vocab = decoder.hyper().n_vocab;
        let mut cache = cache(&decoder);
        let (before, rest) = tokens.split_at(9);
        decoder.forward(&batch(before, 0, 0), &mut cache).unwrap();
        let mut rest = batch(rest, before.len(), 0);
        // States that are only read stay.
        rest.rows.sequences[0].states = Some(StateRows { from: Some(0), to: 5, saves: Vec::new() });
        let mut n_asked = 0usize;
        let got = loop {
            let left = std::cell::Cell::new(n_asked);
            let stop = |_: f32| left.replace(left.get().saturating_sub(1)) == 0;
            match decoder.forward_until(&rest, &mut cache, &stop) {
                Ok(logits) => break logits.to_vec(),
                Err(error) => assert!(matches!(error, model::Error::Interrupted), "{name}: {error}"),
            }
            n_asked += 1;
        };
        assert!(n_asked > decoder.hyper().n_layers, "{name}: asked {n_asked} times");
        let difference = max_difference(&got, &expected[before.len() * n_vocab..]);
        assert!(difference <= BOUND, "{name}: {difference}");
    });
}
