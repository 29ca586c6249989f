//! Running a model the way an engine does, in the few lines that tests need.

use checkpoint::{Checkpoint, OpenOptions};
use compute::cpu::{CpuDevice, CpuOptions};
use compute::{KV_BLOCK, KvCache, KvType, Precision, Rows, SequenceRows, StateRows};
use model::{Batch, Decoder, LoadOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn device(precision: Precision) -> Arc<CpuDevice> {
    Arc::new(CpuDevice::new(CpuOptions { threads: Some(2), precision, ..CpuOptions::default() }).unwrap())
}

pub(crate) fn load(path: &Path, precision: Precision, max_rows: usize) -> Decoder {
    load_for(path, precision, max_rows, None)
}

pub(crate) fn load_for(path: &Path, precision: Precision, max_rows: usize, context_length: Option<usize>) -> Decoder {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let options = LoadOptions { max_rows, context_length };
    Decoder::load(&checkpoint, device(precision), &options, &mut |_| ControlFlow::Continue(()))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A cache for a few sequences of 256 positions.
pub(crate) fn cache(decoder: &Decoder) -> KvCache {
    decoder.new_cache(4 * 256, KvType::F32).unwrap()
}

/// The blocks of sequence `number`, when each may have 256 positions.
pub(crate) fn blocks(number: usize) -> Vec<u32> {
    let per_sequence = 256 / KV_BLOCK;
    (number * per_sequence..(number + 1) * per_sequence).map(|b| b as u32).collect()
}

/// The states of sequence `number`, for models that have any: one slot, read and written.
pub(crate) fn states(first_position: usize, number: usize) -> Option<StateRows> {
    let slot = number as u32;
    Some(StateRows { from: (first_position > 0).then_some(slot), to: slot, saves: Vec::new() })
}

/// The tokens of one sequence from `first_position` on, logits of all rows.
pub(crate) fn batch(tokens: &[u32], first_position: usize, sequence: usize) -> Batch {
    let n = tokens.len();
    Batch {
        tokens: tokens.to_vec(),
        rows: Rows {
            positions: (first_position..first_position + n).map(|p| p as u32).collect(),
            sequences: vec![SequenceRows {
                rows: 0..n,
                blocks: blocks(sequence),
                states: states(first_position, sequence),
            }],
        },
        logits: (0..n as u32).collect(),
    }
}

/// Logits of every position of a prompt, `[tokens, n_vocab]`.
pub(crate) fn all_logits(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
    let mut cache = cache(decoder);
    decoder.forward(&batch(tokens, 0, 0), &mut cache).unwrap().to_vec()
}

/// The first of the largest values.
pub(crate) fn best(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best as u32
}

/// `n` tokens after a prompt, the best one each time.
pub(crate) fn greedy(decoder: &mut Decoder, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut cache = cache(decoder);
    let mut next = batch(prompt, 0, 0);
    next.logits = vec![prompt.len() as u32 - 1];
    let mut tokens = Vec::new();
    loop {
        let token = best(decoder.forward(&next, &mut cache).unwrap());
        tokens.push(token);
        if tokens.len() == n {
            return tokens;
        }
        next = batch(&[token], prompt.len() + tokens.len() - 1, 0);
    }
}

/// Mean of −ln p(next token) over a prompt, in nats.
pub(crate) fn nll(logits: &[f32], tokens: &[u32]) -> f64 {
    let n_vocab = logits.len() / tokens.len();
    let rows = logits.chunks_exact(n_vocab).zip(&tokens[1..]);
    let sum: f64 = rows
        .map(|(row, &next)| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
            total.ln() - f64::from(row[next as usize] - max)
        })
        .sum();
    sum / (tokens.len() - 1) as f64
}
