//! `--lora`, `model.lora` and `/lora`: peft's logits through the whole program, and every way to get them wrong.

use crate::support::{Home, Ran, fixture, json, llama};
use std::path::{Path, PathBuf};

fn adapter(name: &str) -> PathBuf {
    fixture(&format!("adapters/{name}")).expect("fixtures/adapters is part of the repository")
}

fn values(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn run_logits(home: &Home, more: &[&str]) -> Ran {
    let ids = json(&adapter("llama/ref.json"))["ids"].to_string();
    let model = llama();
    let base = ["logits", "--model", model.to_str().unwrap(), "--precision", "f32", "--out", "l.npy"];
    home.run(&[&base[..], &["--tokens", ids.trim_matches(['[', ']'])], more].concat())
}

#[track_caller]
fn check(home: &Home, more: &[&str], expected: &str) {
    run_logits(home, more).ends_with(0);
    let (got, expected) = (values(&home.path().join("l.npy")), values(&adapter(&format!("llama/{expected}.npy"))));
    assert_eq!(got.len(), expected.len());
    let apart = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-3, "{more:?}: {apart}");
}

#[test]
fn adapters_by_flag_variable_and_file() {
    let (one, two) = (adapter("llama/one"), adapter("llama/two"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let home = Home::new();
    check(&home, &["--lora", one], "one");
    check(&home, &["--lora", &format!("{one}.gguf:1")], "one");
    check(&home, &["--lora", &format!("{two}/adapter_model.safetensors")], "two");
    check(&home, &["--lora", &format!("{one}:0.5"), "--lora", &format!("{two}:-0.75")], "all");
    let home = Home::new().env("RUSTORCH_MODEL_LORA", &format!("['{one}:0.5', '{two}:-0.75']"));
    check(&home, &[], "all");
    check(&home, &["--lora", two], "two");
    // Relative paths of a file start where it is.
    let home = Home::new();
    std::fs::create_dir(home.path().join("conf")).unwrap();
    std::fs::copy(format!("{one}.gguf"), home.path().join("conf/a b.gguf")).unwrap();
    let config = home.file("conf/c.toml", "[model]\nlora = [\"a b.gguf\"]\n");
    check(&home, &["--config", config.to_str().unwrap()], "one");
}

#[test]
fn what_cannot_be_an_adapter_ends_with_its_reason() {
    let home = Home::new();
    #[track_caller]
    fn refused(home: &Home, lora: &str, code: i32, words: &[&str]) {
        let err = run_logits(home, &["--lora", lora]).ends_with(code).err;
        assert!(words.iter().all(|word| err.contains(word)), "{words:?}: {err}");
        assert!(!home.path().join("l.npy").exists());
    }
    let one = adapter("llama/one.gguf");
    refused(&home, "nothing.gguf", 3, &["nothing.gguf", "adapter"]);
    refused(&home, llama().to_str().unwrap(), 3, &["no adapter"]);
    refused(&home, adapter("qwen2_moe/one.gguf").to_str().unwrap(), 3, &["qwen2moe", "llama"]);
    refused(&home, adapter("gpt2/one").to_str().unwrap(), 3, &["transformer.h.0", "another model"]);
    refused(&home, home.path().to_str().unwrap(), 3, &["no adapter", "adapter_config.json"]);
    for scale in ["nan", "inf", "-inf"] {
        refused(&home, &format!("{}:{scale}", one.display()), 2, &["finite"]);
    }
    let bytes = std::fs::read(&one).unwrap();
    std::fs::write(home.path().join("cut.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&home, "cut.gguf", 3, &["cut.gguf"]);
    std::fs::create_dir(home.path().join("alone")).unwrap();
    std::fs::copy(adapter("llama/one/adapter_model.safetensors"), home.path().join("alone/adapter_model.safetensors"))
        .unwrap();
    refused(&home, "alone", 3, &["adapter_config.json"]);
    // The same shapes but for one matrix: the tensor and both shapes are named.
    let config = std::fs::read_to_string(adapter("glm/one/adapter_config.json")).unwrap();
    home.file("other/adapter_config.json", &config);
    std::fs::copy(adapter("glm/one/adapter_model.safetensors"), home.path().join("other/adapter_model.safetensors"))
        .unwrap();
    refused(&home, "other", 3, &["lora_", "[", "shape"]);
}

#[test]
fn an_adapter_is_no_model() {
    for path in [adapter("llama/one.gguf"), adapter("llama/one")] {
        let ran = Home::new().run(&["-p", "x", "--model", path.to_str().unwrap()]).ends_with(3);
        assert!(ran.err.contains("adapter"), "{}", ran.err);
    }
}

#[test]
fn plans_count_adapters() {
    let (home, one) = (Home::new(), adapter("llama/one"));
    let model = llama();
    let base = ["inspect", "--model", model.to_str().unwrap(), "--ctx", "64", "--prefix-cache", "0", "--json"];
    let plain = home.run(&base).ends_with(0).json()["memory"].clone();
    let with =
        home.run(&[&base[..], &["--lora", one.to_str().unwrap()]].concat()).ends_with(0).json()["memory"].clone();
    let (before, bytes) = (plain["total_bytes"].as_u64().unwrap(), with["adapters_bytes"].as_u64().unwrap());
    assert_eq!(plain["adapters_bytes"], 0);
    assert!(bytes > 30_000 && with["total_bytes"] == before + bytes, "{with}");
    let budget = (before + bytes / 2).to_string();
    let tight = ["--ctx", "64", "--quantize", "none", "--memory-budget", &budget];
    run_logits(&home, &tight).ends_with(0);
    run_logits(&home, &[&tight[..], &["--lora", one.to_str().unwrap()]].concat()).ends_with(5);
    home.run(&[&base[..], &["--lora", "nothing"]].concat()).ends_with(3);
}

/// `/lora` in every form, in a script of lines: the answers change and come back.
#[test]
fn adapters_in_a_chat() {
    let (home, model, one) = (Home::new(), llama(), adapter("llama/one.gguf"));
    let lines = format!(
        "/lora\nhello\n/clear\n/lora add '{}:0.5'\n/lora\nhello\n/stats --json\n/clear\n/lora scale 1 0\nhello\n/clear\n\
         /lora remove 1\nhello\n/lora remove 1\n/lora scale 1 nan\n/lora add nothing\n/lora nonsense\n",
        one.display()
    );
    let script = home.file("script.txt", &lines);
    let ran = home
        .run(&[
            "--model",
            model.to_str().unwrap(),
            "--script",
            script.to_str().unwrap(),
            "--template",
            "chatml",
            "--temperature",
            "0",
            "--max-tokens",
            "6",
            "--language",
            "en",
        ])
        .ends_with(0);
    let words = [
        "no adapter is in use",
        "adapter 1: ",
        "scale 0.5, 23 matrices of rank 4",
        "scale 0\n",
        "no longer in use",
        "there is no adapter 1",
        "cannot use the adapter",
        "wrong arguments for /lora",
    ];
    assert!(words.iter().all(|word| ran.err.contains(word)), "{}", ran.err);
    let text = ran.text();
    let stats_at = text.find("{\"").unwrap();
    let (answers, rest) = text.split_at(stats_at);
    let stats: serde_json::Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    assert_eq!(stats["adapters"][0]["scale"], 0.5);
    assert!(stats["memory"]["adapters_bytes"].as_u64().unwrap() > 0);
    assert_eq!(stats["last_turn"]["cached_tokens"], 0);
    let after = rest.split_once('\n').unwrap().1;
    let half = after.len() / 2;
    assert_eq!(&after[..half], &after[half..], "with scale 0 and without, the same answer");
    assert!(answers.starts_with(&after[..half]) && !answers[half..].starts_with(&after[..half]), "{text}");
}
