//! Attention's loops over one block of the cache: what they are given, and the portable ones.
//!
//! The products straight from the cache exist for some instruction sets only; where there is none, the block is widened to
//! `f32` and multiplied by `portable::multiply`. In half precision both ways give the same bits.
//!
//! What belongs here: softmax over blocks (Milakov & Gimelshein 2018), the levels of an 8-bit cache, the sizes of the
//! products. What does not: where a block lies (`kv`), which positions a row sees (`op::attend`).

#![allow(
    clippy::needless_range_loop,
    reason = "one index runs over several arrays, which the compiler turns into registers"
)]

use super::portable::{LANES, exp};
use crate::KV_BLOCK;

/// Elements of a head that share a scale in an 8-bit cache.
pub(crate) const LEVEL_GROUP: usize = 32;
/// What is added to a level of K, so that it is stored without a sign.
pub(crate) const LEVEL_OFFSET: i32 = 128;
/// Bytes of a rounded group of a query: a record of two columns (`cpu::columns`), one for each plane.
pub(crate) const QUERY_RECORD: usize = 128;

/// Scores of several queries and one block, which become weights relative to the largest score so far.
pub(crate) struct Softmax<'a> {
    /// `[n, KV_BLOCK]`; what a query does not see is negative infinity.
    pub(crate) scores: &'a mut [f32],
    /// `[n]`: the largest score so far.
    pub(crate) largest: &'a mut [f32],
    /// `[n]`: the sum of weights so far.
    pub(crate) total: &'a mut [f32],
    /// `[n]`, written: what the sums so far are to be multiplied by.
    pub(crate) shrink: &'a mut [f32],
}

/// The sum or another fold of all lanes, in halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Runs a [`Softmax`]. NaN among the scores makes the total NaN.
#[inline(always)]
pub(super) fn softmax<const FMA: bool>(s: Softmax<'_>) {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let rows = s.scores.as_chunks_mut::<KV_BLOCK>().0.iter_mut();
    for (((scores, largest), total), shrink) in rows.zip(s.largest).zip(s.total).zip(s.shrink) {
        let parts = scores.as_chunks_mut::<LANES>().0;
        let mut best = [f32::NEG_INFINITY; LANES];
        for part in &*parts {
            for i in 0..LANES {
                best[i] = greater(part[i], best[i]);
            }
        }
        let best = greater(fold(best, greater), *largest);
        *shrink = if best > *largest { exp::<FMA>(*largest - best) } else { 1.0 };
        *largest = best;
        let shift = if best == f32::NEG_INFINITY { 0.0 } else { best };
        let mut sums = [0.0f32; LANES];
        for part in parts {
            for i in 0..LANES {
                part[i] = exp::<FMA>(part[i] - shift);
                sums[i] += part[i];
            }
        }
        *total = *total * *shrink + fold(sums, |a, b| a + b);
    }
}

/// K of an 8-bit cache as `f32`: `to[4 i + j][p] = (from[i][p][j] - 128) · scales[p]` for the positions `p` of a block.
#[inline(always)]
pub(super) fn widen_keys(from: &[u8], scales: &[f32; KV_BLOCK], to: &mut [f32]) {
    for (from, to) in from.as_chunks::<{ 4 * KV_BLOCK }>().0.iter().zip(to.as_chunks_mut::<{ 4 * KV_BLOCK }>().0) {
        let mut words = [0u32; KV_BLOCK];
        for (word, bytes) in words.iter_mut().zip(from.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (j, to) in to.as_chunks_mut::<KV_BLOCK>().0.iter_mut().enumerate() {
            for p in 0..KV_BLOCK {
                let level = (words[p] >> (8 * j) & 255) as i32 - LEVEL_OFFSET;
                to[p] = level as f32 * scales[p];
            }
        }
    }
}

/// A product whose right side is half precision: `c[r][..n_cols] (+)= Σ_t a[r][t] · b[t][..n_cols]`.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only those instances have such loops"))]
pub(crate) struct HalfTile<'a> {
    /// `[n_rows, a_stride]`.
    pub(crate) a: &'a [f32],
    pub(crate) a_stride: usize,
    pub(crate) n_rows: usize,
    pub(crate) n_inner: usize,
    /// `[n_inner, n_cols]`.
    pub(crate) b: &'a [u16],
    /// A multiple of [`LANES`].
    pub(crate) n_cols: usize,
    /// `[n_rows, n_cols]`.
    pub(crate) c: &'a mut [f32],
    /// Add to what is in `c` rather than replace it.
    pub(crate) accumulate: bool,
    /// What will be read next: asked for early, as no prefetcher of a processor follows the blocks.
    pub(crate) next: &'a [u16],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
impl HalfTile<'_> {
    /// Whether all that will be accessed lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        let within = |rows: usize, width: usize, len: usize| rows.checked_mul(width).is_some_and(|n| n <= len);
        self.n_cols.is_multiple_of(LANES)
            && self.n_inner <= self.a_stride
            && within(self.n_rows, self.a_stride, self.a.len())
            && within(self.n_inner, self.n_cols, self.b.len())
            && within(self.n_rows, self.n_cols, self.c.len())
    }
}

/// Scores of rounded queries and the levels of K.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
pub(crate) struct LevelScores<'a> {
    /// `[k_dim / 4, KV_BLOCK, 4]`, 128 too large.
    pub(crate) levels: &'a [u8],
    /// Half precision, `[k_dim / 32, KV_BLOCK]`.
    pub(crate) scales: &'a [u16],
    /// `[n, k_dim / 32]` records.
    pub(crate) queries: &'a [u8],
    pub(crate) n: usize,
    /// `[n, KV_BLOCK]`.
    pub(crate) scores: &'a mut [f32],
    /// What will be read next.
    pub(crate) next: &'a [i8],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
impl LevelScores<'_> {
    /// Groups of a query.
    pub(super) fn n_groups(&self) -> usize {
        self.scales.len() / KV_BLOCK
    }

    /// Whether all that will be accessed lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        let groups = self.n_groups();
        groups * LEVEL_GROUP * KV_BLOCK <= self.levels.len()
            && self.n * groups * QUERY_RECORD <= self.queries.len()
            && self.n * KV_BLOCK <= self.scores.len()
    }
}

/// Adds the weighted sum of V's levels.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
pub(crate) struct LevelMix<'a> {
    /// `[KV_BLOCK, v_dim]`.
    pub(crate) levels: &'a [i8],
    /// Half precision, `[v_dim / 32, KV_BLOCK]`.
    pub(crate) scales: &'a [u16],
    /// `[n, KV_BLOCK]`.
    pub(crate) weights: &'a [f32],
    /// Positions that count: the first ones.
    pub(crate) seen: usize,
    pub(crate) n: usize,
    /// `[n, v_dim]`.
    pub(crate) sums: &'a mut [f32],
    /// What will be read next.
    pub(crate) next: &'a [i8],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
impl LevelMix<'_> {
    /// Groups of a position.
    pub(super) fn n_groups(&self) -> usize {
        self.scales.len() / KV_BLOCK
    }

    /// Whether all that will be accessed lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        let dim = self.n_groups() * LEVEL_GROUP;
        self.seen <= KV_BLOCK
            && self.seen * dim <= self.levels.len()
            && self.n * KV_BLOCK <= self.weights.len()
            && self.n * dim <= self.sums.len()
    }
}
