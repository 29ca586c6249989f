//! `/stats`: what the last turn and the session cost, and the memory in use (requirement row R30).

use super::words;
use crate::adapters::InUse;
use engine::{Stats, Usage};
use serde_json::{Value, json};
use std::fmt;

/// Sums over the session, and the last turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    turns: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    prefill_s: f64,
    decode_s: f64,
    last: Option<Stats>,
    last_token_seconds: Vec<f32>,
}

impl Totals {
    /// Adds a turn.
    pub(crate) fn add(&mut self, stats: Stats, token_seconds: Vec<f32>) {
        self.turns += 1;
        self.prompt_tokens += stats.prompt_tokens;
        self.cached_tokens += stats.cached_tokens;
        self.completion_tokens += stats.completion_tokens;
        self.drafted_tokens += stats.drafted_tokens;
        self.accepted_tokens += stats.accepted_tokens;
        self.prefill_s += stats.prefill_s;
        self.decode_s += stats.decode_s;
        self.last = Some(stats);
        self.last_token_seconds = token_seconds;
    }

    /// Positions of the window in use after the last turn.
    pub(crate) fn context_used(&self) -> usize {
        self.last.as_ref().map_or(0, |stats| stats.context_used)
    }
}

/// Where the model runs and what it takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Name of the model file.
    pub(crate) model: String,
    /// Bytes of all its parts.
    pub(crate) file_bytes: u64,
    /// Bytes of the weights.
    pub(crate) weights_bytes: u64,
    /// Bytes of the KV cache when full.
    pub(crate) kv_bytes: u64,
    /// Bytes of the buffers.
    pub(crate) scratch_bytes: u64,
    /// Seconds of loading.
    pub(crate) load_s: f64,
    /// Tokens of the window.
    pub(crate) context: usize,
    /// Adapters in use.
    pub(crate) adapters: Vec<InUse>,
    /// Backend.
    pub(crate) backend: &'static str,
    /// Instruction set.
    pub(crate) isa: &'static str,
    /// Threads.
    pub(crate) threads: usize,
    /// Resident bytes now.
    pub(crate) rss_bytes: u64,
    /// Most resident bytes so far.
    pub(crate) peak_rss_bytes: u64,
    /// What the engine's cache holds.
    pub(crate) usage: Usage,
}

impl Facts {
    fn adapters_bytes(&self) -> u64 {
        self.adapters.iter().fold(0, |sum, adapter| sum.saturating_add(adapter.info.bytes))
    }
}

/// Everything `/stats` shows.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Facts of the model and the machine.
    pub(crate) facts: Facts,
    /// Figures of the session.
    pub(crate) totals: Totals,
}

/// A time of a token with as many digits as tell something.
fn milliseconds(x: f64) -> String {
    if x < 10.0 { format!("{x:.2}") } else { format!("{x:.1}") }
}

fn percentile(seconds: &[f32], share: f64) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f32::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = ((last as f64) * share).round();
    sorted.get(at as usize).map(|s| f64::from(*s) * 1000.0)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn share(bytes: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { bytes as f64 / of as f64 }
}

impl Report {
    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let (f, t) = (&self.facts, &self.totals);
        let last = t.last.as_ref().map(|s| {
            json!({
                "prompt_tokens": s.prompt_tokens, "cached_tokens": s.cached_tokens,
                "completion_tokens": s.completion_tokens, "ttft_s": s.ttft_s,
                "prefill_tps": s.prefill_tps(), "decode_tps": s.decode_tps(),
                "token_ms_p50": percentile(&t.last_token_seconds, 0.5),
                "token_ms_p95": percentile(&t.last_token_seconds, 0.95),
                "seed": s.seed,
                "drafted_tokens": s.drafted_tokens, "accepted_tokens": s.accepted_tokens,
            })
        });
        json!({
            "model": f.model,
            "backend": f.backend, "isa": f.isa, "threads": f.threads,
            "load_s": f.load_s,
            "adapters": f.adapters.iter().map(|adapter| json!({
                "path": adapter.path.to_string_lossy(), "scale": adapter.info.scale, "bytes": adapter.info.bytes,
            })).collect::<Vec<_>>(),
            "last_turn": last,
            "session": {
                "turns": t.turns, "prompt_tokens": t.prompt_tokens, "cached_tokens": t.cached_tokens,
                "completion_tokens": t.completion_tokens, "drafted_tokens": t.drafted_tokens,
                "accepted_tokens": t.accepted_tokens, "prefill_s": t.prefill_s, "decode_s": t.decode_s,
            },
            "context": {"used": t.context_used(), "left": f.context.saturating_sub(t.context_used()), "size": f.context},
            "memory": {
                "file_bytes": f.file_bytes, "weights_bytes": f.weights_bytes, "kv_bytes": f.kv_bytes,
                "scratch_bytes": f.scratch_bytes, "adapters_bytes": f.adapters_bytes(), "rss_bytes": f.rss_bytes, "peak_rss_bytes": f.peak_rss_bytes,
            },
            "prefix_cache": {
                "saved": f.usage.cached_prefixes, "bytes": f.usage.cached_bytes,
                "budget_bytes": f.usage.budget_bytes, "budget_used_bytes": f.usage.budget_used_bytes,
                "hits": f.usage.prefix_hits, "reused_tokens": f.usage.reused_positions,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (f, t) = (&self.facts, &self.totals);
        let one = |x: f64| format!("{x:.1}");
        match &t.last {
            Some(s) => {
                let ttft = format!("{:.3}", s.ttft_s);
                writeln!(out, "{}", words::stats_last(s.prompt_tokens, s.cached_tokens, s.completion_tokens, ttft))?;
                writeln!(out, "{}", words::stats_rates(one(s.prefill_tps()), one(s.decode_tps()), s.seed))?;
                if s.drafted_tokens > 0 {
                    let share = 100.0 * s.accepted_tokens as f64 / s.drafted_tokens as f64;
                    writeln!(
                        out,
                        "{}",
                        words::stats_guesses(s.drafted_tokens, s.accepted_tokens, format!("{share:.0}"))
                    )?;
                }
                let times = &t.last_token_seconds;
                if let (Some(p50), Some(p95)) = (percentile(times, 0.5), percentile(times, 0.95)) {
                    writeln!(out, "{}", words::stats_token_times(milliseconds(p50), milliseconds(p95)))?;
                }
            }
            None => writeln!(out, "{}", words::stats_none())?,
        }
        writeln!(out, "{}", words::stats_session(t.turns, t.prompt_tokens, t.cached_tokens, t.completion_tokens))?;
        if t.turns > 1 && t.drafted_tokens > 0 {
            let share = format!("{:.0}", 100.0 * t.accepted_tokens as f64 / t.drafted_tokens as f64);
            writeln!(out, "{}", words::stats_guesses(t.drafted_tokens, t.accepted_tokens, share))?;
        }
        let used = t.context_used();
        writeln!(out, "{}", words::stats_context(used, f.context.saturating_sub(used), f.context))?;
        writeln!(out, "{}", words::stats_model(&f.model, mib(f.file_bytes), format!("{:.2}", f.load_s)))?;
        writeln!(out, "{}", words::stats_device(f.backend, f.isa, f.threads))?;
        write!(out, "{}", words::stats_memory(mib(f.weights_bytes), mib(f.kv_bytes), mib(f.scratch_bytes)))?;
        if !f.adapters.is_empty() {
            write!(out, "\n{}", words::stats_adapters(f.adapters.len(), mib(f.adapters_bytes())))?;
        }
        let times = |bytes: u64| format!("{:.2}", share(bytes, f.file_bytes));
        write!(out, "\n{}", words::stats_resident(mib(f.rss_bytes), times(f.rss_bytes)))?;
        write!(out, "\n{}", words::stats_peak(mib(f.peak_rss_bytes), times(f.peak_rss_bytes)))?;
        let u = &f.usage;
        let saved = words::stats_prefixes(u.cached_prefixes, mib(u.cached_bytes), u.prefix_hits, u.reused_positions);
        write!(out, "\n{saved}\n{}", words::stats_prefix_budget(mib(u.budget_used_bytes), mib(u.budget_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let seconds: Vec<f32> = (1..=101).map(|n| n as f32 / 1000.0).collect();
        assert!((percentile(&seconds, 0.5).unwrap() - 51.0).abs() < 1e-3);
        assert!((percentile(&seconds, 0.95).unwrap() - 96.0).abs() < 1e-3);
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn an_empty_session_has_a_report() {
        let report = Report { facts: Facts::default(), totals: Totals::default() };
        assert!(report.to_string().contains("none yet"));
        assert!(report.json()["last_turn"].is_null());
        assert_eq!(report.json()["prefix_cache"]["saved"], 0);
    }
}
