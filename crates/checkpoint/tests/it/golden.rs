//! Files written by llama.cpp: every tensor decodes to the reference's bits.

use crate::{
    fixtures,
    open::{MAPPED, READ},
};
use checkpoint::Checkpoint;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

#[test]
fn quantized_tensors_decode_to_the_reference_bits() {
    let Some(path) = fixtures::find("quants/reference.json") else { return };
    let reference: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut types = BTreeSet::new();
    for (file, facts) in reference["files"].as_object().unwrap() {
        let Some(path) = fixtures::find(&format!("quants/{file}")) else { continue };
        let model = Checkpoint::open(&path, &MAPPED).unwrap();
        let tensors = facts["tensors"].as_object().unwrap();
        assert_eq!(model.tensors().len(), tensors.len());
        for (name, expected) in tensors {
            let info = model.tensor(name).unwrap();
            assert_eq!(info.dtype.name(), expected["type"], "{file} {name}");
            let ne: Vec<u64> = info.shape.dims().iter().rev().map(|d| *d as u64).collect();
            assert_eq!(serde_json::json!(ne), expected["shape"], "{file} {name}");
            let values = model.load(name).unwrap().to_f32().unwrap();
            if let Some(first) = expected["first512"].as_array() {
                for (i, (value, expected)) in values.iter().zip(first).enumerate() {
                    let expected = expected.as_f64().unwrap() as f32;
                    assert!(
                        (value - expected).abs() <= expected.abs() * 1e-6,
                        "{file} {name} [{i}]: {value} {expected}"
                    );
                }
            }
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(digest, expected["sha256_f32"], "{file} {name} {}", info.dtype);
            types.insert(info.dtype);
        }
    }
    assert!(types.len() >= 8, "{types:?}");
}

#[test]
fn a_story_model_is_the_same_in_every_type() {
    let Some(folder) = fixtures::find("stories260K/gguf") else { return };
    let name = "blk.0.attn_q.weight";
    let exact = Checkpoint::open(&folder.join("stories260K-f32.gguf"), &MAPPED).unwrap();
    let exact = exact.load(name).unwrap().to_f32().unwrap();
    let scale = (exact.iter().map(|v| v * v).sum::<f32>() / exact.len() as f32).sqrt();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mapped = Checkpoint::open(&path, &MAPPED).unwrap();
        let read = Checkpoint::open(&path, &READ).unwrap();
        assert_eq!(mapped.metadata().str("general.architecture").unwrap(), Some("llama"));
        assert_eq!(mapped.metadata().string_array("tokenizer.ggml.tokens").unwrap().unwrap().len(), 512);
        for info in mapped.tensors() {
            assert_eq!(mapped.load(&info.name).unwrap().bytes()[..], read.load(&info.name).unwrap().bytes()[..]);
        }
        let tensor = mapped.load(name).unwrap();
        let values = tensor.to_f32().unwrap();
        let squares: f32 = values.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum();
        let error = (squares / exact.len() as f32).sqrt() / scale;
        assert!(error < 0.12, "{} {}: {error}", path.display(), tensor.dtype());
    }
}

#[test]
fn encoders_write_the_bytes_that_llama_cpp_writes() {
    let Some(folder) = fixtures::find("stories260K/gguf") else { return };
    let exact = Checkpoint::open(&folder.join("stories260K-f32.gguf"), &MAPPED).unwrap();
    // These have one reference encoder; the K types' depends on the search for scales.
    for dtype in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"] {
        let path = folder.join(format!("stories260K-ff192-{dtype}.gguf"));
        let quantized = Checkpoint::open(&path, &MAPPED).unwrap();
        let mut n_compared = 0;
        for info in quantized.tensors().iter().filter(|info| info.dtype.name() == dtype) {
            let source = exact.load(&info.name).unwrap();
            if source.shape() != &info.shape {
                continue; // the feed-forward, padded in these files
            }
            let mut bytes = vec![0; info.bytes as usize];
            info.dtype.encode(&source.to_f32().unwrap(), &mut bytes).unwrap();
            let theirs = quantized.load(&info.name).unwrap();
            assert!(bytes[..] == theirs.bytes()[..], "{} in {dtype}", info.name);
            n_compared += 1;
        }
        assert!(n_compared > 10, "{dtype}: {n_compared}");
    }
}
