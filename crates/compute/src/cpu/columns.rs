//! Activations as 8-bit integers, in the order in which the integer products read them.
//!
//! A row of `x` is a *column* of a product. Each group of 32 of its elements gets one scale, `max|x| / 127`. When not
//! too many columns are computed a second plane holds what rounding left, so that the
//! pair has about 15 bits; a plane is then a column of its own whose result is added to its partner's.
//!
//! Columns lie in blocks of 16, 8, 4, 2 or 1. A block of `C` columns is a sequence of records, one per group, of
//! `C · 64` bytes: the levels of the columns (`C · 32` bytes), then [`Aux`] arrays of `C` 4-byte values each.
//!
//! What belongs here: that layout and the rounding. What does not: products.

/// Elements that share a scale.
pub(crate) const GROUP: usize = 32;
/// Columns of the widest block.
pub(crate) const MAX_BLOCK: usize = 16;
/// Bytes of a column's share of a record.
const RECORD: usize = 64;
/// Up to this many columns get a second plane: decoding, where memory is the limit, and the short prompts of a chat, where
/// one plane would be no closer to exact arithmetic than the peers are. It costs the second half of a product's time; a
/// long prompt is not asked to pay that.
pub(crate) const TWO_PLANES_UP_TO: usize = 64;

/// Index of an array behind the levels of a record.
pub(crate) struct Aux;

impl Aux {
    /// `f32`: what one level is worth.
    pub(crate) const SCALE: usize = 0;
    /// `f32`: scale times the sum of levels.
    pub(crate) const SUM: usize = 1;
    /// `i32`: `-8 ·` the sum of levels.
    pub(crate) const START_8: usize = 2;
    /// `i32`: `-128 ·` the sum of levels.
    pub(crate) const START_128: usize = 3;
    /// `i32`: `-32 ·` the sum of the first 16 levels; the next array: of the last 16.
    pub(crate) const START_32: usize = 4;
    /// `i32`: the same with `-4`.
    pub(crate) const START_4: usize = 6;
}

/// How many planes `n` columns get.
pub(crate) fn planes(n: usize) -> usize {
    if n <= TWO_PLANES_UP_TO { 2 } else { 1 }
}

/// Bytes of `n` columns (planes counted) of `len` elements.
pub(crate) fn bytes(n: usize, len: usize) -> Option<usize> {
    n.checked_mul(len / GROUP)?.checked_mul(RECORD)
}

/// Width of the block that starts at column `first` of `n`.
pub(crate) fn block_width(first: usize, n: usize) -> usize {
    let left = n - first;
    if left >= MAX_BLOCK { MAX_BLOCK } else { 1 << left.ilog2() }
}

/// Where the records of the block at column `first` begin, in bytes, for columns of `len` elements.
pub(crate) fn block_start(first: usize, len: usize) -> usize {
    first * (len / GROUP) * RECORD
}

/// Bytes of one record of a block.
pub(crate) fn record_bytes(width: usize) -> usize {
    width * RECORD
}

/// Where one column's values go in each record of its block.
pub(crate) struct Slot {
    pub(crate) column: usize,
    pub(crate) width: usize,
}

impl Slot {
    fn put(&self, record: &mut [u8], levels: &[i8; GROUP], scale: f32) {
        let sum = |part: &[i8]| part.iter().map(|l| i32::from(*l)).sum::<i32>();
        let (first, last) = (sum(&levels[..GROUP / 2]), sum(&levels[GROUP / 2..]));
        let at = self.column * GROUP;
        record[at..at + GROUP].iter_mut().zip(levels).for_each(|(r, l)| *r = l.to_ne_bytes()[0]);
        let mut aux = |index: usize, bytes: [u8; 4]| {
            let at = self.width * GROUP + (index * self.width + self.column) * 4;
            record[at..at + 4].copy_from_slice(&bytes);
        };
        aux(Aux::SCALE, scale.to_ne_bytes());
        aux(Aux::SUM, (scale * (first + last) as f32).to_ne_bytes());
        aux(Aux::START_8, (-8 * (first + last)).to_ne_bytes());
        aux(Aux::START_128, (-128 * (first + last)).to_ne_bytes());
        aux(Aux::START_32, (-32 * first).to_ne_bytes());
        aux(Aux::START_32 + 1, (-32 * last).to_ne_bytes());
        aux(Aux::START_4, (-4 * first).to_ne_bytes());
        aux(Aux::START_4 + 1, (-4 * last).to_ne_bytes());
    }
}

/// One group as levels and scale; `rest` becomes what the levels leave.
#[inline(always)]
fn round(x: &[f32; GROUP], levels: &mut [i8; GROUP], rest: &mut [f32; GROUP]) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits
    let (mut largest, mut not_finite) = (0.0f32, 0.0f32);
    for v in x {
        largest = if v.abs() > largest { v.abs() } else { largest };
        not_finite += v * 0.0;
    }
    let inverse = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
    let scale = largest / 127.0;
    for i in 0..GROUP {
        let shifted = x[i] * inverse + ROUND;
        levels[i] = shifted.to_bits() as i8;
        rest[i] = x[i] - (shifted - ROUND) * scale;
    }
    scale + not_finite // NaN when anything was not finite, so that it shows in the result
}

/// Writes a column (and its second plane, the next column of the same block) to the records of its block.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], slot: &Slot, two_planes: bool, block: &mut [u8]) {
    let mut levels = [0i8; GROUP];
    let (mut rest, mut nothing) = ([0.0; GROUP], [0.0; GROUP]);
    let second = Slot { column: slot.column + 1, width: slot.width };
    for (x, record) in x.as_chunks::<GROUP>().0.iter().zip(block.chunks_exact_mut(record_bytes(slot.width))) {
        let scale = round(x, &mut levels, &mut rest);
        slot.put(record, &levels, scale);
        if two_planes {
            let scale = round(&rest, &mut levels, &mut nothing);
            second.put(record, &levels, scale);
        }
    }
}
