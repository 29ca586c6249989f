//! Normalization of rows: RMS norm (Zhang & Sennrich 2019), layer norm (Ba et al. 2016), and the norm in an epilogue.

use super::Team;
use crate::{
    Norm, NormKind, Result,
    cpu::{memory::Scratch, simd::Kernels, weight::optional_vector},
};

/// A norm whose vectors were checked.
#[derive(Clone, Copy)]
pub(crate) struct NormView<'a> {
    kind: NormKind,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
}

impl<'a> NormView<'a> {
    /// Checks that a norm's vectors have `width` elements.
    pub(crate) fn of(op: &'static str, norm: &'a Norm, width: usize) -> Result<Self> {
        let weight = optional_vector(op, norm.weight.as_ref(), width)?;
        let bias = optional_vector(op, norm.bias.as_ref(), width)?;
        Ok(Self { kind: norm.kind, weight, bias, eps: norm.eps })
    }

    /// The same with the vectors' elements of one head.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self { weight: self.weight.map(|w| &w[range.clone()]), bias: self.bias.map(|b| &b[range]), ..*self }
    }

    /// Normalizes one row.
    pub(crate) fn row(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        let n = x.len() as f32;
        let (mean, scale) = match self.kind {
            NormKind::Rms => (0.0, 1.0 / (kernels.dot(x, x) / n + self.eps).sqrt()),
            NormKind::Layer => {
                let mean = kernels.sum(x) / n;
                // Centered first: E[x²] - mean² would cancel.
                kernels.normalize(x, mean, 1.0, None, None, out);
                (mean, 1.0 / (kernels.dot(out, out) / n + self.eps).sqrt())
            }
        };
        kernels.normalize(x, mean, scale, self.weight, self.bias, out);
    }

    /// Normalizes a row where it is; `spare` is as long.
    pub(crate) fn in_place(&self, kernels: &Kernels, x: &mut [f32], spare: &mut [f32]) {
        spare.copy_from_slice(x);
        self.row(kernels, spare, x);
    }
}

/// `norm(x)` in scratch, or `x` itself without a norm.
pub(crate) fn normed<'a>(
    op: &'static str,
    team: &mut Team,
    scratch: &'a mut Scratch<f32>,
    norm: Option<&Norm>,
    x: &'a [f32],
    width: usize,
) -> Result<&'a [f32]> {
    let Some(norm) = norm else { return Ok(x) };
    let norm = NormView::of(op, norm, width)?;
    let out = scratch.take(x.len())?;
    let kernels = team.kernels;
    team.rows(out, width, |row, out, _| norm.row(kernels, &x[row * width..(row + 1) * width], out));
    Ok(out)
}
