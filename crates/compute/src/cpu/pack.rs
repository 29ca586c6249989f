//! Repacking: the blocks of a file brought into the tiles of `packed`.
//!
//! A tile is filled block by block, its 16 rows in turn: what is written stays in the first-level cache until it is
//! whole, and the file's rows are read as 16 streams. Each type says how its levels and its scales lie in a block; all
//! else is the same code, instantiated for every instruction set (`simd`). The source layouts are those of the GGUF block
//! types (see `tensor::block`).
//!
//! What belongs here: block layouts in, tile layout out. What does not: memory and threads (`packed`).

use super::{
    columns::GROUP,
    packed::{Form, Levels, TILE},
};
use half::f16;
use tensor::DType;

/// Elements of a super-block of the K types.
const SUPER: usize = 256;

/// Rows to pack as one tile.
pub(crate) struct PackTile<'a> {
    pub(crate) dtype: DType,
    /// Up to 16 rows of a matrix, as in the file.
    pub(crate) rows: &'a [u8],
    pub(crate) row_bytes: usize,
    /// A whole tile, zero.
    pub(crate) to: &'a mut [u8],
}

/// Packs a tile. False: the type has no packed form, or its scales do not fit.
#[inline(always)]
pub(crate) fn pack(t: PackTile<'_>) -> bool {
    match t.dtype {
        DType::Q4_0 => {
            blocks::<18, GROUP>(t, DType::Q4_0, |b, l| nibbles::<16>(&b[2..], l), |b, _, to| to.half(0, [b[0], b[1]]))
        }
        DType::Q4_1 => blocks::<20, GROUP>(t, DType::Q4_1, |b, l| nibbles::<16>(&b[4..], l), |b, _, to| affine(b, to)),
        DType::Q5_0 => blocks::<22, GROUP>(t, DType::Q5_0, |b, l| fifth_bits(&b[2..], l), |b, _, to| centred_16(b, to)),
        DType::Q5_1 => blocks::<24, GROUP>(t, DType::Q5_1, |b, l| fifth_bits(&b[4..], l), |b, _, to| affine(b, to)),
        DType::Q8_0 => blocks::<34, GROUP>(
            t,
            DType::Q8_0,
            |b, l| l.iter_mut().zip(&b[2..]).for_each(|(l, b)| *l = b ^ 128),
            |b, _, to| to.half(0, [b[0], b[1]]),
        ),
        DType::Q4_K => blocks::<144, SUPER>(t, DType::Q4_K, |b, l| nibbles::<32>(&b[16..], l), super_scales),
        DType::Q5_K => blocks::<176, SUPER>(t, DType::Q5_K, q5_k_levels, super_scales),
        DType::Q6_K => blocks::<210, SUPER>(t, DType::Q6_K, q6_k_levels, |b, group, to| {
            to.shared(0, [b[208], b[209]]);
            to.byte(0, b[192 + 2 * group]);
            to.byte(1, b[192 + 2 * group + 1])
        }),
        _ => false,
    }
}

/// Where the scales of one group of one row go. All writers say that the scale fits.
struct Place<'a> {
    row: usize,
    header: &'a mut [u8],
    own: &'a mut [u8],
}

impl Place<'_> {
    /// A half of the group, in array `array` of halves.
    #[inline(always)]
    fn half(&mut self, array: usize, bytes: [u8; 2]) -> bool {
        self.own.as_chunks_mut::<{ 2 * TILE }>().0[array].as_chunks_mut::<2>().0[self.row] = bytes;
        true
    }

    /// A half of the super-group.
    #[inline(always)]
    fn shared(&mut self, array: usize, bytes: [u8; 2]) {
        self.header.as_chunks_mut::<{ 2 * TILE }>().0[array].as_chunks_mut::<2>().0[self.row] = bytes;
    }

    /// A byte of the group, in array `array` of bytes.
    #[inline(always)]
    fn byte(&mut self, array: usize, byte: u8) -> bool {
        self.own.as_chunks_mut::<TILE>().0[array][self.row] = byte;
        true
    }
}

/// The loop: blocks of `BYTES` with `LEN` elements, each a super-group of the type's form. `levels` gives a block's
/// unsigned levels in the order of its elements, `scales` writes the scales of a group of it.
#[inline(always)]
fn blocks<const BYTES: usize, const LEN: usize>(
    t: PackTile<'_>,
    dtype: DType,
    levels: impl Fn(&[u8; BYTES], &mut [u8; LEN]),
    scales: impl Fn(&[u8; BYTES], usize, &mut Place<'_>) -> bool,
) -> bool {
    let Some(form) = Form::of(dtype) else { return false };
    let (groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let mut fits = groups * GROUP == LEN;
    let mut unpacked = [0u8; LEN];
    for (block, to) in t.to.chunks_exact_mut(header + groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        for (row, bytes) in t.rows.chunks_exact(t.row_bytes).enumerate().take(TILE) {
            let bytes = &bytes.as_chunks::<BYTES>().0[block];
            levels(bytes, &mut unpacked);
            for (group, (levels, to)) in
                unpacked.as_chunks::<GROUP>().0.iter().zip(to.chunks_exact_mut(each)).enumerate()
            {
                let (own, to) = to.split_at_mut(own);
                fits &= scales(bytes, group, &mut Place { row, header, own });
                put_levels(form.levels, levels, row, to);
            }
        }
    }
    fits
}

/// Writes a group of row `row` to the vectors of its tile.
#[inline(always)]
fn put_levels(form: Levels, levels: &[u8; GROUP], row: usize, to: &mut [u8]) {
    let mut to = to.as_chunks_mut::<64>().0.iter_mut();
    let mut put = |bytes: &[u8]| {
        for bytes in bytes.as_chunks::<4>().0 {
            if let Some(to) = to.next() {
                to.as_chunks_mut::<4>().0[row] = *bytes;
            }
        }
    };
    if form == Levels::Eight {
        return put(levels);
    }
    let (low, high) = levels.split_at(16);
    put(&std::array::from_fn::<u8, 16, _>(|i| low[i] & 15 | high[i] << 4));
    if form == Levels::Six {
        let upper = |half: &[u8]| {
            std::array::from_fn::<u8, 4, _>(|i| {
                half[i] >> 4 | half[4 + i] >> 4 << 2 | half[8 + i] >> 4 << 4 | half[12 + i] >> 4 << 6
            })
        };
        put(&upper(low));
        put(&upper(high));
    }
}

/// Nibbles in runs: `N` low ones of `N` bytes, then their high ones.
#[inline(always)]
fn nibbles<const N: usize>(bytes: &[u8], levels: &mut [u8]) {
    for (bytes, levels) in bytes.as_chunks::<N>().0.iter().zip(levels.chunks_exact_mut(2 * N)) {
        let (low, high) = levels.split_at_mut(N);
        for ((l, h), b) in low.iter_mut().zip(high).zip(bytes) {
            (*l, *h) = (b & 15, b >> 4);
        }
    }
}

/// Levels of 5 bits: the fifth ones are a little-endian word before the nibbles.
#[inline(always)]
fn fifth_bits(bytes: &[u8], levels: &mut [u8; GROUP]) {
    let (word, bytes) = bytes.split_at(4);
    nibbles::<16>(bytes, levels);
    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    levels.iter_mut().enumerate().for_each(|(i, l)| *l |= ((word >> i & 1) as u8) << 4);
}

#[inline(always)]
fn q5_k_levels(block: &[u8; 176], levels: &mut [u8; SUPER]) {
    nibbles::<32>(&block[48..], levels);
    for (group, levels) in levels.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        levels.iter_mut().zip(&block[16..48]).for_each(|(l, h)| *l |= (h >> group & 1) << 4);
    }
}

/// 128 elements share 64 bytes of low nibbles and 32 bytes of upper pairs.
#[inline(always)]
fn q6_k_levels(block: &[u8; 210], levels: &mut [u8; SUPER]) {
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

/// `d u + m`; tiles hold `d u - m`.
#[inline(always)]
fn affine(block: &[u8], to: &mut Place<'_>) -> bool {
    to.half(0, [block[0], block[1]]);
    to.half(1, (-f16::from_le_bytes([block[2], block[3]])).to_le_bytes())
}

/// `d (u - 16) = d u - 16 d`; sixteen times a half is exact unless it overflows.
#[inline(always)]
fn centred_16(block: &[u8], to: &mut Place<'_>) -> bool {
    let d = [block[0], block[1]];
    let min = f16::from_f32(16.0 * f16::from_le_bytes(d).to_f32());
    to.half(0, d);
    to.half(1, min.to_le_bytes()) && min.is_finite()
}

/// Q4_K and Q5_K: 6-bit pairs, as ggml packs them.
#[inline(always)]
fn super_scales<const BYTES: usize>(block: &[u8; BYTES], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[0], block[1]]);
    to.shared(1, [block[2], block[3]]);
    let packed = &block[4..16];
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let upper = (packed[group - 4] >> 6, packed[group] >> 6);
        let lower = packed[group + 4];
        (lower & 15 | upper.0 << 4, lower >> 4 | upper.1 << 4)
    };
    to.byte(0, scale);
    to.byte(1, min)
}
