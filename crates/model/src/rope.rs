//! Rotary position embedding (Su et al. 2021): its numbers, and the frequencies with every kind of scaling folded in.
//!
//! Linear (Chen et al. 2023), YaRN (Peng et al. 2023), Llama 3 and LongRoPE (Ding et al. 2024; both as a tensor of
//! divisors in the file). Frequencies are computed in double precision and rounded once.

use crate::hyper::Keys;
use crate::{Error, Result};

/// How positions beyond the trained ones are squeezed in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not by number (tensors may still divide the frequencies).
    None,
    /// Each frequency divided by its own number, from one of two tensors chosen by the size of the context.
    LongRope,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor, above 0.
        factor: f64,
    },
    /// YaRN: slow pairs divided by `factor`, fast ones kept, a ramp between.
    Yarn {
        /// The divisor, above 0.
        factor: f64,
        /// Turns within the original context from which on a pair counts as fast.
        beta_fast: f64,
        /// Turns up to which a pair counts as slow.
        beta_slow: f64,
    },
}

/// The numbers of RoPE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParams {
    /// Leading elements of a head that rotate; even, at most the head's width.
    pub n_dims: usize,
    /// The base of the frequencies.
    pub base: f64,
    /// Base in local layers, which are never scaled; none: the same.
    pub local_base: Option<f64>,
    /// The scaling.
    pub scaling: RopeScaling,
    /// Multiplied into rotated values besides what the scaling asks for.
    pub attention_factor: f64,
    /// Positions of the first training, before any extension.
    pub original_context: usize,
}

impl RopeParams {
    /// Reads and validates the keys `rope.*`.
    pub(crate) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        context_length: usize,
        default_local_base: Option<f64>,
    ) -> Result<RopeParams> {
        let dims_key = "rope.dimension_count";
        let n_dims = keys.count(dims_key, usize::MAX)?.unwrap_or(head_dim);
        if n_dims % 2 != 0 || n_dims > head_dim {
            return Err(keys.bad(dims_key, n_dims, &format!("it must be even and at most {head_dim}, a head's width")));
        }
        let base = |key: &str| -> Result<Option<f64>> {
            match keys.float(key)? {
                Some(x) if x <= 1.0 => Err(keys.bad(key, x, "it must be above 1")),
                other => Ok(other.map(f64::from)),
            }
        };
        let original_key = "rope.scaling.original_context_length";
        Ok(RopeParams {
            n_dims,
            base: base("rope.freq_base")?.unwrap_or(10_000.0),
            local_base: base("rope.freq_base_swa")?.or(default_local_base),
            scaling: scaling(keys)?,
            attention_factor: keys.factor("rope.scaling.attn_factor")?.map_or(1.0, f64::from),
            original_context: keys.count(original_key, usize::MAX)?.unwrap_or(context_length),
        })
    }

    /// Radians per position of each pair, `[n_dims / 2]`, divided by `divisors` where there are any.
    pub fn frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        let (interpolation, ramp) = match self.scaling {
            RopeScaling::None | RopeScaling::LongRope => (1.0, None),
            RopeScaling::Linear { factor } => (1.0 / factor, None),
            RopeScaling::Yarn { factor, beta_fast, beta_slow } => {
                (1.0 / factor, Some(self.yarn_corrections(beta_fast, beta_slow)))
            }
        };
        (0..self.n_dims / 2)
            .map(|pair| {
                let divisor = divisors.and_then(|d| d.get(pair)).map_or(1.0, |&d| f64::from(d));
                let plain = unscaled(self.base, pair, self.n_dims) / divisor;
                let kept = ramp
                    .map_or(0.0, |(low, high)| 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0));
                (plain * (interpolation * (1.0 - kept) + kept)) as f32
            })
            .collect()
    }

    /// The same in local layers, which no scaling touches.
    pub fn local_frequencies(&self) -> Vec<f32> {
        let base = self.local_base.unwrap_or(self.base);
        (0..self.n_dims / 2).map(|pair| unscaled(base, pair, self.n_dims) as f32).collect()
    }

    /// What rotated values are multiplied with (scores get its square).
    pub fn magnitude(&self) -> f32 {
        let by_yarn = match self.scaling {
            RopeScaling::Yarn { factor, .. } if factor > 1.0 => 0.1 * factor.ln() + 1.0,
            _ => 1.0,
        };
        (by_yarn * self.attention_factor) as f32
    }

    /// First and last pair of YaRN's ramp.
    fn yarn_corrections(&self, beta_fast: f64, beta_slow: f64) -> (f64, f64) {
        let n_dims = self.n_dims as f64;
        let pair_turning = |turns: f64| {
            let per_radian = self.original_context as f64 / (turns * std::f64::consts::TAU);
            n_dims * per_radian.ln() / (2.0 * self.base.ln())
        };
        (pair_turning(beta_fast).floor().max(0.0), pair_turning(beta_slow).ceil().min(n_dims - 1.0))
    }
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
    let kind = keys.metadata.str(&keys.full(type_key))?;
    match kind {
        None | Some("linear") if factor == 1.0 => Ok(RopeScaling::None),
        None | Some("linear") => Ok(RopeScaling::Linear { factor }),
        Some("none") => Ok(RopeScaling::None),
        Some("longrope" | "su") => Ok(RopeScaling::LongRope),
        Some("yarn") => {
            let beta_fast = keys.factor("rope.scaling.yarn_beta_fast")?.map_or(32.0, f64::from);
            let beta_slow = keys.factor("rope.scaling.yarn_beta_slow")?.map_or(1.0, f64::from);
            Ok(RopeScaling::Yarn { factor, beta_fast, beta_slow })
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
            n_dims: 8,
            base: 10_000.0,
            local_base: Some(100.0),
            scaling,
            attention_factor: 1.0,
            original_context: 2048,
        }
    }

    #[test]
    fn frequencies_of_each_scaling() {
        #[track_caller]
        fn check(scaling: RopeScaling, divisors: Option<&[f32]>, expected: [f32; 4]) {
            let got = params(scaling).frequencies(divisors);
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= 1e-6 * e), "{got:?} {expected:?}");
        }
        check(RopeScaling::None, None, [1.0, 0.1, 0.01, 0.001]);
        check(RopeScaling::None, Some(&[1.0, 2.0, 4.0, 8.0]), [1.0, 0.05, 0.0025, 0.000125]);
        check(RopeScaling::Linear { factor: 4.0 }, None, [0.25, 0.025, 0.0025, 0.00025]);
        // corrections: 8·ln(2048/(32·2π))/(2·ln 10⁴) = 1.008 and 8·ln(2048/2π)/(2·ln 10⁴) = 2.513: the ramp is 1 … 3
        let yarn = RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0 };
        check(yarn, None, [1.0, 0.1, 0.01 * (0.5 * 0.25 + 0.5), 0.001 * 0.25]);
    }

    #[test]
    fn local_layers_are_never_scaled() {
        let local = params(RopeScaling::Linear { factor: 8.0 }).local_frequencies();
        assert!((local[2] - 0.1).abs() < 1e-7, "{local:?}");
    }

    #[test]
    fn magnitude_grows_with_yarn_only() {
        assert_eq!(params(RopeScaling::Linear { factor: 4.0 }).magnitude(), 1.0);
        let yarn = RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0 };
        assert!((params(yarn).magnitude() - 1.138_629_4).abs() < 1e-6);
    }
}
