//! The arguments of recurrent layers, which keep a state of fixed size instead of keys and values.
//!
//! What belongs here: what such a layer computes and what its state is. What does not: where the states of a sequence lie
//! (`cache.rs`).

use super::{Norm, Projection, Weight};

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
