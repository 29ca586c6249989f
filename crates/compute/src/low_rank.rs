//! Low-rank additions to matrices (Hu et al. 2021, "LoRA"): what a weight carries besides its own elements.
//!
//! The matrix itself stays as it is, in whatever type. Products with it get the addition's product on top, so an addition
//! costs its own two narrow matrices and can be taken away again.
//!
//! What belongs here: the addition and the proof that it fits. What does not: the arithmetic (each device's), where
//! additions come from and which tensor they belong to (`model`).

use crate::{Error, Result, Weight};

/// An addition to a matrix `w`: products become `w · x + scale · b · (a · x)`. Of a stack of matrices, each has its own.
#[derive(Clone)]
pub struct LowRank {
    /// `[rank, n_in]`, or `[n, rank, n_in]` for a stack; uploaded as the matrix was.
    pub a: Weight,
    /// `[n_out, rank]`, or `[n, n_out, rank]`.
    pub b: Weight,
    /// How much of it counts.
    pub scale: f32,
}

impl LowRank {
    /// Whether it belongs to a matrix or stack of the shape `dims`.
    fn fits(&self, dims: &[usize]) -> bool {
        match (dims, self.a.shape().dims(), self.b.shape().dims()) {
            (&[n_out, n_in], &[rank, a_in], &[b_out, b_rank]) => (n_out, n_in, rank) == (b_out, a_in, b_rank),
            (&[n, n_out, n_in], &[a_n, rank, a_in], &[b_n, b_out, b_rank]) => {
                (n, n, n_out, n_in, rank) == (a_n, b_n, b_out, a_in, b_rank)
            }
            _ => false,
        }
    }
}

impl Weight {
    /// Its additions.
    pub fn low_rank(&self) -> &[LowRank] {
        &self.low_rank
    }

    /// Gives it these additions in place of those it has. Clones made before keep what they had.
    ///
    /// Error: an addition that does not fit its shape, or a scale that is not finite.
    pub fn set_low_rank(&mut self, additions: Vec<LowRank>) -> Result<()> {
        let dims = self.shape.dims();
        for addition in &additions {
            let problem = if !addition.fits(dims) {
                format!("{} by {} is no addition to {}", addition.b.shape, addition.a.shape, self.shape)
            } else if !addition.scale.is_finite() {
                format!("the scale {} is not finite", addition.scale)
            } else {
                continue;
            };
            return Err(Error::Argument { op: "low rank", what: problem });
        }
        self.low_rank = additions;
        Ok(())
    }

    /// Whether both are the same memory of the device, whatever additions they have.
    pub fn is_same(&self, other: &Weight) -> bool {
        std::sync::Arc::ptr_eq(&self.inner, &other.inner)
    }
}
