//! Matrix products `out = residual + scale · (x · matrixᵀ + bias)`, several in one parallel region.
//!
//! A chunk is a tile of rows of one matrix times all columns (rows of `x`), so weights are read once. Each output
//! element is computed by one thread in a fixed order.
//!
//! What belongs here: tiling and the choice of the inner loop. What does not: the loops (`simd`), formats (`tensor`).

use super::{Team, argument};
use crate::{
    Projection, Result,
    cpu::{
        memory::SharedMut,
        simd::{Kernels, LANES, Tile},
        weight::{self, Matrix},
    },
};

/// Rows of a tile when few columns are computed: enough work to hand out, little enough to balance.
const NARROW_ROWS: usize = 32;
/// Rows of a tile when many columns are.
const WIDE_ROWS: usize = 64;
/// From this many columns on, weights are decoded into a transposed panel first.
const WIDE_COLUMNS: usize = 4;
/// Inner elements of a panel: a multiple of every block length; 64 rows of it stay in the second-level cache.
const PANEL: usize = 512;

/// One product of a region.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[n_out, n_in]`.
    pub(crate) matrix: Matrix<'a>,
    /// `[n_out]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// `[n, n_in]`.
    pub(crate) x: &'a [f32],
    /// Columns of the product: rows of `x`.
    pub(crate) n: usize,
    pub(crate) scale: f32,
    /// `[n, n_out]`.
    pub(crate) residual: Option<&'a [f32]>,
    /// `[n, n_out]`.
    pub(crate) out: SharedMut<'a, f32>,
}

impl<'a> Product<'a> {
    /// `x · matrixᵀ + bias`.
    pub(crate) fn plain(view: View<'a>, x: &'a [f32], n: usize, out: SharedMut<'a, f32>) -> Self {
        Self { matrix: view.matrix, bias: view.bias, x, n, scale: 1.0, residual: None, out }
    }

    fn tile_rows(&self) -> usize {
        if self.n < WIDE_COLUMNS { NARROW_ROWS } else { WIDE_ROWS }
    }
}

/// A projection whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) matrix: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
}

impl<'a> View<'a> {
    /// Checks that a projection maps `n_in` to `n_out`; either may be left open.
    pub(crate) fn of(
        op: &'static str,
        name: &str,
        projection: &'a Projection,
        n_in: Option<usize>,
        n_out: Option<usize>,
    ) -> Result<Self> {
        let matrix = Matrix::of(op, &projection.weight)?;
        if n_in.is_some_and(|n| n != matrix.row_len) || n_out.is_some_and(|n| n != matrix.n_rows) {
            let shape = projection.weight.shape();
            let (n_in, n_out) = (n_in.unwrap_or(matrix.row_len), n_out.unwrap_or(matrix.n_rows));
            return Err(argument(op, format_args!("{name} is {shape} and should be [{n_out}, {n_in}]")));
        }
        let bias = weight::optional_vector(op, projection.bias.as_ref(), matrix.n_rows)?;
        Ok(Self { matrix, bias })
    }
}

/// Computes `count` products in one region; `product(i)` describes each. `tiles` is scratch.
///
/// Outputs must not overlap.
pub(crate) fn products<'a>(
    team: &mut Team,
    tiles: &mut Vec<usize>,
    count: usize,
    product: impl Fn(usize) -> Product<'a> + Sync,
) -> Result<()> {
    tiles.clear();
    let mut total = 0;
    let mut scratch = 0;
    for i in 0..count {
        let product = product(i);
        tiles.push(total);
        if product.n > 0 {
            total += product.matrix.n_rows.div_ceil(product.tile_rows());
        }
        scratch = scratch.max(product.matrix.row_len).max(WIDE_ROWS * (PANEL + product.n) + PANEL);
    }
    team.reserve(scratch)?;
    let kernels = team.kernels;
    let tiles = &*tiles;
    team.run(total, |chunk, mut local| {
        let i = tiles.partition_point(|first| *first <= chunk) - 1;
        let product = product(i);
        let first = (chunk - tiles[i]) * product.tile_rows();
        let n_rows = product.tile_rows().min(product.matrix.n_rows - first);
        let local = local.floats(scratch);
        if product.n < WIDE_COLUMNS {
            narrow(kernels, &product, first, n_rows, local);
        } else {
            wide(kernels, &product, first, n_rows, local);
        }
    });
    Ok(())
}

/// Row by row: decode, one dot product per column.
fn narrow(kernels: &Kernels, product: &Product<'_>, first: usize, n_rows: usize, local: &mut [f32]) {
    let n_in = product.matrix.row_len;
    let row = &mut local[..n_in];
    for r in first..first + n_rows {
        product.matrix.decode(kernels, r, 0, row);
        for c in 0..product.n {
            store(product, c, r, &[kernels.dot(row, &product.x[c * n_in..(c + 1) * n_in])]);
        }
    }
}

/// Panels of rows, decoded and transposed, times all columns.
fn wide(kernels: &Kernels, product: &Product<'_>, first: usize, n_rows: usize, local: &mut [f32]) {
    let n_in = product.matrix.row_len;
    let n_cols = n_rows.next_multiple_of(LANES);
    let (row, local) = local.split_at_mut(PANEL);
    let (panel, local) = local.split_at_mut(PANEL * WIDE_ROWS);
    let sums = &mut local[..product.n * WIDE_ROWS];
    for start in (0..n_in).step_by(PANEL) {
        let len = PANEL.min(n_in - start);
        if n_cols > n_rows {
            panel.fill(0.0);
        }
        for r in 0..n_rows {
            product.matrix.decode(kernels, first + r, start, &mut row[..len]);
            for (to, from) in panel[r..].iter_mut().step_by(WIDE_ROWS).zip(&row[..len]) {
                *to = *from;
            }
        }
        kernels.multiply(Tile {
            a: &product.x[start..],
            a_stride: n_in,
            n_rows: product.n,
            n_inner: len,
            b: panel,
            b_stride: WIDE_ROWS,
            n_cols,
            c: sums,
            c_stride: WIDE_ROWS,
            accumulate: start > 0,
        });
    }
    if n_in == 0 {
        sums.fill(0.0);
    }
    for (c, sums) in sums.chunks(WIDE_ROWS).enumerate() {
        store(product, c, first, &sums[..n_rows]);
    }
}

/// Finishes the outputs `first..` of column `c`.
fn store(product: &Product<'_>, c: usize, first: usize, sums: &[f32]) {
    let start = c * product.matrix.n_rows + first;
    // SAFETY: these rows of this product belong to the calling chunk, and outputs of products do not overlap.
    let out = unsafe { product.out.range(start..start + sums.len()) };
    let bias = product.bias.map(|b| &b[first..first + sums.len()]);
    let residual = product.residual.map(|r| &r[start..start + sums.len()]);
    for (i, (o, sum)) in out.iter_mut().zip(sums).enumerate() {
        let y = bias.map_or(*sum, |b| sum + b[i]) * product.scale;
        *o = residual.map_or(y, |r| r[i] + y);
    }
}
