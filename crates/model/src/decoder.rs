//! The forward pass: embedding, layers of attention and feed-forward, logits. Plain calls on a device, no graph.
//!
//! What belongs here: the order of operations of a decoder-only transformer (Vaswani et al. 2017, as arranged by Llama).
//! What does not: how an operation is computed (`compute`), which families exist (`arch/`), where weights come from
//! (`load.rs`).

use crate::batch::cut;
use crate::load::{LoadOptions, LoadProgress, load};
use crate::scratch::{Scratch, ScratchSizes};
use crate::weights::{Block, FeedForwardWeights, Weights};
use crate::{Batch, Error, HyperParams, LayerParams, Result, kv_spec};
use checkpoint::Checkpoint;
use compute::{Attend, Buffer, Device, Epilogue, Experts, FeedForward, KvCache, KvType, Logits, Norm, Qkv, Rows};
use std::ops::{ControlFlow, Range};
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
}

/// A model ready to run: its numbers, its weights on a device, and scratch memory for one pass at a time.
pub struct Decoder {
    model: Model,
    scratch: Scratch,
    max_rows: usize,
    memory: MemoryUse,
    unused: Vec<String>,
}

/// Rows of a batch that are computed together.
struct Part {
    rows: Range<usize>,
    /// Whether logits follow; otherwise only the cache is filled.
    is_wanted: bool,
}

struct Model {
    hyper: HyperParams,
    device: Arc<dyn Device>,
    weights: Weights,
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
        let hyper = HyperParams::read(checkpoint)?;
        let max_rows = options.max_rows.max(1);
        let sizes = ScratchSizes::new(&hyper, max_rows)?;
        let loaded = load(checkpoint, &*device, &hyper, options, progress)?;
        let scratch = sizes.alloc(&*device)?;
        let memory = MemoryUse {
            weights_bytes: loaded.resident_bytes,
            mapped_bytes: loaded.mapped_bytes,
            scratch_bytes: sizes.bytes,
        };
        let model = Model { hyper, device, weights: loaded.weights };
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

    /// A KV cache for `n_positions` positions in all sequences together, rounded up to whole blocks.
    pub fn new_cache(&self, n_positions: usize, dtype: KvType) -> Result<KvCache> {
        Ok(self.model.device.kv_cache(&kv_spec(&self.model.hyper, n_positions, dtype))?)
    }

    /// Runs a batch, adds its keys and values to `cache`, and returns the logits asked for,
    /// `[batch.logits.len(), n_vocab]`, valid until the next call.
    ///
    /// Errors: a batch that contradicts itself, tokens outside the vocabulary, positions outside their blocks.
    pub fn forward(&mut self, batch: &Batch, cache: &mut KvCache) -> Result<&[f32]> {
        self.forward_until(batch, cache, &|| false)
    }

    /// [`Decoder::forward`] that can be broken off: `stop` is asked twice in every layer. After that the cache holds any
    /// values at the positions of the batch, and what it held before at all others.
    ///
    /// Errors: those of `forward`; [`Error::Interrupted`] when `stop` said so.
    pub fn forward_until(&mut self, batch: &Batch, cache: &mut KvCache, stop: &dyn Fn() -> bool) -> Result<&[f32]> {
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
            self.model.chunk(tokens, &batch.rows, part, &mut self.scratch, cache, stop)?;
            for some in here.chunks(self.scratch.n_logit_rows) {
                self.model.logits(some, start, done, &mut self.scratch)?;
                done += some.len() * n_vocab;
            }
        }
        Ok(self.scratch.host_logits.get(..n_logits).unwrap_or(&[]))
    }
}

impl Model {
    /// Embedding and all layers for some rows of a batch; the result is in `scratch.x` if it is wanted.
    fn chunk(
        &self,
        tokens: &[u32],
        all_rows: &Rows,
        part: Part,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let Scratch { x, y, q, attention, chunk, .. } = scratch;
        let rows = if part.rows.len() == all_rows.len() {
            all_rows
        } else {
            cut(all_rows, part.rows.start, part.rows.end, chunk);
            &*chunk
        };
        let go_on = || if stop() { Err(Error::Interrupted) } else { Ok(()) };
        self.device.embed(&self.weights.embedding, tokens, self.hyper.embedding_scale, x)?;
        for (layer, (params, block)) in self.hyper.layers.iter().zip(&self.weights.blocks).enumerate() {
            go_on()?;
            self.device.qkv(x, rows, &qkv(params, block), cache, layer, q)?;
            if !part.is_wanted && layer + 1 == self.hyper.n_layers {
                break;
            }
            self.device.attend(q, rows, &self.attend(params), cache, layer, attention)?;
            let epilogue = self.epilogue(block.attn_post_norm.as_ref(), x);
            self.device.linear(attention, rows.len(), None, &block.o, epilogue, y)?;
            go_on()?;
            self.feed_forward(block, rows.len(), y, x)?;
        }
        Ok(())
    }

    fn attend(&self, params: &LayerParams) -> Attend<'static> {
        Attend {
            n_heads: params.n_heads,
            n_kv_heads: params.n_kv_heads,
            head_dim: params.head_dim,
            v_head_dim: params.v_head_dim,
            scale: self.hyper.attention_scale,
            softcap: self.hyper.attention_softcap,
            window: params.window,
            sinks: None,
        }
    }

    fn feed_forward(&self, block: &Block, n_rows: usize, x: &Buffer, out: &mut Buffer) -> Result<()> {
        let norm = block.ffn_norm.as_ref();
        let activation = self.hyper.architecture.activation;
        let epilogue = self.epilogue(block.ffn_post_norm.as_ref(), x);
        match &block.feed_forward {
            FeedForwardWeights::Dense { gate, up, down } => {
                let args = FeedForward { norm, gate: Some(gate), up, down, activation, epilogue };
                self.device.feed_forward(x, n_rows, &args, out)?;
            }
            FeedForwardWeights::Experts { rule, router, choice_bias, gate, up, down } => {
                let (rule, choice_bias, gate) = (*rule, choice_bias.as_ref(), Some(gate));
                let args = Experts { norm, router, choice_bias, rule, gate, up, down, activation, epilogue };
                self.device.experts(x, n_rows, &args, out)?;
            }
        }
        Ok(())
    }

    fn epilogue<'a>(&self, norm: Option<&'a Norm>, residual: &'a Buffer) -> Epilogue<'a> {
        Epilogue { norm, scale: self.hyper.residual_scale, residual: Some(residual) }
    }

    /// Logits of some rows of a batch, of the chunk that starts at `start`, to `host_logits[at..]`.
    fn logits(&self, rows: &[u32], start: usize, at: usize, scratch: &mut Scratch) -> Result<()> {
        let Scratch { x, logits, host_logits, wanted, .. } = scratch;
        wanted.clear();
        wanted.extend(rows.iter().map(|&row| row - start as u32));
        let args = Logits {
            norm: Some(&self.weights.output_norm),
            head: &self.weights.head,
            scale: self.hyper.logit_scale,
            softcap: self.hyper.logit_softcap,
        };
        self.device.logits(x, wanted, &args, logits)?;
        if let Some(to) = host_logits.get_mut(at..at + rows.len() * self.hyper.n_vocab) {
            self.device.read(logits, to)?;
        }
        Ok(())
    }
}

fn qkv<'a>(params: &LayerParams, block: &'a Block) -> Qkv<'a> {
    Qkv {
        norm: block.attn_norm.as_ref(),
        q: &block.q,
        k: &block.k,
        v: &block.v,
        q_norm: block.q_norm.as_ref(),
        k_norm: block.k_norm.as_ref(),
        rope: block.rope.as_ref(),
        n_heads: params.n_heads,
        n_kv_heads: params.n_kv_heads,
        head_dim: params.head_dim,
        v_head_dim: params.v_head_dim,
        clamp: None,
    }
}
