//! Finding the scales with which a block errs least: what the encoders share.
//!
//! The quantity minimised is the squared error weighted by [`importance`]: by the magnitude alone or, where it is known how
//! much the inputs of each weight matter, by that too. Then scales are chosen once more after they were rounded. For a given assignment of levels the best scale
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

/// How much an error of each weight counts: more for large weights, but never nothing; `given` is how much its input does.
pub(super) fn importance<const N: usize>(x: &[f32; N], given: Option<&[f32; N]>) -> [f32; N] {
    let mean = sum(&x.map(|v| v * v)) / N as f32;
    match given {
        None => {
            let rms = mean.sqrt();
            x.map(|v| rms + v.abs())
        }
        Some(given) => zip_map(x, given, |v, given| given * (mean + v * v).sqrt()),
    }
}

/// What is given for the weights of group `group`.
fn part<const N: usize>(given: Option<&[f32; 256]>, group: usize) -> Option<&[f32; N]> {
    given.and_then(|given| given.as_chunks().0.get(group))
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

/// The nearest of the levels `-n..n`.
fn whole_levels<const N: usize>(x: [f32; N], n: f32) -> [f32; N] {
    x.map(|v| round(v.clamp(-n, n - 1.0)))
}

/// Scale for levels `-n..n`.
pub(super) fn fit_scale<const N: usize>(x: &[f32; N], given: Option<&[f32; N]>, n: u8) -> f32 {
    let n = f32::from(n);
    let extreme = extreme(x);
    let inverses = (-STEPS..=STEPS).map(|step| -(n + f32::from(step) * 0.1) / extreme);
    best_scale(x, &importance(x, given), inverses, |x| whole_levels(x, n)).unwrap_or(extreme / -n)
}

/// Group scales as whole multiples, `-n..n`, of a common half-precision step `d`, which is given too.
pub(super) fn round_scales<const G: usize>(fits: &[f32; G], n: u8) -> ([i32; G], f32) {
    let n = f32::from(n);
    let d = f16::from_f32(extreme(fits) / -n).to_f32();
    let inverse = inverse(d);
    (fits.map(|fit| round((fit * inverse).clamp(-n, n - 1.0)) as i32), d)
}

/// Scales of `G` groups of `N` weights with levels `-n_levels..n_levels`, in units `-n_scales..n_scales` of `d`.
pub(super) fn scales<const G: usize, const N: usize>(
    x: &[f32; 256],
    given: Option<&[f32; 256]>,
    n_levels: u8,
    n_scales: u8,
) -> ([i32; G], f32) {
    const { assert!(G * N == 256) };
    let groups = x.as_chunks::<N>().0;
    let fits: [f32; G] = std::array::from_fn(|i| fit_scale(&groups[i], part(given, i), n_levels));
    let rounded = round_scales(&fits, n_scales);
    let Some(given) = given else { return rounded };
    settled(x, given, n_scales, rounded, |x: [f32; N]| whole_levels(x, f32::from(n_levels)))
}

/// Rounds of choosing scales and their step in turn.
const ROUNDS: usize = 3;

/// Group scales that were rounded, chosen again one by one among their neighbours, and the step anew for all of them, as
/// long as the error falls.
pub(super) fn settled<const G: usize, const N: usize>(
    x: &[f32; 256],
    given: &[f32; 256],
    n: u8,
    start: ([i32; G], f32),
    levels: impl Fn([f32; N]) -> [f32; N],
) -> ([i32; G], f32) {
    let n = i32::from(n);
    let groups = x.as_chunks::<N>().0;
    let weights: [[f32; N]; G] = std::array::from_fn(|i| importance(&groups[i], part(Some(given), i)));
    // The levels of a group at a scale, and the error.
    let at = |i: usize, scale: f32| {
        let inverse = inverse(scale);
        let q = levels(groups[i].map(|v| v * inverse));
        let errors = zip_map(&q, &groups[i], |q, v| scale * q - v);
        (q, sum(&zip_map(&errors, &weights[i], |e, w| w * e * e)))
    };
    let total = |(scales, d): &([i32; G], f32)| (0..G).map(|i| at(i, d * scales[i] as f32).1).sum::<f32>();
    let mut best = start;
    let mut best_error = total(&best);
    for _ in 0..ROUNDS {
        let (mut scales, mut d) = best;
        for (i, scale) in scales.iter_mut().enumerate() {
            let near = [0, -1, 1].map(|step| (*scale + step).clamp(-n, n - 1));
            let error = |scale: &i32| at(i, d * *scale as f32).1;
            *scale = near.into_iter().min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(*scale);
        }
        let (mut with_x, mut squares) = (0.0, 0.0);
        for (i, scale) in scales.iter().enumerate() {
            let q = at(i, d * *scale as f32).0.map(|q| q * *scale as f32);
            let weighted = zip_map(&q, &weights[i], |q, w| q * w);
            with_x += sum(&zip_map(&weighted, &groups[i], |wq, v| wq * v));
            squares += sum(&zip_map(&weighted, &q, |wq, q| wq * q));
        }
        d = f16::from_f32(with_x / squares).to_f32();
        let error = total(&(scales, d));
        // Not so for what is not a number.
        if d.is_finite() && error < best_error {
            (best, best_error) = ((scales, d), error);
        } else {
            break;
        }
    }
    best
}

/// Levels `-n..n` of `x` at `scale`.
pub(super) fn levels<const N: usize>(x: &[f32; N], scale: f32, n: u8) -> [i32; N] {
    let (inverse, n) = (inverse(scale), f32::from(n));
    x.map(|v| round((v * inverse).clamp(-n, n - 1.0)) as i32)
}

/// Scale and minimum for `x ≈ scale * q - min` with `q` in `0..=top`; the minimum is below zero only if it may be.
pub(super) fn fit_scale_and_min<const N: usize>(
    x: &[f32; N],
    given: Option<&[f32; N]>,
    top: u8,
    any_min: bool,
) -> (f32, f32) {
    let top = f32::from(top);
    let (min, max) = range(x);
    let min = if any_min { min } else { min.min(0.0) };
    if max <= min {
        return (0.0, -min);
    }
    let weights = importance(x, given);
    let mut best = ((max - min) / top, min);
    let mut best_error = f32::INFINITY;
    for step in -STEPS..=STEPS {
        let inverse = (top + f32::from(step) * 0.1) / (max - min);
        let q = x.map(|v| round(((v - min) * inverse).clamp(0.0, top)));
        let Some((scale, min)) = least_squares(x, &weights, &q, any_min) else { continue };
        let errors = zip_map(&q, x, |q, v| scale * q + min - v);
        let error = sum(&zip_map(&errors, &weights, |e, w| w * e * e));
        if error < best_error {
            best_error = error;
            best = (scale, min);
        }
    }
    (best.0, -best.1)
}

/// `scale` and `min`, at most 0 unless it may be any, that minimise the weighted error of `x ≈ scale * q + min`.
fn least_squares<const N: usize>(x: &[f32; N], weights: &[f32; N], q: &[f32; N], any_min: bool) -> Option<(f32, f32)> {
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
    let (scale, min) = if min > 0.0 && !any_min { (sum_qx / sum_qq, 0.0) } else { (scale, min) };
    (scale > 0.0 && scale.is_finite() && min.is_finite()).then_some((scale, min))
}

/// Scales and minima of `G` groups of `N` weights with levels `0..=top`, each `0..=n_scales` in units of the half-precision
/// steps that are given with them: of scales, of minima.
pub(super) fn scales_and_mins<const G: usize, const N: usize>(
    x: &[f32; 256],
    given: Option<&[f32; 256]>,
    top: u8,
    n_scales: u8,
) -> ([(u8, u8); G], f32, f32) {
    const { assert!(G * N == 256) };
    let groups = x.as_chunks::<N>().0;
    let fits: [(f32, f32); G] = std::array::from_fn(|i| fit_scale_and_min(&groups[i], part(given, i), top, false));
    let greatest = fits.iter().fold((0.0, 0.0), |(s, m): (f32, f32), fit| (s.max(fit.0), m.max(fit.1)));
    let most = f32::from(n_scales);
    let step = |greatest: f32| f16::from_f32(greatest / most).to_f32();
    let (d, dmin) = (step(greatest.0), step(greatest.1));
    let round = |v: f32, d: f32| round((v * inverse(d)).clamp(0.0, most)) as u8;
    let rounded = (fits.map(|(scale, min)| (round(scale, d), round(min, dmin))), d, dmin);
    let Some(given) = given else { return rounded };
    settled_with_mins::<G, N>(x, given, top, n_scales, rounded)
}

/// [`settled`] for scales and minima.
fn settled_with_mins<const G: usize, const N: usize>(
    x: &[f32; 256],
    given: &[f32; 256],
    top: u8,
    n: u8,
    start: ([(u8, u8); G], f32, f32),
) -> ([(u8, u8); G], f32, f32) {
    let groups = x.as_chunks::<N>().0;
    let weights: [[f32; N]; G] = std::array::from_fn(|i| importance(&groups[i], part(Some(given), i)));
    let top = f32::from(top);
    // The levels of a group with scale and minimum, and the error.
    let at = |i: usize, scale: f32, min: f32| {
        let inverse = inverse(scale);
        let q = groups[i].map(|v| round_level((v + min) * inverse, top));
        let errors = zip_map(&q, &groups[i], |q, v| scale * q - min - v);
        (q, sum(&zip_map(&errors, &weights[i], |e, w| w * e * e)))
    };
    let total = |(fits, d, dmin): &([(u8, u8); G], f32, f32)| {
        (0..G).map(|i| at(i, d * f32::from(fits[i].0), dmin * f32::from(fits[i].1)).1).sum::<f32>()
    };
    let mut best = start;
    let mut best_error = total(&best);
    for _ in 0..ROUNDS {
        let (mut fits, mut d, mut dmin) = best;
        for (i, fit) in fits.iter_mut().enumerate() {
            let error = |fit: &(u8, u8)| at(i, d * f32::from(fit.0), dmin * f32::from(fit.1)).1;
            let mut least = error(fit);
            let (scale, min) = *fit;
            for near in [0, 1, 2].into_iter().flat_map(|a| [0, 1, 2].map(|b| (a, b))) {
                let near = ((scale + near.0).saturating_sub(1).min(n), (min + near.1).saturating_sub(1).min(n));
                let error = error(&near);
                if error < least {
                    (*fit, least) = (near, error);
                }
            }
        }
        // x ≈ d · a − dmin · b, of which all sums are taken: the two steps solve a pair of equations.
        let [mut aa, mut ab, mut bb, mut xa, mut xb] = [0.0; 5];
        for (i, (scale, min)) in fits.iter().map(|fit| (f32::from(fit.0), f32::from(fit.1))).enumerate() {
            let (w, v) = (&weights[i], &groups[i]);
            let a = at(i, d * scale, dmin * min).0.map(|q| q * scale);
            let wa = zip_map(&a, w, |a, w| a * w);
            let wx = zip_map(v, w, |v, w| v * w);
            aa += sum(&zip_map(&wa, &a, |wa, a| wa * a));
            ab += sum(&wa) * min;
            bb += sum(w) * min * min;
            xa += sum(&zip_map(&wa, v, |wa, v| wa * v));
            xb += sum(&wx) * min;
        }
        let determinant = aa * bb - ab * ab;
        if determinant > 0.0 {
            (d, dmin) = ((xa * bb - xb * ab) / determinant, (xa * ab - xb * aa) / determinant);
        } else if aa > 0.0 {
            d = (xa + dmin * ab) / aa;
        }
        (d, dmin) = (f16::from_f32(d).to_f32(), f16::from_f32(dmin).to_f32());
        let error = total(&(fits, d, dmin));
        if d > 0.0 && dmin >= 0.0 && d.is_finite() && dmin.is_finite() && error < best_error {
            (best, best_error) = ((fits, d, dmin), error);
        } else {
            break;
        }
    }
    best
}

/// The level nearest to `v` of `0..=top`.
fn round_level(v: f32, top: f32) -> f32 {
    round(v.clamp(0.0, top))
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
