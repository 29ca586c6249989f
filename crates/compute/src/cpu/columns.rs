//! Activations as 8-bit integers, in the order in which the integer products read them.
//!
//! A row of `x` is a *column* of a product. Each group of 32 of its elements gets one scale, about `max|x| / 127`: the best
//! of several. Where rounding costs most, a second plane holds what it left, so that the pair has about 15 bits; a plane is
//! then a column of its own whose result is added to its partner's. [`Rounding`] says what is done when.
//!
//! Columns lie in blocks: few of them in one, many in blocks of 16 and one with what is left. A block of `C` columns is a
//! sequence of records, one per group, of `C · 64` bytes: the levels of the columns (`C · 32` bytes), then [`Aux`] arrays of
//! `C` 4-byte values each. The two planes of a row are columns of one block, side by side.
//!
//! What belongs here: that layout and the rounding. What does not: products.

/// Elements that share a scale.
pub(crate) const GROUP: usize = 32;
/// Columns of a block where there are many.
pub(crate) const MAX_BLOCK: usize = 16;
/// Up to this many columns are one block: weights are read once for all of them.
pub(crate) const FEW_COLUMNS: usize = 16;
/// Bytes of a column's share of a record.
const RECORD: usize = 64;
/// Up to this many columns get a second plane where rounding costs most: decoding, batches and the short prompts of a chat.
/// A long prompt is not asked to pay for it. What speculation checks must be rounded as decoding rounds it.
const CAREFUL_UP_TO: usize = 256;
/// Scales that rounding to one plane tries for each group.
pub(crate) const CANDIDATES: usize = 8;

/// How columns are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To two planes.
    TwoPlanes,
    /// To one plane, with the best of several scales for each group.
    BestScale,
}

/// What is rounded, as far as it matters how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Its error is one of many.
    Usual,
    /// Few elements of a group are much larger than the others (what comes out of a gate), and all are rounded at their scale:
    /// the largest errors of a layer.
    Outliers,
    /// The input of the head, whose error goes straight to the logits: a third of all the error there is, for few rows.
    Last,
}

impl Rounding {
    /// What `n` columns of such a product get.
    pub(crate) fn of(n: usize, input: Input) -> Self {
        match (n, input) {
            (_, Input::Last) | (..=CAREFUL_UP_TO, Input::Outliers) => Self::TwoPlanes,
            (_, Input::Usual | Input::Outliers) => Self::BestScale,
        }
    }

    /// Planes of each column.
    pub(crate) fn planes(self) -> usize {
        if self == Self::TwoPlanes { 2 } else { 1 }
    }
}

/// Where sums of integers begin: 1.5 · 2^23 as the bits of a float, and as a float. Adding integers to the bits of such a
/// float adds them to its value, so a sum that begins there needs no conversion.
pub(crate) const BEGINNING: (i32, f32) = (0x4b40_0000, 12_582_912.0);

/// Index of an array behind the levels of a record. Start values are counted from [`BEGINNING`].
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

/// How many rows are computed for `n`: those beyond eights fill a pass over the weights of 1, 2, 4 or 8 rows. Two passes for 3 or
/// for 5 to 7 of them would take longer than one with rows that nobody wants.
pub(crate) fn padded(n: usize) -> usize {
    const OF_REST: [usize; 8] = [0, 1, 2, 4, 4, 8, 8, 8];
    n / 8 * 8 + OF_REST[n % 8]
}

/// Bytes of `n` columns (planes counted) of `len` elements.
pub(crate) fn bytes(n: usize, len: usize) -> Option<usize> {
    n.checked_mul(len / GROUP)?.checked_mul(RECORD)
}

/// Width of the block that starts at column `first` of `n`.
pub(crate) fn block_width(first: usize, n: usize) -> usize {
    if n <= FEW_COLUMNS { n } else { MAX_BLOCK.min(n - first) }
}

/// How many blocks `n` columns have; all but the last are of [`MAX_BLOCK`].
pub(crate) fn n_blocks(n: usize) -> usize {
    if n <= FEW_COLUMNS { n.min(1) } else { n.div_ceil(MAX_BLOCK) }
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
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) column: usize,
    pub(crate) width: usize,
}

impl Slot {
    /// That of the second plane.
    pub(crate) fn second(self) -> Self {
        Self { column: self.column + 1, ..self }
    }

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
        let start = |start: i32| (BEGINNING.0 + start).to_ne_bytes();
        aux(Aux::START_8, start(-8 * (first + last)));
        aux(Aux::START_128, start(-128 * (first + last)));
        aux(Aux::START_32, start(-32 * first));
        aux(Aux::START_32 + 1, start(-32 * last));
        aux(Aux::START_4, start(-4 * first));
        aux(Aux::START_4 + 1, start(-4 * last));
    }
}

/// Adding it rounds to an integer, kept in the low bits.
const ROUND: f32 = BEGINNING.1;

/// The squares of what rounding at `inverse` leaves, in levels.
#[inline(always)]
fn left(x: &[f32; GROUP], inverse: f32) -> f32 {
    let mut sums = [0.0f32; GROUP / 2];
    for i in 0..GROUP / 2 {
        let part = |x: f32| x * inverse - ((x * inverse + ROUND) - ROUND);
        let (first, last) = (part(x[i]), part(x[i + GROUP / 2]));
        sums[i] = first * first + last * last;
    }
    let mut half = GROUP / 4;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// One group as levels and scale, the best of `candidates` and then what fits these levels best; `rest` becomes what the levels
/// leave.
#[inline(always)]
fn round(x: &[f32; GROUP], candidates: usize, levels: &mut [i8; GROUP], rest: &mut [f32; GROUP]) -> f32 {
    let (mut largest, mut not_finite) = (0.0f32, 0.0f32);
    for v in x {
        largest = if v.abs() > largest { v.abs() } else { largest };
        not_finite += v * 0.0;
    }
    let mut top = 127.0;
    if candidates > 1 && largest > 1e-30 {
        let mut least = f32::INFINITY;
        for candidate in 0..candidates {
            let tried = 127.0 - candidate as f32;
            let left = left(x, tried / largest) / (tried * tried);
            if left < least {
                (least, top) = (left, tried);
            }
        }
    }
    let inverse = if largest > 1e-30 { top / largest } else { 0.0 };
    let mut scale = largest / top;
    let (mut products, mut squares) = (0.0, 0.0);
    for i in 0..GROUP {
        let shifted = x[i] * inverse + ROUND;
        let level = shifted - ROUND;
        levels[i] = shifted.to_bits() as i8;
        rest[i] = x[i] - level * scale;
        products += x[i] * level;
        squares += level * level;
    }
    if candidates > 1 && squares > 0.0 && products.is_finite() {
        scale = products / squares;
    }
    scale + not_finite // NaN when anything was not finite, so that it shows in the result
}

/// Writes a column (and its second plane, the next column of the same block) to the records of its block.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], slot: &Slot, rounding: Rounding, block: &mut [u8]) {
    let candidates = match rounding {
        Rounding::BestScale => CANDIDATES,
        Rounding::TwoPlanes => 1,
    };
    let mut levels = [0i8; GROUP];
    let (mut rest, mut nothing) = ([0.0; GROUP], [0.0; GROUP]);
    let second = slot.second();
    for (x, record) in x.as_chunks::<GROUP>().0.iter().zip(block.chunks_exact_mut(record_bytes(slot.width))) {
        let scale = round(x, candidates, &mut levels, &mut rest);
        slot.put(record, &levels, scale);
        if rounding == Rounding::TwoPlanes {
            let scale = round(&rest, 1, &mut levels, &mut nothing);
            second.put(record, &levels, scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scale and levels of a group rounded with so many candidates.
    fn rounded(x: &[f32; GROUP], candidates: usize) -> (f32, Vec<f32>) {
        let (mut levels, mut rest) = ([0; GROUP], [0.0; GROUP]);
        let scale = round(x, candidates, &mut levels, &mut rest);
        (scale, levels.iter().map(|level| f32::from(*level)).collect())
    }

    #[test]
    fn the_best_scale_is_no_worse() {
        let error = |x: &[f32; GROUP], candidates| {
            let (scale, levels) = rounded(x, candidates);
            x.iter().zip(levels).map(|(x, level)| (f64::from(*x) - f64::from(level * scale)).powi(2)).sum::<f64>()
        };
        let mut sums = [0.0; 2];
        for seed in 1..200u32 {
            let x = std::array::from_fn(|i| ((seed * 7919 + i as u32 * 104_729) % 10_007) as f32 / 5003.0 - 1.0);
            let both = [error(&x, 1), error(&x, CANDIDATES)];
            assert!(both[1] <= both[0] * 1.0001, "{seed}: {both:?}");
            (0..2).for_each(|i| sums[i] += both[i]);
        }
        assert!(sums[1] < 0.85 * sums[0], "{sums:?}");
    }

    #[test]
    fn what_is_not_finite_shows() {
        for bad in [f32::NAN, f32::INFINITY] {
            for candidates in [1, CANDIDATES] {
                let mut x = [0.5; GROUP];
                x[7] = bad;
                assert!(rounded(&x, candidates).0.is_nan());
            }
        }
        assert_eq!(rounded(&[0.0; GROUP], CANDIDATES), (0.0, vec![0.0; GROUP]));
    }
}
