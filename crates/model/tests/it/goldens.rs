//! Logits of every family at every position against transformers (and llama.cpp where the two mean different things).

use crate::fixtures::{entries, find_or_skip, floats, ids, json, max_difference, npy};
use crate::running::{all_logits, best, greedy, load, load_for, nll};
use compute::Precision;

/// Compares one family's fixture; `kept` says whether the repository holds it.
#[track_caller]
fn check(name: &str, kept: bool) {
    let Some(folder) = find_or_skip(&format!("archs/{name}"), kept) else { return };
    let reference = json(&folder.join("ref.json"));
    let tokens = ids(&reference["ids"]);
    let mut decoder = load(&folder.join("model.gguf"), Precision::F32, 512);
    let got = all_logits(&mut decoder, &tokens);
    let std = reference["logits_std"].as_f64().unwrap() as f32;
    let bound = 0.002 * std + 0.001;
    let answers = ["logits.npy", "logits-llamacpp.npy"].map(|file| folder.join(file));
    let differences = answers.iter().filter(|path| path.exists()).map(|path| max_difference(&got, &npy(path)));
    let difference = differences.fold(f32::INFINITY, f32::min);
    println!("{name}: logits differ by {difference:.2e} at most (bound {bound:.2e})");
    assert!(difference <= bound, "{name}: {difference} > {bound}");
    if reference["llama_cpp"]["agrees"] == true {
        let nll = nll(&got, &tokens);
        assert!((nll - reference["nll"].as_f64().unwrap()).abs() < 1e-3, "{name}: nll {nll}");
        let expected = ids(&reference["greedy"]);
        let gap = reference["greedy_min_gap"].as_f64().unwrap() as f32;
        if gap > 2.0 * difference {
            assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "{name}");
        }
    }
    // The one difference of meaning that hits a short prompt: see the fixtures' notes on long factors.
    if reference["llama_cpp"]["short"]["diff"]["max_abs"].as_f64().unwrap() < 0.01 {
        let tokens = ids(&reference["short"]["ids"]);
        let got = all_logits(&mut decoder, &tokens);
        let expected = floats(&reference["short"]["logits_last"]);
        let last = &got[got.len() - expected.len()..];
        let difference = max_difference(last, &expected);
        assert!(difference <= bound, "{name}, short prompt: {difference} > {bound}");
    }
}

/// Every family whose fixture the repository holds.
#[test]
fn every_kept_family() {
    let names = entries("archs");
    names.iter().for_each(|name| check(name, true));
    assert!(names.len() >= 9, "{names:?}");
}

/// The file carries no window; one that does gets what transformers computes with it.
#[test]
fn mistral_with_its_window() {
    let Some(folder) = find_or_skip("archs/mistral", true) else { return };
    let mut bytes = std::fs::read(folder.join("model.gguf")).unwrap();
    // Two keys more, 64 bytes together, so that the tensors stay aligned.
    let n_keys = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    bytes.splice(16..24, (n_keys + 2).to_le_bytes());
    let mut keys = Vec::new();
    for (key, value) in [("llama.attention.sliding_window", 16u32), ("zz", 0)] {
        keys.extend((key.len() as u64).to_le_bytes());
        keys.extend(key.as_bytes());
        keys.extend(4u32.to_le_bytes());
        keys.extend(value.to_le_bytes());
    }
    assert_eq!(keys.len(), 64);
    bytes.splice(24..24, keys);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("windowed-{}.gguf", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let tokens = ids(&json(&folder.join("ref.json"))["ids"]);
    let got = all_logits(&mut load(&path, Precision::F32, 512), &tokens);
    std::fs::remove_file(&path).unwrap();
    let difference = max_difference(&got, &npy(&folder.join("logits.npy")));
    println!("mistral with its window: logits differ by {difference:.2e}");
    assert!(difference < 1e-3, "{difference}");
}

/// A context no longer than the original one takes the other divisors, as transformers does for a short prompt.
#[test]
fn phi3_in_a_short_context() {
    let Some(folder) = find_or_skip("archs/phi3", true) else { return };
    let reference = json(&folder.join("ref.json"));
    let expected = floats(&reference["short"]["logits_last"]);
    let mut decoder = load_for(&folder.join("model.gguf"), Precision::F32, 512, Some(32));
    let got = all_logits(&mut decoder, &ids(&reference["short"]["ids"]));
    let difference = max_difference(&got[got.len() - expected.len()..], &expected);
    println!("phi3, short: logits differ by {difference:.2e}");
    assert!(difference < 1e-3, "{difference}");
}

#[test]
fn other_families() {
    ["granite", "gpt2", "olmo2", "smollm3"].iter().for_each(|name| check(name, false));
}

/// A trained model: what it says is what people would see.
#[test]
fn stories() {
    let Some(folder) = find_or_skip("stories260K", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let prompts = reference["prompts"].as_array().unwrap();
    let expected = reference["gguf"]["stories260K-f32.gguf"].as_array().unwrap();
    let mut decoder = load(&folder.join("gguf/stories260K-f32.gguf"), Precision::F32, 32);
    for (prompt, expected) in prompts.iter().zip(expected) {
        let (tokens, exact) = (ids(&prompt["ids"]), &expected["exact"]);
        let got = all_logits(&mut decoder, &tokens);
        let last = floats(&exact["logits_last"]);
        let difference = max_difference(&got[got.len() - last.len()..], &last);
        println!("stories: {} tokens, logits differ by {difference:.2e}", tokens.len());
        assert!(difference < 1e-3);
        assert!((nll(&got, &tokens) - exact["nll"].as_f64().unwrap()).abs() < 1e-4);
        let expected = ids(&exact["greedy"]);
        assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "after {}", prompt["text"]);
        assert_eq!(best(&last), expected[0]);
    }
}
