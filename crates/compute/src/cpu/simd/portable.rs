//! The arithmetic of all instruction sets, as plain Rust over fixed-size arrays, and its portable instance.
//!
//! Each function is `#[inline(always)]`; the other files of this folder instantiate it under `#[target_feature]`, where
//! the compiler turns the 16-lane arrays into vectors. `FMA` says whether a fused multiply-add is one instruction
//! there. Results are the same for every thread count; between instruction sets they differ by rounding only.
//!
//! What belongs here: loops over slices. What does not: threads, shapes of operations, intrinsics.

#![allow(
    clippy::needless_range_loop,
    reason = "one index runs over several arrays, which the compiler turns into registers"
)]

use super::{PackedTile, PackedTiles};
use crate::{
    Activation,
    cpu::{
        columns::{self, Aux, GROUP, Rounding, Slot, record_bytes},
        packed::{TILE, Unpacked},
    },
};
use half::{bf16, f16};

/// Lanes that one array holds: one AVX-512 register of `f32`.
pub(crate) const LANES: usize = 16;

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `Σ a·b`.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    const WIDE: usize = 4 * LANES;
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let (a_wide, a_rest) = a.as_chunks::<WIDE>();
    let (b_wide, b_rest) = b.as_chunks::<WIDE>();
    let mut sums = [0.0f32; WIDE];
    for (a, b) in a_wide.iter().zip(b_wide) {
        for i in 0..WIDE {
            sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] = fma::<FMA>(*a, *b, sums[i]);
    }
    fold(sums)
}

/// `Σ a`.
#[inline(always)]
pub(super) fn sum(a: &[f32]) -> f32 {
    const WIDE: usize = 4 * LANES;
    let (wide, rest) = a.as_chunks::<WIDE>();
    let mut sums = [0.0f32; WIDE];
    for a in wide {
        for i in 0..WIDE {
            sums[i] += a[i];
        }
    }
    for (i, a) in rest.iter().enumerate() {
        sums[i] += a;
    }
    fold(sums)
}

/// Adds an array up pairwise.
#[inline(always)]
fn fold(mut sums: [f32; 64]) -> f32 {
    let mut half = 32;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The largest value; negative infinity when there is none. NaN is passed over: it comes back through [`exp_sum`].
#[inline(always)]
pub(super) fn max(a: &[f32]) -> f32 {
    let (wide, rest) = a.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    for a in wide {
        for i in 0..LANES {
            best[i] = if a[i] > best[i] { a[i] } else { best[i] };
        }
    }
    let best = best.iter().chain(rest);
    best.fold(f32::NEG_INFINITY, |best, v| if *v > best { *v } else { best })
}

/// `e^x` with a relative error of about 1e-7: argument reduction by ln 2 in two parts and the polynomial of the Cephes
/// library (Moshier). Below the normal range it is 0, above 88.37 infinite; NaN stays NaN.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = fma::<FMA>(p, r, c);
    }
    let p = fma::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let y = p * power;
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x > 88.37 { f32::INFINITY } else { y }
}

/// Replaces each value by `e^(value - shift)` and returns their sum.
#[inline(always)]
pub(super) fn exp_sum<const FMA: bool>(values: &mut [f32], shift: f32) -> f32 {
    let (wide, rest) = values.as_chunks_mut::<LANES>();
    let mut sums = [0.0f32; LANES];
    for v in wide {
        for i in 0..LANES {
            v[i] = exp::<FMA>(v[i] - shift);
            sums[i] += v[i];
        }
    }
    for (i, v) in rest.iter_mut().enumerate() {
        *v = exp::<FMA>(*v - shift);
        sums[i] += *v;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `c · tanh(x / c)`.
#[inline(always)]
pub(super) fn softcap<const FMA: bool>(values: &mut [f32], cap: f32) {
    for v in values {
        let e = exp::<FMA>(*v * (2.0 / cap));
        *v = cap - (2.0 * cap) / (e + 1.0);
    }
}

/// `sigmoid(x)` in place.
#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(values: &mut [f32]) {
    for v in values {
        *v = 1.0 / (1.0 + exp::<FMA>(-*v));
    }
}

/// `erfc(|x|)`, relative error 1.2e-7: the Chebyshev fit of Press et al., Numerical Recipes, section 6.2.
#[inline(always)]
fn erfc_abs<const FMA: bool>(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77;
    for c in [
        -0.822_152_2,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = fma::<FMA>(p, t, c);
    }
    t * exp::<FMA>(fma::<FMA>(-z, z, p))
}

/// `x = act(x) · up`, or `act(x)` when `up` is none.
#[inline(always)]
pub(super) fn activate<const FMA: bool>(activation: Activation, x: &mut [f32], up: Option<&[f32]>) {
    match activation {
        Activation::Silu => map(x, up, |x| x / (1.0 + exp::<FMA>(-x))),
        // 0.5·x·(1 + tanh u) = x · sigmoid(2u)
        Activation::GeluTanh => map(x, up, |x| {
            let u = 1.595_769 * fma::<FMA>(0.044_715 * x * x, x, x); // 2·√(2/π)
            x / (1.0 + exp::<FMA>(-u))
        }),
        Activation::Gelu => map(x, up, |x| {
            let e = erfc_abs::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
            0.5 * x * if x < 0.0 { e } else { 2.0 - e }
        }),
        Activation::Relu => map(x, up, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::ReluSquared => map(x, up, |x| if x < 0.0 { 0.0 } else { x * x }),
        Activation::ClampedSwish => {
            let swish = |x: f32| {
                let x = if x > 7.0 { 7.0 } else { x };
                x / (1.0 + exp::<FMA>(-1.702 * x))
            };
            match up {
                Some(up) => x.iter_mut().zip(up).for_each(|(x, u)| *x = swish(*x) * (u.clamp(-7.0, 7.0) + 1.0)),
                None => x.iter_mut().for_each(|x| *x = swish(*x)),
            }
        }
    }
}

#[inline(always)]
fn map(x: &mut [f32], up: Option<&[f32]>, f: impl Fn(f32) -> f32) {
    match up {
        Some(up) => x.iter_mut().zip(up).for_each(|(x, u)| *x = f(*x) * u),
        None => x.iter_mut().for_each(|x| *x = f(*x)),
    }
}

/// `out = x · scale · weight + bias`, where a missing weight is 1 and a missing bias 0; `shift` is subtracted from `x`.
#[inline(always)]
pub(super) fn normalize(
    x: &[f32],
    shift: f32,
    scale: f32,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    match weight {
        Some(weight) => out.iter_mut().zip(x).zip(weight).for_each(|((o, x), w)| *o = (x - shift) * scale * w),
        None => out.iter_mut().zip(x).for_each(|(o, x)| *o = (x - shift) * scale),
    }
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
    }
}

/// A matrix product on `f32`: `c[r][..n_cols] (+)= Σ_t a[r][t] · b[t][..n_cols]`. All slices are row-major with the
/// given strides; `n_cols` is a multiple of [`LANES`]. The sum runs over `t` in order.
pub(crate) struct Tile<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) a_stride: usize,
    pub(crate) n_rows: usize,
    pub(crate) n_inner: usize,
    pub(crate) b: &'a [f32],
    pub(crate) b_stride: usize,
    pub(crate) n_cols: usize,
    pub(crate) c: &'a mut [f32],
    pub(crate) c_stride: usize,
    /// Add to what is in `c` rather than replace it.
    pub(crate) accumulate: bool,
}

impl Tile<'_> {
    /// Whether all strides and sizes lie inside the slices.
    fn fits(&self) -> bool {
        let inside = |len: usize, rows: usize, stride: usize, width: usize| {
            rows == 0 || (width <= stride && (rows - 1) * stride + width <= len)
        };
        self.n_cols.is_multiple_of(LANES)
            && inside(self.a.len(), self.n_rows, self.a_stride, self.n_inner)
            && inside(self.b.len(), self.n_inner, self.b_stride, self.n_cols)
            && inside(self.c.len(), self.n_rows, self.c_stride, self.n_cols)
    }
}

/// Runs a [`Tile`] in register blocks of `R` rows by `V` vectors.
#[inline(always)]
pub(super) fn multiply<const FMA: bool, const R: usize, const V: usize>(mut tile: Tile<'_>) {
    assert!(tile.fits(), "tile outside its slices");
    let mut col = 0;
    while col + V * LANES <= tile.n_cols {
        columns::<FMA, R, V>(&mut tile, col);
        col += V * LANES;
    }
    while col < tile.n_cols {
        columns::<FMA, R, 1>(&mut tile, col);
        col += LANES;
    }
}

#[inline(always)]
fn columns<const FMA: bool, const R: usize, const V: usize>(tile: &mut Tile<'_>, col: usize) {
    let mut row = 0;
    while row + R <= tile.n_rows {
        block::<FMA, R, V>(tile, row, col);
        row += R;
    }
    // What is left: the four query heads of a K/V head, above all.
    while R > 4 && row + 4 <= tile.n_rows {
        block::<FMA, 4, V>(tile, row, col);
        row += 4;
    }
    while row < tile.n_rows {
        block::<FMA, 1, V>(tile, row, col);
        row += 1;
    }
}

#[inline(always)]
fn block<const FMA: bool, const R: usize, const V: usize>(tile: &mut Tile<'_>, row: usize, col: usize) {
    let mut acc = [[[0.0f32; LANES]; V]; R];
    if tile.accumulate {
        for r in 0..R {
            for v in 0..V {
                let from = (row + r) * tile.c_stride + col + v * LANES;
                acc[r][v].copy_from_slice(&tile.c[from..from + LANES]);
            }
        }
    }
    for t in 0..tile.n_inner {
        let mut b = [[0.0f32; LANES]; V];
        for v in 0..V {
            let from = t * tile.b_stride + col + v * LANES;
            // SAFETY: `fits` was asserted: t < n_inner and col + V·LANES <= n_cols.
            b[v].copy_from_slice(unsafe { tile.b.get_unchecked(from..from + LANES) });
        }
        for r in 0..R {
            // SAFETY: `fits` was asserted: row + r < n_rows and t < n_inner.
            let a = unsafe { *tile.a.get_unchecked((row + r) * tile.a_stride + t) };
            for v in 0..V {
                for i in 0..LANES {
                    acc[r][v][i] = fma::<FMA>(a, b[v][i], acc[r][v][i]);
                }
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            let to = (row + r) * tile.c_stride + col + v * LANES;
            tile.c[to..to + LANES].copy_from_slice(&acc[r][v]);
        }
    }
}

/// `to[t][r] = from[r][t]` for 16 rows `r` and `len` columns `t`, with the given strides.
#[inline(always)]
pub(super) fn transpose(from: &[f32], from_stride: usize, len: usize, to: &mut [f32], to_stride: usize) {
    let rows: [&[f32]; LANES] = std::array::from_fn(|r| &from[r * from_stride..r * from_stride + len]);
    for (t, to) in to.chunks_mut(to_stride).take(len).enumerate() {
        let column: [f32; LANES] = std::array::from_fn(|r| rows[r][t]);
        to[..LANES].copy_from_slice(&column);
    }
}

/// Half precision to single, exactly.
pub(super) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t = f16::from_bits(*f).to_f32());
}

/// `bf16` to single, exactly.
#[inline(always)]
pub(super) fn bf16_to_f32(from: &[u16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t = bf16::from_bits(*f).to_f32());
}

/// `to[i] = from[i] · scales[i / 32]`: levels of a position lie one after another.
#[inline(always)]
pub(super) fn scale_groups(from: &[i8], scales: &[f32], to: &mut [f32]) {
    for ((from, to), s) in from.as_chunks::<GROUP>().0.iter().zip(to.as_chunks_mut::<GROUP>().0).zip(scales) {
        to.iter_mut().zip(from).for_each(|(t, f)| *t = f32::from(*f) * s);
    }
}

/// A product of rows of 16-bit floats, as in the file, and few columns: `out[c][r] = Σ_k w[r][k] · x[c][k]`.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only those instances have such loops"))]
pub(crate) struct HalfRows<'a> {
    /// `bf16` or else half precision.
    pub(crate) bf16: bool,
    /// `[n_rows, row_len]`, little-endian.
    pub(crate) rows: &'a [u8],
    pub(crate) row_len: usize,
    /// `[n, row_len]`.
    pub(crate) x: &'a [f32],
    pub(crate) n: usize,
    /// `[n, n_rows]`.
    pub(crate) out: &'a mut [f32],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as above"))]
impl HalfRows<'_> {
    /// Whole rows there are.
    pub(super) fn n_rows(&self) -> usize {
        self.rows.len() / 2 / self.row_len.max(1)
    }

    /// Whether all that will be read lies inside the slices.
    pub(super) fn fits(&self) -> bool {
        self.n.checked_mul(self.row_len).is_some_and(|len| len <= self.x.len())
            && self.n.checked_mul(self.n_rows()).is_some_and(|len| len <= self.out.len())
    }
}

/// Runs [`PackedTiles`].
#[inline(always)]
pub(super) fn packed(mut t: PackedTiles<'_>) {
    assert!(t.fits(), "tiles outside their slices");
    t.each(packed_tile);
}

/// Runs a [`PackedTile`].
#[inline(always)]
pub(super) fn packed_tile(t: PackedTile<'_>) {
    if !t.accumulate {
        t.sums[..t.width / t.planes * TILE].fill(0.0);
    }
    let records = t.columns.chunks_exact(record_bytes(t.width));
    for (group, record) in t.groups.clone().zip(records) {
        let w = Unpacked::new(t.form, t.tile, group);
        let (levels, aux) = record.split_at(t.width * GROUP);
        let value = |array: usize, c: usize| {
            let at = (array * t.width + c) * 4;
            f32::from_ne_bytes([aux[at], aux[at + 1], aux[at + 2], aux[at + 3]])
        };
        let sums = t.sums.as_chunks_mut::<TILE>().0;
        for (c, q) in levels.as_chunks::<GROUP>().0.iter().enumerate() {
            let sums = &mut sums[c / t.planes];
            let zero = w.zero as i32;
            let (mut halves, mut of_q) = ([[0i32; TILE]; 2], [0.0; 2]);
            for (half, dots) in halves.iter_mut().enumerate() {
                let q = &q[half * 16..half * 16 + 16];
                let sum = q.iter().map(|q| i32::from(*q as i8)).sum::<i32>();
                let correction = zero * sum;
                of_q[half] = sum as f32;
                for (step, q) in q.as_chunks::<4>().0.iter().enumerate() {
                    let levels = &w.levels[(half * 4 + step) * 64..][..64];
                    for (dot, u) in dots.iter_mut().zip(levels.as_chunks::<4>().0) {
                        for b in 0..4 {
                            *dot += i32::from(u[b]) * i32::from(q[b] as i8);
                        }
                    }
                }
                dots.iter_mut().for_each(|dot| *dot -= correction);
            }
            let scale = value(Aux::SCALE, c);
            for r in 0..TILE {
                let dot = halves[0][r] as f32 * w.scales[0][r] + halves[1][r] as f32 * w.scales[1][r];
                let min = w.mins[0][r] * of_q[0] + w.mins[1][r] * of_q[1];
                sums[r] += (dot - min) * scale;
            }
        }
    }
}

/// Rounds a column to 8-bit levels.
#[inline(always)]
pub(super) fn quantize(x: &[f32], slot: &Slot, rounding: Rounding, block: &mut [u8]) {
    columns::quantize(x, slot, rounding, block)
}

super::instance!(Isa::Portable, features: [], fma: false, rows: 2, vectors: 1, f16_to_f32: super::f16_to_f32,
    transpose: super::transpose, half_rows: None, half_tile: None, level_mix: None, packed: super::packed, lanes: crate::cpu::lanes::Plain);
