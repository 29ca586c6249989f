//! Matrix products `out = residual + scale · (x · matrixᵀ + bias)`, several in one parallel region.
//!
//! A chunk is a tile of rows of one matrix times all columns (rows of `x`), so weights are read once. Each output
//! element is computed by one thread in a fixed order.
//!
//! Packed matrices are multiplied as integers: their columns are rounded to 8-bit levels first (`cpu::columns`), once
//! for all products of the region that share them. All others are multiplied as `f32`.
//!
//! What belongs here: tiling and the choice of the inner loop. What does not: the loops (`simd`), formats (`tensor`).

use super::{
    Team, argument,
    low_rank::{self, Additions, LowRankScratch},
};
use crate::{
    Projection, Result,
    cpu::{
        columns::{self, FEW_COLUMNS, GROUP, Input, MAX_BLOCK, Rounding, Slot},
        memory::{Scratch, SharedMut, as_bytes},
        packed::{TILE, Tiling},
        simd::{HalfRows, Kernels, LANES, PackedRows, PackedTiles, Tile},
        weight::{self, Matrix},
    },
};
use std::ops::Range;

/// Rows of a tile when few columns are computed: enough work to hand out, little enough to balance.
const NARROW_ROWS: usize = 64;
/// Rows of a tile when many columns are.
const WIDE_ROWS: usize = 64;
/// Rows of a tile when they are packed for few columns: they shall still be in the first-level cache then.
const PACKED_ROWS: usize = 2 * TILE;
/// From this many columns on, `f32` products decode weights into a transposed panel first.
const WIDE_COLUMNS: usize = 32;
/// Inner elements of a panel: a multiple of every block length; 16 rows of it stay in the first-level cache, 64 in the
/// second.
const PANEL: usize = 256;
/// Groups of columns that stay in the first-level cache while the tiles of a chunk pass by: whole super-groups.
const GROUPS: usize = 32;

/// What products keep between calls.
#[derive(Default)]
pub(crate) struct ProductScratch {
    entries: Vec<Entry>,
    jobs: Vec<Job>,
    columns: Scratch<u8>,
    pub(crate) low_rank: LowRankScratch,
}

/// Where a product's chunks and columns begin.
#[derive(Clone, Copy)]
struct Entry {
    first_chunk: usize,
    /// Rows of a chunk.
    chunk_rows: usize,
    /// Byte where its rounded columns begin.
    columns: usize,
}

/// Columns to round: blocks, each in pieces of some groups.
#[derive(Clone, Copy)]
struct Job {
    product: usize,
    first_piece: usize,
    pieces: Pieces,
    /// Byte where the columns begin.
    columns: usize,
}

/// How a block of columns is shared out to be rounded.
#[derive(Clone, Copy)]
struct Pieces {
    of_block: usize,
    /// Groups of a piece.
    groups: usize,
}

impl Pieces {
    /// For `n` columns of `n_groups`.
    fn of(n: usize, n_groups: usize) -> Self {
        /// Elements that are worth handing out.
        const WORTH: usize = 8192;
        let width = columns::block_width(0, n.max(1));
        let groups = (WORTH / GROUP / width).clamp(1, n_groups.max(1));
        Self { of_block: n_groups.div_ceil(groups), groups }
    }
}

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
    /// How its input is rounded.
    pub(crate) input: Input,
    pub(crate) scale: f32,
    /// `[n, n_out]`.
    pub(crate) residual: Option<&'a [f32]>,
    /// Added to what `out` holds; without a residual.
    pub(crate) accumulate: bool,
    /// What else the weight adds.
    pub(crate) additions: Additions<'a>,
    /// `[n, n_out]`.
    pub(crate) out: SharedMut<'a, f32>,
}

impl<'a> Product<'a> {
    /// `x · matrixᵀ + bias`.
    pub(crate) fn plain(view: View<'a>, x: &'a [f32], n: usize, out: SharedMut<'a, f32>) -> Self {
        let View { matrix, bias, input, additions } = view;
        Self { matrix, bias, x, n, input, scale: 1.0, residual: None, accumulate: false, additions, out }
    }

    fn rounding(&self) -> Rounding {
        Rounding::of(self.n, self.input)
    }

    /// Columns of the integer product, those that only fill it among them.
    fn n_columns(&self) -> usize {
        columns::padded(self.n) * self.rounding().planes()
    }

    /// Rows of a chunk.
    fn chunk_rows(&self, team: &Team) -> usize {
        match self.matrix.tiling() {
            Some(_) if self.n_columns() > FEW_COLUMNS && team.kernels.has_packed_rows() => {
                let rows = PackedRows::MAX_TILES * TILE;
                // Where there are few chunks, smaller ones are easier to share out.
                if self.matrix.n_rows < 4 * rows * team.threads() { rows / 2 } else { rows }
            }
            Some(tiling) if self.n < MAX_BLOCK && !tiling.is_kept => PACKED_ROWS,
            _ if self.n < MAX_BLOCK => NARROW_ROWS,
            _ => WIDE_ROWS,
        }
    }

    /// Elements of scratch for the tiles of such a chunk.
    fn tile_floats(&self, chunk_rows: usize) -> usize {
        let made = self.matrix.tiling().filter(|tiling| !tiling.is_kept);
        made.map_or(0, |tiling| (chunk_rows.div_ceil(TILE) * tiling.tile_bytes).div_ceil(size_of::<f32>()))
    }

    /// Elements of scratch for such a chunk.
    fn chunk_floats(&self, team: &Team) -> usize {
        let n = self.n_columns();
        let tiles = self.tile_floats(self.chunk_rows(team));
        tiles
            + match self.matrix.tiling() {
                None => self.matrix.row_len.max(WIDE_ROWS * (PANEL + self.n) + LANES * PANEL),
                Some(_) if n > FEW_COLUMNS && team.kernels.has_packed_rows() => {
                    PackedRows::SCRATCH + n * PackedRows::MAX_TILES * TILE
                }
                Some(_) => WIDE_ROWS.max(NARROW_ROWS) * FEW_COLUMNS,
            }
    }
}

/// A projection whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) matrix: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// How its input is rounded.
    pub(crate) input: Input,
    /// What else the weight adds.
    pub(crate) additions: Additions<'a>,
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
        let additions = Additions::of(projection.weight.low_rank());
        Ok(Self { matrix, bias, input: Input::Usual, additions })
    }
}

/// Computes `count` products in one region, and what the additions of their weights add; `product(i)` describes each.
/// Outputs must not overlap.
pub(crate) fn products<'a>(
    team: &mut Team,
    scratch: &mut ProductScratch,
    count: usize,
    product: impl Fn(usize) -> Product<'a> + Sync,
) -> Result<()> {
    plain_products(team, scratch, count, &product)?;
    low_rank::add(team, scratch, count, &product)
}

/// [`products`] without additions.
pub(crate) fn plain_products<'a>(
    team: &mut Team,
    scratch: &mut ProductScratch,
    count: usize,
    product: &(impl Fn(usize) -> Product<'a> + Sync),
) -> Result<()> {
    let ProductScratch { entries, jobs, columns, .. } = scratch;
    entries.clear();
    jobs.clear();
    let (mut n_chunks, mut n_pieces, mut n_bytes, mut n_floats) = (0, 0, 0, 0);
    for i in 0..count {
        let p = product(i);
        p.matrix.watch(p.x, p.n);
        let mut entry = Entry { first_chunk: n_chunks, chunk_rows: p.chunk_rows(team), columns: 0 };
        n_floats = n_floats.max(p.chunk_floats(team));
        if p.n > 0 {
            n_chunks += p.matrix.n_rows.div_ceil(entry.chunk_rows);
        }
        if p.n > 0 && p.matrix.tiling().is_some() {
            let last = jobs.last().map(|job| (job, product(job.product)));
            let last = last.filter(|(_, other)| std::ptr::eq(other.x, p.x) && other.rounding() == p.rounding());
            entry.columns = last.as_ref().map_or(n_bytes, |(job, _)| job.columns);
            if last.is_none() {
                let n = p.n_columns();
                let pieces = Pieces::of(n, p.matrix.row_len / GROUP);
                jobs.push(Job { product: i, first_piece: n_pieces, pieces, columns: n_bytes });
                n_pieces += columns::n_blocks(n) * pieces.of_block;
                let bytes = columns::bytes(n, p.matrix.row_len).and_then(|bytes| bytes.checked_add(n_bytes));
                n_bytes = bytes.ok_or_else(|| argument("product", "a size that overflows"))?;
            }
        }
        entries.push(entry);
    }
    team.reserve(n_floats)?;
    let kernels = team.kernels;
    let columns = columns.take(n_bytes)?;
    {
        let (shared, jobs) = (SharedMut::new(columns), &*jobs);
        team.run(n_pieces, |piece, _| {
            let job = jobs[jobs.partition_point(|job| job.first_piece <= piece) - 1];
            round_piece(kernels, &product(job.product), &job, piece - job.first_piece, shared);
        });
    }
    let (entries, columns) = (&*entries, &*columns);
    team.run(n_chunks, |chunk, mut local| {
        let i = entries.partition_point(|entry| entry.first_chunk <= chunk) - 1;
        let product = product(i);
        let first = (chunk - entries[i].first_chunk) * entries[i].chunk_rows;
        let n_rows = entries[i].chunk_rows.min(product.matrix.n_rows - first);
        let local = local.floats(n_floats);
        match product.matrix.tiling() {
            Some(tiling) => {
                let (made, local) = local.split_at_mut(product.tile_floats(entries[i].chunk_rows));
                let tiles = product.matrix.tiles(kernels, first / TILE, n_rows.div_ceil(TILE), as_bytes(made));
                integer(kernels, &product, tiling, tiles, &columns[entries[i].columns..], first..first + n_rows, local);
            }
            None if product.n < WIDE_COLUMNS => narrow(kernels, &product, first, n_rows, local),
            None => wide(kernels, &product, first, n_rows, local),
        }
    });
    Ok(())
}

/// Rounds piece `piece` of the columns of a product's `x`.
fn round_piece(kernels: &Kernels, product: &Product<'_>, job: &Job, piece: usize, to: SharedMut<'_, u8>) {
    let n_in = product.matrix.row_len;
    let rounding = product.rounding();
    let planes = rounding.planes();
    let (first, part) = (piece / job.pieces.of_block * MAX_BLOCK, piece % job.pieces.of_block);
    let width = columns::block_width(first, product.n_columns());
    let groups = part * job.pieces.groups..((part + 1) * job.pieces.groups).min(n_in / GROUP);
    let start = job.columns + columns::block_start(first, n_in);
    let record = columns::record_bytes(width);
    // SAFETY: each piece belongs to one chunk.
    let to = unsafe { to.range(start + groups.start * record..start + groups.end * record) };
    let n_rows = (product.n - first / planes).min(width / planes);
    if n_rows * planes < width {
        to.fill(0);
    }
    for (i, x) in product.x.chunks_exact(n_in).skip(first / planes).take(n_rows).enumerate() {
        let x = &x[groups.start * GROUP..groups.end * GROUP];
        kernels.quantize(x, &Slot { column: i * planes, width }, rounding, to);
    }
}

/// Tiles of some rows of a packed matrix times rounded columns.
fn integer(
    kernels: &Kernels,
    product: &Product<'_>,
    Tiling { form, tile_bytes, .. }: Tiling,
    tiles: &[u8],
    columns: &[u8],
    rows: Range<usize>,
    local: &mut [f32],
) {
    let n_in = product.matrix.row_len;
    let n_groups = n_in / GROUP;
    let planes = product.rounding().planes();
    let (first, n_rows) = (rows.start, rows.len());
    let (n, n_tiles) = (product.n_columns(), n_rows.div_ceil(TILE));
    let mut column = 0;
    let n_blocks = n / MAX_BLOCK;
    if n > FEW_COLUMNS && kernels.has_packed_rows() {
        let (scratch, sums) = local.split_at_mut(PackedRows::SCRATCH);
        let rows = PackedRows { form, tiles, tile_bytes, n_groups, columns, n_blocks, planes, scratch, sums };
        if kernels.packed_rows(rows) {
            column = n_blocks * MAX_BLOCK;
            let of_row = n_tiles * TILE;
            for (row, sums) in (0..product.n).zip(sums[..column / planes * of_row].chunks(of_row)) {
                store(product, row, first, &sums[..n_rows]);
            }
        }
    }
    while column < n {
        let width = columns::block_width(column, n);
        // Few columns fit the cache whole: then each tile is read from its beginning to its end.
        let step = if width < MAX_BLOCK || kernels.has_packed_rows() { n_groups } else { GROUPS };
        let block = &columns[columns::block_start(column, n_in)..][..columns::block_start(width, n_in)];
        let of_tile = width / planes * TILE;
        let sums = &mut local[..n_tiles * of_tile];
        for group in (0..n_groups).step_by(step.max(1)) {
            kernels.packed(PackedTiles {
                form,
                tiles,
                tile_bytes,
                groups: group..n_groups.min(group + step),
                columns: &block[group * columns::record_bytes(width)..],
                width,
                planes,
                sums,
                accumulate: group > 0,
            });
        }
        for (tile, sums) in sums.chunks(of_tile).enumerate() {
            let rows = TILE.min(n_rows - tile * TILE);
            let row = column / planes;
            for (row, sums) in (row..product.n).zip(sums.chunks(TILE)) {
                store(product, row, first + tile * TILE, &sums[..rows]);
            }
        }
        column += width;
    }
}

/// Few columns: blocks of dot products where there is a loop for them, else row by row: decode, one dot product per column.
fn narrow(kernels: &Kernels, product: &Product<'_>, first: usize, n_rows: usize, local: &mut [f32]) {
    let n_in = product.matrix.row_len;
    if let Some((rows, bf16)) = product.matrix.half_rows(first, n_rows).filter(|_| n_in > 0) {
        let out = &mut local[..product.n * n_rows];
        if kernels.half_rows(HalfRows { bf16, rows, row_len: n_in, x: product.x, n: product.n, out }) {
            for (c, sums) in out.chunks(n_rows).enumerate() {
                store(product, c, first, sums);
            }
            return;
        }
    }
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
    let (rows, local) = local.split_at_mut(LANES * PANEL);
    let (panel, local) = local.split_at_mut(PANEL * WIDE_ROWS);
    let sums = &mut local[..product.n * WIDE_ROWS];
    for start in (0..n_in).step_by(PANEL) {
        let len = PANEL.min(n_in - start);
        for first_lane in (0..n_cols).step_by(LANES) {
            for (lane, row) in rows.chunks_exact_mut(PANEL).enumerate() {
                match first_lane + lane {
                    r if r < n_rows => product.matrix.decode(kernels, first + r, start, &mut row[..len]),
                    _ => row.fill(0.0),
                }
            }
            kernels.transpose(rows, PANEL, len, &mut panel[first_lane..], WIDE_ROWS);
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

/// Finishes the outputs `first..` of row `row` of `x`.
fn store(product: &Product<'_>, row: usize, first: usize, sums: &[f32]) {
    let start = row * product.matrix.n_rows + first;
    // SAFETY: these rows of this product belong to the calling chunk, and outputs of products do not overlap.
    let out = unsafe { product.out.range(start..start + sums.len()) };
    let bias = product.bias.map(|b| &b[first..first + sums.len()]);
    let residual = product.residual.map(|r| &r[start..start + sums.len()]);
    let scale = product.scale;
    // The usual cases apart: a branch for each element would keep the compiler from vectorizing.
    match (bias, residual) {
        (None, Some(residual)) => {
            out.iter_mut().zip(sums).zip(residual).for_each(|((o, sum), r)| *o = r + sum * scale);
        }
        (None, None) if !product.accumulate => out.iter_mut().zip(sums).for_each(|(o, sum)| *o = sum * scale),
        _ => {
            for (i, (o, sum)) in out.iter_mut().zip(sums).enumerate() {
                let y = bias.map_or(*sum, |b| sum + b[i]) * scale;
                *o = match residual {
                    Some(residual) => residual[i] + y,
                    None if product.accumulate => *o + y,
                    None => y,
                };
            }
        }
    }
}
