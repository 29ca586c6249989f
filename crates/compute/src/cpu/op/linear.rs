//! One product with its norm and epilogue, and an epilogue by itself.

use super::{
    Team, Work,
    norm::{NormView, normed},
    product::{Product, ProductScratch, View, products},
};
use crate::{
    Buffer, Epilogue, Norm, Projection, Result,
    cpu::{
        floats, floats_mut,
        memory::{Scratch, SharedMut},
    },
};

/// An epilogue whose shapes were checked.
#[derive(Clone, Copy)]
pub(crate) struct EpilogueView<'a> {
    pub(crate) norm: Option<NormView<'a>>,
    pub(crate) scale: f32,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) gain: f32,
}

impl<'a> EpilogueView<'a> {
    /// Checks an epilogue over `n_rows` rows of `width`.
    pub(crate) fn of(op: &'static str, epilogue: &Epilogue<'a>, n_rows: usize, width: usize) -> Result<Self> {
        let norm = epilogue.norm.map(|norm| NormView::of(op, norm, width)).transpose()?;
        let residual = epilogue.residual.map(|r| floats(op, r, n_rows.checked_mul(width))).transpose()?;
        Ok(Self { norm, scale: epilogue.scale, residual, gain: epilogue.gain })
    }

    /// `out = gain · (residual + scale · norm(y))` for whole rows.
    pub(crate) fn apply(&self, team: &mut Team, y: &[f32], width: usize, out: &mut [f32]) {
        let kernels = team.kernels;
        team.rows(out, width, |row, out, _| {
            let range = row * width..(row + 1) * width;
            match &self.norm {
                Some(norm) => norm.row(kernels, &y[range.clone()], out),
                None => out.copy_from_slice(&y[range.clone()]),
            }
            match self.residual {
                Some(r) => out.iter_mut().zip(&r[range]).for_each(|(o, r)| *o = r + self.scale * *o),
                None => out.iter_mut().for_each(|o| *o *= self.scale),
            }
            if self.gain != 1.0 {
                out.iter_mut().for_each(|o| *o *= self.gain);
            }
        });
    }
}

/// `out = epilogue(x · matrixᵀ + bias)`; without a norm and a gain in the epilogue everything happens as the product is stored.
#[allow(clippy::too_many_arguments, reason = "the parts of a product and where it goes")]
pub(crate) fn project(
    team: &mut Team,
    products_scratch: &mut ProductScratch,
    spare: &mut Scratch<f32>,
    view: View<'_>,
    x: &[f32],
    n_rows: usize,
    epilogue: &EpilogueView<'_>,
    out: &mut [f32],
) -> Result<()> {
    let width = view.matrix.n_rows;
    if epilogue.norm.is_none() && epilogue.gain == 1.0 {
        let out = SharedMut::new(out);
        let product = Product::plain(view, x, n_rows, out);
        let product = Product { scale: epilogue.scale, residual: epilogue.residual, ..product };
        return products(team, products_scratch, 1, |_| product);
    }
    let y = spare.take(n_rows * width)?;
    {
        let product = Product::plain(view, x, n_rows, SharedMut::new(y));
        products(team, products_scratch, 1, |_| product)?;
    }
    epilogue.apply(team, y, width, out);
    Ok(())
}

/// `out = epilogue(projection(norm(x)))`.
pub(crate) fn linear(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    norm: Option<&Norm>,
    projection: &Projection,
    epilogue: Epilogue<'_>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "linear";
    let Work { team, scratch } = work;
    let view = View::of(op, "the weight", projection, None, None)?;
    let (n_in, n_out) = (view.matrix.row_len, view.matrix.n_rows);
    let x = floats(op, x, n_rows.checked_mul(n_in))?;
    let epilogue = EpilogueView::of(op, &epilogue, n_rows, n_out)?;
    let out = floats_mut(op, out, n_rows.checked_mul(n_out))?;
    let x = normed(op, team, &mut scratch.normed, norm, x, n_in)?;
    project(team, &mut scratch.products, &mut scratch.product, view, x, n_rows, &epilogue, out)
}

/// `out = epilogue(x)`.
pub(crate) fn norm(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    width: usize,
    epilogue: &Epilogue<'_>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "norm";
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let out = floats_mut(op, out, Some(x.len()))?;
    EpilogueView::of(op, epilogue, n_rows, width)?.apply(&mut work.team, x, width, out);
    Ok(())
}
