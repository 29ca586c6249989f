//! The fast mode may round activations, but not more than llama.cpp does: distances from the exact result, side by side.

use crate::fixtures::{self, find_or_skip, ids, json, max_difference};
use crate::running::{all_logits, best, load};
use compute::Precision;
use serde_json::Value;
use std::path::Path;

/// Prints our distance from our own exact mode (proven exact elsewhere) next to llama.cpp's, over all positions.
fn compare(label: &str, path: &Path, tokens: &[u32], theirs: &Value) -> (f32, f32) {
    let exact = all_logits(&mut load(path, Precision::F32, 512), tokens);
    let fast = all_logits(&mut load(path, Precision::Fast, 512), tokens);
    let ours = max_difference(&fast, &exact);
    let n_vocab = exact.len() / tokens.len();
    let rows = fast.chunks_exact(n_vocab).zip(exact.chunks_exact(n_vocab));
    let same = rows.filter(|(a, b)| best(a) == best(b)).count();
    let theirs_max = theirs["max_abs"].as_f64().unwrap() as f32;
    println!(
        "{label}: ours {ours:.4} from exact, {same} of {} best tokens; llama.cpp {theirs_max:.4}, {}",
        tokens.len(),
        theirs["top1_agree"]
    );
    (ours, theirs_max)
}

/// Each file may be `factor` times as far off as llama.cpp is, all together no further than it.
fn check_all(distances: &[(f32, f32)], factor: f32) {
    for &(ours, theirs) in distances {
        assert!(ours <= factor * theirs + 1e-5, "{ours} {theirs}");
    }
    let (ours, theirs) = distances.iter().fold((0.0, 0.0), |sum, d| (sum.0 + d.0, sum.1 + d.1));
    assert!(ours <= theirs, "in all {ours} from exact, llama.cpp {theirs}");
}

#[test]
fn mixtures() {
    let distances: Vec<_> = fixtures::mixtures()
        .iter()
        .map(|(path, tokens, entry)| {
            let label = path.file_name().unwrap().to_string_lossy();
            compare(&label, path, tokens, &entry["llama_cpp_vs_exact"])
        })
        .collect();
    check_all(&distances, 1.0);
}

fn family(name: &str) -> Option<(f32, f32)> {
    let folder = find_or_skip(&format!("archs/{name}"), true)?;
    let reference = json(&folder.join("ref.json"));
    let theirs = &reference["llama_cpp"]["on_shipped_f16_file"]["diff"];
    Some(compare(name, &folder.join("model.gguf"), &ids(&reference["ids"]), theirs))
}

#[test]
fn families() {
    let names = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];
    check_all(&names.iter().filter_map(|name| family(name)).collect::<Vec<_>>(), 1.0);
}

/// Printed only: where two experts score almost the same, any rounding may choose the other and move a whole row.
#[test]
fn families_with_experts() {
    for name in ["mixtral", "qwen3_moe"] {
        family(name);
    }
}

#[test]
fn stories() {
    let Some(folder) = find_or_skip("stories260K", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let prompts = reference["prompts"].as_array().unwrap();
    let mut distances = Vec::new();
    for (file, answers) in reference["gguf"].as_object().unwrap() {
        for (prompt, answer) in prompts.iter().zip(answers.as_array().unwrap()) {
            let path = folder.join("gguf").join(file);
            distances.push(compare(file, &path, &ids(&prompt["ids"]), &answer["llama_cpp_vs_exact"]));
        }
    }
    // One of the prompts is long enough for activations of 8 bits, where the largest of many rounding errors is noise.
    check_all(&distances, 1.5);
}
