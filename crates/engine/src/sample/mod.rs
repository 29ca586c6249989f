//! How the next token is chosen: a chain of samplers in declared order, then the best token or a draw.
//!
//! A new sampler is one file and one row in [`SAMPLERS`]. Each reads its own parameters from [`Sampling`] and stays out
//! of the chain when they switch it off.

mod candidates;
mod min_p;
mod penalties;
mod rng;
mod scan;
mod temperature;
mod top_k;
mod top_p;

pub use candidates::{Candidate, Candidates};
pub use rng::Xoshiro256;

use crate::{Result, Sampling};

/// One link of the chain.
pub trait Sampler: Send {
    /// Removes candidates or changes their logits. At least one candidate must stay.
    fn apply(&mut self, candidates: &mut Candidates);

    /// Is told every token of the sequence, the prompt's first.
    fn accept(&mut self, _token: u32) {}
}

/// A sampler's row: its name, and how it is made (None: switched off by its parameters).
pub struct SamplerRow {
    /// As its parameter is called.
    pub name: &'static str,
    make: fn(&Sampling) -> Option<Box<dyn Sampler>>,
}

/// All samplers, in the order in which they act.
pub static SAMPLERS: &[SamplerRow] = &[
    SamplerRow { name: "penalties", make: penalties::make },
    SamplerRow { name: "top_k", make: top_k::make },
    SamplerRow { name: "top_p", make: top_p::make },
    SamplerRow { name: "min_p", make: min_p::make },
    SamplerRow { name: "temperature", make: temperature::make },
];

/// Chooses the tokens of one sequence.
pub struct Chain {
    links: Vec<Box<dyn Sampler>>,
    greedy: bool,
    rng: Xoshiro256,
    seed: u64,
    candidates: Candidates,
}

impl Chain {
    /// The chain of these parameters, checked. Without a seed a random one is drawn.
    pub fn new(sampling: &Sampling) -> Result<Chain> {
        sampling.validate()?;
        let seed = sampling.seed.unwrap_or_else(rng::fresh_seed);
        Ok(Chain {
            links: SAMPLERS.iter().filter_map(|row| (row.make)(sampling)).collect(),
            greedy: sampling.temperature == 0.0,
            rng: Xoshiro256::new(seed),
            seed,
            candidates: Candidates::default(),
        })
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses from one row of logits, `[n_vocab]`. None if no logit is finite. The choice still has to be accepted.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        if !self.candidates.load(logits) {
            return None;
        }
        for link in &mut self.links {
            link.apply(&mut self.candidates);
        }
        if self.greedy { self.candidates.best().map(|best| best.id) } else { self.candidates.draw(self.rng.next_f64()) }
    }

    /// Tells the links about a token: every one of the prompt first, then every chosen one.
    pub fn accept(&mut self, token: u32) {
        for link in &mut self.links {
            link.accept(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws `n` tokens and compares their frequencies with the expected probabilities.
    fn check(change: fn(&mut Sampling), logits: &[f32], expected: &[f64]) {
        let mut sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: Some(42), ..Sampling::default() };
        change(&mut sampling);
        let mut chain = Chain::new(&sampling).unwrap();
        let n = 20_000;
        let mut counts = vec![0u32; logits.len()];
        for _ in 0..n {
            counts[chain.choose(logits).unwrap() as usize] += 1;
        }
        let mut chi2 = 0.0;
        for (id, (&count, &p)) in counts.iter().zip(expected).enumerate() {
            let mean = p * f64::from(n);
            if p == 0.0 {
                assert_eq!(count, 0, "token {id} must never come: {counts:?}");
            } else {
                chi2 += (f64::from(count) - mean).powi(2) / mean;
            }
        }
        assert!(chi2 < 16.3, "{chi2} {counts:?} {expected:?}"); // p = 0.001 at 3 degrees of freedom
    }

    /// Logits of the probabilities 0.5, 0.25, 0.15, 0.1.
    fn four() -> [f32; 4] {
        [0.5f32.ln(), 0.25f32.ln(), 0.15f32.ln(), 0.1f32.ln()]
    }

    #[test]
    fn distributions() {
        check(|_| {}, &four(), &[0.5, 0.25, 0.15, 0.1]);
        check(|s| s.top_k = 2, &four(), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        check(|s| s.top_k = 1, &four(), &[1.0, 0.0, 0.0, 0.0]);
        check(|s| s.top_p = 0.8, &four(), &[0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]);
        check(|s| s.top_p = 0.01, &four(), &[1.0, 0.0, 0.0, 0.0]);
        check(|s| s.min_p = 0.4, &four(), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // Temperature 0.5 squares the probabilities, after the truncation by the unsoftened ones.
        check(|s| (s.temperature, s.top_p) = (0.5, 0.8), &four(), &[0.25 / 0.335, 0.0625 / 0.335, 0.0225 / 0.335, 0.0]);
        check(|s| s.temperature = 0.0, &four(), &[1.0, 0.0, 0.0, 0.0]);
        check(|_| {}, &[f32::NAN, 0.0, f32::INFINITY, 0.0], &[0.0, 0.5, 0.0, 0.5]);
    }

    #[test]
    fn a_seed_means_its_tokens() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.05).collect();
        let run = |seed| {
            let mut chain = Chain::new(&Sampling { seed, ..Sampling::default() }).unwrap();
            (chain.seed(), (0..50).map(|_| chain.choose(&logits).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(run(Some(5)), run(Some(5)));
        assert_ne!(run(Some(5)), run(Some(6)));
        let (seed, drawn) = run(None);
        assert_eq!(run(Some(seed)).1, drawn, "a drawn seed reproduces its answer");
    }

    #[test]
    fn nothing_finite_is_no_choice() {
        let mut chain = Chain::new(&Sampling::default()).unwrap();
        assert_eq!(chain.choose(&[f32::NAN; 8]), None);
        assert_eq!(chain.choose(&[]), None);
        assert_eq!(chain.choose(&[f32::NAN, 1.0]), Some(1));
    }

    #[test]
    fn extreme_parameters_still_choose() {
        for temperature in [1e-40, 1e-10, 5.0] {
            for logits in [[f32::MAX, f32::MIN, 0.0, 1.0], [-1e30, -2e30, -3e30, -4e30]] {
                let sampling = Sampling { temperature, seed: Some(1), ..Sampling::default() };
                assert_eq!(Chain::new(&sampling).unwrap().choose(&logits), Some(0));
            }
        }
        let sampling = Sampling { repeat_penalty: 1e30, frequency_penalty: 1e38, ..Sampling::greedy() };
        let mut chain = Chain::new(&sampling).unwrap();
        (0..10).for_each(|_| chain.accept(0));
        assert_eq!(chain.choose(&[-1e30, -1e31]), Some(1));
        (0..10).for_each(|_| chain.accept(1));
        assert!(chain.choose(&[-1e30, -1e31]).is_some(), "penalties never leave nothing");
    }

    /// Rows of anything a broken model could produce, under parameters at their edges: the choice is a finite logit's id
    /// whenever there is one.
    #[test]
    fn any_row_under_any_parameters() {
        let mut dice = Xoshiro256::new(11);
        let mut pick = |values: &[f32]| values[(dice.next_u64() % values.len() as u64) as usize];
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -0.0, 0.0, 1.0, -3.0, 80.0];
        for round in 0..3000u32 {
            let sampling = Sampling {
                temperature: pick(&[0.0, 1e-45, 0.7, 1.0, 5.0]),
                top_k: pick(&[0.0, 1.0, 3.0, 40.0, 1e6]) as usize,
                top_p: pick(&[1e-45, 0.5, 0.9, 0.999_999_9, 1.0]),
                min_p: pick(&[0.0, 1e-45, 0.1, 1.0]),
                repeat_penalty: pick(&[1.0, 1e-30, 1.3, 1e30]),
                repeat_last_n: pick(&[0.0, 1.0, 64.0]) as usize,
                frequency_penalty: pick(&[0.0, -2.0, 1e38]),
                presence_penalty: pick(&[0.0, 2.0, f32::MAX]),
                seed: Some(u64::from(round)),
            };
            let mut chain = Chain::new(&sampling).unwrap();
            let n = pick(&[1.0, 2.0, 7.0, 100.0, 700.0]) as usize;
            let row: Vec<f32> = (0..n).map(|_| pick(&odd)).collect();
            for _ in 0..3 {
                match chain.choose(&row) {
                    Some(id) => {
                        assert!(row[id as usize].is_finite(), "{id} {sampling:?} {row:?}");
                        chain.accept(id);
                    }
                    None => assert!(row.iter().all(|x| !x.is_finite()), "{sampling:?} {row:?}"),
                }
            }
        }
    }
}
