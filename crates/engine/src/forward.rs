//! The two things that the worker needs from below, as traits: numbers for tokens, and text for tokens. The real ones
//! are `model`'s decoder with its cache and `text`'s tokenizer; tests script their own.

use crate::{AdapterChange, Error, Result};
use compute::{DeviceInfo, KV_BLOCK};
use model::AdapterInfo;

/// One pass: what `model` calls a batch.
pub type Batch = model::Batch;

/// A model with its KV cache: gives the logits of the rows asked for.
pub trait Forward: Send {
    /// Facts that stay as they are.
    fn info(&self) -> Info;

    /// Computes all rows of `batch`, writes their K and V to the cache, and returns the logits of the rows named in
    /// `batch.logits`, `[batch.logits.len(), n_vocab]`.
    ///
    /// `stop` is to be asked often, at least once in a layer, and told the share of the pass that is computed, 0 to 1. When it
    /// says so the pass ends with [`Error::Interrupted`](crate::Error::Interrupted); what it wrote to the cache by then does
    /// not matter. (States that it only reads stay as they were.)
    fn forward(&mut self, batch: &Batch, stop: &dyn Fn(f32) -> bool) -> Result<&[f32]>;

    /// Copies the keys and values of all positions of one block of the cache to another.
    fn copy_block(&mut self, from: u32, to: u32) -> Result<()>;

    /// Changes the adapters; what is left of them, in order. Keys and values computed before are of no use any more. After
    /// an error everything is as before.
    fn adapt(&mut self, change: &AdapterChange) -> Result<Vec<AdapterInfo>> {
        let _ = change;
        Err(Error::Model("this model takes no adapters".into()))
    }

    /// Makes the cache anew after a panic. What it held is lost.
    fn reset(&mut self) -> Result<()>;
}

/// Facts about the model that the engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Tokens in the vocabulary: the width of a row of logits.
    pub n_vocab: usize,
    /// The window the model was made for, in tokens.
    pub trained_context: usize,
    /// Blocks of [`KV_BLOCK`] positions in the cache.
    pub n_blocks: usize,
    /// Rows that a pass may have.
    pub max_rows: usize,
    /// Rows of a pass that may ask for logits.
    pub max_logits: usize,
    /// Slots for states of recurrent layers; 0 for a model without.
    pub n_states: usize,
    /// Bytes of these.
    pub states_bytes: u64,
    /// Bytes of the KV cache when full, states included.
    pub kv_bytes: u64,
    /// Bytes of the weights on the device.
    pub weights_bytes: u64,
    /// Bytes of the buffers of a pass.
    pub scratch_bytes: u64,
    /// Where it runs.
    pub device: DeviceInfo,
}

impl Info {
    /// Positions that the cache holds.
    pub fn cache_positions(&self) -> usize {
        self.n_blocks.saturating_mul(KV_BLOCK)
    }

    /// Bytes of one block of the cache.
    pub fn block_bytes(&self) -> u64 {
        self.kv_bytes.saturating_sub(self.states_bytes) / (self.n_blocks.max(1) as u64)
    }
}

/// Turns generated tokens into text.
pub trait Vocabulary: Send + Sync {
    /// A decoder for the text that continues `prompt`: all it brings is what the answer adds to the prompt's text.
    fn text_stream(&self, prompt: &[u32]) -> Box<dyn TextStream>;

    /// The tokens that end an answer.
    fn end_of_generation(&self) -> &[u32];
}

/// Text of tokens that arrive one by one: never half a character.
pub trait TextStream: Send {
    /// The text that is complete with this token.
    fn push(&mut self, id: u32) -> String;

    /// What is left at the end.
    fn finish(&mut self) -> String;
}
