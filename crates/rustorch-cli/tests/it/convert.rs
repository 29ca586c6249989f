//! `convert`: what is written is the model that was read, with the types that its name promises, or nothing is written.

use crate::support::{Home, fixture, json, llama};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The logits of some tokens, by the program itself.
fn logits(home: &Home, model: &Path, tokens: &str) -> Vec<f32> {
    let base = ["logits", "--model", model.to_str().unwrap(), "--tokens", tokens, "--precision", "f32"];
    home.run(&[&base[..], &["--out", "l.npy"]].concat()).ends_with(0);
    let bytes = std::fs::read(home.path().join("l.npy")).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Prompt of a family's reference, as the command line takes it, and how much its logits vary.
fn prompt(folder: &Path) -> (String, f32) {
    let reference = json(&folder.join("ref.json"));
    let ids: Vec<String> = reference["ids"].as_array().unwrap().iter().take(40).map(Value::to_string).collect();
    (ids.join(","), reference["logits_std"].as_f64().unwrap() as f32)
}

/// The types of all tensors, by name.
fn types(home: &Home, model: &Path) -> Vec<(String, String)> {
    let facts = home.run(&["inspect", "--model", model.to_str().unwrap(), "--json"]).ends_with(0).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    facts["tensors"].as_array().unwrap().iter().map(|t| (text(&t["name"]), text(&t["type"]))).collect()
}

/// A folder of the source in the home: with a tokenizer of single characters where the fixture has none.
fn source(home: &Home, from: &Path) -> PathBuf {
    let to = home.path().join("hf");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    if !to.join("tokenizer.json").exists() {
        let config = json(&to.join("config.json"));
        let n_vocab = [&config["vocab_size"], &config["text_config"]["vocab_size"]].into_iter().find_map(Value::as_u64);
        let characters = ('\u{4e00}'..).take(usize::try_from(n_vocab.unwrap()).unwrap()).map(String::from);
        let vocabulary: serde_json::Map<String, Value> =
            characters.zip(0..).map(|(c, id)| (c, Value::from(id))).collect();
        let bytes = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = serde_json::json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": bytes, "decoder": bytes,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        home.file("hf/tokenizer.json", &tokenizer.to_string());
    }
    to
}

/// Every family with both conventions: the written file is the same model, to the rounding of the type.
#[test]
fn families_keep_their_logits() {
    let all = [
        "llama",
        "qwen3_moe",
        "gemma3",
        "phi3",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen3",
        "gemma2",
        "granite",
        "olmo2",
        "smollm3",
        "gpt2",
    ];
    let mut n = 0;
    for name in all {
        let Some(folder) = fixture(&format!("archs/{name}/hf")) else { continue };
        let (home, (tokens, std)) = (Home::new(), prompt(&folder.join("..")));
        let source = source(&home, &folder);
        let before = logits(&home, &source, &tokens);
        for (kind, bound) in [("", 1e-4), ("F16", 2e-3 * std + 1e-3), ("Q8_0", 0.3 * std)] {
            let to = home.path().join(format!("{name}{kind}.gguf"));
            let base = ["convert", source.to_str().unwrap(), to.to_str().unwrap()];
            let more: &[&str] = if kind.is_empty() { &[] } else { &["--type", kind] };
            home.run(&[&base[..], more].concat()).ends_with(0);
            let difference = difference(&before, &logits(&home, &to, &tokens));
            println!("{name} {kind}: logits differ by {difference:.2e} (bound {bound:.2e})");
            assert!(difference <= bound, "{name} {kind}: {difference} > {bound}");
        }
        n += 1;
    }
    assert!(n >= 4, "{n} families");
}

/// One feature of a configuration at a time.
#[test]
fn variants_keep_their_logits_or_are_refused() {
    let folder = fixture("variants").unwrap();
    let mut n = 0;
    for variant in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = variant.file_name().unwrap().to_str().unwrap();
        let home = Home::new();
        let source = source(&home, &variant.join("hf"));
        let to = home.path().join("m.gguf");
        let ran = home.run(&["convert", source.to_str().unwrap(), to.to_str().unwrap()]);
        if name == "llama-dynamic" {
            assert!(ran.ends_with(3).err.contains("dynamic"));
            continue;
        }
        ran.ends_with(0);
        let (tokens, _) = prompt(&variant);
        let difference = difference(&logits(&home, &source, &tokens), &logits(&home, &to, &tokens));
        println!("{name}: logits differ by {difference:.2e}");
        assert!(difference < 1e-4, "{name}: {difference}");
        n += 1;
    }
    assert!(n >= 14, "{n} variants");
}

/// The mixtures give each tensor the type that the reference quantizer gave it.
#[test]
fn mixtures_are_those_of_the_reference() {
    let folder = fixture("quants").unwrap();
    let source = folder.join("Q4_K_M.gguf");
    let home = Home::new();
    for (file, entry) in json(&folder.join("reference.json"))["files"].as_object().unwrap() {
        let kind = file.trim_end_matches(".gguf");
        let to = home.path().join(file);
        let ran = home.run(&["convert", source.to_str().unwrap(), to.to_str().unwrap(), "--type", kind]).ends_with(0);
        if kind.starts_with("Q2") {
            assert!(ran.err.contains("warning"), "{}", ran.err);
        }
        for (name, found) in types(&home, &to) {
            assert_eq!(entry["tensors"][&name]["type"], found, "{kind} {name}");
        }
    }
}

#[test]
fn tokens_and_template_come_along() {
    for name in ["llama", "phi3"] {
        let source = fixture(&format!("archs/{name}/hf")).unwrap();
        let (home, source) = (Home::new(), source.to_str().unwrap().to_owned());
        home.run(&["convert", &source, "m.gguf"]).ends_with(0);
        for text in ["Once upon a time, there were 12 dogs.\n", "  two  blanks", "日本 ünïcode 🦀", ""] {
            let ids = |model: &str| home.run_with(&["tokenize", "--model", model], Some(text.as_bytes())).ends_with(0);
            assert_eq!(ids(&source).text(), ids("m.gguf").text(), "{name} {text:?}");
        }
        let metadata = home.run(&["inspect", "--model", "m.gguf", "--json"]).ends_with(0).json()["metadata"].clone();
        let folder = Path::new(&source);
        let has_template = json(&folder.join("tokenizer_config.json"))["chat_template"].is_string();
        assert_eq!(metadata["tokenizer.chat_template"].is_string(), has_template, "{name}");
        let pre = if name == "llama" { "llama-bpe" } else { "default" };
        assert_eq!(metadata["tokenizer.ggml.pre"], pre, "{name}");
    }
}

#[test]
fn other_layouts() {
    let source = fixture("archs/llama/hf").unwrap();
    let (home, (tokens, std)) = (Home::new(), prompt(&source.join("..")));
    let before = logits(&home, &source, &tokens);
    let source = source.to_str().unwrap();
    // A folder of safetensors, from which everything works.
    home.run(&["convert", source, "st/model.safetensors"]).ends_with(0);
    assert!(difference(&before, &logits(&home, &home.path().join("st"), &tokens)) < 1e-5);
    home.run(&["convert", source, "half/model.safetensors", "--type", "f16"]).ends_with(0);
    assert!(types(&home, &home.path().join("half")).iter().all(|(_, dtype)| dtype == "F16"));
    assert!(difference(&before, &logits(&home, &home.path().join("half"), &tokens)) < 2e-3 * std + 1e-3);
    home.run(&["convert", "st", "again.gguf"]).ends_with(0);
    home.run(&["convert", source, "once.gguf"]).ends_with(0);
    assert!(difference(&before, &logits(&home, &home.path().join("again.gguf"), &tokens)) < 1e-4);
    // As many files as there were.
    let Some(sharded) = fixture("stories260K/hf-sharded") else { return };
    home.run(&["convert", sharded.to_str().unwrap(), "s.gguf", "--keep-split", "--type", "Q8_0"]).ends_with(0);
    home.run(&["convert", sharded.to_str().unwrap(), "w.gguf", "--type", "Q8_0"]).ends_with(0);
    let [split, whole] = ["s-00001-of-00002.gguf", "w.gguf"].map(|name| home.path().join(name));
    assert_eq!(logits(&home, &split, "1,5,9"), logits(&home, &whole, "1,5,9"));
    // And back to as many.
    home.run(&["convert", split.to_str().unwrap(), "t.gguf", "--keep-split"]).ends_with(0);
    assert!(home.path().join("t-00002-of-00002.gguf").exists());
}

#[test]
fn refusals_write_nothing() {
    let (home, model) = (Home::new(), llama());
    let model = model.to_str().unwrap();
    home.file("there.gguf", "mine");
    home.file("bad.gguf", "GGUF and then nothing of the kind, long enough");
    let rows: &[(&[&str], i32, &str)] = &[
        (&[model, "there.gguf"], 2, "--force"),
        (&[model, "out.bin"], 2, ".safetensors"),
        (&[model, "out"], 2, ".safetensors"),
        (&[model, "out.safetensors"], 2, "GGUF"),
        (&[model, "out.gguf", "--type", "Q4_K_X"], 2, "Q4_K_M"),
        (&[model, "out.safetensors", "--type", "Q8_0"], 2, "Q8_0"),
        (&[model, "out.safetensors", "--keep-split"], 2, "--keep-split"),
        (&["nowhere.gguf", "out.gguf"], 3, "nowhere"),
        (&["bad.gguf", "out.gguf"], 3, "bad.gguf"),
        (&[model, "there.gguf/out.gguf"], 1, "out.gguf"),
        (&[model], 2, "OUT"),
    ];
    for (arguments, code, expected) in rows {
        let ran = home.run(&[&["convert"], *arguments].concat()).ends_with(*code);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
    }
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("out")), "{left:?}");
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    assert_eq!(std::fs::read(home.path().join("there.gguf")).unwrap(), b"mine");
    home.run(&["convert", model, "there.gguf", "--force"]).ends_with(0);
    // The model itself is never replaced, however it is named.
    let ran = home.run(&["convert", "there.gguf", "./there.gguf", "--force"]).ends_with(2);
    assert!(ran.err.contains("there.gguf"));
}
