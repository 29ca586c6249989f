//! The arguments of what Gemma 3n brought: residual streams side by side, and an embedding of the token in each layer.
//!
//! What belongs here: the steps between streams. What does not: the layers between these steps (`attention.rs`,
//! `feed_forward.rs`).

use super::{Activation, Buffer, Epilogue, Norm, Projection, Weight};

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
