//! The real parts behind [`Forward`] and [`Vocabulary`]: a decoder with its cache, and a tokenizer.

use crate::{
    AdapterChange, Error, Result,
    forward::{Batch, Forward, Info, TextStream, Vocabulary},
};
use compute::{KvCache, KvType, StateSpec};
use model::{AdapterInfo, Decoder};
use text::{DecodeStream, Tokenizer};

/// A decoder with the cache made for it.
pub(crate) struct Loaded {
    decoder: Decoder,
    /// None only if a cache could not be made anew.
    cache: Option<KvCache>,
    info: Info,
    kv_type: KvType,
    n_positions: usize,
}

impl Loaded {
    /// Makes a cache of `n_positions` positions for the decoder.
    pub(crate) fn new(decoder: Decoder, n_positions: usize, kv_type: KvType) -> Result<Self> {
        let cache = decoder.new_cache(n_positions, kv_type).map_err(failed)?;
        let memory = decoder.memory();
        let info = Info {
            n_vocab: decoder.hyper().n_vocab,
            trained_context: decoder.hyper().context_length,
            n_blocks: cache.spec().n_blocks,
            max_rows: decoder.max_rows(),
            max_logits: decoder.max_rows(),
            n_states: cache.spec().states.n_slots,
            states_bytes: bytes_of(&cache.spec().states),
            kv_bytes: cache.bytes() as u64,
            weights_bytes: memory.weights_bytes,
            scratch_bytes: memory.scratch_bytes,
            device: decoder.device().info(),
        };
        Ok(Loaded { decoder, cache: Some(cache), info, kv_type, n_positions })
    }
}

impl Forward for Loaded {
    fn info(&self) -> Info {
        self.info.clone()
    }

    fn forward(&mut self, batch: &Batch, stop: &dyn Fn(f32) -> bool) -> Result<&[f32]> {
        let cache = self.cache.as_mut().ok_or_else(|| Error::Model("there is no KV cache".into()))?;
        self.decoder.forward_until(batch, cache, stop).map_err(failed)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        let cache = self.cache.as_mut().ok_or_else(|| Error::Model("there is no KV cache".into()))?;
        self.decoder.device().copy_kv_block(cache, from, to).map_err(|error| Error::Model(Box::new(error)))
    }

    fn adapt(&mut self, change: &AdapterChange) -> Result<Vec<AdapterInfo>> {
        match change {
            AdapterChange::Add { source, scale } => self.decoder.add_adapter(source, *scale),
            AdapterChange::Scale { index, scale } => self.decoder.scale_adapter(*index, *scale),
            AdapterChange::Remove { index } => self.decoder.remove_adapter(*index),
        }
        .map_err(failed)?;
        Ok(self.decoder.adapters().to_vec())
    }

    fn reset(&mut self) -> Result<()> {
        // Two caches at once might not fit: the old one goes before the new one comes.
        self.cache = None;
        self.cache = Some(self.decoder.new_cache(self.n_positions, self.kv_type).map_err(failed)?);
        Ok(())
    }
}

fn bytes_of(states: &StateSpec) -> u64 {
    let len = states.layers.iter().fold(0u64, |sum, &len| sum.saturating_add(len as u64));
    len.saturating_mul(size_of::<f32>() as u64).saturating_mul(states.n_slots as u64)
}

fn failed(error: model::Error) -> Error {
    match error {
        model::Error::Interrupted => Error::Interrupted,
        error => Error::Model(Box::new(error)),
    }
}

/// A tokenizer as the worker sees it.
pub(crate) struct Spelling(Tokenizer);

impl Spelling {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Spelling(tokenizer)
    }
}

impl Vocabulary for Spelling {
    fn text_stream(&self, prompt: &[u32]) -> Box<dyn TextStream> {
        let mut stream = self.0.decode_stream();
        // Where a text begins, some tokenizers drop a blank; the answer begins where the prompt ends.
        prompt.iter().for_each(|&id| drop(stream.push(id)));
        Box::new(Spelled(stream))
    }

    fn end_of_generation(&self) -> &[u32] {
        self.0.end_of_generation()
    }
}

struct Spelled(DecodeStream);

impl TextStream for Spelled {
    fn push(&mut self, id: u32) -> String {
        self.0.push(id)
    }

    fn finish(&mut self) -> String {
        self.0.finish()
    }
}
