//! What the products of packed matrices are asked for: few columns ([`PackedTiles`]) or many ([`PackedRows`]).
//!
//! What belongs here: the slices of such a product, and the proof that all that is read and written lies inside. What does
//! not: arithmetic.

use crate::cpu::{
    columns::{FEW_COLUMNS, MAX_BLOCK, record_bytes},
    packed::{Form, TILE},
};
use std::ops::Range;

/// The product of tiles of a packed matrix and a block of columns: `sums[c][r] (+)= Σ_k w[r][k] · x[c][k]` for each row of `x`,
/// whose planes are added up.
pub(crate) struct PackedTiles<'a> {
    pub(crate) form: Form,
    /// Whole tiles, one after another.
    pub(crate) tiles: &'a [u8],
    pub(crate) tile_bytes: usize,
    /// Which groups of them: whole super-groups.
    pub(crate) groups: Range<usize>,
    /// The records of those groups.
    pub(crate) columns: &'a [u8],
    /// Columns of the block, at most [`FEW_COLUMNS`].
    pub(crate) width: usize,
    /// Planes of each row of `x`: 1 or 2 columns.
    pub(crate) planes: usize,
    /// `[tiles, width / planes, 16]`.
    pub(crate) sums: &'a mut [f32],
    /// Add to what is in `sums` rather than replace it.
    pub(crate) accumulate: bool,
}

/// The product of one of them.
pub(crate) struct PackedTile<'a> {
    pub(crate) form: Form,
    /// The whole tile.
    pub(crate) tile: &'a [u8],
    pub(crate) groups: Range<usize>,
    pub(crate) columns: &'a [u8],
    pub(crate) width: usize,
    pub(crate) planes: usize,
    /// `[width / planes, 16]`.
    pub(crate) sums: &'a mut [f32],
    pub(crate) accumulate: bool,
}

impl PackedTiles<'_> {
    /// How many tiles there are.
    pub(super) fn n_tiles(&self) -> usize {
        self.tiles.len() / self.tile_bytes.max(1)
    }

    /// Whether all that will be read and written lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        let sums = self.n_tiles().checked_mul(self.width / self.planes.max(1) * TILE);
        matches!(self.planes, 1 | 2)
            && self.width.is_multiple_of(self.planes)
            && (1..=FEW_COLUMNS).contains(&self.width)
            && self.groups.start <= self.groups.end
            && end_of(self.form, self.groups.end) <= self.tile_bytes
            && self.groups.len() * record_bytes(self.width) <= self.columns.len()
            && sums.is_some_and(|len| len <= self.sums.len())
    }

    /// Runs `product` for each tile.
    pub(super) fn each(&mut self, mut product: impl FnMut(PackedTile<'_>)) {
        let tiles = self.tiles.chunks_exact(self.tile_bytes.max(1));
        for (tile, sums) in tiles.zip(self.sums.chunks_exact_mut(self.width / self.planes * TILE)) {
            let (groups, columns) = (self.groups.clone(), self.columns);
            let (form, width, planes, accumulate) = (self.form, self.width, self.planes, self.accumulate);
            product(PackedTile { form, tile, groups, columns, width, planes, sums, accumulate });
        }
    }
}

/// The product of tiles of a packed matrix and whole blocks of 16 columns: `sums[c][r] = Σ_k w[r][k] · x[c][k]` for each row of
/// `x`, whose planes are added up.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only one instance has such a loop"))]
pub(crate) struct PackedRows<'a> {
    pub(crate) form: Form,
    /// Whole tiles, one after another.
    pub(crate) tiles: &'a [u8],
    pub(crate) tile_bytes: usize,
    /// All groups of a row.
    pub(crate) n_groups: usize,
    /// Blocks of 16 columns with all their groups.
    pub(crate) columns: &'a [u8],
    pub(crate) n_blocks: usize,
    /// Planes of each row of `x`: 1 or 2 columns.
    pub(crate) planes: usize,
    /// At least [`PackedRows::SCRATCH`] elements.
    pub(crate) scratch: &'a mut [f32],
    /// `[16 n_blocks / planes, 16 tiles]`.
    pub(crate) sums: &'a mut [f32],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
impl PackedRows<'_> {
    /// Tiles that are unpacked at a time, at most: as many as `tiles` may hold.
    pub(crate) const MAX_TILES: usize = 6;
    /// Groups that are unpacked at a time: whole super-groups.
    pub(super) const GROUPS: usize = 64;
    /// Vectors of 16 elements that an unpacked group of a tile takes, at most.
    pub(super) const VECTORS: usize = 8 + 6;
    /// Elements of scratch: what is unpacked at a time stays in the second-level cache.
    pub(crate) const SCRATCH: usize = Self::MAX_TILES * Self::GROUPS * Self::VECTORS * TILE;

    /// How many tiles there are.
    pub(super) fn n_tiles(&self) -> usize {
        self.tiles.len() / self.tile_bytes.max(1)
    }

    /// Whether all that will be read and written lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        let n_columns = self.n_blocks.checked_mul(MAX_BLOCK);
        let sums = n_columns.and_then(|n| (n / self.planes.max(1)).checked_mul(self.n_tiles() * TILE));
        let block = self.n_groups.checked_mul(record_bytes(MAX_BLOCK));
        self.n_tiles() <= Self::MAX_TILES
            && matches!(self.planes, 1 | 2)
            && self.n_groups.is_multiple_of(self.form.scale_layout().0)
            && end_of(self.form, self.n_groups) <= self.tile_bytes
            && block.and_then(|b| b.checked_mul(self.n_blocks)).is_some_and(|len| len <= self.columns.len())
            && self.scratch.len() >= Self::SCRATCH
            && sums.is_some_and(|len| len <= self.sums.len())
    }
}

/// Bytes of a tile up to group `end`.
fn end_of(form: Form, end: usize) -> usize {
    form.offsets(end.next_multiple_of(form.scale_layout().0)).0
}
