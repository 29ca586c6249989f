//! Rotary position embedding (Su et al. 2021): its numbers, and the frequencies with every kind of scaling folded in.
//!
//! Linear (Chen et al. 2023), dynamic (bloc97 2023), YaRN (Peng et al. 2023), bands (Dubey et al. 2024, Llama 3) and
//! LongRoPE (Ding et al. 2024). The last two may also come as a tensor of divisors. Frequencies are computed in double
//! precision and rounded once.

use crate::convention::Convention;
use crate::hugging_face;
use crate::keys::Keys;
use crate::{Error, Result};
use compute::RopePairing;

/// How positions beyond the trained ones are squeezed in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not by number (tensors may still divide the frequencies).
    None,
    /// Each frequency divided by its own number, from one of two lists chosen by the size of the context.
    LongRope,
    /// Only the leading pairs of a head turn, by frequencies divided by `factor`.
    Leading {
        /// Which part of the pairs, above 0.
        share: f64,
        /// The divisor, above 0.
        factor: f64,
    },
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor, above 0.
        factor: f64,
    },
    /// The base raised as far as a context beyond the original one needs.
    Dynamic {
        /// How fast, above 0.
        factor: f64,
    },
    /// Pairs that turn less than `low` times within the original context divided by `factor`, those that turn more than
    /// `high` times kept, a ramp between.
    Bands {
        /// The divisor, above 0.
        factor: f64,
        /// Turns at the lower end of the ramp.
        low: f64,
        /// Turns at its upper end, above `low`.
        high: f64,
    },
    /// YaRN: slow pairs divided by `factor`, fast ones kept, a ramp between.
    Yarn {
        /// The divisor, above 0.
        factor: f64,
        /// Turns within the original context from which on a pair counts as fast.
        beta_fast: f64,
        /// Turns up to which a pair counts as slow.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole pairs.
        truncate: bool,
    },
}

/// The numbers of RoPE.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParams {
    /// Which elements of a head are a pair, in the order of the file's weights.
    pub pairing: RopePairing,
    /// Leading elements of a head that rotate; even, at most the head's width.
    pub n_dims: usize,
    /// The same in local layers.
    pub local_n_dims: usize,
    /// The base of the frequencies.
    pub base: f64,
    /// Base in local layers, which are never scaled; none: the same.
    pub local_base: Option<f64>,
    /// The scaling.
    pub scaling: RopeScaling,
    /// Multiplied into rotated values besides what the scaling asks for.
    pub attention_factor: f64,
    /// Multiplied into attention scores by models that leave this to the scores (DeepSeek).
    pub score_factor: f32,
    /// Positions of the first training, before any extension.
    pub original_context: usize,
    /// LongRoPE's divisors for contexts up to the original one and beyond, where they are numbers and not tensors.
    pub divisors: Option<[Vec<f32>; 2]>,
    /// What rotated values are multiplied with in these two cases, where they differ.
    pub magnitudes: Option<[f32; 2]>,
}

impl RopeParams {
    /// Reads and validates the keys `rope.*`.
    pub(crate) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        local_head_dim: usize,
        context_length: usize,
    ) -> Result<RopeParams> {
        let dims_key = "rope.dimension_count";
        let scaling = scaling(keys)?;
        let is_whole = matches!(scaling, RopeScaling::Leading { .. });
        let fraction = keys.factor("rope.dimension_fraction")?.filter(|_| !is_whole);
        let n_dims = match (keys.count(dims_key, usize::MAX)?, fraction) {
            (Some(n_dims), _) => n_dims,
            (None, Some(fraction)) => (head_dim as f64 * f64::from(fraction)) as usize,
            (None, None) => head_dim,
        };
        if n_dims % 2 != 0 || n_dims == 0 || n_dims > head_dim {
            let named = [dims_key, "rope.dimension_fraction"].into_iter().find(|key| keys.has(key));
            let key = named.unwrap_or("attention.key_length");
            let why = format!("the elements of a head that rotate must be even and at most {head_dim}, its width");
            return Err(keys.bad(key, n_dims, &why));
        }
        let base = |key: &str| -> Result<Option<f64>> {
            match keys.float(key)? {
                Some(x) if x <= 1.0 => Err(keys.bad(key, x, "it must be above 1")),
                other => Ok(other.map(f64::from)),
            }
        };
        let local_key = "rope.dimension_count_swa";
        let local_usual = if local_head_dim == head_dim { n_dims } else { local_head_dim };
        let local_n_dims = keys.count(local_key, usize::MAX)?.unwrap_or(local_usual);
        if local_n_dims % 2 != 0 || local_n_dims > local_head_dim {
            let why =
                format!("the elements of a head that rotate must be even and at most {local_head_dim}, its width");
            return Err(keys.bad(local_key, local_n_dims, &why));
        }
        let original_key = "rope.scaling.original_context_length";
        let original_context = keys.count(original_key, usize::MAX)?;
        let (divisors, magnitudes) = match scaling {
            RopeScaling::LongRope => (divisors(keys, n_dims / 2)?, magnitudes(keys)?),
            _ => (None, None),
        };
        let (attention_factor, magnitudes) = match magnitudes {
            Some([short, long]) if short == long => (f64::from(short), None),
            different => (attention_factor(keys, scaling, context_length, original_context)?, different),
        };
        Ok(RopeParams {
            pairing: keys.convention.pairing(keys.architecture()),
            n_dims,
            local_n_dims,
            base: base("rope.freq_base")?.unwrap_or(10_000.0) * base_factor(keys, n_dims)?,
            local_base: base("rope.freq_base_swa")?.or(keys.architecture().default_local_rope_base),
            scaling,
            attention_factor,
            score_factor: score_factor(keys, scaling)?,
            original_context: original_context.unwrap_or(context_length),
            divisors,
            magnitudes,
        })
    }

    /// Those of a model without.
    pub(crate) fn none(context_length: usize) -> RopeParams {
        RopeParams {
            pairing: RopePairing::Halves,
            n_dims: 0,
            local_n_dims: 0,
            base: 10_000.0,
            local_base: None,
            scaling: RopeScaling::None,
            attention_factor: 1.0,
            score_factor: 1.0,
            original_context: context_length,
            divisors: None,
            magnitudes: None,
        }
    }

    /// Radians per position of each pair, `[n_dims / 2]`, for a context of `context_length` positions, divided by
    /// `divisors` where there are any.
    pub fn frequencies(&self, divisors: Option<&[f32]>, context_length: usize) -> Vec<f32> {
        let base = match self.scaling {
            RopeScaling::Dynamic { factor } => self.raised_base(factor, context_length),
            _ => self.base,
        };
        (0..self.n_dims / 2)
            .map(|pair| {
                let divisor = divisors.and_then(|d| d.get(pair)).map_or(1.0, |&d| f64::from(d));
                let plain = unscaled(base, pair, self.n_dims) / divisor;
                (plain * self.squeeze(pair, plain)) as f32
            })
            .collect()
    }

    /// What the frequency `plain` of a pair is multiplied with.
    fn squeeze(&self, pair: usize, plain: f64) -> f64 {
        let between = |factor: f64, kept: f64| (1.0 - kept) / factor + kept;
        match self.scaling {
            RopeScaling::None | RopeScaling::LongRope | RopeScaling::Dynamic { .. } => 1.0,
            RopeScaling::Linear { factor } => 1.0 / factor,
            RopeScaling::Leading { share, factor } => {
                if pair < (share * self.n_dims as f64 / 2.0) as usize {
                    1.0 / factor
                } else {
                    0.0
                }
            }
            RopeScaling::Bands { factor, low, high } => {
                let turns = plain * self.original_context as f64 / std::f64::consts::TAU;
                between(factor, ((turns - low) / (high - low)).clamp(0.0, 1.0))
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate } => {
                let (low, high) = self.yarn_corrections(beta_fast, beta_slow, truncate);
                between(factor, 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0))
            }
        }
    }

    /// The base for a context that is longer than the original one.
    fn raised_base(&self, factor: f64, context_length: usize) -> f64 {
        let stretch = context_length.max(self.original_context) as f64 / self.original_context as f64;
        let n_dims = self.n_dims as f64;
        // With one pair, the frequency of 1 does not depend on the base.
        let exponent = if n_dims > 2.0 { n_dims / (n_dims - 2.0) } else { 1.0 };
        self.base * (factor * stretch - (factor - 1.0)).powf(exponent)
    }

    /// The same in local layers, which no scaling touches.
    pub fn local_frequencies(&self) -> Vec<f32> {
        let base = self.local_base.unwrap_or(self.base);
        (0..self.local_n_dims / 2).map(|pair| unscaled(base, pair, self.local_n_dims) as f32).collect()
    }

    /// What rotated values are multiplied with (scores get its square), in a context that `is_long` or not.
    pub fn magnitude(&self, is_long: bool) -> f32 {
        let one = (magnitude_of(self.scaling) * self.attention_factor) as f32;
        self.magnitudes.map_or(one, |[short, long]| if is_long { long } else { short })
    }

    /// First and last pair of YaRN's ramp.
    fn yarn_corrections(&self, beta_fast: f64, beta_slow: f64, truncate: bool) -> (f64, f64) {
        let n_dims = self.n_dims as f64;
        let pair_turning = |turns: f64| {
            let per_radian = self.original_context as f64 / (turns * std::f64::consts::TAU);
            n_dims * per_radian.ln() / (2.0 * self.base.ln())
        };
        let (low, high) = (pair_turning(beta_fast), pair_turning(beta_slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        (low.max(0.0), high.min(n_dims - 1.0))
    }
}

/// What a scaling multiplies rotated values with by itself.
fn magnitude_of(scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::Yarn { factor, .. } => yarn_magnitude(factor, 1.0),
        _ => 1.0,
    }
}

fn yarn_magnitude(factor: f64, weight: f64) -> f64 {
    if factor > 1.0 { 0.1 * weight * factor.ln() + 1.0 } else { 1.0 }
}

/// What rotated values are multiplied with besides [`magnitude_of`]. Where the house's files give that, Hugging Face's
/// give the product of both, or numbers to compute it from.
fn attention_factor(
    keys: &Keys<'_>,
    scaling: RopeScaling,
    context_length: usize,
    original_context: Option<usize>,
) -> Result<f64> {
    let given = keys.factor("rope.scaling.attn_factor")?.map(f64::from);
    if keys.convention == Convention::House {
        let in_scores = keys.has(SCORES_KEY);
        return Ok(if in_scores { 1.0 / magnitude_of(scaling) } else { given.unwrap_or(1.0) });
    }
    let whole = match (given, scaling) {
        (Some(given), RopeScaling::Yarn { .. } | RopeScaling::LongRope) => given,
        (None, RopeScaling::Yarn { factor, .. }) => {
            let weights = (keys.factor("rope.scaling.magnitude")?, keys.factor("rope.scaling.magnitude_all")?);
            let (Some(one), Some(all)) = weights else { return Ok(1.0) };
            yarn_magnitude(factor, f64::from(one)) / yarn_magnitude(factor, f64::from(all))
        }
        (None, RopeScaling::LongRope) => {
            let original = original_context.unwrap_or(context_length) as f64;
            let by_context = original_context.map(|_| context_length as f64 / original);
            let factor = match by_context {
                Some(factor) => factor,
                None => keys.factor("rope.scaling.factor")?.map_or(1.0, f64::from),
            };
            if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() }
        }
        _ => 1.0,
    };
    Ok(whole / magnitude_of(scaling))
}

/// YaRN's magnitude where it belongs to the scores: GGUF has a tenth of its weight.
const SCORES_KEY: &str = "rope.scaling.yarn_log_multiplier";

/// The square of YaRN's magnitude with a weight of its own, where the file gives that.
fn score_factor(keys: &Keys<'_>, scaling: RopeScaling) -> Result<f32> {
    let RopeScaling::Yarn { factor, .. } = scaling else { return Ok(1.0) };
    let weight = match keys.convention {
        Convention::HuggingFace => keys.factor("rope.scaling.magnitude_all")?.map(f64::from),
        Convention::House | Convention::Meta => keys.factor(SCORES_KEY)?.map(|tenth| f64::from(tenth) * 10.0),
    };
    Ok(weight.map_or(1.0, |weight| yarn_magnitude(factor, weight).powi(2)) as f32)
}

/// LongRoPE's two lists of `len` divisors, each above 0. Error: one without the other, or not of that length.
fn divisors(keys: &Keys<'_>, len: usize) -> Result<Option<[Vec<f32>; 2]>> {
    let [short_key, long_key] = ["rope.scaling.short_factor", "rope.scaling.long_factor"];
    let list = |key: &str| -> Result<Option<Vec<f32>>> {
        let Some(list) = keys.floats(key, len)? else { return Ok(None) };
        match list.iter().find(|&&d| d <= 0.0) {
            Some(d) => Err(keys.bad(key, d, "each must be above 0")),
            None => Ok(Some(list)),
        }
    };
    match (list(short_key)?, list(long_key)?) {
        (Some(short), Some(long)) => Ok(Some([short, long])),
        (None, None) => Ok(None),
        (None, _) => Err(keys.missing(short_key)),
        (_, None) => Err(keys.missing(long_key)),
    }
}

/// What LongRoPE multiplies rotated values with in short and in long contexts, where the file says so.
fn magnitudes(keys: &Keys<'_>) -> Result<Option<[f32; 2]>> {
    let short = keys.factor("rope.scaling.short_magnitude")?;
    Ok(short.zip(keys.factor("rope.scaling.long_magnitude")?).map(|(short, long)| [short, long]))
}

/// What the base is multiplied with once and for all contexts: a dynamic scaling whose `alpha` is given (Hunyuan).
fn base_factor(keys: &Keys<'_>, n_dims: usize) -> Result<f64> {
    let Some(alpha) = keys.factor("rope.scaling.alpha")? else { return Ok(1.0) };
    let n_dims = n_dims as f64;
    Ok(if n_dims > 2.0 { f64::from(alpha).powf(n_dims / (n_dims - 2.0)) } else { 1.0 })
}

fn unscaled(base: f64, pair: usize, n_dims: usize) -> f64 {
    base.powf(-((2 * pair) as f64) / n_dims as f64)
}

fn scaling(keys: &Keys<'_>) -> Result<RopeScaling> {
    let type_key = "rope.scaling.type";
    let factor_key = "rope.scaling.factor";
    let factor = match keys.factor(factor_key)? {
        Some(factor) => Some(factor),
        None => keys.factor("rope.scale_linear")?,
    };
    let factor = factor.map_or(1.0, f64::from);
    let mut by_flag = None;
    for (key, kind) in [("rope.scaling.bands", "bands"), ("rope.scaling.leading", "proportional")] {
        by_flag = keys.flag(key)?.filter(|&is_set| is_set).map(|_| kind).or(by_flag);
    }
    match keys.word(type_key)?.map(hugging_face::rope_type).or(by_flag) {
        Some("dynamic") if keys.factor("rope.scaling.alpha")?.is_some() => Ok(RopeScaling::None),
        None | Some("linear") if factor == 1.0 => Ok(RopeScaling::None),
        None | Some("linear") => Ok(RopeScaling::Linear { factor }),
        Some("none") => Ok(RopeScaling::None),
        Some("longrope") => Ok(RopeScaling::LongRope),
        Some("proportional") => {
            let share = keys.factor("rope.dimension_fraction")?.map_or(1.0, f64::from);
            Ok(RopeScaling::Leading { share, factor })
        }
        Some("dynamic") => Ok(RopeScaling::Dynamic { factor }),
        Some("bands") => {
            let [low_key, high_key] = ["rope.scaling.low_freq_factor", "rope.scaling.high_freq_factor"];
            let low = keys.factor(low_key)?.ok_or_else(|| keys.missing(low_key))?;
            let high = keys.factor(high_key)?.ok_or_else(|| keys.missing(high_key))?;
            if high <= low {
                return Err(keys.bad(high_key, high, &format!("it must be above {low}")));
            }
            Ok(RopeScaling::Bands { factor, low: f64::from(low), high: f64::from(high) })
        }
        Some("yarn") => {
            let beta_fast = keys.factor("rope.scaling.yarn_beta_fast")?.map_or(32.0, f64::from);
            let beta_slow = keys.factor("rope.scaling.yarn_beta_slow")?.map_or(1.0, f64::from);
            let truncate = keys.flag("rope.scaling.truncate")?.unwrap_or(true);
            Ok(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate })
        }
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            Err(Error::Unsupported { what: format!("RoPE scaling {other:?} ({})", keys.full(type_key)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(scaling: RopeScaling) -> RopeParams {
        RopeParams {
            pairing: RopePairing::Halves,
            n_dims: 8,
            local_n_dims: 8,
            base: 10_000.0,
            local_base: Some(100.0),
            scaling,
            attention_factor: 1.0,
            score_factor: 1.0,
            original_context: 2048,
            divisors: None,
            magnitudes: None,
        }
    }

    #[test]
    fn frequencies_of_each_scaling() {
        #[track_caller]
        fn check(scaling: RopeScaling, divisors: Option<&[f32]>, expected: [f32; 4]) {
            let got = params(scaling).frequencies(divisors, 4096);
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= 1e-6 * e), "{got:?} {expected:?}");
        }
        check(RopeScaling::None, None, [1.0, 0.1, 0.01, 0.001]);
        check(RopeScaling::None, Some(&[1.0, 2.0, 4.0, 8.0]), [1.0, 0.05, 0.0025, 0.000125]);
        check(RopeScaling::Linear { factor: 4.0 }, None, [0.25, 0.025, 0.0025, 0.00025]);
        // corrections: 8·ln(2048/(32·2π))/(2·ln 10⁴) = 1.008 and 8·ln(2048/2π)/(2·ln 10⁴) = 2.513: the ramp is 1 … 3
        let yarn = RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true };
        check(yarn, None, [1.0, 0.1, 0.01 * (0.5 * 0.25 + 0.5), 0.001 * 0.25]);
        // turns within 2048 positions: 325.9, 32.6, 3.26, 0.326; the ramp is 1 … 4
        let bands = RopeScaling::Bands { factor: 8.0, low: 1.0, high: 4.0 };
        let kept = (2048.0 * 0.01 / std::f32::consts::TAU - 1.0) / 3.0;
        check(bands, None, [1.0, 0.1, 0.01 * ((1.0 - kept) / 8.0 + kept), 0.001 / 8.0]);
        check(RopeScaling::Leading { share: 0.5, factor: 2.0 }, None, [0.5, 0.05, 0.0, 0.0]);
        // twice the original context: the base times (2·2 - 1)^(8/6)
        let root = 3f32.powf(1.0 / 3.0);
        check(RopeScaling::Dynamic { factor: 2.0 }, None, [1.0, 0.1 / root, 0.01 / root.powi(2), 0.001 / 3.0]);
    }

    #[test]
    fn local_layers_are_never_scaled() {
        let local = params(RopeScaling::Linear { factor: 8.0 }).local_frequencies();
        assert!((local[2] - 0.1).abs() < 1e-7, "{local:?}");
    }

    #[test]
    fn magnitude_grows_with_yarn_only() {
        assert_eq!(params(RopeScaling::Linear { factor: 4.0 }).magnitude(true), 1.0);
        let yarn = RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true };
        assert!((params(yarn).magnitude(false) - 1.138_629_4).abs() < 1e-6);
    }
}
