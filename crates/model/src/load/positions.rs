//! What tells positions apart: RoPE's frequencies with whatever scaling, ALiBi's slopes.

use super::{LoadOptions, Loader, fetch::in_tensor};
use crate::rope::RopeScaling;
use crate::{Error, Result};
use compute::{Rope, Weight};

impl Loader<'_> {
    /// ALiBi's slopes (Press et al. 2021): powers of one root, and for heads beyond a power of two those between.
    pub(super) fn slopes(&mut self) -> Result<Option<Weight>> {
        let Some(bias) = self.hyper.alibi else { return Ok(None) };
        let n_heads = self.hyper.layers.iter().map(|l| l.n_heads).max().unwrap_or(0);
        let whole = if n_heads.is_power_of_two() { n_heads } else { n_heads.next_power_of_two() / 2 };
        let slope = |head: usize| {
            let (steps, of) = if head < whole { (head + 1, whole) } else { (2 * (head - whole) + 1, 2 * whole) };
            (-f64::from(bias) * steps as f64 / of as f64).exp2() as f32
        };
        let values: Vec<f32> = (0..n_heads).map(slope).collect();
        self.made_vector("slopes", &values).map(Some)
    }

    /// RoPE with whatever scaling the numbers and tensors of the file ask for.
    pub(super) fn rope(&mut self, options: &LoadOptions) -> Result<Rope> {
        let params = &self.hyper.rope;
        let context_length = options.context_length.unwrap_or(self.hyper.context_length);
        let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
        let is_long = context_length > params.original_context;
        let divisors = if let Some([short, long]) = &params.divisors {
            Some(if is_long { long.clone() } else { short.clone() })
        } else if self.has("rope_freqs.weight") {
            Some(self.rope_divisors("rope_freqs.weight")?)
        } else if params.scaling == RopeScaling::LongRope || self.has(short) || self.has(long) {
            self.used.extend([short, long].map(str::to_owned));
            Some(self.rope_divisors(if is_long { long } else { short })?)
        } else {
            None
        };
        let frequencies = params.frequencies(divisors.as_deref(), context_length);
        self.rope_of(&frequencies, params.n_dims, params.magnitude(is_long))
    }

    /// What the frequencies of each pair are divided by.
    pub(super) fn rope_divisors(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.fetch(name, &[self.hyper.rope.n_dims / 2])?;
        let values = tensor.to_f32().map_err(|e| in_tensor(name, e))?;
        if values.iter().any(|d| !d.is_finite() || *d <= 0.0) {
            return Err(Error::Unsupported { what: format!("{name} with a factor that is not above 0") });
        }
        Ok(values)
    }

    pub(super) fn local_rope(&mut self) -> Result<Rope> {
        let frequencies = self.hyper.rope.local_frequencies();
        self.rope_of(&frequencies, self.hyper.rope.local_n_dims, 1.0)
    }

    pub(super) fn rope_of(&mut self, frequencies: &[f32], n_dims: usize, magnitude: f32) -> Result<Rope> {
        if !magnitude.is_finite() || frequencies.iter().any(|f| !f.is_finite()) {
            return Err(Error::Unsupported { what: "RoPE scaling with numbers this extreme".to_owned() });
        }
        let pairing = self.hyper.rope.pairing;
        Ok(Rope { pairing, n_dims, frequencies: self.made_vector("rope frequencies", frequencies)?, magnitude })
    }
}
