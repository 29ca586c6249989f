//! What goes into the products of a weight: sums of squares by column, for importance matrices.
//!
//! What belongs here: the sums and who may read them. What does not: which weights are watched (`model`), what becomes of
//! the sums (files, encoders).

use std::sync::{Mutex, PoisonError};

/// Watches the inputs of one weight, or of each matrix of a stack. Shared by the weight and whoever reads the sums.
#[derive(Debug)]
pub struct Observer {
    row_len: usize,
    observed: Mutex<Observed>,
}

/// What an [`Observer`] has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// `[n_matrices, row_len]`: the sum of the squares of each input column.
    pub sums: Vec<f64>,
    /// `[n_matrices]`: how many input rows that were.
    pub counts: Vec<u64>,
}

impl Observer {
    /// For a stack of `n_matrices` (1: a plain matrix) whose rows have `row_len` elements.
    pub fn new(n_matrices: usize, row_len: usize) -> Observer {
        let sums = vec![0.0; n_matrices.saturating_mul(row_len)];
        Observer { row_len, observed: Mutex::new(Observed { sums, counts: vec![0; n_matrices] }) }
    }

    /// Elements of an input row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// What was seen so far.
    pub fn observed(&self) -> Observed {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the rows `x`, `[n, row_len]`, that matrix `index` is multiplied with.
    pub(crate) fn add(&self, index: usize, x: &[f32]) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let Observed { sums, counts } = &mut *observed;
        let start = index.saturating_mul(self.row_len);
        let end = start.saturating_add(self.row_len);
        let (Some(sums), Some(count)) = (sums.get_mut(start..end), counts.get_mut(index)) else { return };
        for row in x.chunks_exact(self.row_len.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
            *count += 1;
        }
    }
}
