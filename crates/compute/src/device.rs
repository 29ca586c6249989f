//! The interface of a device: memory and a dozen *fused* operations of a language model.
//!
//! The operations are fat on purpose, so that each device can fuse inside them. Activations are `f32`, row-major
//! `[rows, width]`; what precision the arithmetic inside uses is the device's [`Precision`]. Results never alias inputs:
//! an operation that adds to the residual stream takes it as an input and writes a new buffer. Shapes and dtypes are
//! checked here at this boundary; below it code trusts its inputs.

use crate::{LowRank, Observer, Result};
use std::{any::Any, ops::Range, sync::Arc};
use tensor::{DType, HostTensor, Shape};

/// Positions in one block of the KV cache. A sequence owns a list of blocks; position `p` lives in block `p / KV_BLOCK`
/// of its list, at row `p % KV_BLOCK`.
pub const KV_BLOCK: usize = 64;

/// How exact the arithmetic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Integer dot products on quantized weights, activations rounded to 8 bits where that pays.
    #[default]
    Fast,
    /// Weights dequantized exactly, activations and accumulation in `f32`: the reference mode.
    F32,
}

/// The memory of a device that holds activations: `f32` elements. Opaque to callers.
pub struct Buffer {
    pub(crate) inner: Box<dyn Any + Send + Sync>,
    pub(crate) len: usize,
}

impl Buffer {
    /// Elements it can hold.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A tensor on the device. Its layout is the device's secret; dtype and shape are those of the checkpoint.
#[derive(Clone)]
pub struct Weight {
    pub(crate) inner: Arc<dyn Any + Send + Sync>,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) resident: usize,
    pub(crate) mapped: bool,
    pub(crate) low_rank: Vec<LowRank>,
    pub(crate) observer: Option<Arc<Observer>>,
}

impl Weight {
    /// From now on `observer` sees what this weight is multiplied with; clones made before do not report to it.
    pub fn observe(&mut self, observer: Arc<Observer>) {
        self.observer = Some(observer);
    }

    /// Stored type (of the checkpoint).
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes that the device holds for it.
    pub fn resident_bytes(&self) -> usize {
        self.resident
    }

    /// Whether the device still reads the bytes given to [`Device::upload`] (so that they must not be dropped).
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }
}

/// What a weight will be used for: lets a device choose a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightUse {
    /// The right side of a product, `[n_out, n_in]`; also gathered by row if it is a tied embedding.
    Matrix,
    /// A stack of matrices, `[n_expert, n_out, n_in]`.
    Experts,
    /// Rows gathered by token id only, `[n_vocab, width]`.
    Table,
    /// A vector kept as `f32`: norms, biases, RoPE frequencies.
    Vector,
}

/// Facts about a device, for `/stats`, `doctor` and the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Backend name as the user writes it: `cpu`, `cuda`, …
    pub backend: &'static str,
    /// The processor as it calls itself, or its family.
    pub name: String,
    /// Instruction set or compute capability in use, e.g. `avx512-vnni`.
    pub isa: &'static str,
    /// Worker threads (1 for devices without).
    pub threads: usize,
    /// The arithmetic in use.
    pub precision: Precision,
}

/// Which normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * weight` (Zhang & Sennrich 2019).
    Rms,
    /// `(x - mean) / std * weight + bias` (Ba et al. 2016).
    Layer,
}

/// A normalization over the last dimension. `weight` and `bias` are `f32` vectors.
#[derive(Clone)]
pub struct Norm {
    /// Which one.
    pub kind: NormKind,
    /// Scale, `[width]`; none means 1.
    pub weight: Option<Weight>,
    /// Shift, `[width]`.
    pub bias: Option<Weight>,
    /// Added under the root.
    pub eps: f32,
}

/// A matrix with its bias: `y = x · weightᵀ + bias`.
#[derive(Clone)]
pub struct Projection {
    /// `[n_out, n_in]`.
    pub weight: Weight,
    /// `[n_out]`.
    pub bias: Option<Weight>,
}

/// What happens after the last product of an operation: `out = gain · (residual + scale · norm(y))`.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Applied to the product first (Gemma's and OLMo2's post-norms).
    pub norm: Option<&'a Norm>,
    /// Multiplied in next (Granite's residual multiplier); 1 for most models.
    pub scale: f32,
    /// Added then; must be another buffer than the result.
    pub residual: Option<&'a Buffer>,
    /// Multiplied into the sum (Gemma 4's scale of a layer); 1 for most models.
    pub gain: f32,
}

/// Which elements of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// `(0, 1), (2, 3), …`: the original order, and GGUF's for Llama.
    Interleaved,
    /// `(0, n/2), (1, n/2 + 1), …`: GPT-NeoX's order.
    Halves,
}

/// Rotary position embedding (Su et al. 2021) with any scaling already folded into the frequencies.
#[derive(Clone)]
pub struct Rope {
    /// Which elements pair.
    pub pairing: RopePairing,
    /// Leading elements of each head that rotate (the rest passes through); even.
    pub n_dims: usize,
    /// Radians per position for each pair, `f32 [n_dims / 2]`.
    pub frequencies: Weight,
    /// Multiplied into the rotated part (YaRN's and LongRoPE's attention factor); 1 for most models.
    pub magnitude: f32,
}

/// Attention projections: norm, Q/K/V products, biases, Q/K norms, RoPE, and K and V written to the cache.
pub struct Qkv<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// `[n_heads · head_dim, width]`.
    pub q: &'a Projection,
    /// `[n_kv_heads · head_dim, width]`; none: the layer reads the keys and values of another, and only Q is made.
    pub k: Option<&'a Projection>,
    /// `[n_kv_heads · v_head_dim, width]`; none: V is the product that becomes K, before its norm and RoPE (Gemma 4).
    pub v: Option<&'a Projection>,
    /// Q norm: per head when its weight is `[head_dim]`, per head with weights of its own when it is
    /// `[n_heads, head_dim]` (Command R+), over all heads when it is `[n_heads · head_dim]` (OLMo2).
    pub q_norm: Option<&'a Norm>,
    /// K norm, likewise.
    pub k_norm: Option<&'a Norm>,
    /// V norm, likewise (Gemma 3n).
    pub v_norm: Option<&'a Norm>,
    /// The norms of Q and K come after RoPE instead of before it (Hunyuan).
    pub norm_after_rope: bool,
    /// None: no position embedding in this layer.
    pub rope: Option<&'a Rope>,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
    /// Values clamped to ±this after the bias (MPT, OLMo).
    pub clamp: Option<f32>,
    /// Queries grow with their position.
    pub growth: Option<QueryGrowth>,
}

/// What queries are multiplied with as their position grows: `1 + weight · ln(1 + ⌊(position + 1) / span⌋)` (Nakanishi 2025,
/// "Scalable-Softmax", as Llama 4 has it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryGrowth {
    /// Positions between two steps, above 0.
    pub span: f32,
    /// How fast.
    pub weight: f32,
}

/// The projections of latent attention (DeepSeek-V2): one narrow vector per position, the latent, stands for the keys and
/// values of all heads, beside a part of the key that rotates and that they share. The cache has one K/V head: as K the
/// rotated part and then the latent, as V the latent.
pub struct LatentQkv<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// Makes Q in two steps: `[n_narrow, width]` and the norm between.
    pub q_down: Option<(&'a Projection, &'a Norm)>,
    /// `[n_heads · (rope.n_dims + n_rest), width or n_narrow]`; the elements of a head that rotate come first.
    pub q: &'a Projection,
    /// `[rope.n_dims + rank, width]`: the key's rotating part, then the latent.
    pub kv_down: &'a Projection,
    /// Applied to the latent, `[rank]`.
    pub latent_norm: &'a Norm,
    /// `[n_heads, rank, n_rest]`: brings what does not rotate of a query to the latent's width.
    pub k_up: &'a Projection,
    /// Of the leading elements of queries and key.
    pub rope: &'a Rope,
    /// Query heads.
    pub n_heads: usize,
}

/// Softmax attention over the cache: causal, grouped heads, flash style (no n² buffer).
pub struct Attend<'a> {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
    /// Multiplied into the scores, usually `1 / √head_dim`.
    pub scale: f32,
    /// Scores become `c · tanh(s / c)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A position sees itself and the `window - 1` before it.
    pub window: Option<usize>,
    /// Windows lie side by side instead: a position sees itself and those before it in its own one (Llama 4).
    pub chunked: bool,
    /// One extra logit per head that only takes mass, `f32 [n_heads]` (gpt-oss).
    pub sinks: Option<&'a Weight>,
    /// Per head, what each position of distance takes off a score, `f32 [n_heads]` (ALiBi, Press et al. 2021).
    pub slopes: Option<&'a Weight>,
}

/// A gated short convolution (LFM2, Liquid AI 2025) up to its output projection: `c ⊙ conv(b ⊙ x)`, causal, each channel by
/// itself. Its state is what the convolution has seen last: `[n_taps - 1, width]`, oldest first.
pub struct ShortConv<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// `[3 · width, n_in]`: the rows of `b`, then those of `c`, then those of `x`.
    pub input: &'a Projection,
    /// The factor of each past position and channel, oldest first, `f32 [n_taps, width]`.
    pub taps: &'a Weight,
    /// Added after them, `f32 [width]`.
    pub bias: Option<&'a Weight>,
}

/// The gated delta rule (Yang et al. 2024, "Gated Delta Networks") up to its output projection. Q, K and V pass a causal
/// convolution, as in [`ShortConv`], and SiLU; each V head keeps a matrix `S [k_dim, v_dim]`, Q and K of unit length:
/// `S ← e^g S + k ⊗ β (v - (e^g S)ᵀ k)`, result `Sᵀ q / √k_dim`, then a norm over the head and a factor `silu(z)`, where
/// `β = sigmoid(b)` and `g = decay · softplus(a + shift)`. Several V heads share a K head.
///
/// Its state is that of the convolution, `[n_taps - 1, 2 · n_k_heads · k_dim + n_v_heads · v_dim]`, then `S` of every head.
pub struct DeltaRule<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// `[2 · n_k_heads · k_dim + n_v_heads · v_dim, n_in]`: all of Q, all of K, all of V.
    pub qkv: &'a Projection,
    /// `[n_v_heads · v_dim, n_in]`.
    pub z: &'a Projection,
    /// `[n_v_heads, n_in]`.
    pub b: &'a Projection,
    /// `[n_v_heads, n_in]`.
    pub a: &'a Projection,
    /// Of the convolution, `f32 [n_taps, 2 · n_k_heads · k_dim + n_v_heads · v_dim]`.
    pub taps: &'a Weight,
    /// Below 0, `f32 [n_v_heads]`.
    pub decay: &'a Weight,
    /// `f32 [n_v_heads]`.
    pub shift: &'a Weight,
    /// Over the results of a head, `[v_dim]`.
    pub head_norm: &'a Norm,
    /// Heads of Q and K.
    pub n_k_heads: usize,
    /// Heads of V; a multiple of those of K.
    pub n_v_heads: usize,
    /// V heads take the K heads in turns; otherwise consecutive ones share a K head.
    pub in_turns: bool,
    /// Width of a Q or K head.
    pub k_dim: usize,
    /// Width of a V head.
    pub v_dim: usize,
}

/// The activation of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU, tanh form (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// GELU with the error function.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (Nemotron, Arcee).
    ReluSquared,
    /// `x · sigmoid(1.702 · x)` of `x` cut to at most 7, times one more than the other factor cut to ±7 (gpt-oss).
    ClampedSwish,
}

/// A feed-forward block: `down(norm(act(gate(x)) ⊙ up(x)))`, or `down(norm(act(up(x))))` without a gate.
pub struct FeedForward<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// `[n_ff, width]`.
    pub gate: Option<&'a Projection>,
    /// `[n_ff, width]`.
    pub up: &'a Projection,
    /// Of the gate's products only what is above their mean by so many standard deviations of their row counts, less that
    /// (Gemma 3n).
    pub sparsity: Option<f32>,
    /// Applied to the input of `down` (BitNet).
    pub inner_norm: Option<&'a Norm>,
    /// `[width, n_ff]`.
    pub down: &'a Projection,
    /// Which activation.
    pub activation: Activation,
    /// The product of `down` is multiplied with `sigmoid(norm(x) · this)`, `f32 [width]` (the shared expert of Qwen2-MoE);
    /// `down` must have no bias then.
    pub output_gate: Option<&'a Weight>,
    /// After `down`.
    pub epilogue: Epilogue<'a>,
}

/// How router scores become expert weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterRule {
    /// Experts used by each token.
    pub n_used: usize,
    /// Scores are `sigmoid(x)` rather than a softmax over all experts (DeepSeek V3).
    pub sigmoid: bool,
    /// Softmax over the chosen experts only, instead of over all (gpt-oss).
    pub softmax_after_choice: bool,
    /// Chosen weights divided by their sum (Mixtral, Qwen3).
    pub normalize: bool,
    /// Multiplied into the chosen weights at the end.
    pub scale: f32,
    /// Experts are chosen from the best groups only (DeepSeek V2 and V3).
    pub groups: Option<RouterGroups>,
    /// The weight of a choice is its share among its peers (Liu et al. 2024, "GRIN"): a softmax over the scores of the
    /// experts not chosen before whose distance from its own is at most this fraction of the larger of both. Scores stay as
    /// they are then.
    pub peers: Option<f32>,
    /// A chosen expert's input is multiplied with its weight, instead of its output (Llama 4).
    pub weighs_input: bool,
}

/// Groups of experts, of which only the best take part in the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterGroups {
    /// Groups; they divide the experts evenly, in order.
    pub n_groups: usize,
    /// Groups that take part.
    pub n_used: usize,
    /// A group counts by the sum of its best so many scores: 1 (DeepSeek V2) or 2 (V3).
    pub n_best: usize,
}

/// A mixture of experts (Shazeer et al. 2017): router, the chosen experts' gated feed-forward, weighted sum.
pub struct Experts<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// Applied to what the router reads instead (Gemma 4).
    pub router_norm: Option<&'a Norm>,
    /// `[n_expert, width]`.
    pub router: &'a Projection,
    /// Added to the scores for the choice only, `f32 [n_expert]` (DeepSeek V3).
    pub choice_bias: Option<&'a Weight>,
    /// The rule.
    pub rule: RouterRule,
    /// `[n_expert, n_ff, width]`, bias `[n_expert, n_ff]`.
    pub gate: Option<&'a Projection>,
    /// `[n_expert, n_ff, width]`.
    pub up: &'a Projection,
    /// `[n_expert, width, n_ff]`.
    pub down: &'a Projection,
    /// Multiplied into the weight of each expert once it is chosen, `f32 [n_expert]` (Gemma 4).
    pub expert_scale: Option<&'a Weight>,
    /// Which activation.
    pub activation: Activation,
    /// After the weighted sum.
    pub epilogue: Epilogue<'a>,
}

/// What a layer adds by its own embedding of the token (Gemma 3n): `epilogue(output(act(gate(scale ⊙ x)) ⊙ input))`.
pub struct LayerInput<'a> {
    /// Multiplied into the input, `f32 [width]`.
    pub scale: Option<&'a Weight>,
    /// `[n, width]`.
    pub gate: &'a Projection,
    /// Which activation.
    pub activation: Activation,
    /// The embeddings of all layers, `[rows, stride]`.
    pub inputs: &'a Buffer,
    /// Elements of a row of them.
    pub stride: usize,
    /// The first element of this layer's `n`.
    pub first: usize,
    /// `[width, n]`.
    pub output: &'a Projection,
    /// After it.
    pub epilogue: Epilogue<'a>,
}

/// A step of a model that has several residual streams side by side, `[n_streams, rows, width]`: its layers compute the first
/// one and predict the others (Baykal et al. 2023, "Alternating Updates for Efficient Transformers").
pub enum Streams<'a> {
    /// `x` is one, and becomes the first; the others are its products with a stack `[n_streams - 1, width, width]`, each brought
    /// to the length of `x`.
    Part(&'a Projection),
    /// What they are before a layer: `x_i + Σ_j c_ij x_j`, where `c [n_streams, n_streams]` follows from the first one.
    Predict(StreamFactors<'a>),
    /// What they are after it: `x_i + (1 + c_i) (y - x_0)`, where `c [n_streams]` follows from `y`, which it made of the first.
    Correct(StreamFactors<'a>, &'a Buffer),
    /// `y` is added to all of so many but the first.
    Add(usize, &'a Buffer),
    /// They become one: the mean of the first and of the products of the others with such a stack, each brought to its length.
    Join(&'a Projection),
}

/// `c = coefficients · tanh(router · norm(x) / width)`.
#[derive(Clone, Copy)]
pub struct StreamFactors<'a> {
    /// `[width]`.
    pub norm: &'a Norm,
    /// `[n_streams, width]`.
    pub router: &'a Projection,
    /// `[n, n_streams]`.
    pub coefficients: &'a Projection,
}

/// The output head: norm, product with the vocabulary matrix, for chosen rows only.
pub struct Logits<'a> {
    /// Applied to the chosen rows.
    pub norm: Option<&'a Norm>,
    /// `[n_vocab, width]`.
    pub head: &'a Projection,
    /// Multiplied into the logits.
    pub scale: f32,
    /// `c · tanh(x / c)` after the scale.
    pub softcap: Option<f32>,
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvType {
    /// Single precision.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// 8-bit blocks of 32.
    Q8_0,
}

/// What one layer keeps in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayer {
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a key head.
    pub k_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
}

/// The states of recurrent layers, which keep one of fixed size where others keep a key and a value for each position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSpec {
    /// Elements (`f32`) of each layer's state; 0 for a layer that has none. Empty when none has.
    pub layers: Vec<usize>,
    /// Slots. Each holds the states of all layers after one position of one sequence.
    pub n_slots: usize,
}

impl StateSpec {
    /// Whether no layer has a state.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|&len| len == 0)
    }
}

/// The shape of a KV cache: `n_blocks` blocks of [`KV_BLOCK`] positions in every layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// One entry per layer.
    pub layers: Vec<KvLayer>,
    /// Blocks in all, shared by all sequences.
    pub n_blocks: usize,
    /// Element type.
    pub dtype: KvType,
    /// States of the layers that have no keys and values.
    pub states: StateSpec,
}

/// Keys and values of all layers on the device. The engine hands out its blocks.
pub struct KvCache {
    pub(crate) inner: Box<dyn Any + Send + Sync>,
    pub(crate) spec: KvSpec,
    pub(crate) bytes: usize,
}

impl KvCache {
    /// What it was made for.
    pub fn spec(&self) -> &KvSpec {
        &self.spec
    }

    /// Bytes when full.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The rows of one pass and where they belong: flat arrays, so that one pass may carry several sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Which rows belong to which sequence; together they cover all rows in order.
    pub sequences: Vec<SequenceRows>,
}

/// The rows of one sequence in a pass: consecutive positions, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceRows {
    /// Its rows in the flat arrays.
    pub rows: Range<usize>,
    /// Its KV blocks; enough of them for its last position.
    pub blocks: Vec<u32>,
    /// Its states, in a cache that has any.
    pub states: Option<StateRows>,
}

/// Where the states of one sequence come from in a pass, and where they go. A slot that is written is no other sequence's
/// in the pass. What is read stays as it is, unless `to` is the same: so a pass that failed can be run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRows {
    /// The slot with the states before the first of its rows; none at position 0, where all are zero.
    pub from: Option<u32>,
    /// The slot that gets the states after its last row.
    pub to: u32,
    /// Further slots: each gets the states after so many of its rows.
    pub saves: Vec<(usize, u32)>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// A device: memory and fused operations. Object safe, so that one binary carries all backends and different layers may
/// live on different devices. Operations on one device run in the order of the calls; a device may run them later,
/// [`Device::read`] waits.
///
/// `x` is `[rows.len(), width]` where an operation takes [`Rows`], else `[n_rows, width]`.
pub trait Device: Send + Sync {
    /// Facts for people.
    fn info(&self) -> DeviceInfo;

    /// A buffer of `len` zeros.
    fn alloc(&self, len: usize) -> Result<Buffer>;

    /// Brings a tensor to the device, in whatever layout suits `usage`.
    fn upload(&self, tensor: &HostTensor, usage: WeightUse) -> Result<Weight>;

    /// A KV cache. Memory that is never written need not become resident.
    fn kv_cache(&self, spec: &KvSpec) -> Result<KvCache>;

    /// Copies the keys and values of all positions of a block, in every layer: a sequence that leaves another in the
    /// middle of a block goes on in a copy. (States need none: a pass reads one slot and writes another.)
    fn copy_kv_block(&self, cache: &mut KvCache, from: u32, to: u32) -> Result<()>;

    /// Copies host values to the start of `to`.
    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()>;

    /// Waits for all work and copies the first `to.len()` values of `from`.
    fn read(&self, from: &Buffer, to: &mut [f32]) -> Result<()>;

    /// `out[i] = residual[i] + scale · table[tokens[i]]`. Ids outside the table are an error.
    fn embed(
        &self,
        table: &Weight,
        tokens: &[u32],
        scale: f32,
        residual: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<()>;

    /// `out = epilogue(x)` for rows of `width`.
    fn norm(&self, x: &Buffer, n_rows: usize, width: usize, epilogue: Epilogue<'_>, out: &mut Buffer) -> Result<()>;

    /// `out = epilogue(projection(norm(x)))`.
    fn linear(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        projection: &Projection,
        epilogue: Epilogue<'_>,
        out: &mut Buffer,
    ) -> Result<()>;

    /// Writes K and V of all rows, where it makes any, to `cache[layer]` and the rotated queries to `q`, `[rows, n_heads · head_dim]`.
    fn qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &Qkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()>;

    /// The same for latent attention; `q` is `[rows, n_heads · (rope.n_dims + rank)]`.
    fn latent_qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &LatentQkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()>;

    /// `out[row, head] = stack[head] · x[row, head]`: a matrix for each head, `[n_heads, n_out, n_in]`, uploaded as
    /// experts are.
    fn heads(&self, x: &Buffer, n_rows: usize, stack: &Projection, out: &mut Buffer) -> Result<()>;

    /// Every row attends to its own sequence's positions `0..=position` in `cache[layer]`;
    /// `out` is `[rows, n_heads · v_head_dim]`.
    fn attend(
        &self,
        q: &Buffer,
        rows: &Rows,
        args: &Attend<'_>,
        cache: &KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// `out = values ⊙ sigmoid(gate(norm(x)))` (the gate on attention's result in Qwen3-Next); `values` and `out` are as wide
    /// as `gate`.
    fn output_gate(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        gate: &Projection,
        values: &Buffer,
        out: &mut Buffer,
    ) -> Result<()>;

    /// A gated short convolution; `out` is `[rows, width]`. States as [`SequenceRows::states`] says.
    fn short_conv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &ShortConv<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// The gated delta rule; `out` is `[rows, n_v_heads · v_dim]`. States as [`SequenceRows::states`] says.
    fn delta_rule(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &DeltaRule<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// A feed-forward block.
    fn feed_forward(&self, x: &Buffer, n_rows: usize, args: &FeedForward<'_>, out: &mut Buffer) -> Result<()>;

    /// A mixture of experts.
    fn experts(&self, x: &Buffer, n_rows: usize, args: &Experts<'_>, out: &mut Buffer) -> Result<()>;

    /// What a layer adds by its own embedding of the token.
    fn layer_input(&self, x: &Buffer, n_rows: usize, args: &LayerInput<'_>, out: &mut Buffer) -> Result<()>;

    /// A step from residual streams to residual streams.
    fn streams(&self, x: &Buffer, n_rows: usize, width: usize, step: &Streams<'_>, out: &mut Buffer) -> Result<()>;

    /// Logits of the rows `wanted` of `x`: `[wanted.len(), n_vocab]`.
    fn logits(&self, x: &Buffer, wanted: &[u32], args: &Logits<'_>, out: &mut Buffer) -> Result<()>;
}
