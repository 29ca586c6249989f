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
//!
//! All scales keep the precision of the file: the products are exact up to the rounding of activations and of `f32`.
//! The source layouts are those of the GGUF block types (see `tensor::block`).
//!
//! What belongs here: forms, decoding a row again. What does not: bringing blocks into them (`pack`), products (`simd`).

use super::{columns::GROUP, memory::Memory, memory::SharedMut, op::Team, pack::PackTile};
use crate::Result;
use half::f16;
use tensor::DType;

/// Rows of a tile.
pub(crate) const TILE: usize = 16;

/// How levels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    Four,
    Six,
    Eight,
}

/// How scales are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scales {
    /// `d (u - z)`: `f16` d a group; z is 8 for 4-bit levels, 128 for 8-bit ones.
    Single,
    /// `d u - m`: `f16` d and m a group.
    Affine,
    /// `d s u - e m`: `f16` d and e a super-group of 256, `u8` s and m a group.
    Super,
    /// `d s (u - 32)`: `f16` d a super-group of 256, `i8` s for each 16.
    SuperHalves,
}

/// A layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) levels: Levels,
    pub(crate) scales: Scales,
}

impl Form {
    /// The layout of a type; `None`: it has none and stays as in the file.
    pub(crate) const fn of(dtype: DType) -> Option<Self> {
        let (levels, scales) = match dtype {
            DType::Q4_0 => (Levels::Four, Scales::Single),
            DType::Q8_0 => (Levels::Eight, Scales::Single),
            DType::Q4_1 => (Levels::Four, Scales::Affine),
            DType::Q5_0 | DType::Q5_1 => (Levels::Six, Scales::Affine),
            DType::Q4_K => (Levels::Four, Scales::Super),
            DType::Q5_K => (Levels::Six, Scales::Super),
            DType::Q6_K => (Levels::Six, Scales::SuperHalves),
            _ => return None,
        };
        Some(Self { levels, scales })
    }

    /// Bytes of the levels of a group.
    pub(crate) const fn level_bytes(self) -> usize {
        match self.levels {
            Levels::Four => 256,
            Levels::Six => 384,
            Levels::Eight => 512,
        }
    }

    /// Groups of a super-group, bytes of its header, bytes of a group's own scales.
    pub(crate) const fn scale_layout(self) -> (usize, usize, usize) {
        match self.scales {
            Scales::Single => (1, 0, 32),
            Scales::Affine => (1, 0, 64),
            Scales::Super => (8, 64, 32),
            Scales::SuperHalves => (8, 32, 32),
        }
    }

    /// Bytes of a tile of rows of `len` elements.
    pub(crate) fn tile_bytes(self, len: usize) -> Option<usize> {
        let (groups, header, own) = self.scale_layout();
        (len / GROUP / groups).checked_mul(header + groups * (own + self.level_bytes()))
    }

    /// What is subtracted from each level.
    const fn zero(self) -> f32 {
        match (self.scales, self.levels) {
            (Scales::Single, Levels::Eight) => 128.0,
            (Scales::Single, _) => 8.0,
            (Scales::SuperHalves, _) => 32.0,
            (Scales::Affine | Scales::Super, _) => 0.0,
        }
    }

    /// Scales of both halves of a group and its minimum, of one row. `header` and `own` begin with those bytes.
    #[inline(always)]
    fn row_scales(self, header: &[u8], own: &[u8], row: usize) -> ([f32; 2], f32) {
        let half = |bytes: &[u8], row: usize| f16::from_le_bytes([bytes[2 * row], bytes[2 * row + 1]]).to_f32();
        match self.scales {
            Scales::Single => ([half(own, row); 2], 0.0),
            Scales::Affine => ([half(own, row); 2], half(own, TILE + row)),
            Scales::Super => {
                let min = half(header, TILE + row) * f32::from(own[TILE + row]);
                ([half(header, row) * f32::from(own[row]); 2], min)
            }
            Scales::SuperHalves => {
                let d = half(header, row);
                ([d * f32::from(own[row].cast_signed()), d * f32::from(own[TILE + row].cast_signed())], 0.0)
            }
        }
    }

    /// Where super-groups and groups begin: (header, group) of group `group`.
    pub(crate) const fn offsets(self, group: usize) -> (usize, usize) {
        let (groups, header, own) = self.scale_layout();
        let each = own + self.level_bytes();
        let shift = groups.trailing_zeros(); // 1 or 8 groups
        let start = (group >> shift) * (header + groups * each);
        (start, start + header + (group & (groups - 1)) * each)
    }
}

/// A packed matrix; the rows of the last tile that do not exist are zero.
pub(crate) struct Packed {
    pub(crate) form: Form,
    pub(crate) tile_bytes: usize,
    pub(crate) tiles: Memory<u8>,
}

impl Packed {
    /// Packs `n_matrices` matrices of `n_rows` rows each. `None`: this type, row length or these scales have no packed
    /// form.
    pub(crate) fn new(
        team: &mut Team,
        dtype: DType,
        bytes: &[u8],
        n_matrices: usize,
        n_rows: usize,
        row_len: usize,
    ) -> Result<Option<Self>> {
        let Some(form) = Form::of(dtype) else { return Ok(None) };
        let Some(tile_bytes) = form.tile_bytes(row_len) else { return Ok(None) };
        let tiles_each = n_rows.div_ceil(TILE);
        let n_tiles = n_matrices * tiles_each;
        let row_bytes = row_len / dtype.block_len() * dtype.block_bytes();
        let mut tiles = Memory::<u8>::zeroed_huge(n_tiles.saturating_mul(tile_bytes), "repacked weights")?;
        let all_fit = std::sync::atomic::AtomicBool::new(true);
        {
            let shared = SharedMut::new(&mut tiles);
            let kernels = team.kernels;
            team.run(n_tiles, |tile, _| {
                // SAFETY: each tile belongs to one chunk.
                let to = unsafe { shared.range(tile * tile_bytes..(tile + 1) * tile_bytes) };
                let (matrix, first) = (tile / tiles_each, tile % tiles_each * TILE);
                let at = (matrix * n_rows + first) * row_bytes;
                let rows = &bytes[at..at + row_bytes * TILE.min(n_rows - first)];
                if !kernels.pack(PackTile { dtype, rows, row_bytes, to }) {
                    all_fit.store(false, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        Ok(all_fit.into_inner().then_some(Self { form, tile_bytes, tiles }))
    }

    /// Row `row` of a tile as `f32`.
    pub(crate) fn decode_row(&self, tile: usize, row: usize, out: &mut [f32]) {
        let tile = &self.tiles[tile * self.tile_bytes..(tile + 1) * self.tile_bytes];
        let (_, _, own) = self.form.scale_layout();
        let zero = self.form.zero();
        for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            let (header, start) = self.form.offsets(group);
            let (scales, min) = self.form.row_scales(&tile[header..], &tile[start..], row);
            let bytes = &tile[start + own..][..self.form.level_bytes()];
            for (k, o) in out.iter_mut().enumerate() {
                let (step, at) = (k / 4, row * 4 + k % 4);
                let level = match self.form.levels {
                    Levels::Eight => bytes[step * 64 + at],
                    Levels::Four => bytes[step % 4 * 64 + at] >> (step / 4 * 4) & 15,
                    Levels::Six => {
                        let upper = bytes[256 + step / 4 * 64 + at] >> (2 * (step % 4)) & 3;
                        bytes[step % 4 * 64 + at] >> (step / 4 * 4) & 15 | upper << 4
                    }
                };
                *o = scales[step / 4] * (f32::from(level) - zero) - min;
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
    pub(crate) mins: [f32; TILE],
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
        match form.levels {
            Levels::Eight => levels.copy_from_slice(bytes),
            Levels::Four | Levels::Six => {
                let (low, high) = levels.split_at_mut(256);
                for ((l, h), b) in low.iter_mut().zip(high).zip(bytes) {
                    (*l, *h) = (b & 15, b >> 4);
                }
            }
        }
        if form.levels == Levels::Six {
            for (step, levels) in levels.chunks_mut(64).enumerate() {
                let upper = &bytes[256 + step / 4 * 64..][..64];
                levels.iter_mut().zip(upper).for_each(|(l, u)| *l |= (u >> (2 * (step % 4)) & 3) << 4);
            }
        }
        let (mut scales, mut mins) = ([[0.0; TILE]; 2], [0.0; TILE]);
        for row in 0..TILE {
            ([scales[0][row], scales[1][row]], mins[row]) = form.row_scales(header, rest, row);
        }
        Self { levels, scales, mins, zero: form.zero() }
    }
}
