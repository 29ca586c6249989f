//! Rotary position embedding (Su et al. 2021).

use super::require;
use crate::{Result, Rope, RopePairing, cpu::weight};

/// A rotation whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct RopeView<'a> {
    pairing: RopePairing,
    n_dims: usize,
    frequencies: &'a [f32],
    magnitude: f32,
}

impl<'a> RopeView<'a> {
    /// Checks a rotation of heads of `head_dim`.
    pub(crate) fn of(op: &'static str, rope: &'a Rope, head_dim: usize) -> Result<Self> {
        let n_dims = rope.n_dims;
        let ok = n_dims.is_multiple_of(2) && n_dims <= head_dim;
        require(op, ok, format_args!("cannot rotate {n_dims} of the {head_dim} elements of a head"))?;
        let frequencies = weight::vector(op, &rope.frequencies, n_dims / 2)?;
        Ok(Self { pairing: rope.pairing, n_dims, frequencies, magnitude: rope.magnitude })
    }

    /// Elements that [`RopeView::angles`] fills.
    pub(crate) fn n_dims(&self) -> usize {
        self.n_dims
    }

    /// Cosines, then sines, of a position's angles; `[n_dims]`. In double precision: at position 10^5 the product of
    /// two singles is off by a hundredth of a radian.
    pub(crate) fn angles(&self, position: u32, out: &mut [f32]) {
        let (cos, sin) = out[..self.n_dims].split_at_mut(self.n_dims / 2);
        for ((c, s), f) in cos.iter_mut().zip(sin).zip(self.frequencies) {
            let (sin, cos) = (f64::from(position) * f64::from(*f)).sin_cos();
            *c = cos as f32 * self.magnitude;
            *s = sin as f32 * self.magnitude;
        }
    }

    /// Rotates one head.
    pub(crate) fn rotate(&self, head: &mut [f32], angles: &[f32]) {
        let (cos, sin) = angles[..self.n_dims].split_at(self.n_dims / 2);
        let head = &mut head[..self.n_dims];
        match self.pairing {
            RopePairing::Interleaved => {
                for ((pair, c), s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    let [a, b] = *pair;
                    *pair = [a * c - b * s, a * s + b * c];
                }
            }
            RopePairing::Halves => {
                let (first, second) = head.split_at_mut(self.n_dims / 2);
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
                }
            }
        }
    }
}
