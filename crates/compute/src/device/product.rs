//! What every operation is made of: norm, product, what follows the last product; and the product that ends a model.
//!
//! What belongs here: the arguments that operations share. What does not: those of one kind of layer (`attention.rs`,
//! `recurrence.rs`, `feed_forward.rs`, `streams.rs`).

use super::{Buffer, Weight};

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

impl Epilogue<'_> {
    /// The product as it is.
    pub const PLAIN: Epilogue<'static> = Epilogue { norm: None, scale: 1.0, residual: None, gain: 1.0 };
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
