//! What goes into the matrices of whole models, against sums that the reference library computed.

use crate::fixtures::{find_or_skip, ids, json};
use crate::running::{batch, cache, device};
use checkpoint::{Checkpoint, OpenOptions};
use compute::{Observed, Precision};
use model::{Decoder, Export, LoadOptions};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// What a model's matrices see of some tokens, computed a few rows at a time.
fn observed(path: &Path, tokens: &[u32], precision: Precision) -> BTreeMap<String, Observed> {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let options = LoadOptions { max_rows: 16, context_length: None };
    let mut decoder =
        Decoder::load(&checkpoint, device(precision), &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let observed = decoder.observe(&checkpoint);
    let mut cache = cache(&decoder);
    decoder.forward(&batch(tokens, 0, 0), &mut cache).unwrap();
    observed.into_iter().map(|tensor| (tensor.name, tensor.observer.observed())).collect()
}

#[test]
fn sums_are_those_of_the_reference() {
    for family in ["llama", "qwen3_moe"] {
        let folder = find_or_skip(&format!("archs/{family}"), true);
        let reference = find_or_skip(&format!("importance/{family}.json"), true);
        let (Some(folder), Some(reference)) = (folder, reference) else { continue };
        let tokens = ids(&json(&folder.join("ref.json"))["ids"]);
        let expected = json(&reference);
        for path in [folder.join("model.gguf"), folder.join("hf")] {
            let found = observed(&path, &tokens, Precision::F32);
            let names: Vec<&String> = found.keys().collect();
            assert_eq!(names, expected.as_object().unwrap().keys().collect::<Vec<_>>(), "{family}");
            for (name, seen) in &found {
                let counts: Vec<u64> =
                    expected[name]["counts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
                assert_eq!(seen.counts, counts, "{family} {name}");
                let sums = expected[name]["sums"].as_array().unwrap();
                assert_eq!(seen.sums.len(), sums.len(), "{family} {name}");
                for (sum, expected) in seen.sums.iter().zip(sums.iter().map(|sum| sum.as_f64().unwrap())) {
                    assert!((sum - expected).abs() <= 1e-4 * expected + 1e-6, "{family} {name}: {sum} for {expected}");
                }
            }
        }
    }
}

/// A family with its matrices fused: every matrix of a layer that can be quantized is watched under its name in the file.
#[test]
fn all_matrices_of_layers_are_watched() {
    for family in ["llama", "phi3", "mixtral", "gemma3", "qwen2"] {
        let Some(folder) = find_or_skip(&format!("archs/{family}"), false) else { continue };
        // Not every folder of the second kind is part of the project.
        for path in [folder.join("model.gguf"), folder.join("hf")].into_iter().filter(|path| path.exists()) {
            let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
            let export = Export::new(&checkpoint).unwrap();
            let found = observed(&path, &[1, 2, 3, 4], Precision::Fast);
            for tensor in export.tensors.iter().filter(|t| t.site.is_some() && t.name.starts_with("blk.")) {
                let seen = found.get(&tensor.name).unwrap_or_else(|| panic!("{family}: {}", tensor.name));
                assert_eq!(seen.sums.len(), seen.counts.len() * tensor.shape.row_len(), "{family}: {}", tensor.name);
                assert!(seen.sums.iter().any(|sum| *sum > 0.0), "{family}: {}", tensor.name);
            }
        }
    }
}
