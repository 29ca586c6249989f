//! Repacking: the blocks of a file brought into the tiles of `packed`.
//!
//! A tile is filled block by block, the same block of its 16 rows at once: words of four levels are fetched as vectors of
//! 16 lanes, one for each row, which is how a tile holds them, so that all that is left are masks and shifts of whole
//! vectors. Each type says how its levels and its scales lie in a block; all else is the same code, instantiated for every
//! instruction set (`simd`), which says how words of 16 rows come together (`lanes`). The source layouts are those of
//! the block types (see `tensor::block`).
//!
//! What belongs here: block layouts in, tile layout out. What does not: types of code books (`books`), memory and threads (`packed`).

use super::{
    books,
    columns::GROUP,
    lanes::{Lanes, Rows, Word, words},
    packed::{Form, Levels, TILE},
};
use half::f16;
use tensor::{Affine, DType};

/// Rows to pack as one tile.
pub(crate) struct PackTile<'a> {
    pub(crate) dtype: DType,
    /// Up to 16 rows of a matrix, as in the file.
    pub(crate) rows: &'a [u8],
    pub(crate) row_bytes: usize,
    /// A whole tile. Types of affine groups write only what belongs to rows that there are.
    pub(crate) to: &'a mut [u8],
}

/// How blocks of `BYTES` hold their levels, four to each of so many words, and their scales.
trait Block<const BYTES: usize, const WORDS: usize> {
    /// The unsigned levels in the order of the elements.
    fn levels<L: Lanes>(rows: &Rows<'_, BYTES>, levels: &mut [L; WORDS]);
    /// Writes the scales of group `group` of a row. False: they do not fit.
    fn scales(block: &[u8; BYTES], group: usize, to: &mut Place<'_>) -> bool;
}

/// The types: bytes and words of a block, its levels, its scales; bytes of those of code books.
macro_rules! types {
    ($($dtype:ident: $bytes:literal, $words:literal, $levels:expr, $scales:expr;)*
     @books $($of_book:ident: $of_book_bytes:literal, $book:ty;)*) => {
        /// Packs a tile. False: the type has no packed form, or its scales do not fit.
        #[inline(always)]
        pub(crate) fn pack<L: Lanes>(t: PackTile<'_>) -> bool {
            match t.dtype {
                $(DType::$dtype => {
                    struct This;
                    impl Block<$bytes, $words> for This {
                        #[inline(always)]
                        fn levels<L: Lanes>(rows: &Rows<'_, $bytes>, levels: &mut [L; $words]) {
                            $levels(rows, levels)
                        }

                        #[inline(always)]
                        fn scales(block: &[u8; $bytes], group: usize, to: &mut Place<'_>) -> bool {
                            $scales(block, group, to)
                        }
                    }
                    blocks::<This, L, $bytes, $words>(t)
                })*
                $(DType::$of_book => books::blocks::<$book, L, $of_book_bytes>(t),)*
                other => affine_blocks(t, other),
            }
        }
    };
}

types! {
    Q4_0: 18, 8, nibbles::<L, 18, 8, 2, 4>, single;
    Q4_1: 20, 8, nibbles::<L, 20, 8, 4, 4>, affine;
    Q5_0: 22, 8, fifth_bits::<L, 22, 2, 6>, centred_16;
    Q5_1: 24, 8, fifth_bits::<L, 24, 4, 8>, affine;
    Q8_0: 34, 8, q8_0_levels, single;
    Q4_K: 144, 64, nibbles::<L, 144, 64, 16, 8>, super_scales;
    Q5_K: 176, 64, q5_k_levels, super_scales;
    Q6_K: 210, 64, q6_k_levels, q6_k_scales;
    IQ4_NL: 18, 8, nibbles::<L, 18, 8, 2, 4>, single;
    IQ4_XS: 136, 64, nibbles::<L, 136, 64, 8, 4>, iq4_xs_scales;
    MXFP4: 17, 8, nibbles::<L, 17, 8, 1, 4>, mxfp4_scales;
    Q2_K: 84, 64, pairs::<L, 84, 16>, q2_k_scales;
    Q3_K: 110, 64, q3_k_levels, q3_k_scales;
    NVFP4: 36, 16, nvfp4_levels, nvfp4_scales;
    TQ1_0: 54, 64, tq1_0_levels, ternary_scales::<54, 52>;
    TQ2_0: 66, 64, pairs::<L, 66, 0>, ternary_scales::<66, 64>;
    @books
    IQ1_S: 50, books::Iq1S;
    IQ1_M: 56, books::Iq1M;
    IQ2_XXS: 66, books::Iq2Xxs;
    IQ2_XS: 74, books::Iq2Xs;
    IQ2_S: 82, books::Iq2S;
    IQ3_XXS: 98, books::Iq3Xxs;
    IQ3_S: 110, books::Iq3S;
}

#[inline(always)]
fn affine_blocks(t: PackTile<'_>, dtype: DType) -> bool {
    match Affine::of(dtype) {
        Some(affine) if affine.bits == 2 => affine_groups::<2>(t, affine),
        Some(affine) if affine.bits == 3 => affine_groups::<3>(t, affine),
        Some(affine) if affine.bits == 4 => affine_groups::<4>(t, affine),
        Some(affine) if affine.bits == 5 => affine_groups::<5>(t, affine),
        Some(affine) if affine.bits == 6 => affine_groups::<6>(t, affine),
        Some(affine) if affine.bits == 8 => affine_groups::<8>(t, affine),
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

    /// A float of the super-group.
    #[inline(always)]
    fn float(&mut self, array: usize, value: f32) {
        self.header.as_chunks_mut::<{ 4 * TILE }>().0[array].as_chunks_mut::<4>().0[self.row] = value.to_le_bytes();
    }

    /// A byte of the group, in array `array` of bytes.
    #[inline(always)]
    fn byte(&mut self, array: usize, byte: u8) -> bool {
        self.own.as_chunks_mut::<TILE>().0[array][self.row] = byte;
        true
    }
}

/// The blocks of each row. Rows that the last tile lacks become the first one again.
#[inline(always)]
pub(super) fn rows_of<'a, const BYTES: usize>(t: &PackTile<'a>) -> [&'a [[u8; BYTES]]; TILE] {
    let mut rows = [t.rows[..t.row_bytes].as_chunks().0; TILE];
    for (row, bytes) in rows.iter_mut().zip(t.rows.chunks_exact(t.row_bytes)) {
        *row = bytes.as_chunks().0;
    }
    rows
}

/// The loop: blocks, each a super-group of the type's form.
#[inline(always)]
fn blocks<B: Block<BYTES, WORDS>, L: Lanes, const BYTES: usize, const WORDS: usize>(t: PackTile<'_>) -> bool {
    let Some(form) = Form::of(t.dtype) else { return false };
    let (groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let mut fits = groups * GROUP == WORDS * 4;
    let rows = rows_of(&t);
    let mut unpacked = [L::splat(0); WORDS];
    for (block, to) in t.to.chunks_exact_mut(header + groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        let mut blocks: Rows<'_, BYTES> = [&[0; BYTES]; TILE];
        for (this, row) in blocks.iter_mut().zip(&rows) {
            *this = &row[block];
        }
        B::levels(&blocks, &mut unpacked);
        let unpacked = unpacked.as_chunks::<8>().0.iter();
        for (group, (levels, to)) in unpacked.zip(to.chunks_exact_mut(each)).enumerate() {
            let (own, to) = to.split_at_mut(own);
            for (row, block) in blocks.iter().enumerate() {
                fits &= B::scales(block, group, &mut Place { row, header, own });
            }
            let vectors = to.as_chunks_mut::<64>().0;
            put_levels(form.levels, levels, |vector, lanes: L| {
                if let Some(to) = vectors.get_mut(vector) {
                    lanes.store(to);
                }
            });
        }
    }
    fits
}

/// The same for affine groups, whose blocks hold less than a group of the tile or more.
#[inline(always)]
fn affine_groups<const BITS: usize>(t: PackTile<'_>, affine: Affine) -> bool {
    let Some(form) = Form::of(t.dtype) else { return false };
    let (groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let per_super = groups * GROUP / affine.group;
    let zero = if BITS == 8 { 128.0 } else { 0.0 };
    let mut fits = true;
    let mut unpacked = [0; 8];
    for (i, to) in t.to.chunks_exact_mut(header + groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        for (row, bytes) in t.rows.chunks_exact(t.row_bytes).enumerate().take(TILE) {
            let blocks = bytes[i * per_super * affine.block_bytes()..].chunks_exact(affine.block_bytes());
            for (part, block) in blocks.take(per_super).enumerate() {
                let (head, levels) = block.split_at(8);
                let [scale, bias] = [0, 1].map(|i| f32::from_le_bytes(head.as_chunks::<4>().0[i]));
                let min = -(bias + zero * scale);
                fits &= scale.is_finite() && min.is_finite();
                // Both halves of a group have scales of their own, or several groups share them.
                let (scales, step) = if affine.group < GROUP { (&mut to[..own], 2) } else { (&mut header[..], 1) };
                let scales = scales.as_chunks_mut::<{ 4 * TILE }>().0;
                scales[part * (step - 1)].as_chunks_mut::<4>().0[row] = scale.to_le_bytes();
                scales[step + part * (step - 1)].as_chunks_mut::<4>().0[row] = min.to_le_bytes();
                if affine.group < GROUP {
                    let words = affine.group / 4;
                    bit_stream::<BITS>(levels, &mut unpacked[part * words..(part + 1) * words]);
                    continue;
                }
                for (levels, to) in levels.chunks_exact(GROUP / 8 * BITS).zip(to.chunks_exact_mut(each)) {
                    bit_stream::<BITS>(levels, &mut unpacked);
                    put_levels(form.levels, &unpacked, in_row(row, to));
                }
            }
            if affine.group < GROUP {
                put_levels(form.levels, &unpacked, in_row(row, &mut to[own..]));
            }
        }
    }
    fits
}

/// Levels in a stream of bits, four to a word.
#[inline(always)]
fn bit_stream<const BITS: usize>(bytes: &[u8], levels: &mut [u32]) {
    let mask = u64::from(u8::MAX >> (8 - BITS));
    for (bytes, levels) in bytes.as_chunks::<BITS>().0.iter().zip(levels.as_chunks_mut::<2>().0) {
        let mut eight = [0; 8];
        eight[..BITS].copy_from_slice(bytes);
        let eight = u64::from_le_bytes(eight);
        for (i, levels) in levels.iter_mut().enumerate() {
            let four = eight >> (4 * BITS * i);
            let level = |i: usize| ((four >> (BITS * i) & mask) as u32) << (8 * i);
            *levels = level(0) | level(1) | level(2) | level(3);
        }
    }
}

/// Puts words into row `row` of vectors.
#[inline(always)]
fn in_row(row: usize, to: &mut [u8]) -> impl FnMut(usize, u32) {
    let vectors = to.as_chunks_mut::<64>().0;
    move |vector, word| {
        if let Some(to) = vectors.get_mut(vector) {
            to.as_chunks_mut::<4>().0[row] = word.to_le_bytes();
        }
    }
}

/// Gives the 8 steps of a group to `put`, with the vector of the tile that holds them.
#[inline(always)]
fn put_levels<W: Word>(form: Levels, steps: &[W; 8], mut put: impl FnMut(usize, W)) {
    match form {
        Levels::Eight => {
            for (vector, step) in steps.iter().enumerate() {
                put(vector, *step);
            }
        }
        Levels::Two | Levels::Three => {
            put(0, four_pairs(&steps[..4], 0));
            put(1, four_pairs(&steps[4..], 0));
            if form == Levels::Three {
                let mut thirds = steps[0] >> 2 & 0x0101_0101;
                for (i, step) in steps.iter().enumerate().skip(1) {
                    thirds = thirds | (*step >> 2 & 0x0101_0101) << i as u32;
                }
                put(2, thirds);
            }
        }
        Levels::Four | Levels::Table(_) | Levels::Six => {
            let (low, high) = steps.split_at(4);
            for (vector, (low, high)) in low.iter().zip(high).enumerate() {
                put(vector, *low & 0x0f0f_0f0f | (*high & 0x0f0f_0f0f) << 4);
            }
            if form == Levels::Six {
                put(4, four_pairs(low, 4));
                put(5, four_pairs(high, 4));
            }
        }
    }
}

/// Two bits, from bit `shift` on, of each of four steps.
#[inline(always)]
fn four_pairs<W: Word>(steps: &[W], shift: u32) -> W {
    let mut pairs = steps[0] >> shift & 0x0303_0303;
    for (i, step) in steps.iter().enumerate().skip(1) {
        pairs = pairs | (*step >> shift & 0x0303_0303) << (2 * i as u32);
    }
    pairs
}

/// Nibbles in runs from byte `AT` on: the low ones of `N` words, then their high ones.
#[inline(always)]
fn nibbles<L: Lanes, const BYTES: usize, const WORDS: usize, const AT: usize, const N: usize>(
    rows: &Rows<'_, BYTES>,
    levels: &mut [L; WORDS],
) {
    for (i, levels) in levels.chunks_exact_mut(2 * N).enumerate() {
        let words = words::<L, BYTES, N>(rows, AT + i * 4 * N);
        let (low, high) = levels.split_at_mut(N);
        for ((low, high), word) in low.iter_mut().zip(high).zip(&words) {
            *low = *word & 0x0f0f_0f0f;
            *high = *word >> 4 & 0x0f0f_0f0f;
        }
    }
}

#[inline(always)]
fn q8_0_levels<L: Lanes>(rows: &Rows<'_, 34>, levels: &mut [L; 8]) {
    let words = words::<L, 34, 8>(rows, 2);
    for (level, word) in levels.iter_mut().zip(&words) {
        *level = *word ^ 0x8080_8080;
    }
}

/// Levels of 5 bits: the fifth ones are a little-endian word at byte `FIFTHS`, the nibbles begin at byte `AT`.
#[inline(always)]
fn fifth_bits<L: Lanes, const BYTES: usize, const FIFTHS: usize, const AT: usize>(
    rows: &Rows<'_, BYTES>,
    levels: &mut [L; 8],
) {
    nibbles::<L, BYTES, 8, AT, 4>(rows, levels);
    let fifths = words::<L, BYTES, 4>(rows, FIFTHS)[0];
    for (i, level) in levels.iter_mut().enumerate() {
        let four = fifths >> (4 * i as u32) & 15;
        // Four bits to the lowest bit of a byte each.
        *level = *level | ((four | four << 7 | four << 14 | four << 21) & 0x0101_0101) << 4;
    }
}

#[inline(always)]
fn q5_k_levels<L: Lanes>(rows: &Rows<'_, 176>, levels: &mut [L; 64]) {
    nibbles::<L, 176, 64, 48, 8>(rows, levels);
    let fifths = words::<L, 176, 8>(rows, 16);
    for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (level, fifths) in levels.iter_mut().zip(&fifths) {
            *level = *level | (*fifths >> group as u32 & 0x0101_0101) << 4;
        }
    }
}

/// 128 elements share 64 bytes of low nibbles and 32 bytes of upper pairs.
#[inline(always)]
fn q6_k_levels<L: Lanes>(rows: &Rows<'_, 210>, levels: &mut [L; 64]) {
    nibbles::<L, 210, 64, 0, 16>(rows, levels);
    for (part, levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let upper = words::<L, 210, 8>(rows, 128 + part * 32);
        for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            for (level, upper) in levels.iter_mut().zip(&upper) {
                *level = *level | (*upper >> (2 * group as u32) & 0x0303_0303) << 4;
            }
        }
    }
}

#[inline(always)]
fn q6_k_scales(block: &[u8; 210], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[208], block[209]]);
    to.byte(0, block[192 + 2 * group]);
    to.byte(1, block[192 + 2 * group + 1])
}

/// Levels of 2 bits: 128 elements share 32 bytes, each 32 of them 2 bits of every byte.
#[inline(always)]
fn pairs<L: Lanes, const BYTES: usize, const AT: usize>(rows: &Rows<'_, BYTES>, levels: &mut [L; 64]) {
    for (part, levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let words = words::<L, BYTES, 8>(rows, AT + part * 32);
        for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            for (level, word) in levels.iter_mut().zip(&words) {
                *level = *word >> (2 * group as u32) & 0x0303_0303;
            }
        }
    }
}

#[inline(always)]
fn q2_k_scales(block: &[u8; 84], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[80], block[81]]);
    to.shared(1, [block[82], block[83]]);
    to.byte(0, block[2 * group]);
    to.byte(1, block[2 * group + 1])
}

#[inline(always)]
fn q3_k_levels<L: Lanes>(rows: &Rows<'_, 110>, levels: &mut [L; 64]) {
    pairs::<L, 110, 32>(rows, levels);
    let thirds = words::<L, 110, 8>(rows, 0);
    for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (level, thirds) in levels.iter_mut().zip(&thirds) {
            *level = *level | (*thirds >> group as u32 & 0x0101_0101) << 2;
        }
    }
}

/// Low four bits of scale `i` in a nibble of byte `i % 8`, the upper two in byte `8 + i % 4`; all are 32 too large.
#[inline(always)]
fn q3_k_scales(block: &[u8; 110], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[108], block[109]]);
    let packed = &block[96..108];
    for half in 0..2 {
        let i = 2 * group + half;
        let low = packed[i % 8] >> (i / 8 % 2 * 4) & 15;
        let upper = packed[8 + i % 4] >> (i / 4 % 4 * 2) & 3;
        to.byte(half, (low | upper << 4).wrapping_sub(32));
    }
    true
}

/// Low four bits of scale `i` in nibble `i` of bytes 4..8, the upper two in pair `i` of bytes 2..4; all are 32 too large.
#[inline(always)]
fn iq4_xs_scales(block: &[u8; 136], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[0], block[1]]);
    let low = block[4 + group / 2 % 4] >> (group % 2 * 4) & 15;
    let upper = block[2 + group / 4 % 2] >> (group % 4 * 2) & 3;
    to.byte(0, (low | upper << 4).wrapping_sub(32))
}

/// An exponent.
#[inline(always)]
fn mxfp4_scales(block: &[u8; 17], _: usize, to: &mut Place<'_>) -> bool {
    to.byte(0, block[0])
}

/// One scale.
#[inline(always)]
fn single<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
    to.half(0, [block[0], block[1]])
}

/// `d u + m`; tiles hold `d u - m`.
#[inline(always)]
fn affine<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
    to.half(0, [block[0], block[1]]);
    to.half(1, (-f16::from_le_bytes([block[2], block[3]])).to_le_bytes())
}

/// `d (u - 16) = d u - 16 d`; sixteen times a half is exact unless it overflows.
#[inline(always)]
fn centred_16<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
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

/// The digits of base three of a byte, see `tensor::block`: digit `i` from bit `2 i` on.
static DIGITS: [u16; 256] = {
    let mut digits = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut fraction, mut i) = (byte, 0);
        while i < 5 {
            fraction *= 3;
            digits[byte] |= (fraction >> 8 << (2 * i)) as u16;
            fraction &= 255;
            i += 1;
        }
        byte += 1;
    }
    digits
};

#[inline(always)]
fn tq1_0_levels<L: Lanes>(rows: &Rows<'_, 54>, levels: &mut [L; 64]) {
    let [.., last] = words::<L, 54, 4>(rows, 36);
    let words = words::<L, 54, 12>(rows, 0);
    // Runs of words, and the steps that their first digits are.
    for (words, at) in [(&words[..8], 0), (&words[8..], 40), (&[last][..], 60)] {
        let n = words.len();
        for (i, word) in words.iter().enumerate() {
            let even = (*word & 0x00ff_00ff).look_up(&DIGITS);
            let odd = (*word >> 8 & 0x00ff_00ff).look_up(&DIGITS);
            for (digit, level) in levels[at + i..].iter_mut().step_by(n).take(if n == 1 { 4 } else { 5 }).enumerate() {
                let shift = 2 * digit as u32;
                *level = even >> shift & 0x0003_0003 | (odd >> shift & 0x0003_0003) << 8;
            }
        }
    }
}

/// `d (u - 1)`; the half is at byte `AT`.
#[inline(always)]
fn ternary_scales<const BYTES: usize, const AT: usize>(block: &[u8; BYTES], group: usize, to: &mut Place<'_>) -> bool {
    if group == 0 {
        let d = f16::from_le_bytes([block[AT], block[AT + 1]]).to_f32();
        to.float(0, d);
        to.float(1, d);
    }
    true
}

/// Of each 16 elements two words: low nibbles, then high ones.
#[inline(always)]
fn nvfp4_levels<L: Lanes>(rows: &Rows<'_, 36>, levels: &mut [L; 16]) {
    let words = words::<L, 36, 8>(rows, 4);
    for (levels, words) in levels.as_chunks_mut::<4>().0.iter_mut().zip(words.as_chunks::<2>().0) {
        for (i, word) in words.iter().enumerate() {
            levels[i] = *word & 0x0f0f_0f0f;
            levels[2 + i] = *word >> 4 & 0x0f0f_0f0f;
        }
    }
}

/// Half of an E4M3 without sign: a half of the same mantissa. The one that is no number counts as zero.
#[inline(always)]
fn nvfp4_scales(block: &[u8; 36], group: usize, to: &mut Place<'_>) -> bool {
    for half in 0..2 {
        let e = block[2 * group + half];
        let scale = match (e, e & 0x7f) {
            (0x7f, _) => f16::ZERO,
            (_, small @ ..8) => f16::from_f32(f32::from(small) / 1024.0),
            (_, bits) => f16::from_bits((u16::from(bits) << 7) + (7 << 10)),
        };
        to.half(half, scale.to_le_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{
        packed::Tiling,
        simd::{Isa, Kernels},
    };

    #[test]
    fn every_instruction_set_packs_the_same_bytes() {
        const LEN: usize = 512;
        let bytes: Vec<u8> = (0..1u32 << 16).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        for &dtype in DType::ALL {
            let Some(tiling) = Tiling::of(dtype, LEN) else { continue };
            let row_bytes = dtype.row_bytes(LEN).unwrap();
            for n_rows in [1, 5, TILE] {
                let rows = &bytes[..n_rows * row_bytes];
                let packed = |isa| {
                    let mut tile = vec![0; tiling.tile_bytes];
                    let fits = Kernels::of(isa).unwrap().pack(PackTile { dtype, rows, row_bytes, to: &mut tile });
                    (fits, tile)
                };
                let expected = packed(Isa::Portable);
                assert!(expected.1.iter().any(|byte| *byte != 0));
                for isa in Isa::available() {
                    assert!(packed(isa) == expected, "{isa} {dtype}, {n_rows} rows");
                }
            }
        }
    }
}
