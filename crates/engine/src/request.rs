//! What a caller asks for: the plain data of a request, and its validation. No work is done here.

use crate::{Error, MAX_DRAFT, Result, Speculation};

/// One answer to generate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The full token prefix, BOS included where the model wants one. The engine finds out what of it is cached.
    pub tokens: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are not part of it. Empty strings are ignored.
    pub stop: Vec<String>,
    /// Tokens to generate at most. None: until the model ends or the window is full. 0: only prefill.
    pub max_tokens: Option<usize>,
    /// End-of-generation tokens are then tokens like others, and do not stop the answer.
    pub ignore_eos: bool,
    /// Whether to guess ahead. It changes the speed, not the answer; see [`Speculation`].
    pub speculation: Speculation,
}

/// How the next token is chosen from the logits. The chain's order is penalties, top-k, top-p, min-p, temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it, 0 to 5. 0: always the best token (ties: the lowest id), nothing is drawn.
    pub temperature: f32,
    /// Only the best `top_k` tokens stay. 0: off.
    pub top_k: usize,
    /// Only the best tokens whose probabilities together reach `top_p` stay, over 0 to 1. 1: off
    /// (Holtzman et al. 2019).
    pub top_p: f32,
    /// Only tokens at least `min_p` times as probable as the best one stay, 0 to 1. 0: off (Nguyen et al. 2024).
    pub min_p: f32,
    /// Logits of recent tokens are divided by it if positive, multiplied if negative (Keskar et al. 2019); over 0.
    /// 1: off.
    pub repeat_penalty: f32,
    /// How many of the last tokens (prompt included) the three penalties look at. 0: none.
    pub repeat_last_n: usize,
    /// Subtracted once for each time the token is among them. 0: off.
    pub frequency_penalty: f32,
    /// Subtracted once if the token is among them. 0: off.
    pub presence_penalty: f32,
    /// Seed of the draws. None: a random one, reported in [`Stats`](crate::Stats).
    pub seed: Option<u64>,
}

impl Default for Sampling {
    /// The defaults of the program: temperature 0.7, top-p 0.9, everything else off.
    fn default() -> Self {
        Sampling {
            temperature: 0.7,
            top_k: 0,
            top_p: 0.9,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// Always the best token.
    pub fn greedy() -> Self {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// Checks every parameter against its range; the error names the first that is outside.
    pub fn validate(&self) -> Result<()> {
        let rows: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, (0.0..=5.0).contains(&self.temperature), "between 0 and 5"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "over 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite(),
                "over 0",
            ),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), "a finite number"),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "a finite number"),
        ];
        match rows.into_iter().find(|row| !row.2) {
            Some((name, value, _, range)) => Err(Error::Sampling { name, value: value.to_string(), range }),
            None => Ok(()),
        }
    }
}

impl Speculation {
    /// Checks the number of tokens.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Speculation::Fixed(n) if n == 0 || n > MAX_DRAFT => {
                Err(Error::Sampling { name: "speculation", value: n.to_string(), range: "between 1 and 15" })
            }
            _ => Ok(()),
        }
    }
}

/// One measurement of [`Engine::bench`](crate::Engine::bench). Nothing is sampled; ids are arbitrary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchRequest {
    /// Tokens of each prompt; 0 measures no prefill.
    pub prompt_tokens: usize,
    /// Tokens decoded in each sequence; 0 measures no decoding.
    pub gen_tokens: usize,
    /// Tokens already in each sequence before either measurement.
    pub depth: usize,
    /// Sequences side by side, at least 1.
    pub parallel: usize,
    /// Tokens that a decoding pass adds to each sequence, at least 1. An answer grows by one; a pass that verifies a
    /// draft has more.
    pub pass_tokens: usize,
    /// Whether each of them wants its logits, as a draft's tokens do; else only the last, as in a prompt.
    pub all_logits: bool,
}

impl Default for BenchRequest {
    /// Nothing is measured: one sequence, one token a pass.
    fn default() -> Self {
        BenchRequest { prompt_tokens: 0, gen_tokens: 0, depth: 0, parallel: 1, pass_tokens: 1, all_logits: true }
    }
}

/// What [`Engine::bench`](crate::Engine::bench) measured, in seconds of wall clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BenchTimings {
    /// For all prompts together: `parallel · prompt_tokens` tokens.
    pub prefill_s: f64,
    /// For all sequences together: `parallel · gen_tokens` tokens.
    pub decode_s: f64,
    /// Each decoding pass, in order.
    pub pass_s: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: fn(&mut Sampling), expected: Option<&str>) {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        let found = match sampling.validate() {
            Err(Error::Sampling { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(found, expected, "{sampling:?}");
    }

    #[test]
    fn ranges() {
        check(|_| {}, None);
        check(|s| s.temperature = 0.0, None);
        check(|s| s.temperature = -0.1, Some("temperature"));
        check(|s| s.temperature = f32::NAN, Some("temperature"));
        check(|s| s.temperature = 5.1, Some("temperature"));
        check(|s| s.top_p = 0.0, Some("top_p"));
        check(|s| s.top_p = 1.0, None);
        check(|s| s.min_p = 1.5, Some("min_p"));
        check(|s| s.repeat_penalty = 0.0, Some("repeat_penalty"));
        check(|s| s.repeat_penalty = f32::INFINITY, Some("repeat_penalty"));
        check(|s| s.frequency_penalty = f32::NAN, Some("frequency_penalty"));
        check(|s| s.presence_penalty = -2.0, None);
    }

    #[test]
    fn drafts_have_a_length() {
        use Speculation::*;
        for (speculation, good) in
            [(Off, true), (Auto, true), (Fixed(0), false), (Fixed(1), true), (Fixed(15), true), (Fixed(16), false)]
        {
            assert_eq!(speculation.validate().is_ok(), good, "{speculation:?}");
        }
    }
}
