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
//! What belongs here: forms, packing, decoding a row again. What does not: products (`simd`).

use super::{columns::GROUP, memory::Memory, memory::SharedMut, op::Team};
use crate::Result;
use half::f16;
use tensor::DType;

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Elements of a super-block of the K types.
const SUPER: usize = 256;

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
    pub(crate) fn of(dtype: DType) -> Option<Self> {
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
            team.run(n_tiles, |tile, _| {
                // SAFETY: each tile belongs to one chunk.
                let to = unsafe { shared.range(tile * tile_bytes..(tile + 1) * tile_bytes) };
                let (matrix, first) = (tile / tiles_each, tile % tiles_each * TILE);
                for row in first..n_rows.min(first + TILE) {
                    let at = (matrix * n_rows + row) * row_bytes;
                    if !pack_row(form, dtype, &bytes[at..at + row_bytes], row - first, to) {
                        all_fit.store(false, std::sync::atomic::Ordering::Relaxed);
                    }
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

/// Packs one row as row `row` of a tile. False: its scales do not fit.
fn pack_row(form: Form, dtype: DType, bytes: &[u8], row: usize, tile: &mut [u8]) -> bool {
    // One copy of the loop per type, in which everything about the type is a constant.
    macro_rules! each {
        ($($variant:ident)*) => {
            match dtype {
                $(DType::$variant => pack_row_of(form, DType::$variant, bytes, row, tile),)*
                _ => false,
            }
        };
    }
    each!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K)
}

#[inline(always)]
fn pack_row_of(form: Form, dtype: DType, bytes: &[u8], row: usize, tile: &mut [u8]) -> bool {
    let mut fits = true;
    let mut levels = [0u8; SUPER];
    let levels = &mut levels[..dtype.block_len()];
    let per_block = dtype.block_len() / GROUP;
    let (_, _, own) = form.scale_layout();
    for (index, block) in bytes.chunks_exact(dtype.block_bytes()).enumerate() {
        block_levels(dtype, block, levels);
        for (i, levels) in levels.as_chunks::<GROUP>().0.iter().enumerate() {
            let (header, start) = form.offsets(index * per_block + i);
            fits &= put_scales(dtype, block, i, row, tile, header, start);
            put_levels(form, levels, row, &mut tile[start + own..start + own + form.level_bytes()]);
        }
    }
    fits
}

#[inline(always)]
fn put_levels(form: Form, levels: &[u8; GROUP], row: usize, to: &mut [u8]) {
    let steps = levels.as_chunks::<4>().0;
    let at = |vector: usize| vector * 64 + row * 4..vector * 64 + row * 4 + 4;
    if form.levels == Levels::Eight {
        steps.iter().enumerate().for_each(|(step, levels)| to[at(step)].copy_from_slice(levels));
        return;
    }
    let (low, high) = steps.split_at(4);
    for (j, (low, high)) in low.iter().zip(high).enumerate() {
        let bytes: [u8; 4] = std::array::from_fn(|b| low[b] & 15 | high[b] << 4);
        to[at(j)].copy_from_slice(&bytes);
    }
    if form.levels == Levels::Six {
        for (j, steps) in [low, high].into_iter().enumerate() {
            let upper = |b: usize| (0..4).fold(0, |bits, i| bits | steps[i][b] >> 4 << (2 * i));
            to[at(4 + j)].copy_from_slice(&std::array::from_fn::<u8, 4, _>(upper));
        }
    }
}

/// The unsigned levels of a block, in the order of its elements.
#[inline(always)]
fn block_levels(dtype: DType, block: &[u8], levels: &mut [u8]) {
    match dtype {
        DType::Q4_0 => nibbles::<16>(&block[2..], levels),
        DType::Q4_1 => nibbles::<16>(&block[4..], levels),
        DType::Q5_0 => fifth_bits(&block[2..6], &block[6..], levels),
        DType::Q5_1 => fifth_bits(&block[4..8], &block[8..], levels),
        DType::Q8_0 => levels.iter_mut().zip(&block[2..]).for_each(|(l, b)| *l = b ^ 128),
        DType::Q4_K => nibbles::<32>(&block[16..], levels),
        DType::Q5_K => {
            nibbles::<32>(&block[48..], levels);
            for (group, levels) in levels.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
                levels.iter_mut().zip(&block[16..48]).for_each(|(l, h)| *l |= (h >> group & 1) << 4);
            }
        }
        // 128 elements share 64 bytes of low nibbles and 32 bytes of upper pairs.
        DType::Q6_K => {
            for (part, levels) in levels.as_chunks_mut::<128>().0.iter_mut().enumerate() {
                let low = &block[part * 64..part * 64 + 64];
                let upper = &block[128 + part * 32..128 + part * 32 + 32];
                for i in 0..32 {
                    levels[i] = low[i] & 15 | (upper[i] & 3) << 4;
                    levels[32 + i] = low[32 + i] & 15 | (upper[i] >> 2 & 3) << 4;
                    levels[64 + i] = low[i] >> 4 | (upper[i] >> 4 & 3) << 4;
                    levels[96 + i] = low[32 + i] >> 4 | (upper[i] >> 6) << 4;
                }
            }
        }
        _ => {}
    }
}

/// Nibbles in runs: `N` low ones of `N` bytes, then their high ones.
fn nibbles<const N: usize>(bytes: &[u8], levels: &mut [u8]) {
    for (bytes, levels) in bytes.as_chunks::<N>().0.iter().zip(levels.chunks_exact_mut(2 * N)) {
        let (low, high) = levels.split_at_mut(N);
        for ((l, h), b) in low.iter_mut().zip(high).zip(bytes) {
            (*l, *h) = (b & 15, b >> 4);
        }
    }
}

/// Levels of 5 bits: the fifth ones are a little-endian word.
fn fifth_bits(word: &[u8], bytes: &[u8], levels: &mut [u8]) {
    nibbles::<16>(bytes, levels);
    let word = word.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    levels.iter_mut().enumerate().for_each(|(i, l)| *l |= ((word >> i & 1) as u8) << 4);
}

/// Writes the scales of group `group` of a block. False: they do not fit.
#[inline(always)]
fn put_scales(
    dtype: DType,
    block: &[u8],
    group: usize,
    row: usize,
    tile: &mut [u8],
    header: usize,
    start: usize,
) -> bool {
    let half = |at: usize| [block[at], block[at + 1]];
    let mut put = |at: usize, bytes: [u8; 2]| tile[at + 2 * row..at + 2 * row + 2].copy_from_slice(&bytes);
    match dtype {
        DType::Q4_0 | DType::Q8_0 => put(start, half(0)),
        DType::Q4_1 | DType::Q5_1 => {
            put(start, half(0));
            put(start + 32, (-f16::from_le_bytes(half(2))).to_le_bytes());
        }
        DType::Q5_0 => {
            // d (u - 16) = d u - 16 d; sixteen times a half is exact unless it overflows.
            let min = f16::from_f32(16.0 * f16::from_le_bytes(half(0)).to_f32());
            put(start, half(0));
            put(start + 32, min.to_le_bytes());
            return min.is_finite();
        }
        DType::Q4_K | DType::Q5_K => {
            put(header, half(0));
            put(header + 32, half(2));
            let packed = &block[4..16]; // 6-bit pairs, as ggml's q4_K packs them
            let (scale, min) = if group < 4 {
                (packed[group] & 63, packed[group + 4] & 63)
            } else {
                let upper = (packed[group - 4] >> 6, packed[group] >> 6);
                let lower = packed[group + 4];
                (lower & 15 | upper.0 << 4, lower >> 4 | upper.1 << 4)
            };
            tile[start + row] = scale;
            tile[start + TILE + row] = min;
        }
        DType::Q6_K => {
            put(header, half(208));
            tile[start + row] = block[192 + 2 * group];
            tile[start + TILE + row] = block[192 + 2 * group + 1];
        }
        _ => return false,
    }
    true
}
