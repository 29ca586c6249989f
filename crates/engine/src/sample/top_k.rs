//! Top-k: only the `k` best tokens stay (Fan et al. 2018).

use super::{Candidates, Sampler};
use crate::Sampling;

struct TopK(usize);

pub(super) fn make(sampling: &Sampling) -> Option<Box<dyn Sampler>> {
    let wanted = sampling.top_k > 0 && sampling.temperature > 0.0;
    wanted.then(|| Box::new(TopK(sampling.top_k)) as Box<dyn Sampler>)
}

impl Sampler for TopK {
    fn apply(&mut self, candidates: &mut Candidates) {
        candidates.keep_best(self.0);
    }
}
