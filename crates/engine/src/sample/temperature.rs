//! Temperature: logits divided by it, so that below 1 the better tokens become more probable still.

use super::{Candidates, Sampler};
use crate::Sampling;

struct Temperature(f32);

pub(super) fn make(sampling: &Sampling) -> Option<Box<dyn Sampler>> {
    let wanted = sampling.temperature > 0.0 && sampling.temperature != 1.0;
    wanted.then(|| Box::new(Temperature(sampling.temperature)) as Box<dyn Sampler>)
}

impl Sampler for Temperature {
    fn apply(&mut self, candidates: &mut Candidates) {
        candidates.soften(self.0);
    }
}
