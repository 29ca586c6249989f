//! The three penalties on tokens that came recently: repeat (Keskar et al. 2019, CTRL), frequency and presence
//! (as OpenAI's API defines them). They look at the last `n` tokens, the prompt's included.

use super::{Candidates, Sampler};
use crate::Sampling;
use std::collections::{HashMap, VecDeque};

struct Penalties {
    repeat: f32,
    frequency: f32,
    presence: f32,
    last_n: usize,
    recent: VecDeque<u32>,
    counts: HashMap<u32, u32>,
}

pub(super) fn make(sampling: &Sampling) -> Option<Box<dyn Sampler>> {
    let Sampling { repeat_penalty: repeat, frequency_penalty: frequency, presence_penalty: presence, .. } = *sampling;
    let wanted = sampling.repeat_last_n > 0 && (repeat != 1.0 || frequency != 0.0 || presence != 0.0);
    wanted.then(|| {
        let (recent, counts) = (VecDeque::new(), HashMap::new());
        Box::new(Penalties { repeat, frequency, presence, last_n: sampling.repeat_last_n, recent, counts })
            as Box<dyn Sampler>
    })
}

impl Sampler for Penalties {
    fn apply(&mut self, candidates: &mut Candidates) {
        // The order of a hash map does not matter: each token is changed on its own.
        for (&id, &count) in &self.counts {
            candidates.update(id, |logit| {
                // Dividing a negative logit would favour the token.
                let repeated = if logit > 0.0 { logit / self.repeat } else { logit * self.repeat };
                let changed = repeated - count as f32 * self.frequency - self.presence;
                // A penalty makes a token unlikely, not impossible: the row must not become empty.
                changed.clamp(f32::MIN, f32::MAX)
            });
        }
    }

    fn accept(&mut self, token: u32) {
        let leaving = if self.recent.len() >= self.last_n { self.recent.pop_front() } else { None };
        if let Some((old, count)) = leaving.and_then(|old| self.counts.get_mut(&old).map(|count| (old, count))) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.recent.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logits after the penalties, for tokens accepted in this order.
    fn check(sampling: Sampling, tokens: &[u32], logits: &[f32], expected: &[f32]) {
        let mut penalties = make(&sampling).expect("switched on");
        tokens.iter().for_each(|&token| penalties.accept(token));
        let mut candidates = Candidates::default();
        assert!(candidates.load(logits));
        penalties.apply(&mut candidates);
        let found: Vec<f32> = candidates.iter().map(|c| c.logit).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_penalty() {
        let off = Sampling { repeat_last_n: 3, ..Sampling::default() };
        let repeat = Sampling { repeat_penalty: 2.0, ..off.clone() };
        let frequency = Sampling { frequency_penalty: 0.5, ..off.clone() };
        let presence = Sampling { presence_penalty: 0.5, ..off.clone() };
        let row = [4.0, -4.0, 1.0, 0.0];
        check(repeat, &[0, 0, 1], &row, &[2.0, -8.0, 1.0, 0.0]);
        check(frequency.clone(), &[0, 0, 1], &row, &[3.0, -4.5, 1.0, 0.0]);
        check(presence, &[0, 0, 1], &row, &[3.5, -4.5, 1.0, 0.0]);
        // Only the last three count.
        check(frequency, &[0, 0, 0, 2, 2, 2], &row, &[4.0, -4.0, -0.5, 0.0]);
        assert!(make(&off).is_none());
        assert!(make(&Sampling { repeat_penalty: 2.0, repeat_last_n: 0, ..off }).is_none());
    }

    #[test]
    fn nothing_accepted_nothing_changed() {
        check(Sampling { repeat_penalty: 2.0, ..Sampling::default() }, &[], &[1.0, 2.0], &[1.0, 2.0]);
    }
}
