//! The plan before loading: what fits, what is quantized to make it fit, and what is refused.

use crate::support::{Home, fixture, llama};
use std::path::Path;

fn last_logits(home: &Home, model: &str, more: &[&str]) -> (Vec<f32>, String) {
    let base = ["logits", "--model", model, "--tokens", "1,9,77", "--precision", "f32", "--last", "--out", "l.npy"];
    let ran = home.run(&[&base[..], more].concat()).ends_with(0);
    let bytes = std::fs::read(home.path().join("l.npy")).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    (bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(), ran.err)
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn unquantized() -> String {
    fixture("archs/llama/hf").unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_three_remedies() {
    let model = llama();
    let run = |more: &[&str]| {
        let base = ["logits", "--model", model.to_str().unwrap(), "--tokens", "1", "--out", "l.npy", "--ctx", "256"];
        Home::new().run(&[&base[..], more].concat()).ends_with(5).err
    };
    let err = run(&["--memory-budget", "100KiB"]);
    assert!(["(1)", "(2)", "(3)", "--kv-type"].iter().all(|word| err.contains(word)), "{err}");
    let err = run(&["--memory-budget", "100KiB", "--quantize", "none"]);
    assert!(err.contains("100.00 KiB"), "{err}");
    for bad in ["0", "many", "-3GiB"] {
        let home = Home::new();
        home.run(&["inspect", "--model", model.to_str().unwrap(), &format!("--memory-budget={bad}")]).ends_with(2);
    }
}

#[test]
fn unquantized_weights_are_brought_to_the_best_type_that_fits() {
    let (home, model) = (Home::new(), unquantized());
    let memory = |budget: &str| {
        let base = ["inspect", "--model", &model, "--ctx", "64", "--precision", "f32", "--json"];
        home.run(&[&base[..], &["--memory-budget", budget]].concat()).ends_with(0).json()["memory"].clone()
    };
    let all = memory("1GiB");
    assert!(all["quantize"].is_null() && all["fits"] == true && all["allowed_bytes"] == 1 << 30, "{all}");
    let sum: u64 = all["weights"].as_array().unwrap().iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert_eq!(all["weights_bytes"], sum);
    assert!(all["weights"].as_array().unwrap().iter().any(|row| row["group"] == "attention" && row["type"] == "BF16"));
    let budget = (all["total_bytes"].as_u64().unwrap() - 50_000).to_string();
    let less = memory(&budget);
    assert_eq!((&less["quantize"], &less["fits"]), (&"Q8_0".into(), &true.into()), "{less}");
    // And it runs like that, saying so.
    let (plain, _) = last_logits(&home, &model, &["--ctx", "64"]);
    let (fitted, err) = last_logits(&home, &model, &["--ctx", "64", "--memory-budget", &budget]);
    assert!(err.contains("Q8_0") && err.contains("BF16") && err.contains("convert"), "{err}");
    let apart = difference(&plain, &fitted);
    assert!(apart > 0.0 && apart < 0.5, "{apart}");
    let base = ["logits", "--model", &model, "--tokens", "1", "--out", "l.npy", "--ctx", "64"];
    let refused = home.run(&[&base[..], &["--memory-budget", &budget, "--quantize", "none"]].concat()).ends_with(5);
    assert!(refused.err.contains("--quantize Q8_0"), "{}", refused.err);
}

#[test]
fn quantizing_while_loading_is_what_convert_does() {
    let (home, model) = (Home::new(), unquantized());
    home.run(&["convert", &model, "q.gguf", "--type", "Q8_0"]).ends_with(0);
    let (converted, _) = last_logits(&home, "q.gguf", &[]);
    let (loaded, err) = last_logits(&home, &model, &["--quantize", "Q8_0"]);
    assert!(difference(&converted, &loaded) < 1e-4, "{}", difference(&converted, &loaded));
    assert!(err.contains("Q8_0"), "{err}");
    // What is quantized already is never lowered.
    let base = ["logits", "--model", "q.gguf", "--tokens", "1", "--out", "l.npy"];
    let refused = home.run(&[&base[..], &["--quantize", "Q4_0"]].concat()).ends_with(2);
    assert!(refused.err.contains("quantized already (Q8_0"), "{}", refused.err);
    assert!(!Path::new("l.npy").exists());
}

#[test]
fn what_was_quantized_is_kept_for_the_next_time() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("hf")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(Path::new(&unquantized()).join(name), home.path().join("hf").join(name)).unwrap();
    }
    let base = ["--quantize", "Q8_0", "--quantize-cache"];
    let run = |size: &str, more: &[&str]| last_logits(&home, "hf", &[&base[..], &[size], more].concat());
    let cache = home.path().join(".rustorch/cache/quantized");
    let n_kept = || std::fs::read_dir(&cache).map_or(0, Iterator::count);
    let (expected, _) = last_logits(&home, "hf", &["--quantize", "Q8_0"]);
    for (size, more, said, kept) in [
        ("off", &[][..], "", 0),
        ("1KiB", &[], "not kept", 0),
        ("1MiB", &["--ephemeral"], "", 0),
        ("1MiB", &[], "for the next time", 1),
        ("1MiB", &["--ephemeral"], "those kept in", 1),
        ("1MiB", &[], "those kept in", 1),
    ] {
        let (logits, err) = run(size, more);
        assert!(err.contains(said), "{size} {more:?}: {err}");
        assert_eq!((logits == expected, n_kept()), (true, kept), "{size} {more:?}");
    }
    // Another mixture is another file, for which there is no room beside it.
    let other = ["--quantize", "BF16", "--quantize-cache", "400KiB"];
    assert!(last_logits(&home, "hf", &other).1.contains("for the next time") || n_kept() == 1);
    // Another content is another model, and what is damaged is made anew.
    let kept = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&kept, "GGUF").unwrap();
    let (logits, err) = run("1MiB", &[]);
    assert!(logits == expected && err.contains("for the next time"), "{err}");
    let weights = home.path().join("hf/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (_, err) = run("1MiB", &["--no-model-lock"]);
    assert!(err.contains("for the next time"), "{err}");
    assert!(home.run(&["paths", "--quantize-cache", "1MiB"]).ends_with(0).text().contains("cache/quantized"));
}
