//! Finding the scales with which a block errs least: what the encoders share.
//!
//! The quantity minimised is the squared error weighted by [`importance`]. For a given assignment of levels the best scale
//! (and minimum) is a linear least-squares problem; the assignment itself is searched over a handful of starting scales
//! around the one that maps the extreme weight to the last level.

use half::f16;

/// Starting scales tried on either side of the plain one, in tenths of a level.
const STEPS: i8 = 10;

/// The value of greatest magnitude; 0 for none. NaN is passed over.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, v| if v.abs() > best.abs() { *v } else { best })
}

/// Least and greatest value.
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}

/// `1 / d`, or 0 where `d` is 0.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// To the nearest integer, halves to even, for magnitudes below 2^22: the unit of a float near 3 * 2^22 is one.
pub(super) fn round(v: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    (v + WHOLE) - WHOLE
}

/// The sum in eight lanes, so that it can be computed as vectors.
fn sum<const N: usize>(x: &[f32; N]) -> f32 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for eight in eights {
        for (lane, v) in lanes.iter_mut().zip(eight) {
            *lane += v;
        }
    }
    lanes.iter().chain(rest).sum()
}

/// Element by element.
fn zip_map<const N: usize>(a: &[f32; N], b: &[f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    let mut out = *a;
    for (out, b) in out.iter_mut().zip(b) {
        *out = f(*out, *b);
    }
    out
}

/// How much an error of each weight counts: more for large weights, but never nothing.
pub(super) fn importance<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let rms = (sum(&x.map(|v| v * v)) / N as f32).sqrt();
    x.map(|v| rms + v.abs())
}

/// The scale that errs least when `levels(x / scale)` are the levels: each of `inverses` assigns levels, for which the
/// least-squares scale is exact. `None` when no assignment has a level but zero, or numbers overflow.
pub(super) fn best_scale<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    inverses: impl Iterator<Item = f32>,
    levels: impl Fn([f32; N]) -> [f32; N],
) -> Option<f32> {
    let mut best = None;
    let mut best_gain = 0.0;
    for inverse in inverses {
        let q = levels(x.map(|v| v * inverse));
        let weighted = zip_map(&q, weights, |q, w| q * w);
        let with_x = sum(&zip_map(&weighted, x, |wq, v| wq * v));
        let squares = sum(&zip_map(&weighted, &q, |wq, q| wq * q));
        // The weighted squared error falls from that of all zeros by this much.
        let gain = with_x * with_x / squares;
        if gain > best_gain && gain.is_finite() {
            best_gain = gain;
            best = Some(with_x / squares);
        }
    }
    best
}

/// Scale for levels `-n..n`.
fn fit_scale<const N: usize>(x: &[f32; N], n: u8) -> f32 {
    let n = f32::from(n);
    let extreme = extreme(x);
    let inverses = (-STEPS..=STEPS).map(|step| -(n + f32::from(step) * 0.1) / extreme);
    let levels = |x: [f32; N]| x.map(|v| round(v.clamp(-n, n - 1.0)));
    best_scale(x, &importance(x), inverses, levels).unwrap_or(extreme / -n)
}

/// Group scales as whole multiples, `-n..n`, of a common half-precision step `d`, which is given too.
pub(super) fn round_scales<const G: usize>(fits: &[f32; G], n: u8) -> ([i32; G], f32) {
    let n = f32::from(n);
    let d = f16::from_f32(extreme(fits) / -n).to_f32();
    let inverse = inverse(d);
    (fits.map(|fit| round((fit * inverse).clamp(-n, n - 1.0)) as i32), d)
}

/// Scales of `G` groups of `N` weights with levels `-n_levels..n_levels`, in units `-n_scales..n_scales` of `d`.
pub(super) fn scales<const G: usize, const N: usize>(x: &[f32; 256], n_levels: u8, n_scales: u8) -> ([i32; G], f32) {
    const { assert!(G * N == 256) };
    let groups = x.as_chunks::<N>().0;
    let fits: [f32; G] = std::array::from_fn(|i| fit_scale(&groups[i], n_levels));
    round_scales(&fits, n_scales)
}

/// Levels `-n..n` of `x` at `scale`.
pub(super) fn levels<const N: usize>(x: &[f32; N], scale: f32, n: u8) -> [i32; N] {
    let (inverse, n) = (inverse(scale), f32::from(n));
    x.map(|v| round((v * inverse).clamp(-n, n - 1.0)) as i32)
}

/// Scale and (positive) minimum for `x ≈ scale * q - min` with `q` in `0..=top`.
fn fit_scale_and_min<const N: usize>(x: &[f32; N], top: u8) -> (f32, f32) {
    let top = f32::from(top);
    let (min, max) = range(x);
    let min = min.min(0.0);
    if max <= min {
        return (0.0, -min);
    }
    let weights = importance(x);
    let mut best = ((max - min) / top, min);
    let mut best_error = f32::INFINITY;
    for step in -STEPS..=STEPS {
        let inverse = (top + f32::from(step) * 0.1) / (max - min);
        let q = x.map(|v| round(((v - min) * inverse).clamp(0.0, top)));
        let Some((scale, min)) = least_squares(x, &weights, &q) else { continue };
        let errors = zip_map(&q, x, |q, v| scale * q + min - v);
        let error = sum(&zip_map(&errors, &weights, |e, w| w * e * e));
        if error < best_error {
            best_error = error;
            best = (scale, min);
        }
    }
    (best.0, -best.1)
}

/// `scale` and `min <= 0` that minimise the weighted error of `x ≈ scale * q + min`.
fn least_squares<const N: usize>(x: &[f32; N], weights: &[f32; N], q: &[f32; N]) -> Option<(f32, f32)> {
    let weighted = zip_map(q, weights, |q, w| q * w);
    let (sum_w, sum_q) = (sum(weights), sum(&weighted));
    let sum_x = sum(&zip_map(weights, x, |w, v| w * v));
    let sum_qq = sum(&zip_map(&weighted, q, |wq, q| wq * q));
    let sum_qx = sum(&zip_map(&weighted, x, |wq, v| wq * v));
    let determinant = sum_w * sum_qq - sum_q * sum_q;
    if determinant.is_nan() || determinant <= 0.0 {
        return None;
    }
    let scale = (sum_w * sum_qx - sum_x * sum_q) / determinant;
    let min = (sum_qq * sum_x - sum_q * sum_qx) / determinant;
    let (scale, min) = if min > 0.0 { (sum_qx / sum_qq, 0.0) } else { (scale, min) };
    (scale > 0.0 && scale.is_finite() && min.is_finite()).then_some((scale, min))
}

/// Scales and minima of `G` groups of `N` weights with levels `0..=top`, each `0..=n_scales` in units of the half-precision
/// steps that are given with them: of scales, of minima.
pub(super) fn scales_and_mins<const G: usize, const N: usize>(
    x: &[f32; 256],
    top: u8,
    n_scales: u8,
) -> ([(u8, u8); G], f32, f32) {
    const { assert!(G * N == 256) };
    let groups = x.as_chunks::<N>().0;
    let fits: [(f32, f32); G] = std::array::from_fn(|i| fit_scale_and_min(&groups[i], top));
    let greatest = fits.iter().fold((0.0, 0.0), |(s, m): (f32, f32), fit| (s.max(fit.0), m.max(fit.1)));
    let n_scales = f32::from(n_scales);
    let step = |greatest: f32| f16::from_f32(greatest / n_scales).to_f32();
    let (d, dmin) = (step(greatest.0), step(greatest.1));
    let round = |v: f32, d: f32| round((v * inverse(d)).clamp(0.0, n_scales)) as u8;
    (fits.map(|(scale, min)| (round(scale, d), round(min, dmin))), d, dmin)
}

/// Levels `0..=top` of `x` at `scale`, counted from `-min`.
pub(super) fn levels_above_min<const N: usize>(x: &[f32; N], scale: f32, min: f32, top: u8) -> [u8; N] {
    let inverse = inverse(scale);
    x.map(|v| round(((v + min) * inverse).clamp(0.0, f32::from(top))) as u8)
}

/// The scale (in half precision) and the levels 0, 1, 2 of `(level - 1) * scale` that err least, in squares: the best scale
/// for `k` weights that are not zero is the mean magnitude of the `k` largest.
pub(super) fn ternary(x: &[f32; 256]) -> (f32, [u8; 256]) {
    let mut magnitudes = x.map(|v| if v.is_nan() { 0.0 } else { v.abs() });
    magnitudes.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut sum, mut best, mut best_gain) = (0.0, 0.0, 0.0);
    for (n, magnitude) in (1u16..).zip(magnitudes) {
        sum += magnitude;
        let gain = sum * sum / f32::from(n);
        if gain > best_gain {
            (best, best_gain) = (sum / f32::from(n), gain);
        }
    }
    let d = f16::from_f32(best).to_f32();
    let level = |v: f32| match v.abs() > d / 2.0 {
        true if v > 0.0 => 2,
        true => 0,
        false => 1,
    };
    (d, x.map(level))
}
