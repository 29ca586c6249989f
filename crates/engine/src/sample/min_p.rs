//! Min-p: tokens at least `p` times as probable as the best one stay (Nguyen et al. 2024).

use super::{Candidates, Sampler};
use crate::Sampling;

/// Holds ln p: the distance that a logit may have from the best one.
struct MinP(f32);

pub(super) fn make(sampling: &Sampling) -> Option<Box<dyn Sampler>> {
    let wanted = sampling.min_p > 0.0 && sampling.temperature > 0.0;
    wanted.then(|| Box::new(MinP(sampling.min_p.ln())) as Box<dyn Sampler>)
}

impl Sampler for MinP {
    fn apply(&mut self, candidates: &mut Candidates) {
        if let Some(best) = candidates.best() {
            candidates.keep_at_least(best.logit + self.0);
        }
    }
}
