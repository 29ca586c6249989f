//! The forward pass: embedding, layers of attention and feed-forward, logits. Plain calls on a device, no graph.
//!
//! What belongs here: the order of operations of a decoder-only transformer (Vaswani et al. 2017, as arranged by Llama).
//! What does not: how an operation is computed (`compute`), how a batch is cut into passes (`decoder.rs`).

use crate::adapter::{Adapters, EmbeddingAddition};
use crate::batch::cut;
use crate::scratch::Scratch;
use crate::weights::{
    AttentionWeights, Block, BlockInput, BlockStreams, DenseWeights, FeedForwardWeights, StreamProjections, Weights,
};
use crate::{DeltaParams, Error, HyperParams, LayerParams, Result};
use compute::{
    Attend, Buffer, DeltaRule, Device, Epilogue, Experts, FeedForward, KvCache, LatentQkv, LayerInput, Logits, Norm,
    Qkv, Rows, ShortConv, Streams,
};
use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;
use std::sync::Arc;

/// What a pass computes with.
pub(crate) struct Model {
    pub(crate) hyper: HyperParams,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) weights: Weights,
    pub(crate) adapters: Adapters,
}

/// Rows of a batch that are computed together.
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    /// Whether logits follow; otherwise only the cache is filled.
    pub(crate) is_wanted: bool,
}

/// A layer, and the rows that pass it.
struct Place<'a> {
    rows: &'a Rows,
    params: &'a LayerParams,
    block: &'a Block,
    layer: usize,
    /// Whether its result is, or only what it leaves in the cache.
    is_wanted: bool,
}

impl Model {
    /// Embedding and all layers for some rows of a batch; the result is in `scratch.x` if it is wanted.
    pub(crate) fn chunk(
        &self,
        tokens: &[u32],
        all_rows: &Rows,
        part: Part,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        stop: &dyn Fn(f32) -> bool,
    ) -> Result<()> {
        let Scratch { x, y, spare, q, attention, chunk, narrow, inputs, projected, streams, predicted, known, .. } =
            scratch;
        let rows = if part.rows.len() == all_rows.len() {
            all_rows
        } else {
            cut(all_rows, part.rows.start, part.rows.end, chunk);
            &*chunk
        };
        let n_halves = 2 * self.hyper.layers.len();
        let go_on = |half: usize| if stop(half as f32 / n_halves as f32) { Err(Error::Interrupted) } else { Ok(()) };
        self.embed(tokens, rows, x, y, narrow)?;
        let n_rows = rows.len();
        self.layer_inputs(tokens, x, known, projected, inputs)?;
        if let Some(StreamProjections { part, .. }) = &self.weights.streams {
            self.device.streams(x, n_rows, self.hyper.width, &Streams::Part(part), streams)?;
        }
        let last_kept = self.hyper.last_kept();
        for (layer, (params, block)) in self.hyper.layers.iter().zip(&self.weights.blocks).enumerate() {
            go_on(2 * layer)?;
            let is_wanted = part.is_wanted || layer < last_kept;
            let place = Place { rows, params, block, layer, is_wanted };
            if let Some(own) = &block.streams {
                self.device.streams(
                    streams,
                    n_rows,
                    self.hyper.width,
                    &Streams::Predict(own.factors(true)),
                    predicted,
                )?;
                self.low_rank(block, own, predicted, n_rows, q, spare, x)?;
                let Some(mixed) = self.mixed(predicted, place, cache, q, attention)? else { break };
                let epilogue = self.epilogue(block.attn_post_norm.as_ref(), x);
                let epilogue = Epilogue { gain: FRAC_1_SQRT_2, ..epilogue };
                self.device.linear(mixed, n_rows, block.attn_sub_norm.as_ref(), &block.o, epilogue, y)?;
            } else {
                let Some(mixed) = self.mixed(x, place, cache, q, attention)? else { break };
                let epilogue = self.epilogue(block.attn_post_norm.as_ref(), x);
                self.device.linear(mixed, n_rows, block.attn_sub_norm.as_ref(), &block.o, epilogue, y)?;
            }
            go_on(2 * layer + 1)?;
            if self.hyper.parallel {
                self.feed_forward(block, n_rows, x, y, spare, None)?;
                std::mem::swap(x, spare);
            } else {
                self.feed_forward(block, n_rows, y, y, x, Some(spare))?;
            }
            let Some(input) = &block.input else { continue };
            match &block.streams {
                None => {
                    let epilogue = Epilogue { gain: block.gain, ..self.epilogue(Some(&input.post_norm), x) };
                    self.layer_input(layer, input, inputs, x, n_rows, epilogue, y)?;
                    std::mem::swap(x, y);
                }
                Some(own) => {
                    let correct = Streams::Correct(own.factors(false), x);
                    self.device.streams(predicted, n_rows, self.hyper.width, &correct, streams)?;
                    let epilogue = Epilogue { norm: Some(&input.post_norm), gain: block.gain, ..Epilogue::PLAIN };
                    self.layer_input(layer, input, inputs, streams, n_rows, epilogue, y)?;
                    let n_streams = self.hyper.streams.map_or(1, |streams| streams.n);
                    self.device.streams(streams, n_rows, self.hyper.width, &Streams::Add(n_streams, y), predicted)?;
                    std::mem::swap(streams, predicted);
                }
            }
        }
        if let Some(StreamProjections { join, .. }) = self.weights.streams.as_ref().filter(|_| part.is_wanted) {
            self.device.streams(streams, n_rows, self.hyper.width, &Streams::Join(join), x)?;
        }
        Ok(())
    }

    /// The embeddings of `tokens`, with what positions and adapters add, to `x`.
    fn embed(&self, tokens: &[u32], rows: &Rows, x: &mut Buffer, y: &mut Buffer, narrow: &mut Buffer) -> Result<()> {
        let places = match &self.weights.positions {
            Some(table) => {
                self.device.embed(table, &rows.positions, 1.0, None, y)?;
                Some(&*y)
            }
            None => None,
        };
        self.device.embed(&self.weights.embedding, tokens, self.hyper.embedding_scale, places, x)?;
        for (EmbeddingAddition { table, up, .. }, scale) in self.adapters.of_embedding() {
            self.device.embed(table, tokens, 1.0, None, narrow)?;
            let scale = scale * self.hyper.embedding_scale;
            let epilogue = Epilogue { scale, residual: Some(x), ..Epilogue::PLAIN };
            self.device.linear(narrow, rows.len(), None, up, epilogue, y)?;
            std::mem::swap(x, y);
        }
        Ok(())
    }

    /// The embeddings that all layers have of `tokens`, whose usual ones are `x`.
    fn layer_inputs(
        &self,
        tokens: &[u32],
        x: &Buffer,
        known: &mut Vec<u32>,
        projected: &mut Buffer,
        inputs: &mut Buffer,
    ) -> Result<()> {
        let (Some(made), Some(dim)) = (&self.weights.layer_inputs, self.hyper.layer_input_dim) else { return Ok(()) };
        let (n_rows, n_layers) = (tokens.len(), self.hyper.n_layers);
        known.clear();
        known.extend(tokens.iter().map(|&token| if (token as usize) < made.n_rows { token } else { 0 }));
        let scale = 1.0 / (self.hyper.width as f32).sqrt();
        let scaled = Epilogue { scale, ..Epilogue::PLAIN };
        self.device.linear(x, n_rows, None, &made.projection, scaled, inputs)?;
        let normed = Epilogue { norm: Some(&made.norm), ..Epilogue::PLAIN };
        self.device.norm(inputs, n_rows * n_layers, dim, normed, projected)?;
        let scale = (dim as f32 / 2.0).sqrt();
        Ok(self.device.embed(&made.table, known, scale, Some(projected), inputs)?)
    }

    /// What layer `layer` makes of its embedding.
    #[allow(clippy::too_many_arguments, reason = "place, input, weights and result")]
    fn layer_input(
        &self,
        layer: usize,
        weights: &BlockInput,
        inputs: &Buffer,
        x: &Buffer,
        n_rows: usize,
        epilogue: Epilogue<'_>,
        out: &mut Buffer,
    ) -> Result<()> {
        let dim = self.hyper.layer_input_dim.unwrap_or(0);
        let args = LayerInput {
            scale: weights.scale.as_ref(),
            gate: &weights.gate,
            activation: self.hyper.activation,
            inputs,
            stride: self.hyper.n_layers * dim,
            first: layer * dim,
            output: &weights.output,
            epilogue,
        };
        Ok(self.device.layer_input(x, n_rows, &args, out)?)
    }

    /// `out = x + n + norm(right · left · n)`, `n` being what attention reads (Menghani et al. 2024, "LAuReL").
    #[allow(clippy::too_many_arguments, reason = "weights, input, scratch and result")]
    fn low_rank(
        &self,
        block: &Block,
        own: &BlockStreams,
        x: &Buffer,
        n_rows: usize,
        narrow: &mut Buffer,
        sum: &mut Buffer,
        out: &mut Buffer,
    ) -> Result<()> {
        let norm = block.attn_norm.as_ref();
        let both = Epilogue { norm, residual: Some(x), ..Epilogue::PLAIN };
        self.device.norm(x, n_rows, self.hyper.width, both, sum)?;
        self.device.linear(x, n_rows, norm, &own.left, Epilogue::PLAIN, narrow)?;
        let epilogue = Epilogue { norm: Some(&own.right_norm), residual: Some(sum), ..Epilogue::PLAIN };
        Ok(self.device.linear(narrow, n_rows, None, &own.right, epilogue, out)?)
    }

    /// What a layer makes of the positions that a row sees, in one of the buffers; none when only the cache was to be filled.
    fn mixed<'b>(
        &self,
        x: &Buffer,
        place: Place<'_>,
        cache: &mut KvCache,
        q: &'b mut Buffer,
        attention: &'b mut Buffer,
    ) -> Result<Option<&'b Buffer>> {
        let Place { rows, params, block, layer, is_wanted } = place;
        let (device, norm) = (&self.device, block.attn_norm.as_ref());
        match &block.attention {
            AttentionWeights::ShortConv { input, taps, bias } => {
                let args = ShortConv { norm, input, taps, bias: bias.as_ref() };
                device.short_conv(x, rows, &args, cache, layer, attention)?;
                return Ok(is_wanted.then_some(attention));
            }
            AttentionWeights::DeltaRule { qkv, z, b, a, taps, decay, shift, head_norm, params } => {
                let &DeltaParams { n_k_heads, n_v_heads, in_turns, k_dim, v_dim, .. } = params;
                let args = DeltaRule {
                    norm,
                    qkv,
                    z,
                    b,
                    a,
                    taps,
                    decay,
                    shift,
                    head_norm,
                    n_k_heads,
                    n_v_heads,
                    in_turns,
                    k_dim,
                    v_dim,
                };
                device.delta_rule(x, rows, &args, cache, layer, attention)?;
                return Ok(is_wanted.then_some(attention));
            }
            AttentionWeights::Plain { .. } | AttentionWeights::Latent { .. } => {}
        }
        self.queries(x, rows, params, block, cache, layer, q)?;
        if !is_wanted {
            return Ok(None);
        }
        let kept_in = params.shares.unwrap_or(layer);
        device.attend(q, rows, &self.attend(params, block), cache, kept_in, attention)?;
        Ok(Some(match &block.attention {
            AttentionWeights::Plain { gate: Some(gate), .. } => {
                device.output_gate(x, rows.len(), norm, gate, attention, q)?;
                q
            }
            AttentionWeights::Latent { v_up, .. } => {
                device.heads(attention, rows.len(), v_up, q)?;
                q
            }
            _ => attention,
        }))
    }

    /// Queries to `q`, keys and values to the cache.
    #[allow(clippy::too_many_arguments, reason = "input, place, weights, cache and result")]
    fn queries(
        &self,
        x: &Buffer,
        rows: &Rows,
        params: &LayerParams,
        block: &Block,
        cache: &mut KvCache,
        layer: usize,
        queries: &mut Buffer,
    ) -> Result<()> {
        let norm = block.attn_norm.as_ref();
        match &block.attention {
            AttentionWeights::Plain { q, k, v, q_norm, k_norm, v_norm, rope, .. } => {
                let args = Qkv {
                    norm,
                    q,
                    k: k.as_ref(),
                    v: v.as_ref(),
                    q_norm: q_norm.as_ref(),
                    k_norm: k_norm.as_ref(),
                    v_norm: v_norm.as_ref(),
                    norm_after_rope: self.hyper.architecture.norm_after_rope,
                    rope: rope.as_ref(),
                    n_heads: params.n_heads,
                    n_kv_heads: params.n_kv_heads,
                    head_dim: params.head_dim,
                    v_head_dim: params.v_head_dim,
                    clamp: self.hyper.clamp,
                    growth: self.hyper.query_growth.filter(|_| !params.rotates),
                };
                self.device.qkv(x, rows, &args, cache, layer, queries)?;
            }
            AttentionWeights::Latent { q_down, q, kv_down, latent_norm, k_up, rope, .. } => {
                let q_down = q_down.as_ref().map(|(down, norm)| (down, norm));
                let n_heads = params.n_heads;
                let args = LatentQkv { norm, q_down, q, kv_down, latent_norm, k_up, rope, n_heads };
                self.device.latent_qkv(x, rows, &args, cache, layer, queries)?;
            }
            AttentionWeights::ShortConv { .. } | AttentionWeights::DeltaRule { .. } => {}
        }
        Ok(())
    }

    fn attend<'a>(&'a self, params: &LayerParams, block: &'a Block) -> Attend<'a> {
        Attend {
            n_heads: params.n_heads,
            n_kv_heads: params.n_kv_heads,
            head_dim: params.head_dim,
            v_head_dim: params.v_head_dim,
            scale: self.hyper.attention_scale,
            softcap: self.hyper.attention_softcap,
            window: params.window,
            chunked: self.hyper.architecture.chunked,
            sinks: block.sinks.as_ref(),
            slopes: self.weights.slopes.as_ref(),
        }
    }

    /// `out` is `residual` and what the block makes of `x`. A block with a shared expert needs `spare`.
    fn feed_forward(
        &self,
        block: &Block,
        n_rows: usize,
        x: &Buffer,
        residual: &Buffer,
        out: &mut Buffer,
        spare: Option<&mut Buffer>,
    ) -> Result<()> {
        let norm = block.ffn_norm.as_ref();
        let activation = self.hyper.activation;
        // What follows in the layer has its scale instead.
        let gain = if block.input.is_some() { 1.0 } else { block.gain };
        let epilogue = Epilogue { gain, ..self.epilogue(block.ffn_post_norm.as_ref(), residual) };
        let (shared, branches, args) = match &block.feed_forward {
            FeedForwardWeights::Dense(dense) => return self.dense(dense, norm, n_rows, x, epilogue, out),
            FeedForwardWeights::Experts {
                shared,
                branches,
                rule,
                router_norm,
                router,
                expert_scale,
                choice_bias,
                gate,
                up,
                down,
            } => {
                let args = Experts {
                    norm: branches.as_ref().map_or(norm, |branches| Some(&branches.experts)),
                    router_norm: router_norm.as_ref(),
                    router,
                    choice_bias: choice_bias.as_ref(),
                    expert_scale: expert_scale.as_ref(),
                    rule: *rule,
                    gate: Some(gate),
                    up,
                    down,
                    activation,
                    epilogue,
                };
                (shared, branches, args)
            }
        };
        match (shared, spare, branches) {
            (Some(shared), Some(spare), None) => {
                self.dense(shared, norm, n_rows, x, Epilogue { gain: 1.0, ..epilogue }, spare)?;
                let epilogue = Epilogue { residual: Some(spare), ..epilogue };
                self.device.experts(x, n_rows, &Experts { epilogue, ..args }, out)?;
            }
            (Some(shared), Some(spare), Some(norms)) => {
                let own = Epilogue { norm: Some(&norms.dense_post), ..Epilogue::PLAIN };
                self.dense(shared, norm, n_rows, x, own, spare)?;
                let both = Epilogue { norm: Some(&norms.experts_post), residual: Some(spare), ..own };
                self.device.experts(x, n_rows, &Experts { epilogue: both, ..args }, out)?;
                self.device.norm(out, n_rows, self.hyper.width, epilogue, spare)?;
                std::mem::swap(out, spare);
            }
            _ => self.device.experts(x, n_rows, &args, out)?,
        }
        Ok(())
    }

    fn dense(
        &self,
        weights: &DenseWeights,
        norm: Option<&Norm>,
        n_rows: usize,
        x: &Buffer,
        epilogue: Epilogue<'_>,
        out: &mut Buffer,
    ) -> Result<()> {
        let &DenseWeights { ref gate, ref up, sparsity, ref inner_norm, ref down, ref output_gate } = weights;
        let (gate, inner_norm, output_gate) = (gate.as_ref(), inner_norm.as_ref(), output_gate.as_ref());
        let activation = self.hyper.activation;
        let args = FeedForward { norm, gate, up, sparsity, inner_norm, down, activation, output_gate, epilogue };
        Ok(self.device.feed_forward(x, n_rows, &args, out)?)
    }

    fn epilogue<'a>(&self, norm: Option<&'a Norm>, residual: &'a Buffer) -> Epilogue<'a> {
        Epilogue { norm, scale: self.hyper.residual_scale, residual: Some(residual), ..Epilogue::PLAIN }
    }

    /// Logits of some rows of a batch, of the chunk that starts at `start`, to `host_logits[at..]`.
    pub(crate) fn logits(&self, rows: &[u32], start: usize, at: usize, scratch: &mut Scratch) -> Result<()> {
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
