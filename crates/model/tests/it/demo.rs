//! One trained model in every format: logits against transformers in float32 on the weights as each format holds them.

use crate::fixtures::{entries, find_or_skip, ids, json, max_difference, npy};
use crate::running::{all_logits, greedy, load, nll};
use compute::Precision;

/// Largest difference of a logit from the reference.
const BOUND: f32 = 1e-3;

#[track_caller]
fn check(name: &str) {
    let Some(folder) = find_or_skip(&format!("demo/{name}"), true) else { return };
    let reference = json(&folder.join("ref.json"));
    let tokens = ids(&reference["ids"]);
    let mut decoder = load(&folder.join(reference["model"].as_str().unwrap()), Precision::F32, 64);
    let got = all_logits(&mut decoder, &tokens);
    let last = npy(&folder.join("logits.npy"));
    let difference = max_difference(&got[got.len() - last.len()..], &last);
    let nll_difference = (nll(&got, &tokens) - reference["nll"].as_f64().unwrap()).abs();
    println!("demo, {name}: logits differ by {difference:.2e}, nll by {nll_difference:.2e}");
    assert!(difference <= BOUND && nll_difference <= 1e-3, "{name}: {difference}, nll {nll_difference}");
    if reference["greedy_min_gap"].as_f64().unwrap() as f32 > 2.0 * difference {
        let expected = ids(&reference["greedy"]);
        assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "{name}");
    }
}

#[test]
fn every_format() {
    let names = entries("demo");
    names.iter().for_each(|name| check(name));
    assert!(names.len() >= 10 || names.is_empty(), "{names:?}");
}
