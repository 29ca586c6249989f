//! Quantized matrices repacked for the integer products: tiles of 16 rows, interleaved so that one 64-byte vector holds
//! 4 consecutive levels of each of the 16 rows.
//!
//! A tile is a sequence of super-groups. A super-group is a header (scales that its groups share) and groups of 32
//! levels a row: each the group's own scales, then its levels. Levels are unsigned; steps are the 8 runs of 4 levels of
//! a group.
//! * 4 bits: vector `j` of 4 holds step `j` in its low nibbles and step `j + 4` in its high ones.
//! * 6 bits: the same for the low 4 bits, then two vectors with the upper 2 bits: step `4 t + i` in bits `2i..2i+2` of
//!   vector `t`.
//! * 8 bits: vector `j` of 8 is step `j`.
//! * 2 bits: the two vectors of upper bits that 6-bit levels have, alone.
//! * 3 bits: those, then a vector whose bit `i` is the third bit of step `i`.
//! * Indices into a table of 16 levels lie as 4-bit levels do.
//!
//! All scales keep the precision of the file: the products are exact up to the rounding of activations and of `f32`.
//! The source layouts are those of the GGUF block types (see `tensor::block`).
//!
//! What belongs here: forms, decoding a row again. What does not: bringing blocks into them (`pack`), products (`simd`).

use super::{
    books,
    columns::GROUP,
    memory::{HUGE_PAGE, Part, SharedMut},
    op::Team,
    pack::PackTile,
};
use crate::Result;
use half::f16;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tensor::{Affine, DType};

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Bytes that one thread packs at a time.
const CHUNK: usize = 128 << 10;
/// Bytes of memory made present before they are packed: they are still in the last cache then.
const PART: usize = 8 << 20;

/// How levels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    Two,
    Three,
    Four,
    /// Indices into a table of levels that are 128 too large.
    Table(&'static [u8; 16]),
    Six,
    Eight,
}

/// How scales are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scales {
    /// `d (u - z)`: `f16` d a group; z is 8 for 4-bit levels, 128 for 8-bit ones and those of tables.
    Single,
    /// `d (u - 128)`: `f16` d for each 16; super-groups of 64.
    SingleHalves,
    /// `d u - m`: `f16` d and m a group.
    Affine,
    /// `d s u - e m`: `f16` d and e a super-group of 256, `u8` s and m a group.
    Super,
    /// `d s (u - z)`: `f16` d a super-group of 256, `i8` s for each 16; z is 32 for 6-bit levels, 4 for 3-bit ones.
    SuperHalves,
    /// `d s u - e m`: `f16` d and e a super-group of 256, 4 bits each of s and m for each 16: m in the upper ones.
    SuperMins,
    /// `d s (u - 128)`: `f16` d a super-group of 256, `i8` s a group.
    SuperSigned,
    /// The same with `f32` d.
    FloatSigned,
    /// `d s (u - 128)`: `f32` d a super-group of 256, `i8` s for each 16.
    FloatSignedHalves,
    /// `2^(e - 128) (u - 128)`: `u8` e a group.
    Power,
    /// `d (u - z) - m`: `f32` d and m a super-group of this many groups; z is 128 for 8-bit levels, else 0.
    Float(u8),
    /// The same with d and m for each 16: d of both halves, then m.
    FloatHalves,
}

/// The levels of IQ4_NL and IQ4_XS, plus 128.
pub(crate) const IQ4: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
/// Twice the values of E2M1 (OCP Microscaling Formats 1.0), plus 128.
pub(crate) const FP4: [u8; 16] = [128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116];

/// `2^(e - 128)`, also where that is below the normal numbers.
pub(crate) fn power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// A layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) levels: Levels,
    pub(crate) scales: Scales,
}

impl Form {
    /// The layout of a type; `None`: it has none and stays as in the file.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        let (levels, scales) = match dtype {
            DType::Q4_0 => (Levels::Four, Scales::Single),
            DType::Q8_0 => (Levels::Eight, Scales::Single),
            DType::Q4_1 => (Levels::Four, Scales::Affine),
            DType::Q5_0 | DType::Q5_1 => (Levels::Six, Scales::Affine),
            DType::Q4_K => (Levels::Four, Scales::Super),
            DType::Q5_K => (Levels::Six, Scales::Super),
            DType::Q6_K => (Levels::Six, Scales::SuperHalves),
            DType::Q2_K => (Levels::Two, Scales::SuperMins),
            DType::Q3_K => (Levels::Three, Scales::SuperHalves),
            DType::IQ4_NL => (Levels::Table(&IQ4), Scales::Single),
            DType::IQ4_XS => (Levels::Table(&IQ4), Scales::SuperSigned),
            DType::MXFP4 => (Levels::Table(&FP4), Scales::Power),
            DType::NVFP4 => (Levels::Table(&FP4), Scales::SingleHalves),
            DType::IQ1_S => (Levels::Table(&books::IQ1), Scales::FloatSigned),
            DType::IQ1_M => (Levels::Table(&books::IQ1), Scales::FloatSignedHalves),
            DType::IQ2_XXS => (Levels::Table(&books::IQ2), Scales::FloatSigned),
            DType::IQ2_XS | DType::IQ2_S => (Levels::Table(&books::IQ2), Scales::FloatSignedHalves),
            DType::IQ3_XXS => (Levels::Table(&books::IQ3_XXS), Scales::FloatSigned),
            DType::IQ3_S => (Levels::Table(&books::IQ3_S), Scales::FloatSigned),
            DType::TQ1_0 | DType::TQ2_0 => (Levels::Two, Scales::Float(8)),
            other => return Affine::of(other).and_then(Self::of_affine),
        };
        Some(Self { levels, scales })
    }

    fn of_affine(affine: Affine) -> Option<Self> {
        let levels = match affine.bits {
            2 => Levels::Two,
            3 => Levels::Three,
            4 => Levels::Four,
            5 | 6 => Levels::Six,
            8 => Levels::Eight,
            _ => return None,
        };
        let scales = match affine.group {
            16 => Scales::FloatHalves,
            32 => Scales::Float(1),
            64 => Scales::Float(2),
            128 => Scales::Float(4),
            _ => return None,
        };
        Some(Self { levels, scales })
    }

    /// Bytes of the levels of a group.
    pub(crate) const fn level_bytes(self) -> usize {
        match self.levels {
            Levels::Two => 128,
            Levels::Three => 192,
            Levels::Four | Levels::Table(_) => 256,
            Levels::Six => 384,
            Levels::Eight => 512,
        }
    }

    /// Groups of a super-group, bytes of its header, bytes of a group's own scales.
    pub(crate) const fn scale_layout(self) -> (usize, usize, usize) {
        match self.scales {
            Scales::Single => (1, 0, 32),
            Scales::SingleHalves => (2, 0, 64),
            Scales::Affine => (1, 0, 64),
            Scales::Super => (8, 64, 32),
            Scales::SuperHalves => (8, 32, 32),
            Scales::SuperMins => (8, 64, 32),
            Scales::SuperSigned => (8, 32, 16),
            Scales::FloatSigned => (8, 64, 16),
            Scales::FloatSignedHalves => (8, 64, 32),
            Scales::Power => (1, 0, 16),
            Scales::Float(groups) => (groups as usize, 128, 0),
            Scales::FloatHalves => (1, 0, 256),
        }
    }

    /// Bytes of a tile of rows of `len` elements.
    fn tile_bytes(self, len: usize) -> Option<usize> {
        let (groups, header, own) = self.scale_layout();
        (len / GROUP / groups).checked_mul(header + groups * (own + self.level_bytes()))
    }

    /// What is subtracted from each level.
    const fn zero(self) -> f32 {
        match (self.scales, self.levels) {
            (Scales::Affine | Scales::Super | Scales::SuperMins, _) => 0.0,
            (Scales::Float(_) | Scales::FloatHalves, levels) if !matches!(levels, Levels::Eight) => 0.0,
            (_, Levels::Eight | Levels::Table(_)) => 128.0,
            (_, Levels::Six) => 32.0,
            (_, Levels::Three) => 4.0,
            (_, Levels::Two | Levels::Four) => 8.0,
        }
    }

    /// The table that stored levels index.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only one instance asks for it"))]
    pub(crate) const fn table(self) -> Option<&'static [u8; 16]> {
        match self.levels {
            Levels::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Scales and minimums of both halves of a group, of one row. `header` and `own` begin with those bytes.
    #[inline(always)]
    fn row_scales(self, header: &[u8], own: &[u8], row: usize) -> ([f32; 2], [f32; 2]) {
        let half = |bytes: &[u8], row: usize| f16::from_le_bytes([bytes[2 * row], bytes[2 * row + 1]]).to_f32();
        let float = |bytes: &[u8], row: usize| f32::from_le_bytes(bytes.as_chunks::<4>().0[row]);
        let signed = |byte: u8| f32::from(byte.cast_signed());
        let (first, last) = (own[row], own.get(TILE + row).copied().unwrap_or(0));
        match self.scales {
            Scales::Single => ([half(own, row); 2], [0.0; 2]),
            Scales::Affine => ([half(own, row); 2], [half(own, TILE + row); 2]),
            Scales::Super => {
                ([half(header, row) * f32::from(first); 2], [half(header, TILE + row) * f32::from(last); 2])
            }
            Scales::SingleHalves => ([half(own, row), half(own, TILE + row)], [0.0; 2]),
            Scales::SuperHalves => ([first, last].map(|s| half(header, row) * signed(s)), [0.0; 2]),
            Scales::SuperMins => {
                let (d, e) = (half(header, row), half(header, TILE + row));
                ([first, last].map(|s| d * f32::from(s & 15)), [first, last].map(|s| e * f32::from(s >> 4)))
            }
            Scales::SuperSigned => ([half(header, row) * signed(first); 2], [0.0; 2]),
            Scales::FloatSigned => ([float(header, row) * signed(first); 2], [0.0; 2]),
            Scales::FloatSignedHalves => ([first, last].map(|s| float(header, row) * signed(s)), [0.0; 2]),
            Scales::Power => ([power(first); 2], [0.0; 2]),
            Scales::Float(_) => ([float(header, row); 2], [float(header, TILE + row); 2]),
            Scales::FloatHalves => {
                ([float(own, row), float(own, TILE + row)], [float(own, 2 * TILE + row), float(own, 3 * TILE + row)])
            }
        }
    }

    /// The level at byte `at` of vector `step` of a group.
    #[inline(always)]
    fn level(self, bytes: &[u8], step: usize, at: usize) -> u8 {
        let nibble = |bytes: &[u8]| bytes[step % 4 * 64 + at] >> (step / 4 * 4) & 15;
        let pair = |bytes: &[u8]| bytes[step / 4 * 64 + at] >> (2 * (step % 4)) & 3;
        match self.levels {
            Levels::Eight => bytes[step * 64 + at],
            Levels::Two => pair(bytes),
            Levels::Three => pair(bytes) | (bytes[128 + at] >> step & 1) << 2,
            Levels::Six => nibble(bytes) | pair(&bytes[256..]) << 4,
            Levels::Four => nibble(bytes),
            Levels::Table(table) => table[usize::from(nibble(bytes))],
        }
    }

    /// Where super-groups and groups begin: (header, group) of group `group`.
    pub(crate) const fn offsets(self, group: usize) -> (usize, usize) {
        let (groups, header, own) = self.scale_layout();
        let each = own + self.level_bytes();
        let shift = groups.trailing_zeros(); // a power of two
        let start = (group >> shift) * (header + groups * each);
        (start, start + header + (group & (groups - 1)) * each)
    }
}

/// How rows of a type and a length lie in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub(crate) form: Form,
    pub(crate) tile_bytes: usize,
    /// Whether a matrix is packed once, when it is uploaded. Else its rows stay as in the file and every product packs them
    /// again, tile by tile: what packing all of them takes would be too much.
    pub(crate) is_kept: bool,
}

impl Tiling {
    /// `None`: this type or row length has no packed form.
    pub(crate) fn of(dtype: DType, row_len: usize) -> Option<Self> {
        let form = Form::of(dtype)?;
        if !row_len.is_multiple_of(GROUP * form.scale_layout().0) {
            return None;
        }
        let tile_bytes = form.tile_bytes(row_len)?;
        let in_file = dtype.row_bytes(row_len).ok()?.checked_mul(TILE)?;
        Some(Self { form, tile_bytes, is_kept: tile_bytes <= in_file / 2 * 3 })
    }
}

/// A packed matrix; rows of the last tile that do not exist are of no meaning.
pub(crate) struct Packed {
    pub(crate) tiling: Tiling,
    pub(crate) tiles: Part,
}

impl Packed {
    /// The tiling of such matrices and how many tiles there are. `None`: they are not packed, or not kept so.
    fn layout(dtype: DType, n_matrices: usize, n_rows: usize, row_len: usize) -> Option<(Tiling, usize)> {
        let tiling = Tiling::of(dtype, row_len).filter(|tiling| tiling.is_kept)?;
        Some((tiling, n_matrices.checked_mul(n_rows.div_ceil(TILE))?))
    }

    /// Bytes that [`Packed::new`] makes of such matrices. `None`: it makes nothing of them.
    pub(crate) fn bytes(dtype: DType, n_matrices: usize, n_rows: usize, row_len: usize) -> Option<usize> {
        let (tiling, n_tiles) = Self::layout(dtype, n_matrices, n_rows, row_len)?;
        n_tiles.checked_mul(tiling.tile_bytes)
    }

    /// Packs `n_matrices` matrices of `n_rows` rows each. `None`: this type, row length or these scales have no packed
    /// form that is kept.
    pub(crate) fn new(
        team: &mut Team,
        dtype: DType,
        bytes: &[u8],
        n_matrices: usize,
        n_rows: usize,
        row_len: usize,
    ) -> Result<Option<Self>> {
        let layout = Self::layout(dtype, n_matrices, n_rows, row_len);
        let Some((tiling, n_tiles)) = layout else { return Ok(None) };
        let tile_bytes = tiling.tile_bytes;
        let tiles_each = n_rows.div_ceil(TILE);
        let row_bytes = row_len / dtype.block_len() * dtype.block_bytes();
        let mut tiles = team.arena.take(n_tiles.saturating_mul(tile_bytes), "repacked weights")?;
        let all_fit = AtomicBool::new(true);
        let untouched = tiles.untouched();
        let shared = SharedMut::new(&mut tiles);
        let kernels = team.kernels;
        let pack = |tile: usize| {
            // SAFETY: each tile belongs to one chunk.
            let to = unsafe { shared.range(tile * tile_bytes..(tile + 1) * tile_bytes) };
            let (matrix, first) = (tile / tiles_each, tile % tiles_each * TILE);
            let at = (matrix * n_rows + first) * row_bytes;
            let rows = &bytes[at..at + row_bytes * TILE.min(n_rows - first)];
            if !kernels.pack(PackTile { dtype, rows, row_bytes, to }) {
                all_fit.store(false, Relaxed);
            }
        };
        let (per_chunk, per_part) = ((CHUNK / tile_bytes.max(1)).max(1), (PART / tile_bytes.max(1)).max(1));
        let mut present = 0;
        for first in (0..n_tiles).step_by(per_part) {
            let n = per_part.min(n_tiles - first);
            let needed = ((first + n) * tile_bytes).saturating_sub(untouched.start).div_ceil(HUGE_PAGE);
            let needed = needed.min(untouched.count);
            team.run(needed - present, |page, _| untouched.touch(present + page));
            present = needed;
            team.ranges(n, per_chunk, |tiles, _| tiles.for_each(|tile| pack(first + tile)));
        }
        Ok(all_fit.into_inner().then_some(Self { tiling, tiles }))
    }

    /// Row `row` of a tile as `f32`.
    pub(crate) fn decode_row(&self, tile: usize, row: usize, out: &mut [f32]) {
        let Tiling { form, tile_bytes, .. } = self.tiling;
        let tile = &self.tiles[tile * tile_bytes..(tile + 1) * tile_bytes];
        let (_, _, own) = form.scale_layout();
        let zero = form.zero();
        for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            let (header, start) = form.offsets(group);
            let (scales, mins) = form.row_scales(&tile[header..], &tile[start..], row);
            let bytes = &tile[start + own..][..form.level_bytes()];
            for (k, o) in out.iter_mut().enumerate() {
                let level = form.level(bytes, k / 4, row * 4 + k % 4);
                *o = scales[k / 16] * (f32::from(level) - zero) - mins[k / 16];
            }
        }
    }
}

/// A group of a tile in the plainest form: what the portable products work on.
pub(crate) struct Unpacked {
    /// `[step, row, 4]`.
    pub(crate) levels: [u8; 512],
    /// Of both halves of the group.
    pub(crate) scales: [[f32; TILE]; 2],
    /// Of both halves of the group.
    pub(crate) mins: [[f32; TILE]; 2],
    /// What is subtracted from each level.
    pub(crate) zero: f32,
}

impl Unpacked {
    #[inline(always)]
    pub(crate) fn new(form: Form, tile: &[u8], group: usize) -> Self {
        let (header, start) = form.offsets(group);
        let (_, _, own) = form.scale_layout();
        let (header, rest) = (&tile[header..], &tile[start..]);
        let bytes = &rest[own..own + form.level_bytes()];
        let mut levels = [0u8; 512];
        for (step, levels) in levels.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            levels.iter_mut().enumerate().for_each(|(at, level)| *level = form.level(bytes, step, at));
        }
        let (mut scales, mut mins) = ([[0.0; TILE]; 2], [[0.0; TILE]; 2]);
        for row in 0..TILE {
            ([scales[0][row], scales[1][row]], [mins[0][row], mins[1][row]]) = form.row_scales(header, rest, row);
        }
        Self { levels, scales, mins, zero: form.zero() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `bytes` of zeros decodes to `dtype`'s definition after `set` was written to its beginning.
    fn defined(dtype: DType, set: &[u8]) -> Vec<f32> {
        let mut bytes = vec![0; dtype.block_bytes()];
        bytes[..set.len()].copy_from_slice(set);
        let mut values = vec![0.0; dtype.block_len()];
        dtype.decode(&bytes, &mut values).unwrap();
        values
    }

    #[test]
    fn tables_and_powers_are_those_of_the_types() {
        for code in 0..16u8 {
            let one = f16::ONE.to_le_bytes();
            let level = |table: &[u8; 16]| f32::from(table[usize::from(code)]) - 128.0;
            assert_eq!(defined(DType::IQ4_NL, &[one[0], one[1], code])[0], level(&IQ4));
            assert_eq!(defined(DType::MXFP4, &[128, code])[0], level(&FP4));
        }
        for e in 0..=254 {
            assert_eq!(defined(DType::MXFP4, &[e, 1])[0], power(e), "{e}");
        }
    }
}
