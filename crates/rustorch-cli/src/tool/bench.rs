//! `bench`: how fast prompts are read and tokens written, and what memory that takes. It keeps nothing, so signals end it
//! as they end any program.

use super::Tool;
use crate::{
    exit::Result,
    loading, output,
    repl::memory,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use engine::BenchRequest;
use serde_json::json;

pub(super) const TOOL: Tool = Tool {
    name: "bench",
    synopsis: "--model FILE [--prompt-tokens N] [--gen-tokens N] [--depth N] [--parallel N] [--repeat N] [--json]",
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
    };
    let repeat = count("repeat", 1, 5)?;
    let mut settings = layers.settings().clone();
    // The window that is measured, unless another was asked for.
    let longest = request.depth + request.prompt_tokens.max(request.gen_tokens).max(1);
    settings.context.size = Some(settings.context.size.unwrap_or(longest));
    let checkpoint = loading::open(&settings)?;
    let loaded = loading::load_from(&checkpoint, &settings, request.parallel, &|| false)?;
    let once = |request: &BenchRequest| loaded.engine.bench(request).map_err(|error| loading::engine_failure(&error));
    // Pages, caches and clocks settle in a short run that does not count.
    once(&BenchRequest {
        prompt_tokens: request.prompt_tokens.min(32),
        gen_tokens: request.gen_tokens.min(4),
        depth: 0,
        ..request.clone()
    })?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        let timings = once(&request)?;
        prefill.push(rate(request.parallel * request.prompt_tokens, timings.prefill_s));
        decode.push(rate(request.parallel * request.gen_tokens, timings.decode_s));
    }
    let info = loaded.engine.info();
    let result = json!({
        "prefill_tps": spread(&mut prefill),
        "decode_tps": spread(&mut decode),
        "load_s": loaded.load_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "kv_bytes": info.kv_bytes,
        "weights_bytes": info.weights_bytes,
        "isa": info.device.isa,
        "threads": info.device.threads,
    });
    if values.has("json") {
        return output::answer_line(&result.to_string());
    }
    output::answer(&table(&result, &request))
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// Median, least and most. The median of an even number is the mean of the middle two.
fn spread(rates: &mut [f64]) -> serde_json::Value {
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

fn table(result: &serde_json::Value, request: &BenchRequest) -> String {
    let number = |key: &str, part: &str| result[key][part].as_f64().unwrap_or(0.0);
    let bytes = |key: &str| result[key].as_u64().map_or_else(|| "?".to_owned(), loading::size);
    let line = |name: &str, key: &str| {
        format!(
            "{name:<18} {:>10.2} t/s  ({:.2} to {:.2})\n",
            number(key, "median"),
            number(key, "min"),
            number(key, "max")
        )
    };
    let prefill = line(&format!("prefill {}", request.prompt_tokens), "prefill_tps");
    let decode = line(&format!("decode {}", request.gen_tokens), "decode_tps");
    format!(
        "{prefill}{decode}{:<18} {:>10.2} s\n{:<18} {:>14}\n{:<18} {:>14}\n{:<18} {:>14}\n{:<18} {}, {} threads\n",
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
