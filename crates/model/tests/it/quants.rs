//! Logits of quantized files against the same weights dequantized and run in single precision elsewhere.

use crate::fixtures::{self, find_or_skip, floats, ids, json, max_difference};
use crate::running::{all_logits, best, greedy, load, nll};
use compute::Precision;
use serde_json::Value;
use std::path::Path;

/// One file: last row, perplexity, arg-max of every row and greedy continuation.
fn check(path: &Path, tokens: &[u32], exact: &Value) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut decoder = load(path, Precision::F32, 512);
    let got = all_logits(&mut decoder, tokens);
    let expected = floats(&exact["logits_last"]);
    let n_vocab = expected.len();
    let difference = max_difference(&got[got.len() - n_vocab..], &expected);
    let nll_difference = (nll(&got, tokens) - exact["nll"].as_f64().unwrap()).abs();
    println!("{name}: logits differ by {difference:.2e}, nll by {nll_difference:.2e}");
    assert!(difference < 0.002 + 0.001, "{name}: {difference}");
    assert!(nll_difference < 1e-3, "{name}: nll differs by {nll_difference}");
    if exact["top1"].is_array() {
        let same = got.chunks_exact(n_vocab).map(best).zip(ids(&exact["top1"])).filter(|(a, b)| a == b).count();
        assert!(same + 1 >= tokens.len(), "{name}: {same} of {} best tokens are the same", tokens.len());
    }
    if exact["greedy_min_gap"].as_f64().unwrap() > f64::from(2.0 * difference) {
        let expected = ids(&exact["greedy"]);
        assert_eq!(greedy(&mut decoder, tokens, expected.len()), expected, "{name}");
    }
}

#[test]
fn mixtures() {
    for (path, tokens, entry) in fixtures::mixtures() {
        check(&path, &tokens, &entry["exact"]);
    }
}

#[test]
fn stories() {
    let Some(folder) = find_or_skip("stories260K", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let prompts = reference["prompts"].as_array().unwrap();
    for (file, answers) in reference["gguf"].as_object().unwrap() {
        for (prompt, answer) in prompts.iter().zip(answers.as_array().unwrap()).take(2) {
            check(&folder.join("gguf").join(file), &ids(&prompt["ids"]), &answer["exact"]);
        }
    }
}
