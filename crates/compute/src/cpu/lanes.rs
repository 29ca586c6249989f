//! Words of a tile's 16 rows, one of each: what packing computes with.
//!
//! What belongs here: the operations that an instruction set gives for them, and those without one. What does not: layouts (`pack`,
//! `books`).

use super::packed::TILE;
use half::f16;
use std::ops::{BitAnd, BitOr, BitXor, Shl, Shr};

/// The same block of each row of a tile.
pub(crate) type Rows<'a, const BYTES: usize> = [&'a [u8; BYTES]; TILE];

/// One word of four levels, or one of each row.
pub(crate) trait Word:
    Copy + BitAnd<u32, Output = Self> + BitOr<Output = Self> + Shl<u32, Output = Self> + Shr<u32, Output = Self>
{
}
impl Word for u32 {}

/// A word of each row of a tile, as an instruction set holds them. What is done with them must be inlined into code of that
/// instruction set, so it is written as functions, not as closures, which cannot ask for that.
pub(crate) trait Lanes: Word + BitXor<u32, Output = Self> {
    /// The same word for all rows.
    fn splat(word: u32) -> Self;
    /// The four words from byte `at` on; panics when they are not inside the block.
    fn four<const BYTES: usize>(rows: &Rows<'_, BYTES>, at: usize) -> [Self; 4];
    /// Row after row, little-endian.
    fn store(self, to: &mut [u8; 64]);
    /// The lower halves as numbers of half precision, times `unit`: as floats, row after row.
    fn store_halves(self, unit: f32, to: &mut [u8; 64]);
    /// The lowest byte of each.
    fn store_lowest(self, to: &mut [u8; TILE]);
    /// Both halves of each word are indices into a table, of a power of two of entries, and become those entries.
    fn look_up<const N: usize>(self, table: &'static [u16; N]) -> Self;
}

/// [`Lanes`] without instructions of their own.
#[derive(Clone, Copy)]
pub(crate) struct Plain([u32; TILE]);

impl Word for Plain {}

impl Lanes for Plain {
    #[inline(always)]
    fn splat(word: u32) -> Self {
        Self([word; TILE])
    }

    #[inline(always)]
    fn four<const BYTES: usize>(rows: &Rows<'_, BYTES>, at: usize) -> [Self; 4] {
        let mut four = [Self::splat(0); 4];
        for (r, row) in rows.iter().enumerate() {
            let words = row[at..at + 16].as_chunks::<4>().0;
            four.iter_mut().zip(words).for_each(|(lanes, word)| lanes.0[r] = u32::from_le_bytes(*word));
        }
        four
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 64]) {
        to.as_chunks_mut::<4>().0.iter_mut().zip(self.0).for_each(|(to, word)| *to = word.to_le_bytes());
    }

    #[inline(always)]
    fn store_halves(self, unit: f32, to: &mut [u8; 64]) {
        for (to, word) in to.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *to = (unit * f16::from_bits(word as u16).to_f32()).to_le_bytes();
        }
    }

    #[inline(always)]
    fn store_lowest(self, to: &mut [u8; TILE]) {
        to.iter_mut().zip(self.0).for_each(|(to, word)| *to = word as u8);
    }

    #[inline(always)]
    fn look_up<const N: usize>(mut self, table: &'static [u16; N]) -> Self {
        entries(&mut self.0, table);
        self
    }
}

/// Looks both halves of words up, one by one. Not inlined: it is as much code as all around it, and compiled as often as it is called.
#[inline(never)]
pub(crate) fn entries<const N: usize>(words: &mut [u32; TILE], table: &'static [u16; N]) {
    for word in words {
        let entry = |half: u32| u32::from(table[half as usize & (N - 1)]);
        *word = entry(*word) | entry(*word >> 16) << 16;
    }
}

/// Operators of [`Lanes`] with a word.
macro_rules! operators {
    ($type:ty: $($trait:ident $name:ident $operate:expr;)*) => {$(
        impl $trait<u32> for $type {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: u32) -> Self {
                $operate(self, other)
            }
        }
    )*};
}
pub(crate) use operators;

operators!(Plain:
    BitAnd bitand |a: Self, b| a.each(|a| *a &= b);
    BitXor bitxor |a: Self, b| a.each(|a| *a ^= b);
    Shl shl |a: Self, b| a.each(|a| *a <<= b);
    Shr shr |a: Self, b| a.each(|a| *a >>= b);
);

impl Plain {
    #[inline(always)]
    fn each(mut self, operate: impl Fn(&mut u32)) -> Self {
        self.0.iter_mut().for_each(operate);
        self
    }
}

impl BitOr for Plain {
    type Output = Self;

    #[inline(always)]
    fn bitor(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }
}

/// `N` words from byte `at` of a block on; `N` is a multiple of four.
#[inline(always)]
pub(super) fn words<L: Lanes, const BYTES: usize, const N: usize>(rows: &Rows<'_, BYTES>, at: usize) -> [L; N] {
    let mut words = [L::splat(0); N];
    for (i, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *words = L::four(rows, at + 16 * i);
    }
    words
}
