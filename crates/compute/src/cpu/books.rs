//! Packing the types of code books (IQ1 to IQ3): every level is one of sixteen, and what a tile holds is its number.
//!
//! A block picks points of a book; a point is the levels of 8 weights, or 4. Its levels' numbers of 2 bits (3 of the types of
//! four weights) are a *code* of 16 bits, so that one look-up in a table of codes serves 8 weights of two rows' words at
//! once: `simd` has an instruction for that, which is what makes packing in every product possible. Four bits of a code are
//! one position of a run of four weights, positions in the order 0, 2, 1, 3: two codes become the nibbles that a tile wants by
//! one exchange of bits ([`nibbles`]). Signs are looked up likewise and become bit 3 of a number, which negates the level.
//!
//! What belongs here: books as codes, what numbers of levels stand for, these blocks' layouts. What does not: other types
//! (`pack`), products.

use super::{
    lanes::{Lanes, Rows, words},
    pack::{PackTile, rows_of},
    packed::{Form, TILE},
};
use tensor::block::grid::{
    IQ1_POINTS, IQ2_S_POINTS, IQ2_XS_POINTS, IQ2_XXS_POINTS, IQ3_S_POINTS, IQ3_XXS_POINTS, ODDS, SIGNED, THREES, TWOS,
};

/// The magnitudes of IQ2 types and, from 8 on, their negatives; plus 128.
pub(crate) const IQ2: [u8; 16] = with_negatives(&TWOS);
/// The same of IQ3_XXS.
pub(crate) const IQ3_XXS: [u8; 16] = with_negatives(&THREES);
/// The same of IQ3_S.
pub(crate) const IQ3_S: [u8; 16] = with_negatives(&ODDS);
/// Eight times the levels of IQ1 types, an eighth above and, from 8 on, below; plus 128.
pub(crate) const IQ1: [u8; 16] = {
    let mut table = [128; 16];
    let mut i = 0;
    while i < SIGNED.len() {
        let level = (8 * SIGNED[i]).wrapping_sub(-128).cast_unsigned();
        (table[i], table[8 + i]) = (level + 1, level - 1);
        i += 1;
    }
    table
};

const fn with_negatives(magnitudes: &[i8]) -> [u8; 16] {
    let mut table = [128; 16];
    let mut i = 0;
    while i < magnitudes.len() {
        let magnitude = magnitudes[i].unsigned_abs();
        (table[i], table[8 + i]) = (128 + magnitude, 128 - magnitude);
        i += 1;
    }
    table
}

/// Where a position's four bits begin in a code.
const PLACES: [usize; 4] = [0, 8, 4, 12];

/// The codes of points of 4 or 8 weights: the number of the second four's level is above that of the first's.
const fn codes<const N: usize, const L: usize>(points: [[u8; L]; N]) -> [u16; N] {
    let mut codes = [0; N];
    let mut n = 0;
    while n < N {
        let mut weight = 0;
        while weight < L {
            codes[n] |= (points[n][weight] as u16) << (PLACES[weight % 4] + weight / 4 * 2);
            weight += 1;
        }
        n += 1;
    }
    codes
}

static CODES_1: [u16; 2048] = codes(IQ1_POINTS);
static CODES_2_XXS: [u16; 256] = codes(IQ2_XXS_POINTS);
static CODES_2_XS: [u16; 512] = codes(IQ2_XS_POINTS);
static CODES_2_S: [u16; 1024] = codes(IQ2_S_POINTS);
static CODES_3_XXS: [u16; 256] = codes(IQ3_XXS_POINTS);
static CODES_3_S: [u16; 512] = codes(IQ3_S_POINTS);

/// The signs of 8 weights, a byte, as code: one bit for each.
static SIGNS: [u16; 256] = {
    let mut signs = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut weight = 0;
        while weight < 8 {
            signs[byte] |= ((byte >> weight & 1) << (PLACES[weight % 4] + weight / 4)) as u16;
            weight += 1;
        }
        byte += 1;
    }
    signs
};

/// The same for seven bits: the eighth makes their number even.
static EVEN_SIGNS: [u16; 128] = {
    let mut signs = [0; 128];
    let mut seven = 0usize;
    while seven < 128 {
        signs[seven] = SIGNS[seven | (seven.count_ones() as usize & 1) << 7];
        seven += 1;
    }
    signs
};

/// A group of each row of a tile.
#[derive(Clone, Copy)]
pub(super) struct Group<L> {
    /// As a tile holds them.
    levels: [L; 4],
    /// Of its halves or, the first one, of all of it; in the lowest byte.
    scales: [L; 2],
}

/// How blocks of 256 weights hold points of a book.
pub(super) trait Book<const BYTES: usize> {
    /// What all scales of a block are multiplied with: so much ...
    const UNIT: f32;
    /// ... times a number of half precision, the lower half of a word.
    #[inline(always)]
    fn unit<L: Lanes>(rows: &Rows<'_, BYTES>) -> L {
        words::<L, BYTES, 4>(rows, 0)[0]
    }
    /// All groups of a block of each row.
    fn groups<L: Lanes>(rows: &Rows<'_, BYTES>, groups: &mut [Group<L>; 8]);
}

/// Packs a tile.
#[inline(always)]
pub(super) fn blocks<B: Book<BYTES>, L: Lanes, const BYTES: usize>(t: PackTile<'_>) -> bool {
    let Some(form) = Form::of(t.dtype) else { return false };
    let (n_groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let rows = rows_of(&t);
    let nothing = L::splat(0);
    let mut groups = [Group { levels: [nothing; 4], scales: [nothing; 2] }; 8];
    for (block, to) in t.to.chunks_exact_mut(header + n_groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        let mut blocks: Rows<'_, BYTES> = [&[0; BYTES]; TILE];
        for (this, row) in blocks.iter_mut().zip(&rows) {
            *this = &row[block];
        }
        for to in header.as_chunks_mut::<64>().0 {
            B::unit::<L>(&blocks).store_halves(B::UNIT, to);
        }
        B::groups(&blocks, &mut groups);
        for (group, to) in groups.iter().zip(to.chunks_exact_mut(each)) {
            let (own, to) = to.split_at_mut(own);
            for (scale, to) in group.scales.iter().zip(own.as_chunks_mut::<TILE>().0) {
                scale.store_lowest(to);
            }
            for (levels, to) in group.levels.iter().zip(to.as_chunks_mut::<64>().0) {
                levels.store(to);
            }
        }
    }
    n_groups == 8
}

/// Two codes to the nibbles of bytes: positions in order, the first code's below the second's.
#[inline(always)]
fn nibbles<L: Lanes>(codes: L) -> L {
    codes & 0xf0f0_0f0f | (codes << 12) & 0x0f0f_0000 | codes >> 12 & 0x0000_f0f0
}

/// The bytes of words in pairs: the first and the third, the second and the fourth.
#[inline(always)]
fn bytes<L: Lanes>(word: L) -> [L; 2] {
    [word & 0x00ff_00ff, word >> 8 & 0x00ff_00ff]
}

/// Four times seven bits of words in pairs likewise.
#[inline(always)]
fn sevens<L: Lanes>(word: L) -> [L; 2] {
    [word & 0x7f | (word << 2) & 0x007f_0000, word >> 7 & 0x7f | word >> 5 & 0x007f_0000]
}

/// Signs of a group, looked up in pairs: bit 0 of a nibble is that of a pair's first four weights, bit 1 of the others.
#[inline(always)]
fn signs<L: Lanes, const N: usize>(pairs: [L; 2], table: &'static [u16; N]) -> [L; 2] {
    [nibbles(pairs[0].look_up(table)), nibbles(pairs[1].look_up(table))]
}

/// Levels of a group whose points have 8 weights, looked up in pairs.
#[inline(always)]
fn eights<L: Lanes, const N: usize>(pairs: [L; 2], table: &'static [u16; N]) -> [L; 4] {
    let [even, odd] = [nibbles(pairs[0].look_up(table)), nibbles(pairs[1].look_up(table))];
    [even & 0x3333_3333, even >> 2 & 0x3333_3333, odd & 0x3333_3333, odd >> 2 & 0x3333_3333]
}

/// Levels with their signs.
#[inline(always)]
fn signed<L: Lanes>(levels: [L; 4], signs: [L; 2]) -> [L; 4] {
    [
        levels[0] | (signs[0] << 3) & 0x8888_8888,
        levels[1] | (signs[0] << 2) & 0x8888_8888,
        levels[2] | (signs[1] << 3) & 0x8888_8888,
        levels[3] | (signs[1] << 2) & 0x8888_8888,
    ]
}

/// `2 s + 1`, where `s` are the `bits` from bit `at` on: scales are `d (s + 1/2)`.
#[inline(always)]
fn odd<L: Lanes>(word: L, at: u32, bits: u32) -> L {
    (word >> at & ((1 << bits) - 1)) << 1 | L::splat(1)
}

/// The lowest byte in all bytes.
#[inline(always)]
fn to_bytes<L: Lanes>(byte: L) -> L {
    let two = byte | byte << 8;
    two | two << 16
}

/// Levels whose numbers get these bits: those of even points and of odd ones.
#[inline(always)]
fn shifted<L: Lanes>([a, b, c, d]: [L; 4], even: L, odd: L) -> [L; 4] {
    [a | even, b | even, c | odd, d | odd]
}

pub(super) struct Iq1S;
pub(super) struct Iq1M;
pub(super) struct Iq2Xxs;
pub(super) struct Iq2Xs;
pub(super) struct Iq2S;
pub(super) struct Iq3Xxs;
pub(super) struct Iq3S;

impl Book<50> for Iq1S {
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 50>, groups: &mut [Group<L>; 8]) {
        let (low, high) = (words::<L, 50, 8>(rows, 2), words::<L, 50, 4>(rows, 34));
        for (g, group) in groups.iter_mut().enumerate() {
            let high = high[g / 2] >> (g as u32 % 2 * 16);
            let [even, odd_ones] = bytes(low[g]);
            let even = even | (high << 8) & 0x0700 | (high << 18) & 0x0700_0000;
            let odd_ones = odd_ones | (high << 5) & 0x0700 | (high << 15) & 0x0700_0000;
            let below = high >> 12 & 8;
            let below = to_bytes(below | below << 4);
            group.levels = shifted(eights([even, odd_ones], &CODES_1), below, below);
            group.scales[0] = odd(high, 12, 3);
        }
    }
}

impl Book<56> for Iq1M {
    const UNIT: f32 = 0.125;

    /// Four bits are above the scales in each half word of these.
    #[inline(always)]
    fn unit<L: Lanes>(rows: &Rows<'_, 56>) -> L {
        let [_, _, first, last] = words::<L, 56, 4>(rows, 40);
        first >> 12 & 0x000f | first >> 24 & 0x00f0 | last >> 4 & 0x0f00 | last >> 16 & 0xf000
    }

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 56>, groups: &mut [Group<L>; 8]) {
        let (low, high) = (words::<L, 56, 8>(rows, 0), words::<L, 56, 4>(rows, 32));
        let [_, _, scales @ ..] = words::<L, 56, 4>(rows, 40);
        for (g, group) in groups.iter_mut().enumerate() {
            let high = high[g / 2] >> (g as u32 % 2 * 16);
            let [even, odd_ones] = bytes(low[g]);
            let even = even | (high << 8) & 0x0700 | (high << 16) & 0x0700_0000;
            let odd_ones = odd_ones | (high << 4) & 0x0700 | (high << 12) & 0x0700_0000;
            let below_even = to_bytes(high & 8 | high >> 4 & 0x80);
            let below_odd = to_bytes(high >> 4 & 8 | high >> 8 & 0x80);
            group.levels = shifted(eights([even, odd_ones], &CODES_1), below_even, below_odd);
            let at = g as u32 / 2 % 2 * 16 + g as u32 % 2 * 6;
            group.scales = [odd(scales[g / 4], at, 3), odd(scales[g / 4], at + 3, 3)];
        }
    }
}

impl Book<66> for Iq2Xxs {
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 66>, groups: &mut [Group<L>; 8]) {
        let words = words::<L, 66, 16>(rows, 2);
        for (words, group) in words.as_chunks::<2>().0.iter().zip(groups) {
            let levels = eights(bytes(words[0]), &CODES_2_XXS);
            group.levels = signed(levels, signs(sevens(words[1]), &EVEN_SIGNS));
            group.scales[0] = odd(words[1], 28, 4);
        }
    }
}

impl Book<74> for Iq2Xs {
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 74>, groups: &mut [Group<L>; 8]) {
        let both = words::<L, 74, 16>(rows, 2);
        let [_, _, scales @ ..] = words::<L, 74, 4>(rows, 58);
        for (g, (both, group)) in both.as_chunks::<2>().0.iter().zip(groups).enumerate() {
            let even = both[0] & 0xffff | both[1] << 16;
            let odd_ones = both[0] >> 16 | both[1] & 0xffff_0000;
            let levels = eights([even & 0x01ff_01ff, odd_ones & 0x01ff_01ff], &CODES_2_XS);
            let negative = [even >> 9 & 0x007f_007f, odd_ones >> 9 & 0x007f_007f];
            group.levels = signed(levels, signs(negative, &EVEN_SIGNS));
            group.scales = halves(scales[g / 4], g);
        }
    }
}

impl Book<82> for Iq2S {
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 82>, groups: &mut [Group<L>; 8]) {
        let (low, negative) = (words::<L, 82, 8>(rows, 2), words::<L, 82, 8>(rows, 34));
        let [high @ .., scales_0, scales_1] = words::<L, 82, 4>(rows, 66);
        for (g, group) in groups.iter_mut().enumerate() {
            let high = high[g / 4] >> (g as u32 % 4 * 8);
            let [even, odd_ones] = bytes(low[g]);
            let even = even | (high << 8) & 0x0300 | (high << 20) & 0x0300_0000;
            let odd_ones = odd_ones | (high << 6) & 0x0300 | (high << 18) & 0x0300_0000;
            group.levels = signed(eights([even, odd_ones], &CODES_2_S), signs(bytes(negative[g]), &SIGNS));
            group.scales = halves([scales_0, scales_1][g / 4], g);
        }
    }
}

/// The scales of the halves of group `g`: a nibble each, a byte of four in the word.
#[inline(always)]
fn halves<L: Lanes>(scales: L, g: usize) -> [L; 2] {
    let at = g as u32 % 4 * 8;
    [odd(scales, at, 4), odd(scales, at + 4, 4)]
}

impl Book<98> for Iq3Xxs {
    const UNIT: f32 = 0.25;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 98>, groups: &mut [Group<L>; 8]) {
        let (indices, others) = (words::<L, 98, 16>(rows, 2), words::<L, 98, 8>(rows, 66));
        for ((indices, other), group) in indices.as_chunks::<2>().0.iter().zip(&others).zip(groups) {
            let levels = fours(indices, L::splat(0), &CODES_3_XXS);
            group.levels = signed(levels, signs(sevens(*other), &EVEN_SIGNS));
            group.scales[0] = odd(*other, 28, 4);
        }
    }
}

impl Book<110> for Iq3S {
    const UNIT: f32 = 1.0;

    #[inline(always)]
    fn groups<L: Lanes>(rows: &Rows<'_, 110>, groups: &mut [Group<L>; 8]) {
        let (low, negative) = (words::<L, 110, 16>(rows, 2), words::<L, 110, 8>(rows, 74));
        let [high @ .., _, _] = words::<L, 110, 4>(rows, 66);
        let [.., scales] = words::<L, 110, 4>(rows, 94);
        for (g, (low, group)) in low.as_chunks::<2>().0.iter().zip(groups).enumerate() {
            let levels = fours(low, high[g / 4] >> (g as u32 % 4 * 8), &CODES_3_S);
            group.levels = signed(levels, signs(bytes(negative[g]), &SIGNS));
            group.scales[0] = odd(scales, 4 * g as u32, 4);
        }
    }
}

/// Levels of a group whose points have 4 weights: indices in bytes, their ninth bits in the lowest bits of `high`.
#[inline(always)]
fn fours<L: Lanes, const N: usize>(low: &[L; 2], high: L, table: &'static [u16; N]) -> [L; 4] {
    let mut levels = [high; 4];
    for (i, levels) in levels.iter_mut().enumerate() {
        let i = i as u32;
        let pair = low[0] >> (8 * i) & 0xff | (low[1] >> (8 * i) & 0xff) << 16;
        *levels = nibbles((pair | (high >> i & 1) << 8 | (high >> (4 + i) & 1) << 24).look_up(table));
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::packed::{Levels, Tiling};
    use tensor::DType;

    #[test]
    fn types_are_kept_packed_when_that_is_not_much_more() {
        for &dtype in DType::ALL {
            let Some(form) = Form::of(dtype) else { continue };
            let expected = !matches!(form.levels, Levels::Table(table) if *table == IQ1 || *table == IQ2);
            assert_eq!(Tiling::of(dtype, 256).unwrap().is_kept, expected, "{dtype}");
        }
    }
}
