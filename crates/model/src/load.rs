//! Tensors by the house's names, checked against the numbers, brought to the device.
//!
//! What belongs here: expected shapes, optional parts (told by presence), fused tensors split by rows, pieces joined,
//! progress. What does not: how a file spells a name (`convention.rs`), what the tensors are used for (`decoder.rs`), their
//! bytes (`checkpoint`), their layout (`compute`).

use crate::convention::{Convention, Names};
use crate::export;
use crate::hyper::{HyperParams, LatentParams, LayerParams};
use crate::keys::Keys;
use crate::rope::RopeScaling;
use crate::weights::{AttentionWeights, Block, DenseWeights, FeedForwardWeights, Weights};
use crate::{Error, ExpertOrder, Result};
use checkpoint::Checkpoint;
use compute::{Device, Norm, Projection, Rope, Weight, WeightUse};
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use tensor::{DType, HostTensor, Mixture, Shape, SharedBytes};

/// How to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Rows computed at once at most; longer batches are cut. More need more scratch memory and prefill faster.
    pub max_rows: usize,
    /// Positions that the cache will hold; none: as many as the model was trained for. LongRoPE chooses by it.
    pub context_length: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_rows: 512, context_length: None }
    }
}

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of the file's tensors that are done.
    pub done_bytes: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
}

/// Another type for the matrices of a model while it is loaded.
pub struct Retype<'a> {
    /// Which type each gets.
    pub mixture: &'static Mixture,
    /// The bytes of a tensor in another type.
    pub encode: &'a dyn Fn(&HostTensor, DType) -> tensor::Result<Vec<u8>>,
}

/// What loading yields besides the weights.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Bytes of the weights as the device keeps them.
    pub(crate) resident_bytes: u64,
    /// How many of them lie in the file's memory.
    pub(crate) mapped_bytes: u64,
    /// Tensors of the file that nothing needs.
    pub(crate) unused: Vec<String>,
}

/// Fetches, checks and uploads all weights.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    device: &dyn Device,
    hyper: &HyperParams,
    options: &LoadOptions,
    retype: Option<&Retype<'_>>,
    progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
) -> Result<Loaded> {
    let total_bytes = checkpoint.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes));
    let (convention, architecture) = Convention::of(checkpoint.metadata())?;
    let mut loader = Loader {
        checkpoint,
        names: Names::new(checkpoint, convention, architecture),
        device,
        hyper,
        retype,
        progress,
        at: LoadProgress { done_bytes: 0, total_bytes },
        used: HashSet::new(),
        resident_bytes: 0,
        mapped_bytes: 0,
    };
    loader.report(0)?;
    let weights = loader.weights(options)?;
    let unused = loader.unused()?;
    loader.report(total_bytes)?;
    Ok(Loaded { weights, resident_bytes: loader.resident_bytes, mapped_bytes: loader.mapped_bytes, unused })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    names: Names<'a>,
    device: &'a dyn Device,
    hyper: &'a HyperParams,
    retype: Option<&'a Retype<'a>>,
    progress: &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    at: LoadProgress,
    used: HashSet<String>,
    resident_bytes: u64,
    mapped_bytes: u64,
}

impl Loader<'_> {
    fn weights(&mut self, options: &LoadOptions) -> Result<Weights> {
        let (width, n_vocab) = (self.hyper.width, self.hyper.n_vocab);
        let tied = self.hyper.tied_embeddings.unwrap_or(!self.has("output.weight"));
        if tied {
            // A copy of the embedding, where there is one.
            self.used.insert(self.names.spelled("output.weight"));
        }
        let usage = if tied { WeightUse::Matrix } else { WeightUse::Table };
        let embedding = self.weight("token_embd.weight", &[n_vocab, width], usage)?;
        let positions = match self.hyper.architecture.has_rope || !self.has("position_embd.weight") {
            true => None,
            false => {
                let shape = [self.hyper.context_length, width];
                Some(self.weight("position_embd.weight", &shape, WeightUse::Table)?)
            }
        };
        let slopes = self.slopes()?;
        let rope = self.rope(options)?;
        let local_rope = self.local_rope()?;
        let layers = self.hyper.layers.iter().enumerate();
        let blocks = layers
            .map(|(i, layer)| {
                let rope = match (layer.rotates, layer.local) {
                    (false, _) => None,
                    (true, false) => Some(rope.clone()),
                    (true, true) => Some(local_rope.clone()),
                };
                self.block(i, layer, rope)
            })
            .collect::<Result<_>>()?;
        let output_norm = self.norm("output_norm", width)?;
        let head = match tied {
            true => Projection { weight: embedding.clone(), bias: self.bias("output.bias", n_vocab)? },
            false => self.projection("output", &[n_vocab, width])?,
        };
        Ok(Weights { embedding, positions, slopes, blocks, output_norm, head })
    }

    fn block(&mut self, i: usize, layer: &LayerParams, rope: Option<Rope>) -> Result<Block> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (pre, post) = (self.hyper.has_pre_norms(), self.hyper.has_post_norms());
        // Blocks that read the same input may share its norm, or attention has one of its own beside it.
        let is_bare = self.hyper.architecture.bare_norms;
        let shares_norm = self.hyper.parallel && !is_bare && !self.has(&name("ffn_norm.weight"));
        let has_own = shares_norm && self.has(&name("attn_norm_2.weight"));
        let attn_norm =
            if pre { Some(self.norm(&name(if has_own { "attn_norm_2" } else { "attn_norm" }), width)?) } else { None };
        let ffn_norm =
            if pre { Some(self.norm(&name(if shares_norm { "attn_norm" } else { "ffn_norm" }), width)?) } else { None };
        let latent = self.hyper.latent.clone();
        let attention = match (&latent, rope) {
            (Some(latent), Some(rope)) => self.latent_attention(i, layer, latent, rope)?,
            (_, rope) => self.plain_attention(i, layer, rope)?,
        };
        let attention_dim = latent.map_or(layer.attention_dim(), |latent| layer.n_heads * latent.v_dim);
        Ok(Block {
            attn_norm,
            attention,
            sinks: self.optional_vector(&name("attn_sinks.weight"), layer.n_heads)?,
            o: self.projection(&name("attn_output"), &[width, attention_dim])?,
            attn_post_norm: if post { Some(self.norm(&name("post_attention_norm"), width)?) } else { None },
            ffn_norm,
            feed_forward: self.feed_forward(i, layer.n_ff)?,
            ffn_post_norm: if post { Some(self.norm(&name("post_ffw_norm"), width)?) } else { None },
        })
    }

    fn plain_attention(&mut self, i: usize, layer: &LayerParams, rope: Option<Rope>) -> Result<AttentionWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let [q, k, v] = if self.has(&name("attn_qkv.weight")) {
            self.fused(&name("attn_qkv"), self.qkv_rows(layer), width)?
        } else {
            [
                self.projection(&name("attn_q"), &[layer.q_dim(), width])?,
                self.projection(&name("attn_k"), &[layer.k_dim(), width])?,
                self.projection(&name("attn_v"), &[layer.v_dim(), width])?,
            ]
        };
        let q_norm = self.head_norm(&name("attn_q_norm"), layer.head_dim, layer.n_heads)?;
        let k_norm = self.head_norm(&name("attn_k_norm"), layer.head_dim, layer.n_kv_heads)?;
        Ok(AttentionWeights::Plain { q, k, v, q_norm, k_norm, rope })
    }

    /// Latent attention. Files have what rotates of a head at its end, and the matrices of keys and values in one or apart.
    fn latent_attention(
        &mut self,
        i: usize,
        layer: &LayerParams,
        latent: &LatentParams,
        rope: Rope,
    ) -> Result<AttentionWeights> {
        let (width, n_heads) = (self.hyper.width, layer.n_heads);
        let &LatentParams { q_rank, rank, rope_dim, nope_dim, v_dim } = latent;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (q_down, q_name, q_in) = match q_rank {
            Some(q_rank) => {
                let down = self.projection(&name("attn_q_a"), &[q_rank, width])?;
                (Some((down, self.norm(&name("attn_q_a_norm"), q_rank)?)), name("attn_q_b"), q_rank)
            }
            None => (None, name("attn_q"), width),
        };
        let rotating_first = |head: usize| {
            let first = head * (nope_dim + rope_dim);
            [first + nope_dim..first + nope_dim + rope_dim, first..first + nope_dim]
        };
        let [q] = self.fused(&q_name, [(0..n_heads).flat_map(rotating_first).collect()], q_in)?;
        let [kv_down] = self.fused(&name("attn_kv_a_mqa"), [vec![rank..rank + rope_dim, 0..rank]], width)?;
        let latent_norm = self.norm(&name("attn_kv_a_norm"), rank)?;
        let [k_up, v_up] = if self.has(&name("attn_k_b.weight")) {
            [
                self.expert_stack(&name("attn_k_b"), &[n_heads, rank, nope_dim])?,
                self.expert_stack(&name("attn_v_b"), &[n_heads, v_dim, rank])?,
            ]
        } else {
            self.keys_and_values(&name("attn_kv_b.weight"), n_heads, latent)?
        };
        Ok(AttentionWeights::Latent { q_down, q, kv_down, latent_norm, k_up, v_up, rope })
    }

    /// The matrices that make keys (transposed, as queries need it) and values of latents, from one that has both.
    fn keys_and_values(&mut self, name: &str, n_heads: usize, latent: &LatentParams) -> Result<[Projection; 2]> {
        let &LatentParams { rank, nope_dim, v_dim, .. } = latent;
        let step = nope_dim + v_dim;
        let whole = self.fetch(name, &[n_heads * step, rank])?;
        let part = |from: usize, len: usize| {
            let rows: Vec<_> = (0..n_heads).map(|head| head * step + from..head * step + from + len).collect();
            let part = rows_of(&whole, name, &rows)?;
            let shape = Shape::new(&[n_heads, len, rank]).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
            HostTensor::new(name, part.dtype(), shape, part.bytes().clone())
        };
        let keys = part(0, nope_dim).and_then(|keys| {
            let plain = HostTensor::from_f32(name, *keys.shape(), &keys.to_f32()?)?;
            transposed(&plain, nope_dim, rank)
        });
        let (keys, values) =
            (keys.map_err(|e| in_tensor(name, e))?, part(nope_dim, v_dim).map_err(|e| in_tensor(name, e))?);
        let k_up = Projection { weight: self.upload(&keys, WeightUse::Experts, false)?, bias: None };
        let v_up = Projection { weight: self.upload(&values, WeightUse::Experts, false)?, bias: None };
        self.checkpoint.release(&whole);
        Ok([k_up, v_up])
    }

    fn feed_forward(&mut self, i: usize, n_ff: usize) -> Result<FeedForwardWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        if let Some(experts) = self.hyper.experts.as_ref().filter(|_| self.has(&name("ffn_gate_inp.weight"))) {
            let (n, n_ff, rule) = (experts.n_experts, experts.n_ff, experts.rule);
            let [gate, up] = match self.has(&name("ffn_gate_exps.weight")) {
                true => [
                    self.expert_stack(&name("ffn_gate_exps"), &[n, n_ff, width])?,
                    self.expert_stack(&name("ffn_up_exps"), &[n, n_ff, width])?,
                ],
                false => self.fused_experts(&name("ffn_up_exps"), n, n_ff, width)?,
            };
            return Ok(FeedForwardWeights::Experts {
                shared: self.shared_expert(i)?,
                rule,
                router: self.projection(&name("ffn_gate_inp"), &[n, width])?,
                choice_bias: self.optional_vector(&name("exp_probs_b.bias"), n)?,
                gate,
                up,
                down: self.expert_stack(&name("ffn_down_exps"), &[n, width, n_ff])?,
            });
        }
        if n_ff == 0 {
            let keys = Keys::new(self.checkpoint.metadata())?;
            return Err(keys.bad("feed_forward_length", 0, &format!("layer {i} is dense")));
        }
        let parts = ["ffn_gate", "ffn_up", "ffn_down"].map(name);
        Ok(FeedForwardWeights::Dense(self.dense(&parts, n_ff)?))
    }

    /// The expert of layer `i` that every token passes.
    fn shared_expert(&mut self, i: usize) -> Result<Option<DenseWeights>> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let n_ff = self.hyper.experts.as_ref().and_then(|e| e.shared_n_ff);
        let Some(n_ff) = n_ff.filter(|_| self.has(&name("ffn_down_shexp.weight"))) else { return Ok(None) };
        if self.hyper.parallel || self.hyper.has_post_norms() {
            return Err(Error::Unsupported { what: "a shared expert in layers of this kind".to_owned() });
        }
        let dense = self.dense(&["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(name), n_ff)?;
        let output_gate = self.optional_vector(&name("ffn_gate_inp_shexp.weight"), self.hyper.width)?;
        Ok(Some(DenseWeights { output_gate, ..dense }))
    }

    /// A dense block of `n_ff`, by the names of gate, up and down.
    fn dense(&mut self, [gate, up, down]: &[String; 3], n_ff: usize) -> Result<DenseWeights> {
        let width = self.hyper.width;
        let (gate, up) = if !self.hyper.architecture.gated {
            (None, self.projection(up, &[n_ff, width])?)
        } else if self.has(&format!("{gate}.weight")) {
            (Some(self.projection(gate, &[n_ff, width])?), self.projection(up, &[n_ff, width])?)
        } else {
            let [gate, up] = self.fused(up, [only(0..n_ff), only(n_ff..2 * n_ff)], width)?;
            (Some(gate), up)
        };
        Ok(DenseWeights { gate, up, down: self.projection(down, &[width, n_ff])?, output_gate: None })
    }

    /// Where Q, K and V lie in a matrix of all three.
    fn qkv_rows(&self, layer: &LayerParams) -> [Vec<Range<usize>>; 3] {
        let (q_dim, k_dim, v_dim) = (layer.q_dim(), layer.k_dim(), layer.v_dim());
        if !self.names.are_fused_by_head() {
            return [only(0..q_dim), only(q_dim..q_dim + k_dim), only(q_dim + k_dim..q_dim + k_dim + v_dim)];
        }
        let group = layer.n_heads / layer.n_kv_heads * layer.head_dim;
        let step = group + layer.head_dim + layer.v_head_dim;
        let by_head = |from: usize, len: usize| {
            (0..layer.n_kv_heads).map(|head| head * step + from..head * step + from + len).collect()
        };
        [by_head(0, group), by_head(group, layer.head_dim), by_head(group + layer.head_dim, layer.v_head_dim)]
    }

    /// ALiBi's slopes (Press et al. 2021): powers of one root, and for heads beyond a power of two those between.
    fn slopes(&mut self) -> Result<Option<Weight>> {
        let Some(bias) = self.hyper.alibi else { return Ok(None) };
        let n_heads = self.hyper.layers.iter().map(|l| l.n_heads).max().unwrap_or(0);
        let whole = if n_heads.is_power_of_two() { n_heads } else { n_heads.next_power_of_two() / 2 };
        let slope = |head: usize| {
            let (steps, of) = if head < whole { (head + 1, whole) } else { (2 * (head - whole) + 1, 2 * whole) };
            (-f64::from(bias) * steps as f64 / of as f64).exp2() as f32
        };
        let values: Vec<f32> = (0..n_heads).map(slope).collect();
        self.made_vector("slopes", &values).map(Some)
    }

    /// RoPE with whatever scaling the numbers and tensors of the file ask for.
    fn rope(&mut self, options: &LoadOptions) -> Result<Rope> {
        let params = &self.hyper.rope;
        let context_length = options.context_length.unwrap_or(self.hyper.context_length);
        let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
        let is_long = context_length > params.original_context;
        let divisors = if let Some([short, long]) = &params.divisors {
            Some(if is_long { long.clone() } else { short.clone() })
        } else if self.has("rope_freqs.weight") {
            Some(self.rope_divisors("rope_freqs.weight")?)
        } else if params.scaling == RopeScaling::LongRope || self.has(short) || self.has(long) {
            self.used.extend([short, long].map(str::to_owned));
            Some(self.rope_divisors(if is_long { long } else { short })?)
        } else {
            None
        };
        let frequencies = params.frequencies(divisors.as_deref(), context_length);
        self.rope_of(&frequencies, params.magnitude())
    }

    /// What the frequencies of each pair are divided by.
    fn rope_divisors(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.fetch(name, &[self.hyper.rope.n_dims / 2])?;
        let values = tensor.to_f32().map_err(|e| in_tensor(name, e))?;
        if values.iter().any(|d| !d.is_finite() || *d <= 0.0) {
            return Err(Error::Unsupported { what: format!("{name} with a factor that is not above 0") });
        }
        Ok(values)
    }

    fn local_rope(&mut self) -> Result<Rope> {
        let frequencies = self.hyper.rope.local_frequencies();
        self.rope_of(&frequencies, 1.0)
    }

    fn rope_of(&mut self, frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        if !magnitude.is_finite() || frequencies.iter().any(|f| !f.is_finite()) {
            return Err(Error::Unsupported { what: "RoPE scaling with numbers this extreme".to_owned() });
        }
        let (pairing, n_dims) = (self.hyper.rope.pairing, self.hyper.rope.n_dims);
        Ok(Rope { pairing, n_dims, frequencies: self.made_vector("rope frequencies", frequencies)?, magnitude })
    }

    /// A norm over the whole width; its shift where the file has one.
    fn norm(&mut self, base: &str, width: usize) -> Result<Norm> {
        let (kind, eps) = (self.hyper.architecture.norm, self.hyper.norm_eps);
        if self.hyper.architecture.bare_norms {
            return Ok(Norm { kind, weight: None, bias: None, eps });
        }
        let name = format!("{base}.weight");
        let offset = self.names.norm_offset();
        let weight = if offset == 0.0 {
            self.weight(&name, &[width], WeightUse::Vector)?
        } else {
            let tensor = self.fetch(&name, &[width])?;
            let mut values = tensor.to_f32().map_err(|e| in_tensor(&name, e))?;
            values.iter_mut().for_each(|v| *v += offset);
            self.made_vector(&name, &values)?
        };
        let bias = self.bias(&format!("{base}.bias"), width)?;
        Ok(Norm { kind, weight: Some(weight), bias, eps })
    }

    /// A norm of query or key heads, if there is one: each by itself, with its own weights or those of all, or all at
    /// once, as its shape tells.
    fn head_norm(&mut self, base: &str, head_dim: usize, n_heads: usize) -> Result<Option<Norm>> {
        let name = format!("{base}.weight");
        let Some(info) = self.names.find(&name) else { return Ok(None) };
        let (pieces, dims) = (self.names.pieces(&name, n_heads), info.shape.dims());
        if pieces.is_none() && dims.len() == 1 {
            let width = if dims == [head_dim] { head_dim } else { n_heads * head_dim };
            return self.norm(base, width).map(Some);
        }
        let shape = [n_heads, head_dim];
        let weight = match pieces {
            Some(pieces) => {
                let whole = self.joined(&name, &pieces, &shape)?;
                self.upload(&whole, WeightUse::Vector, false)?
            }
            None => self.weight(&name, &shape, WeightUse::Vector)?,
        };
        Ok(Some(Norm {
            kind: self.hyper.architecture.norm,
            weight: Some(weight),
            bias: None,
            eps: self.hyper.norm_eps,
        }))
    }

    fn projection(&mut self, base: &str, shape: &[usize; 2]) -> Result<Projection> {
        let weight = self.weight(&format!("{base}.weight"), shape, WeightUse::Matrix)?;
        Ok(Projection { weight, bias: self.bias(&format!("{base}.bias"), shape[0])? })
    }

    fn expert_stack(&mut self, base: &str, shape: &[usize; 3]) -> Result<Projection> {
        let name = format!("{base}.weight");
        let weight = match self.names.pieces(&name, shape[0]) {
            Some(pieces) => {
                let whole = self.joined(&name, &pieces, shape)?;
                self.upload(&whole, WeightUse::Experts, false)?
            }
            None if self.names.expert_order() == ExpertOrder::Halves => {
                self.weight(&name, shape, WeightUse::Experts)?
            }
            None => {
                let whole = self.fetch_experts(&name, *shape)?;
                self.upload(&whole, WeightUse::Experts, false)?
            }
        };
        let bias_name = format!("{base}.bias");
        let bias = match self.has(&bias_name) {
            true => Some(self.weight(&bias_name, &shape[..2], WeightUse::Vector)?),
            false => None,
        };
        Ok(Projection { weight, bias })
    }

    /// Gate and up of all experts of a layer from one tensor.
    fn fused_experts(&mut self, base: &str, n: usize, n_ff: usize, width: usize) -> Result<[Projection; 2]> {
        let (name, bias_name) = (format!("{base}.weight"), format!("{base}.bias"));
        let whole = self.fetch_experts(&name, [n, 2 * n_ff, width])?;
        let bias = match self.has(&bias_name) {
            true => Some(self.fetch(&bias_name, &[n, 2 * n_ff])?.to_f32().map_err(|e| in_tensor(&bias_name, e))?),
            false => None,
        };
        let in_pairs = self.names.expert_order() == ExpertOrder::TransposedPairs;
        let mut part = |which: usize| -> Result<Projection> {
            let rows = |expert: usize| {
                let (first, step) = if in_pairs { (which, 2) } else { (which * n_ff, 1) };
                (0..n_ff).map(move |i| expert * 2 * n_ff + first + i * step)
            };
            let rows: Vec<usize> = (0..n).flat_map(rows).collect();
            let part = chosen_rows(&whole, &name, &rows, &[n, n_ff, width]).map_err(|e| in_tensor(&name, e))?;
            let weight = self.upload(&part, WeightUse::Experts, false)?;
            let bias = match &bias {
                Some(all) => {
                    let values: Vec<f32> = rows.iter().filter_map(|&row| all.get(row)).copied().collect();
                    Some(self.made_vector(&bias_name, &values)?)
                }
                None => None,
            };
            Ok(Projection { weight, bias })
        };
        let both = [part(0)?, part(1)?];
        self.checkpoint.release(&whole);
        Ok(both)
    }

    /// All experts of a layer, `[n, n_out, n_in]`, however the file has them.
    fn fetch_experts(&mut self, name: &str, [n, n_out, n_in]: [usize; 3]) -> Result<HostTensor> {
        // Modules of their own, and quantized rows, are never transposed.
        let spelled = self.names.spelled(name);
        let in_rows = spelled.ends_with(".weight") || self.is_quantized(&spelled);
        if in_rows || self.names.expert_order() == ExpertOrder::Halves {
            return self.fetch(name, &[n, n_out, n_in]);
        }
        let stored = self.fetch_spelled(&self.names.spelled(name), &[n, n_in, n_out])?;
        let turned = transposed(&stored, n_in, n_out).map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&stored);
        self.retyped(name, turned)
    }

    /// One tensor made of those that the file calls `pieces`, one after another along the first dimension of `shape`.
    fn joined(&mut self, name: &str, pieces: &[String], shape: &[usize]) -> Result<HostTensor> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let sizes = pieces.iter().map(|piece| self.checkpoint.tensor(piece).map_or(0, |info| info.bytes));
        let n_bytes = sizes.fold(0u64, u64::saturating_add);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(n_bytes).map_err(|_| overflow())?).map_err(|_| overflow())?;
        let mut dtype = None;
        for piece in pieces {
            let tensor = self.fetch_spelled(piece, shape.get(1..).unwrap_or_default())?;
            let tensor = self.retyped(name, tensor)?;
            let first = *dtype.get_or_insert(tensor.dtype());
            if first != tensor.dtype() {
                let what = format!("{piece} in another type ({}) than its siblings ({first})", tensor.dtype());
                return Err(Error::Unsupported { what });
            }
            bytes.extend_from_slice(tensor.bytes());
            self.checkpoint.release(&tensor);
        }
        let (dtype, shape) = (dtype.ok_or_else(overflow)?, Shape::new(shape).ok_or_else(overflow)?);
        HostTensor::new(name, dtype, shape, SharedBytes::from_vec(bytes)).map_err(|e| in_tensor(name, e))
    }

    /// Several matrices stored as one, and their biases: the rows of each, which together are all rows.
    fn fused<const N: usize>(
        &mut self,
        base: &str,
        parts: [Vec<Range<usize>>; N],
        n_in: usize,
    ) -> Result<[Projection; N]> {
        let (weight_name, bias_name) = (format!("{base}.weight"), format!("{base}.bias"));
        let n_all = parts.iter().flatten().map(Range::len).sum();
        let whole = self.fetch(&weight_name, &[n_all, n_in])?;
        let in_file = !self.names.is_transposed(&weight_name);
        let bias = match self.has(&bias_name) {
            true => Some(self.fetch(&bias_name, &[n_all])?.to_f32().map_err(|e| in_tensor(&bias_name, e))?),
            false => None,
        };
        let mut projections = Vec::with_capacity(N);
        let mut mapped = false;
        for rows in parts {
            let part = rows_of(&whole, &weight_name, &rows).map_err(|e| in_tensor(&weight_name, e))?;
            let weight = self.upload(&part, WeightUse::Matrix, in_file && rows.len() == 1)?;
            mapped |= weight.is_mapped();
            let bias = match &bias {
                Some(all) => {
                    let values: Vec<f32> =
                        rows.iter().flat_map(|range| all.get(range.clone()).unwrap_or_default()).copied().collect();
                    Some(self.made_vector(&bias_name, &values)?)
                }
                None => None,
            };
            projections.push(Projection { weight, bias });
        }
        if !mapped {
            self.checkpoint.release(&whole);
        }
        projections.try_into().map_err(|_| Error::Overflow { what: weight_name })
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<Option<Weight>> {
        if self.has(name) { self.weight(name, &[len], WeightUse::Vector).map(Some) } else { Ok(None) }
    }

    /// A vector that may be there, which some files store as a matrix of one row.
    fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Weight>> {
        let Some(info) = self.names.find(name) else { return Ok(None) };
        let shape: &[usize] = if info.shape.dims().len() == 2 { &[1, len] } else { &[len] };
        self.weight(name, shape, WeightUse::Vector).map(Some)
    }

    fn weight(&mut self, name: &str, shape: &[usize], usage: WeightUse) -> Result<Weight> {
        let tensor = self.fetch(name, shape)?;
        let in_file = usage == WeightUse::Vector || !self.names.is_transposed(name);
        let weight = self.upload(&tensor, usage, in_file)?;
        if !weight.is_mapped() {
            self.checkpoint.release(&tensor);
        }
        Ok(weight)
    }

    /// Values that are in no file in this form.
    fn made_vector(&mut self, name: &str, values: &[f32]) -> Result<Weight> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let shape = Shape::new(&[values.len()]).ok_or_else(overflow)?;
        let tensor = HostTensor::from_f32(name, shape, values).map_err(|e| in_tensor(name, e))?;
        let weight = self.device.upload(&tensor, WeightUse::Vector)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        Ok(weight)
    }

    /// Brings a tensor to the device; `in_file` says whether its bytes are the file's.
    fn upload(&mut self, tensor: &HostTensor, usage: WeightUse, in_file: bool) -> Result<Weight> {
        let weight = self.device.upload(tensor, usage)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        if in_file && weight.is_mapped() && self.retype.is_none() {
            self.mapped_bytes += weight.resident_bytes() as u64;
        }
        self.report(self.at.done_bytes.saturating_add(tensor.bytes().len() as u64))?;
        Ok(weight)
    }

    fn report(&mut self, done_bytes: u64) -> Result<()> {
        self.at.done_bytes = done_bytes.min(self.at.total_bytes);
        match (self.progress)(self.at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    /// Whether the tensor that the file calls `name` is stored in blocks, and so by rows whatever the family does.
    fn is_quantized(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some_and(|info| info.dtype.is_quantized())
    }

    fn has(&self, name: &str) -> bool {
        self.names.find(name).is_some()
    }

    fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let spelled = self.names.spelled(name);
        let tensor = match shape {
            &[n_out, n_in] if self.names.is_transposed(name) && !self.is_quantized(&spelled) => {
                let stored = self.fetch_spelled(&spelled, &[n_in, n_out])?;
                let turned = transposed(&stored, n_in, n_out).map_err(|e| in_tensor(&spelled, e))?;
                self.checkpoint.release(&stored);
                turned
            }
            shape => self.fetch_spelled(&spelled, shape)?,
        };
        self.retyped(name, tensor)
    }

    /// The house's tensor `name`, or a piece of it, in the type that it is to be kept in.
    fn retyped(&mut self, name: &str, tensor: HostTensor) -> Result<HostTensor> {
        let Some(retype) = self.retype else { return Ok(tensor) };
        let is_tied = self.hyper.tied_embeddings.unwrap_or(!self.has("output.weight"));
        let Some(site) = export::site(name, tensor.shape(), self.hyper, is_tied) else { return Ok(tensor) };
        let to = retype.mixture.dtype(&site, tensor.shape());
        if to == tensor.dtype() {
            return Ok(tensor);
        }
        let bytes = (retype.encode)(&tensor, to).map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&tensor);
        // Progress counts the bytes of the file.
        let lost = tensor.bytes().len().saturating_sub(bytes.len());
        self.at.done_bytes = self.at.done_bytes.saturating_add(lost as u64);
        let shape = *tensor.shape();
        HostTensor::new(tensor.name(), to, shape, SharedBytes::from_vec(bytes)).map_err(|e| in_tensor(name, e))
    }

    /// The tensor that the file calls `name`.
    fn fetch_spelled(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let missing = || Error::MissingTensor { name: name.to_owned(), hint: "" };
        let info = self.checkpoint.tensor(name).ok_or_else(missing)?;
        if info.shape.dims() != shape {
            let (found, expected) = (info.shape.to_string(), format!("{shape:?}"));
            return Err(Error::TensorShape { name: name.to_owned(), found, expected });
        }
        self.used.insert(name.to_owned());
        Ok(self.checkpoint.load(name)?)
    }

    /// Tensors that nothing used. Error: one that must mean something.
    fn unused(&self) -> Result<Vec<String>> {
        let names = self.checkpoint.tensors().iter().map(|t| t.name.as_str()).filter(|n| !self.used.contains(*n));
        let (unused, unplaced): (Vec<&str>, Vec<&str>) = names.partition(|name| {
            self.names.is_harmless(name) || self.names.layer_of(name).is_some_and(|layer| layer >= self.hyper.n_layers)
        });
        match unplaced.first() {
            Some(first) => Err(Error::UnplacedTensors {
                architecture: self.hyper.architecture.name,
                n: unplaced.len(),
                first: first.chars().take(64).flat_map(char::escape_debug).collect(),
            }),
            None => Ok(unused.into_iter().map(str::to_owned).collect()),
        }
    }
}

/// A single range of rows.
fn only(rows: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(rows).collect()
}

/// Some rows of a matrix, one range after another; those of a single range are not copied.
fn rows_of(whole: &HostTensor, name: &str, rows: &[Range<usize>]) -> tensor::Result<HostTensor> {
    let named = |range: &Range<usize>| whole.rows(format!("{name}[{}..{}]", range.start, range.end), range.clone());
    if let [range] = rows {
        return named(range);
    }
    let mut bytes = Vec::new();
    for range in rows {
        bytes.extend_from_slice(named(range)?.bytes());
    }
    let n_rows = rows.iter().map(Range::len).sum();
    let shape = Shape::new(&[n_rows, whole.shape().row_len()]).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
    HostTensor::new(name, whole.dtype(), shape, SharedBytes::from_vec(bytes))
}

/// Single rows of a tensor in any order, as a tensor of `shape`.
fn chosen_rows(whole: &HostTensor, name: &str, rows: &[usize], shape: &[usize]) -> tensor::Result<HostTensor> {
    let all: Vec<&[u8]> = whole.bytes().chunks_exact(whole.row_bytes().max(1)).collect();
    let bytes = rows.iter().filter_map(|&row| all.get(row)).flat_map(|row| row.iter()).copied().collect();
    let shape = Shape::new(shape).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
    HostTensor::new(name, whole.dtype(), shape, SharedBytes::from_vec(bytes))
}

/// A matrix `[n_in, n_out]`, or each of a stack of them, as `[n_out, n_in]`. Error: a type whose elements lie in blocks.
pub(crate) fn transposed(stored: &HostTensor, n_in: usize, n_out: usize) -> tensor::Result<HostTensor> {
    let dtype = stored.dtype();
    if dtype.block_len() != 1 {
        return Err(tensor::Error::Unsupported { dtype, action: "transposed" });
    }
    let (size, from) = (dtype.block_bytes(), stored.bytes());
    let mut bytes = vec![0; from.len()];
    let matrix_bytes = (n_in * n_out * size).max(1);
    for (from, bytes) in from.chunks_exact(matrix_bytes).zip(bytes.chunks_exact_mut(matrix_bytes)) {
        for (i, row) in from.chunks_exact((n_out * size).max(1)).enumerate() {
            for (element, to) in row.chunks_exact(size).zip(bytes.chunks_exact_mut((n_in * size).max(1))) {
                if let Some(to) = to.get_mut(i * size..(i + 1) * size) {
                    to.copy_from_slice(element);
                }
            }
        }
    }
    let outer = stored.shape().dims().iter().copied().rev().skip(2).rev();
    let dims: Vec<usize> = outer.chain([n_out, n_in]).collect();
    let shape = Shape::new(&dims).ok_or_else(|| tensor::Error::Shape(stored.name().to_owned()))?;
    HostTensor::new(stored.name(), dtype, shape, SharedBytes::from_vec(bytes))
}

fn in_tensor(name: &str, source: tensor::Error) -> Error {
    Error::Tensor { name: name.to_owned(), source }
}
