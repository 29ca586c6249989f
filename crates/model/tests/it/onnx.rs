//! ONNX graphs as people export them: logits against onnxruntime, where it computes in floats; where it quantizes what it
//! computes, weights against NumPy and logits against the same weights run in float32.
//!
//! `exact.json` has those: the stored levels multiplied out by NumPy, put into the graph as floats, run by onnxruntime. Its
//! own dynamic quantization (8 bits for each tensor of activations) moves logits of these small models by up to 0.75, which
//! says nothing about a reader of weights.

use crate::fixtures::{find_or_skip, floats, ids, json, max_difference};
use crate::running::{all_logits, greedy, load};
use checkpoint::{Checkpoint, OpenOptions};
use compute::Precision;
use model::Decoder;
use serde_json::Value;

/// Whether greedy answers are to be compared.
#[derive(Clone, Copy, PartialEq)]
enum Greedy {
    Same,
    /// The reference rounds what it computes, so near ties fall otherwise.
    Apart,
}

fn last_logits(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
    let all = all_logits(decoder, tokens);
    all[all.len() - decoder.hyper().n_vocab..].to_vec()
}

/// Optimum's exports of a trained model, alone, in the Hub's folder, with data beside the graph, and quantized.
#[test]
fn stories() {
    let Some(folder) = find_or_skip("stories260K/onnx", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let prompts = json(&folder.join("../reference.json"))["prompts"].clone();
    for (file, bound, compare) in [
        ("optimum/model.onnx", 1e-3, Greedy::Same),
        ("hub/onnx/model_q4.onnx", 1e-3, Greedy::Same),
        ("hub/onnx/model_q4_asym.onnx", 1e-3, Greedy::Same),
        // These compute in F16.
        ("hub/onnx/model_fp16.onnx", 5e-2, Greedy::Same),
        ("hub-external/onnx/model_fp16.onnx", 5e-2, Greedy::Same),
        // Activations of 8 bits: only that it is the same model; `exact` is the comparison.
        ("hub/onnx/model_quantized.onnx", 1.0, Greedy::Apart),
        ("hub/onnx/model_uint8.onnx", 1.0, Greedy::Apart),
    ] {
        let mut decoder = load(&folder.join(file), Precision::F32, 64);
        let expected = reference["models"][file]["prompts"].as_array().unwrap();
        let mut worst = 0f32;
        for (prompt, expected) in prompts.as_array().unwrap().iter().zip(expected) {
            let tokens = ids(&prompt["ids"]);
            worst = worst.max(max_difference(&last_logits(&mut decoder, &tokens), &floats(&expected["logits_last"])));
            if compare == Greedy::Same {
                let expected = ids(&expected["greedy"]);
                assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "{file} after {}", prompt["text"]);
            }
        }
        println!("{file}: logits differ by {worst:.2e} (bound {bound:.0e})");
        assert!(worst <= bound, "{file}: {worst} > {bound}");
    }
}

/// Weights as NumPy multiplies them out.
#[track_caller]
fn check_weights(checkpoint: &Checkpoint, expected: &Value) {
    for (name, facts) in expected.as_object().unwrap() {
        let tensor = checkpoint.load(name).unwrap();
        let shape: Vec<u64> = tensor.shape().dims().iter().map(|dim| *dim as u64).collect();
        assert_eq!(serde_json::json!(shape), facts["shape"], "{name}");
        let values = tensor.to_f32().unwrap();
        let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
        let (first, last) = (floats(&facts["first"]), floats(&facts["last"]));
        let ends = values.iter().zip(&first).chain(values.iter().rev().zip(last.iter().rev()));
        for (value, expected) in ends {
            assert!((value - expected).abs() <= 2e-6 * largest, "{name} ({}): {value} {expected}", tensor.dtype());
        }
        let total = facts["abs_sum"].as_f64().unwrap();
        let sums = values.iter().fold((0.0, 0.0), |(sum, abs), v| (sum + f64::from(*v), abs + f64::from(v.abs())));
        assert!((sums.0 - facts["sum"].as_f64().unwrap()).abs() <= 1e-6 * total, "{name}: {sums:?}");
        assert!((sums.1 - total).abs() <= 1e-6 * total, "{name}: {sums:?}");
    }
}

/// The same levels and scales computed in float32 throughout.
#[test]
fn exact() {
    let Some(exact) = find_or_skip("onnx/exact.json", true) else { return };
    let Some(reference) = find_or_skip("stories260K/reference.json", false) else { return };
    let (exact, prompts) = (json(&exact), json(&reference)["prompts"].clone());
    for (file, expected) in exact.as_object().unwrap().iter().filter(|(file, _)| file.starts_with("stories260K/")) {
        let file = file.replacen('/', "/onnx/", 1);
        let Some(path) = find_or_skip(&file, false) else { continue };
        check_weights(&Checkpoint::open(&path, &OpenOptions::default()).unwrap(), &expected["weights"]);
        let mut decoder = load(&path, Precision::F32, 64);
        let mut worst = 0f32;
        for (prompt, expected) in prompts.as_array().unwrap().iter().zip(expected["prompts"].as_array().unwrap()) {
            let last = last_logits(&mut decoder, &ids(&prompt["ids"]));
            worst = worst.max(max_difference(&last, &floats(&expected["logits_last"])));
        }
        println!("{file}: logits differ by {worst:.2e} from the exact ones");
        assert!(worst < 1e-3, "{file}: {worst}");
    }
}

/// What onnxruntime-genai's builder writes: attention as one operator, packed projections, no config.json.
#[test]
fn built() {
    for (name, kept) in [("genai-fp32", false), ("genai-int4", true)] {
        let Some(folder) =
            find_or_skip(&format!("onnx/{name}"), false).or_else(|| find_or_skip(&format!("onnx-genai/{name}"), kept))
        else {
            continue;
        };
        let Some(reference) = find_or_skip("onnx/exact.json", true) else { return };
        let exact = &json(&reference)["genai-int4"];
        let tokens = ids(&exact["ids"]);
        let mut decoder = load(&folder, Precision::F32, 64);
        let last = last_logits(&mut decoder, &tokens);
        let expected = if name == "genai-int4" {
            check_weights(&Checkpoint::open(&folder, &OpenOptions::default()).unwrap(), &exact["weights"]);
            floats(&exact["logits_last"])
        } else {
            let models = json(&folder.join("../reference.json"))["models"].clone();
            let greedy_ids = ids(&models[name]["greedy"]);
            assert_eq!(greedy(&mut decoder, &tokens, greedy_ids.len()), greedy_ids, "{name}");
            floats(&models[name]["logits_last"])
        };
        let difference = max_difference(&last, &expected);
        println!("{name}: logits differ by {difference:.2e}");
        assert!(difference < 1e-3, "{name}: {difference}");
    }
}

/// The numbers that no file beside a built graph has.
#[test]
fn numbers_of_a_built_graph() {
    let Some(folder) = find_or_skip("onnx/genai-int4", true) else { return };
    let checkpoint = Checkpoint::open(&folder, &OpenOptions::default()).unwrap();
    let hyper = model::HyperParams::read(&checkpoint).unwrap();
    assert_eq!((hyper.width, hyper.n_layers, hyper.n_vocab, hyper.context_length), (64, 3, 512, 256));
    assert_eq!((hyper.layers[0].n_ff, hyper.layers[0].head_dim, hyper.tied_embeddings), (128, 32, Some(true)));
    assert!((hyper.norm_eps - 1e-6).abs() < 1e-9);
    assert_eq!(checkpoint.metadata().get("config.rope_theta").and_then(|v| v.as_f32()), Some(1e6));
    // Kept as they are: 4 bits and a scale and bias of 8 bytes for each 32 weights.
    let tensor = checkpoint.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!((tensor.dtype.block_len(), tensor.dtype.block_bytes()), (32, 24));
}
