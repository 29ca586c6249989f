//! `bench`: how fast prompts are read and tokens written, and what memory that takes: one measurement, or with `--sweep`
//! a table of many. It keeps nothing, so signals end it as they end any program.

mod sweep;

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    loading::{self, Loaded},
    output,
    repl::memory,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values, conflict},
    },
};
use engine::{BenchRequest, BenchTimings};
use serde_json::{Value, json};

pub(super) const TOOL: Tool = Tool {
    name: "bench",
    synopsis: "--model FILE [--prompt-tokens N] [--gen-tokens N] [--depth N] [--parallel N] [--sweep] [--repeat N] [--json]",
    en: "measure the speed of reading prompts and of writing tokens",
    ja: "プロンプト処理と生成の速度を測る",
    arguments: &[
        Argument {
            flag: "prompt-tokens",
            value: "N",
            default: "512",
            en: "tokens of the prompt",
            ja: "プロンプトのトークン数",
            ..ARGUMENT
        },
        Argument {
            flag: "gen-tokens",
            value: "N",
            default: "128",
            en: "tokens written",
            ja: "生成するトークン数",
            ..ARGUMENT
        },
        Argument {
            flag: "depth",
            value: "N",
            default: "0",
            en: "tokens in the cache before measuring",
            ja: "計測前にキャッシュにあるトークン数",
            ..ARGUMENT
        },
        Argument {
            flag: "parallel",
            value: "N",
            default: "1",
            en: "sequences side by side",
            ja: "並行する系列の数",
            ..ARGUMENT
        },
        Argument {
            flag: "sweep",
            en: "a table instead: prompts of several lengths, several depths, passes of 1 to 32 tokens",
            ja: "代わりに一覧を測る: プロンプト長、深さ、1〜32 トークンのパス",
            ..ARGUMENT
        },
        Argument { flag: "repeat", value: "N", default: "5", en: "measurements", ja: "計測回数", ..ARGUMENT },
        Argument { flag: "json", en: "result as JSON", ja: "結果を JSON で出力", ..ARGUMENT },
    ],
    settings: super::ENGINE_SETTINGS,
    run,
    ..Tool::NEW
};

const MOST: usize = 1 << 24;

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let count = |flag, least, default| Ok(values.count(flag, least..=MOST)?.unwrap_or(default));
    let request = BenchRequest {
        prompt_tokens: count("prompt-tokens", 0, 512)?,
        gen_tokens: count("gen-tokens", 0, 128)?,
        depth: count("depth", 0, 0)?,
        parallel: count("parallel", 1, 1)?,
        ..BenchRequest::default()
    };
    let repeat = count("repeat", 1, 5)?;
    if values.has("sweep") {
        if let Some(other) = ["prompt-tokens", "gen-tokens", "depth", "parallel"].iter().find(|flag| values.has(flag)) {
            return Err(Failure::new(Exit::Usage, conflict("--sweep", format!("--{other}"))));
        }
        return sweep::run(layers.settings(), repeat, values.has("json"));
    }
    let mut settings = layers.settings().clone();
    // The window that is measured, unless another was asked for.
    let longest = request.depth + request.prompt_tokens.max(request.gen_tokens).max(1);
    settings.context.size = Some(settings.context.size.unwrap_or(longest));
    let checkpoint = loading::open(&settings)?;
    let loaded = loading::load_from(&checkpoint, &settings, request.parallel, &|| false)?;
    warm_up(&loaded, &request)?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        let timings = once(&loaded, &request)?;
        prefill.push(rate(request.parallel * request.prompt_tokens, timings.prefill_s));
        decode.push(rate(request.parallel * request.gen_tokens, timings.decode_s));
    }
    let mut result = json!({ "prefill_tps": spread(&mut prefill), "decode_tps": spread(&mut decode) });
    add_facts(&mut result, &loaded);
    if values.has("json") {
        return output::answer_line(&result.to_string());
    }
    let prefill = line(&format!("prefill {}", request.prompt_tokens), &result["prefill_tps"], "t/s");
    let decode = line(&format!("decode {}", request.gen_tokens), &result["decode_tps"], "t/s");
    output::answer(&format!("{prefill}{decode}{}", facts_text(&result)))
}

fn once(loaded: &Loaded, request: &BenchRequest) -> Result<BenchTimings> {
    loaded.engine.bench(request).map_err(|error| loading::engine_failure(&error))
}

/// Pages, caches and clocks settle in a short run that does not count.
fn warm_up(loaded: &Loaded, request: &BenchRequest) -> Result<()> {
    let (prompt_tokens, gen_tokens) = (request.prompt_tokens.min(32), request.gen_tokens.min(4));
    once(loaded, &BenchRequest { prompt_tokens, gen_tokens, depth: 0, ..request.clone() })?;
    Ok(())
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// Median, least and most. The median of an even number is the mean of the middle two.
fn spread(rates: &mut [f64]) -> Value {
    rates.sort_by(f64::total_cmp);
    let at = |i: usize| rates.get(i).copied().unwrap_or(0.0);
    let n = rates.len();
    let median = if n == 0 { 0.0 } else { (at((n - 1) / 2) + at(n / 2)) / 2.0 };
    json!({ "median": median, "min": at(0), "max": at(n.saturating_sub(1)) })
}

/// The most memory that was resident, or where only the present is told, that.
fn peak_rss_bytes() -> Option<u64> {
    let (now, peak) = memory::resident();
    peak.or(now)
}

/// What loading took and what the model takes, under the keys of the interface.
fn add_facts(result: &mut Value, loaded: &Loaded) {
    let info = loaded.engine.info();
    let facts = [
        ("load_s", json!(loaded.load_s)),
        ("peak_rss_bytes", json!(peak_rss_bytes())),
        ("kv_bytes", json!(info.kv_bytes)),
        ("weights_bytes", json!(info.weights_bytes)),
        ("isa", json!(info.device.isa)),
        ("threads", json!(info.device.threads)),
    ];
    for (key, value) in facts {
        result[key] = value;
    }
}

/// One line of a table for people: median, least and most.
fn line(name: &str, spread: &Value, unit: &str) -> String {
    let number = |part: &str| spread[part].as_f64().unwrap_or(0.0);
    format!("{name:<18} {:>10.2} {unit}  ({:.2} to {:.2})\n", number("median"), number("min"), number("max"))
}

fn facts_text(result: &Value) -> String {
    let bytes = |key: &str| result[key].as_u64().map_or_else(|| "?".to_owned(), loading::size);
    format!(
        "{:<18} {:>10.2} s\n{:<18} {:>14}\n{:<18} {:>14}\n{:<18} {:>14}\n{:<18} {}, {} threads\n",
        "load",
        result["load_s"].as_f64().unwrap_or(0.0),
        "weights",
        bytes("weights_bytes"),
        "KV cache",
        bytes("kv_bytes"),
        "peak memory",
        bytes("peak_rss_bytes"),
        "instruction set",
        result["isa"].as_str().unwrap_or_default(),
        result["threads"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(spread(&mut [3.0, 1.0, 2.0]), json!({"median": 2.0, "min": 1.0, "max": 3.0}));
        assert_eq!(spread(&mut [4.0, 1.0]), json!({"median": 2.5, "min": 1.0, "max": 4.0}));
        assert_eq!(spread(&mut []), json!({"median": 0.0, "min": 0.0, "max": 0.0}));
        assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
