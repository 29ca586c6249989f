//! Loops over a whole row of logits: 128k values for every token, so each is written for the compiler to turn into vector
//! code: blocks of a fixed length, independent lanes, no branch inside a block. A search looks at a block as a whole
//! and at its values one by one only if there is something to find.

/// Values of a block.
const BLOCK: usize = 64;
/// Values that are handled together inside one.
const LANES: usize = 16;

/// Copies a row to `to`, with −∞ for what is not finite, and gives the highest value; −∞ when there is none.
pub(super) fn copy_finite(from: &[f32], to: &mut Vec<f32>) -> f32 {
    // Old values are overwritten, so that only a longer row needs clearing.
    to.resize(from.len(), 0.0);
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (to_blocks, to_rest) = to.as_chunks_mut::<LANES>();
    let (from_blocks, from_rest) = from.as_chunks::<LANES>();
    for (to, from) in to_blocks.iter_mut().zip(from_blocks) {
        for ((to, &x), lane) in to.iter_mut().zip(from).zip(&mut lanes) {
            *to = if x.is_finite() { x } else { f32::NEG_INFINITY };
            *lane = if *to > *lane { *to } else { *lane };
        }
    }
    for (to, &x) in to_rest.iter_mut().zip(from_rest) {
        *to = if x.is_finite() { x } else { f32::NEG_INFINITY };
    }
    highest(&lanes).max(highest(to_rest))
}

/// The highest of the values; −∞ when there is none.
pub(super) fn highest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &x| best.max(x))
}

/// Calls `take` with the place and value of everything that is at least `least`, in order. It gives the bound that holds
/// from there on; values below it may still come, until the block ends.
pub(super) fn for_each_at_least(row: &[f32], mut least: f32, mut take: impl FnMut(usize, f32) -> f32) {
    let (blocks, rest) = row.as_chunks::<BLOCK>();
    for (n, block) in blocks.iter().enumerate() {
        let found = block.iter().fold(0u32, |found, &x| found | u32::from(x >= least));
        if found != 0 {
            for (i, &x) in block.iter().enumerate() {
                if x >= least {
                    least = take(n * BLOCK + i, x);
                }
            }
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        if x >= least {
            least = take(blocks.len() * BLOCK + i, x);
        }
    }
}

/// The weight `exp(x − best)` of every value, and their sums block by block. Gives the sum of all.
pub(super) fn weigh(row: &[f32], best: f32, weights: &mut Vec<f32>, sums: &mut Vec<f64>) -> f64 {
    weights.resize(row.len(), 0.0);
    // Two loops: in one, the compiler handles the sums one by one.
    for (to, &x) in weights.iter_mut().zip(row) {
        *to = exp(x - best);
    }
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(sum));
    sums.iter().sum()
}

/// The sum of a block.
fn sum(block: &[f32]) -> f64 {
    let mut lanes = [0.0f32; 8];
    let (parts, rest) = block.as_chunks::<8>();
    for part in parts {
        for lane in 0..8 {
            lanes[lane] += part[lane];
        }
    }
    let rest: f64 = rest.iter().map(|&weight| f64::from(weight)).sum();
    lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest
}

/// The place at which the running sum of the weights exceeds `wanted`; `sums` are those of [`weigh`]. Should rounding
/// leave a little at the end, the last place with any weight.
pub(super) fn place_of(weights: &[f32], sums: &[f64], mut wanted: f64) -> Option<usize> {
    let mut last = None;
    for (n, (block, &sum)) in weights.chunks(BLOCK).zip(sums).enumerate() {
        if sum <= 0.0 {
            continue;
        }
        last = Some((n, block, wanted));
        if wanted < sum {
            break;
        }
        wanted -= sum;
    }
    let (n, block, mut wanted) = last?;
    let mut chosen = None;
    for (i, &weight) in block.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        chosen = Some(n * BLOCK + i);
        wanted -= f64::from(weight);
        if wanted < 0.0 {
            break;
        }
    }
    chosen
}

/// `e^x` for `x ≤ 0` to 2 units in the last place, 0 below −87: branch-free so that it vectorizes, and the same bits
/// on every platform, which the C library's does not promise. The classic reduction `x = n·ln 2 + r` with Cephes'
/// polynomial for `e^r`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits; its own low nine bits are zero.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_3e-1;
    let e = p * r * r + r + 1.0;
    // Times 2ⁿ: n is added to the exponent, which stays that of a normal number.
    let scaled = f32::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x >= -87.0 { scaled } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows around the lengths of blocks.
    fn rows() -> impl Iterator<Item = Vec<f32>> {
        let mut rng = super::super::rng::Xoshiro256::new(3);
        [0, 1, 15, 16, 17, 63, 64, 65, 200, 1000]
            .map(|n| (0..n).map(|_| (rng.next_f64() * 9.0 - 5.0) as f32).collect())
            .into_iter()
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 2.5e-7 * expected, "{x}: {} {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn copies_and_finds_the_highest() {
        let mut to = vec![7.0; 5];
        for mut row in rows() {
            let expected = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!((copy_finite(&row, &mut to), highest(&row)), (expected, expected));
            assert_eq!(to, row);
            row.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            assert_eq!(copy_finite(&row, &mut to), expected);
            assert_eq!(to[..row.len() - 3], row[..row.len() - 3]);
            assert_eq!(to[row.len() - 3..], [f32::NEG_INFINITY; 3]);
        }
    }

    #[test]
    fn finds_what_is_high_enough() {
        for row in rows() {
            for least in [f32::NEG_INFINITY, -2.0, 0.0, 3.9, 100.0] {
                let mut found = Vec::new();
                for_each_at_least(&row, least, |at, x| {
                    found.push((at, x));
                    least
                });
                let expected: Vec<(usize, f32)> =
                    row.iter().copied().enumerate().filter(|(_, x)| *x >= least).collect();
                assert_eq!(found, expected);
            }
            // A rising bound: only what beats everything before.
            let (mut n, mut best) = (0, f32::NEG_INFINITY);
            for_each_at_least(&row, f32::NEG_INFINITY, |_, x| {
                assert!(x >= best);
                (n, best) = (n + 1, x);
                x
            });
            assert!(best == highest(&row) && n <= row.len());
        }
    }

    #[test]
    fn places_follow_the_weights() {
        let (mut weights, mut sums) = (Vec::new(), Vec::new());
        for row in rows() {
            let total = weigh(&row, 5.0, &mut weights, &mut sums);
            let exact: f64 = row.iter().map(|x| f64::from(*x - 5.0).exp()).sum();
            assert!((total - exact).abs() <= 1e-6 * exact, "{total} {exact}");
            let mut below = 0.0;
            for (at, &weight) in weights.iter().enumerate() {
                let middle = below + 0.5 * f64::from(weight);
                assert_eq!(place_of(&weights, &sums, middle), Some(at));
                below += f64::from(weight);
            }
            assert_eq!(place_of(&weights, &sums, total * 1.01), row.len().checked_sub(1));
        }
        let row = [vec![f32::NEG_INFINITY; 100], vec![0.0], vec![f32::NEG_INFINITY; 100]].concat();
        let total = weigh(&row, 0.0, &mut weights, &mut sums);
        assert_eq!(
            (total, place_of(&weights, &sums, 0.0), place_of(&weights, &sums, 1.0)),
            (1.0, Some(100), Some(100))
        );
    }
}
