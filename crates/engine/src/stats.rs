//! What one request cost. Rates over a session are the caller's sum.

/// Figures of one finished request. Times are wall clock, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub cached_tokens: usize,
    /// Tokens generated: one for each [`Event::Token`](crate::Event::Token). The token that ended the answer is not one.
    pub completion_tokens: usize,
    /// From the first pass of this request until the logits after the prompt were there.
    pub prefill_s: f64,
    /// From the first generated token to the last.
    pub decode_s: f64,
    /// From the call of `generate` until the first token was sampled (waiting for other requests included);
    /// 0 if there was none.
    pub ttft_s: f64,
    /// The seed in use: the request's, or the one drawn for it.
    pub seed: u64,
    /// Bytes of the KV blocks that this request held at its end.
    pub kv_bytes: u64,
    /// Positions of the window in use at the end: prompt and answer.
    pub context_used: usize,
    /// Tokens guessed ahead and verified. See [`Speculation`](crate::Speculation).
    pub drafted_tokens: usize,
    /// How many of them came.
    pub accepted_tokens: usize,
}

impl Stats {
    /// Prompt tokens computed per second (those from the cache do not count); 0 when there were none.
    pub fn prefill_tps(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prefill_s)
    }

    /// Tokens generated per second after the first one (which is prefill's); 0 for fewer than two.
    pub fn decode_tps(&self) -> f64 {
        rate(self.completion_tokens.saturating_sub(1), self.decode_s)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if tokens == 0 || seconds <= 0.0 { 0.0 } else { tokens as f64 / seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_never_divide_by_zero() {
        assert_eq!(Stats::default().prefill_tps(), 0.0);
        assert_eq!(Stats::default().decode_tps(), 0.0);
        let stats = Stats {
            prompt_tokens: 30,
            cached_tokens: 10,
            completion_tokens: 5,
            prefill_s: 2.0,
            decode_s: 0.5,
            ..Stats::default()
        };
        assert_eq!(stats.prefill_tps(), 10.0);
        assert_eq!(stats.decode_tps(), 8.0);
    }
}
