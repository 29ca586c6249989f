//! A model ready to run: loading, adapters, caches, and batches cut into passes.
//!
//! What belongs here: what callers see of a model. What does not: what a pass computes (`forward.rs`), which families exist
//! (`arch/`), where weights come from (`load/`).

use crate::adapter::{AdapterInfo, Adapters};
use crate::convention::Convention;
use crate::forward::{Model, Part};
use crate::load::{LoadOptions, LoadProgress, Retype, load};
use crate::observed::{ObservedTensor, observe};
use crate::scratch::{Scratch, ScratchSizes};
use crate::{Batch, Error, HyperParams, Result, kv_spec};
use checkpoint::Checkpoint;
use compute::{Device, KvCache, KvType};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a loaded model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of all weights as the device keeps them.
    pub weights_bytes: u64,
    /// How many of them it reads where the file lies in memory, so that nothing else holds them.
    pub mapped_bytes: u64,
    /// Bytes for the activations of one pass.
    pub scratch_bytes: u64,
    /// Bytes of all adapters.
    pub adapters_bytes: u64,
}

/// A model ready to run: its numbers, its weights on a device, and scratch memory for one pass at a time.
pub struct Decoder {
    model: Model,
    scratch: Scratch,
    max_rows: usize,
    memory: MemoryUse,
    unused: Vec<String>,
}

impl Decoder {
    /// Brings a model to a device. `progress` is called after each tensor and may stop it.
    ///
    /// Errors: an unsupported family, numbers or tensors that contradict each other, memory, cancelled.
    pub fn load(
        checkpoint: &Checkpoint,
        device: Arc<dyn Device>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    ) -> Result<Decoder> {
        Decoder::load_as(checkpoint, device, options, None, progress)
    }

    /// [`Decoder::load`] with the matrices in other types than the file has.
    ///
    /// Errors: those of `load`; a tensor that cannot be brought to its type.
    pub fn load_as(
        checkpoint: &Checkpoint,
        device: Arc<dyn Device>,
        options: &LoadOptions,
        retype: Option<&Retype<'_>>,
        progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    ) -> Result<Decoder> {
        let hyper = HyperParams::read(checkpoint)?;
        let max_rows = options.max_rows.max(1);
        let sizes = ScratchSizes::new(&hyper, max_rows)?;
        let loaded = load(checkpoint, &*device, &hyper, options, retype, progress)?;
        let scratch = sizes.alloc(&*device)?;
        let memory = MemoryUse {
            weights_bytes: loaded.resident_bytes,
            mapped_bytes: loaded.mapped_bytes,
            scratch_bytes: sizes.bytes,
            adapters_bytes: 0,
        };
        let adapters = Adapters::new(Convention::of(checkpoint.metadata())?.0, loaded.placed);
        let model = Model { hyper, device, weights: loaded.weights, adapters };
        Ok(Decoder { model, scratch, max_rows, memory, unused: loaded.unused })
    }

    /// The numbers of the model.
    pub fn hyper(&self) -> &HyperParams {
        &self.model.hyper
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.model.device
    }

    /// What it takes.
    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    /// Rows computed at once at most.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Tensors of the file that the model does not need (other modalities, copies).
    pub fn unused_tensors(&self) -> &[String] {
        &self.unused
    }

    /// Adds an adapter: what `checkpoint` holds, in any convention, times `scale`. Keys and values computed before belong to
    /// another model from then on. After an error everything is as before.
    ///
    /// Errors: no adapter, one for another model, one of a kind that is not supported, a scale that is not finite.
    pub fn add_adapter(&mut self, checkpoint: &Checkpoint, scale: f32) -> Result<()> {
        let Model { hyper, device, weights, adapters } = &mut self.model;
        adapters.add(checkpoint, scale, hyper, &**device, weights)?;
        self.adapters_changed()
    }

    /// Gives adapter `index` another scale; see [`Decoder::add_adapter`].
    ///
    /// Errors: no such adapter, a scale that is not finite.
    pub fn scale_adapter(&mut self, index: usize, scale: f32) -> Result<()> {
        let Model { weights, adapters, .. } = &mut self.model;
        adapters.scale(index, scale, weights)
    }

    /// Takes adapter `index` away; those behind it move up.
    ///
    /// Error: no such adapter.
    pub fn remove_adapter(&mut self, index: usize) -> Result<()> {
        let Model { weights, adapters, .. } = &mut self.model;
        adapters.remove(index, weights)?;
        self.adapters_changed()
    }

    /// The adapters, in the order in which they were added.
    pub fn adapters(&self) -> &[AdapterInfo] {
        self.model.adapters.info()
    }

    /// Memory that goes with them.
    fn adapters_changed(&mut self) -> Result<()> {
        let adapters = &self.model.adapters;
        self.memory.adapters_bytes = adapters.bytes();
        let narrow = self.max_rows.saturating_mul(adapters.embedding_rank());
        if self.scratch.narrow.len() < narrow {
            self.scratch.narrow = self.model.device.alloc(narrow)?;
        }
        Ok(())
    }

    /// Watches what the matrices of all layers are multiplied with from now on. `checkpoint` is what was loaded: its names
    /// tell the tensors apart.
    pub fn observe(&mut self, checkpoint: &Checkpoint) -> Vec<ObservedTensor> {
        observe(checkpoint, &self.model.hyper, &mut self.model.weights.blocks)
    }

    /// A KV cache for `n_positions` positions in all sequences together, rounded up to whole blocks, with as many slots
    /// for states as [`crate::n_states`] says.
    pub fn new_cache(&self, n_positions: usize, dtype: KvType) -> Result<KvCache> {
        Ok(self.model.device.kv_cache(&kv_spec(&self.model.hyper, n_positions, dtype))?)
    }

    /// Runs a batch, adds its keys and values to `cache`, and returns the logits asked for,
    /// `[batch.logits.len(), n_vocab]`, valid until the next call.
    ///
    /// Errors: a batch that contradicts itself, tokens outside the vocabulary, positions outside their blocks.
    pub fn forward(&mut self, batch: &Batch, cache: &mut KvCache) -> Result<&[f32]> {
        self.forward_until(batch, cache, &|_| false)
    }

    /// [`Decoder::forward`] that can be broken off: `stop` is asked twice in every layer and told the share of the batch that is
    /// computed, 0 to 1. After that the cache holds any values at the positions of the batch and in the slots that it
    /// writes, and what it held before in all others.
    ///
    /// Errors: those of `forward`; [`Error::Interrupted`] when `stop` said so.
    pub fn forward_until(&mut self, batch: &Batch, cache: &mut KvCache, stop: &dyn Fn(f32) -> bool) -> Result<&[f32]> {
        batch.check()?;
        let n_rows = batch.tokens.len();
        let n_vocab = self.model.hyper.n_vocab;
        let n_logits = batch.logits.len().checked_mul(n_vocab);
        let n_logits = n_logits.ok_or_else(|| Error::Overflow { what: "the logits asked for".to_owned() })?;
        if self.scratch.host_logits.len() < n_logits {
            self.scratch.host_logits.resize(n_logits, 0.0);
        }
        let mut wanted = batch.logits.as_slice();
        let mut done = 0;
        for start in (0..n_rows).step_by(self.max_rows) {
            let end = n_rows.min(start + self.max_rows);
            let tokens = batch.tokens.get(start..end).unwrap_or(&[]);
            let (here, later) = wanted.split_at(wanted.partition_point(|&row| (row as usize) < end));
            wanted = later;
            let part = Part { rows: start..end, is_wanted: !here.is_empty() };
            let share = |share: f32| stop((start as f32 + share * (end - start) as f32) / n_rows as f32);
            self.model.chunk(tokens, &batch.rows, part, &mut self.scratch, cache, &share)?;
            for some in here.chunks(self.scratch.n_logit_rows) {
                self.model.logits(some, start, done, &mut self.scratch)?;
                done += some.len() * n_vocab;
            }
        }
        Ok(self.scratch.host_logits.get(..n_logits).unwrap_or(&[]))
    }
}
