//! The arguments of attention: projections, plain and latent, position embedding, softmax over the cache.
//!
//! What belongs here: what a layer says about its heads. What does not: what the cache holds (`cache.rs`), recurrent layers
//! (`recurrence.rs`).

use super::{Norm, Projection, Weight};

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
