//! `bench --sweep`: one table over prompt lengths, depths and the number of tokens in a pass.
//!
//! The passes are the interesting part: reading the weights costs the same for one token as for several, so a pass of
//! four tokens should take hardly longer than a pass of one. Three kinds are measured, since their costs differ: a draft
//! (one sequence, every token wants logits), a batch (so many sequences, one token each) and a prompt (one sequence, only
//! the last token wants logits).

use super::{add_facts, facts_text, line, once, rate, spread, warm_up};
use crate::{
    exit::Result,
    loading::{self, Loaded},
    output,
    settings::Settings,
};
use compute::KV_BLOCK;
use engine::BenchRequest;
use model::HyperParams;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Tokens of the prompts.
const PROMPTS: &[usize] = &[128, 512, 2048];

/// Tokens in the cache when decoding is measured.
const DEPTHS: &[usize] = &[0, 1024, 4096];

/// Tokens of the passes.
const PASSES: &[usize] = &[1, 2, 3, 4, 6, 8, 12, 16, 32];

/// Passes for each of the repetitions that were asked for: one alone is too short to be measured well.
const PASSES_A_REPETITION: usize = 4;

crate::messages::messages! {
    /// A row that cannot be measured.
    longer_than_window(what, context) { "{what}: the window holds {context} tokens", "{what}: コンテキストは {context} トークンです" }
    /// Another.
    wider_than_pass(what, rows) { "{what}: a pass holds {rows} tokens (--prefill-chunk)", "{what}: 1 パスは {rows} トークンまでです(--prefill-chunk)" }
    /// The rows that were left out.
    skipped(what) { "skipped: {what}", "省略: {what}" }
}

/// One kind of pass: its key, its name, and how `n` tokens are shared out.
struct PassKind {
    key: &'static str,
    name: &'static str,
    request: fn(n: usize) -> BenchRequest,
}

const KINDS: &[PassKind] = &[
    PassKind {
        key: "draft_ms",
        name: "draft",
        request: |n| BenchRequest { pass_tokens: n, gen_tokens: n, ..BenchRequest::default() },
    },
    PassKind {
        key: "batch_ms",
        name: "batch",
        request: |n| BenchRequest { parallel: n, gen_tokens: 1, ..BenchRequest::default() },
    },
    PassKind {
        key: "prompt_ms",
        name: "prompt",
        request: |n| BenchRequest { pass_tokens: n, gen_tokens: n, all_logits: false, ..BenchRequest::default() },
    },
];

/// Loads the model, measures every row that fits, and shows the table.
pub(super) fn run(settings: &Settings, repeat: usize, as_json: bool) -> Result<()> {
    let checkpoint = loading::open(settings)?;
    let mut settings = settings.clone();
    let n_passes = repeat * PASSES_A_REPETITION;
    if settings.context.size.is_none() {
        let hyper =
            HyperParams::read(&checkpoint).map_err(|error| loading::model_failure(checkpoint.path(), &error))?;
        settings.context.size = Some(window(n_passes).min(hyper.context_length).max(1));
    }
    let loaded = loading::load_from(&checkpoint, &settings, 1, &|| false)?;
    let bar = output::progress(
        settings.interface.show_progress,
        (PROMPTS.len() + DEPTHS.len() + PASSES.len() * KINDS.len()) as u64,
        "[{bar:24}] {pos}/{len} {msg}",
    );
    let rows = settings.backend.prefill_chunk.min(loaded.context);
    let mut sweep = Sweep { loaded: &loaded, rows, repeat, n_passes, skipped: Vec::new(), bar: &bar };
    let measured = sweep.measure();
    bar.finish_and_clear();
    let mut result = measured?;
    result["skipped"] = json!(sweep.skipped);
    result["context"] = json!(loaded.context);
    add_facts(&mut result, &loaded);
    if as_json { output::answer_line(&result.to_string()) } else { output::answer(&text(&result)) }
}

/// A window that holds every row.
fn window(n_passes: usize) -> usize {
    let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
    most(PROMPTS).max(most(DEPTHS) + n_passes).max(most(PASSES).saturating_mul(n_passes))
}

struct Sweep<'a> {
    loaded: &'a Loaded,
    /// Tokens that a pass may have.
    rows: usize,
    repeat: usize,
    n_passes: usize,
    skipped: Vec<String>,
    bar: &'a indicatif::ProgressBar,
}

impl Sweep<'_> {
    fn measure(&mut self) -> Result<Value> {
        warm_up(self.loaded, &BenchRequest { prompt_tokens: 32, gen_tokens: 4, ..BenchRequest::default() })?;
        let (mut prefill, mut decode, mut passes) = (Vec::new(), Vec::new(), Vec::new());
        for &n in PROMPTS {
            if self.fits(&format!("prefill {n}"), n, 1) {
                let request = BenchRequest { prompt_tokens: n, ..BenchRequest::default() };
                let mut rates = Vec::new();
                for _ in 0..self.repeat {
                    rates.push(rate(n, once(self.loaded, &request)?.prefill_s));
                }
                prefill.push(json!({ "tokens": n, "tps": spread(&mut rates) }));
            }
        }
        for &depth in DEPTHS {
            if self.fits(&format!("decode at {depth}"), depth + self.n_passes, 1) {
                let request = BenchRequest { gen_tokens: self.n_passes, depth, ..BenchRequest::default() };
                let mut rates: Vec<f64> = once(self.loaded, &request)?.pass_s.iter().map(|&s| rate(1, s)).collect();
                decode.push(json!({ "depth": depth, "tps": spread(&mut rates) }));
            }
        }
        for &n in PASSES {
            let mut row = json!({ "tokens": n });
            for kind in KINDS {
                let request = (kind.request)(n);
                let request = BenchRequest { gen_tokens: request.gen_tokens * self.n_passes, ..request };
                // Each sequence has blocks of its own.
                let each = request.gen_tokens.next_multiple_of(KV_BLOCK);
                let n_positions = if request.parallel > 1 { request.parallel * each } else { request.gen_tokens };
                if self.fits(&format!("{} of {n}", kind.name), n_positions, n) {
                    let timings = once(self.loaded, &request)?;
                    row[kind.key] = spread(&mut timings.pass_s.iter().map(|s| s * 1000.0).collect::<Vec<_>>());
                }
            }
            passes.push(row);
        }
        Ok(json!({ "prefill": prefill, "decode": decode, "passes": passes }))
    }

    /// Whether a row can be measured; if not, why is kept.
    fn fits(&mut self, what: &str, n_positions: usize, n_rows: usize) -> bool {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
        let context = self.loaded.context;
        let why = if n_positions > context {
            longer_than_window(what, context)
        } else if n_rows > self.rows {
            wider_than_pass(what, self.rows)
        } else {
            return true;
        };
        self.skipped.push(why);
        false
    }
}

fn text(result: &Value) -> String {
    let mut out = String::new();
    let rows = |key: &str| result[key].as_array().into_iter().flatten();
    for row in rows("prefill") {
        out += &line(&format!("prefill {}", row["tokens"]), &row["tps"], "t/s");
    }
    for row in rows("decode") {
        out += &line(&format!("decode at {}", row["depth"]), &row["tps"], "t/s");
    }
    let _ = write!(out, "{:<18}", "pass of");
    for kind in KINDS {
        let _ = write!(out, " {:>11} ms {:>6}", kind.name, "x 1");
    }
    out.push('\n');
    let median = |row: &Value, key: &str| row[key]["median"].as_f64();
    let first: Vec<Option<f64>> =
        KINDS.iter().map(|kind| rows("passes").next().and_then(|row| median(row, kind.key))).collect();
    for row in rows("passes") {
        let _ = write!(out, "{:<18}", row["tokens"].to_string());
        for (kind, first) in KINDS.iter().zip(&first) {
            match (median(row, kind.key), first) {
                (Some(ms), Some(first)) if *first > 0.0 => {
                    let _ = write!(out, " {ms:>14.2} {:>6.2}", ms / first);
                }
                _ => {
                    let _ = write!(out, " {:>14} {:>6}", "-", "-");
                }
            }
        }
        out.push('\n');
    }
    for why in rows("skipped") {
        let _ = writeln!(out, "{}", skipped(why.as_str().unwrap_or_default()));
    }
    out + &facts_text(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_every_row() {
        assert_eq!(window(20), 4116);
        assert_eq!(window(1000), 32_000);
    }

    #[test]
    fn a_table_with_gaps() {
        let ms = |x: f64| json!({ "median": x, "min": x, "max": x });
        let table = text(&json!({
            "prefill": [], "decode": [{ "depth": 0, "tps": ms(40.0) }],
            "passes": [{ "tokens": 1, "draft_ms": ms(2.0) }, { "tokens": 4, "draft_ms": ms(3.0), "batch_ms": ms(3.0) }],
            "skipped": ["prefill 128: why"], "isa": "x", "threads": 1,
        }));
        let row = table.lines().find(|line| line.starts_with("4 ")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["4", "3.00", "1.50", "-", "-", "-", "-"]);
        assert!(table.contains("decode at 0") && table.contains("prefill 128: why"), "{table}");
    }
}
