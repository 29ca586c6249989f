//! Top-p, nucleus sampling: the best tokens whose probabilities together reach `p` stay (Holtzman et al. 2019).

use super::{Candidates, Sampler};
use crate::Sampling;

struct TopP(f32);

pub(super) fn make(sampling: &Sampling) -> Option<Box<dyn Sampler>> {
    let wanted = sampling.top_p < 1.0 && sampling.temperature > 0.0;
    wanted.then(|| Box::new(TopP(sampling.top_p)) as Box<dyn Sampler>)
}

impl Sampler for TopP {
    fn apply(&mut self, candidates: &mut Candidates) {
        candidates.keep_share(self.0);
    }
}
