//! Directories whose weights are stored as integers in groups (MLX, GPTQ, AWQ): logits against the programs that define the
//! formats, or against the dequantized weights run elsewhere; the fast mode beside the exact one.

use crate::fixtures::{find_or_skip, floats, ids, json, max_difference, npy};
use crate::running::{all_logits, best, greedy, load, nll};
use checkpoint::{Checkpoint, OpenOptions};
use compute::Precision;
use model::Decoder;

/// A greedy continuation, equal to the reference's as far as its choices are wider than `noise`.
#[track_caller]
fn check_greedy(decoder: &mut Decoder, prompt: &[u32], expected: &[u32], noise: f32) {
    let got = greedy(decoder, prompt, expected.len());
    let Some(at) = got.iter().zip(expected).position(|(a, b)| a != b) else { return };
    let tokens = [prompt, &expected[..at]].concat();
    let logits = all_logits(decoder, &tokens);
    let row = &logits[logits.len() / tokens.len() * (tokens.len() - 1)..];
    let gap = row[got[at] as usize] - row[expected[at] as usize];
    assert!(gap <= 2.0 * noise, "token {at} is {} and not {}, a gap of {gap}", got[at], expected[at]);
}

/// How far the fast mode is from the exact logits in the first rows, which go through the loops for few columns.
fn few_rows(fast: &mut Decoder, tokens: &[u32], exact: &[f32]) -> f32 {
    let n_vocab = exact.len() / tokens.len();
    let n = tokens.len().min(4);
    max_difference(&all_logits(fast, &tokens[..n]), &exact[..n * n_vocab])
}

/// A trained model in every mode that mlx-lm writes. Where that ran in BF16 its own logits, up to 18, are rounded to steps
/// of 0.125, as is all it computed on the way: four of them are allowed there, and the mean over the prompt must be near.
/// (For `bf16` the distance of the reference from exact arithmetic, which transformers computed, is ours to five digits.)
#[test]
fn stories_of_mlx() {
    let Some(folder) = find_or_skip("stories260K/mlx", false) else { return };
    let prompts = json(&folder.join("../prompts.json"));
    let reference = json(&folder.join("reference.json"));
    for (name, made) in reference["made"].as_object().unwrap() {
        let is_half = made["tensors"]["model.norm.weight"][0] == "bfloat16";
        let (bound, nll_bound) = if is_half { (0.5, 5e-2) } else { (1e-3, 1e-4) };
        let path = folder.join(name);
        assert_eq!(Checkpoint::open(&path, &OpenOptions::default()).unwrap().format(), "mlx", "{name}");
        let mut decoder = load(&path, Precision::F32, 64);
        let mut fast = load(&path, Precision::Fast, 64);
        let (mut worst, mut nll_worst, mut distance) = (0f32, 0f64, 0f32);
        for (prompt, expected) in prompts.as_array().unwrap().iter().zip(made["prompts"].as_array().unwrap()) {
            let tokens = ids(&prompt["ids"]);
            let got = all_logits(&mut decoder, &tokens);
            let last = floats(&expected["logits_last"]);
            worst = worst.max(max_difference(&got[got.len() - last.len()..], &last));
            let off = (nll(&got, &tokens) - expected["nll"].as_f64().unwrap()).abs();
            nll_worst = nll_worst.max(off);
            if let Some(expected) = expected["greedy"].as_array().filter(|greedy| !greedy.is_empty()) {
                check_greedy(&mut decoder, &tokens, &ids(&expected.clone().into()), bound);
            }
            distance = distance.max(few_rows(&mut fast, &tokens, &got));
        }
        println!(
            "stories, mlx {name}: logits differ by {worst:.2e}, nll by {nll_worst:.2e}; the fast mode by {distance:.2e}"
        );
        assert!(worst < bound && nll_worst < nll_bound, "{name}: {worst}, nll {nll_worst}");
        // llama.cpp's fast mode is up to 0.4 off on this model.
        assert!(distance < 0.5, "{name}: {distance} in the fast mode");
    }
}

/// Tiny models in each layout, logits at all positions.
#[test]
fn layouts() {
    let Some(folder) = find_or_skip("quantized", true) else { return };
    let mut n_seen = 0;
    for layout in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = layout.file_name().unwrap().to_string_lossy().into_owned();
        let reference = json(&layout.join("ref.json"));
        let tokens = ids(&reference["ids"]);
        let bound = 0.002 * reference["logits_std"].as_f64().unwrap() as f32 + 0.001;
        let exact = all_logits(&mut load(&layout.join("hf"), Precision::F32, 512), &tokens);
        let difference = max_difference(&exact, &npy(&layout.join("logits.npy")));
        let mut decoder = load(&layout.join("hf"), Precision::Fast, 512);
        let distance = few_rows(&mut decoder, &tokens, &exact);
        let fast = all_logits(&mut decoder, &tokens);
        let n_vocab = exact.len() / tokens.len();
        let rows = fast.chunks_exact(n_vocab).zip(exact.chunks_exact(n_vocab));
        let same = rows.filter(|(a, b)| best(a) == best(b)).count();
        println!("{name}: logits differ by {difference:.2e} (bound {bound:.2e}); the fast mode by {distance:.2e}");
        assert!(difference <= bound, "{name}: {difference} > {bound}");
        let noise = 0.3 * reference["logits_std"].as_f64().unwrap() as f32;
        assert!(distance < noise, "{name}: {distance} in the fast mode, at most {noise}");
        assert!(same + 4 >= tokens.len(), "{name}: {same} of {} best tokens in the fast mode", tokens.len());
        n_seen += 1;
    }
    assert!(n_seen >= 9, "{n_seen} layouts");
}
