//! What other programs say: gguf-py's values of the same bytes, and the error of ggml's quantizers on the same numbers.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tensor::DType;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("blocks").join(name)).unwrap()).unwrap()
}

/// Knuth's MMIX generator, as in the script that made the fixtures.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    }
}

/// Where the upper byte of each half-precision scale lies in a block; its exponent's upper bit is cleared.
fn scales(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::IQ1_M => &[55],
        DType::TQ1_0 => &[53],
        DType::TQ2_0 => &[65],
        DType::Q2_K => &[81, 83],
        DType::Q3_K => &[109],
        DType::Q6_K => &[209],
        DType::NVFP4 | DType::MXFP4 => &[],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[1, 3],
        _ => &[1],
    }
}

#[test]
fn random_blocks_decode_bit_for_bit() {
    let reference = json("decode.json");
    let n_blocks = reference["n_blocks"].as_u64().unwrap() as usize;
    let types = reference["types"].as_object().unwrap();
    for (name, expected) in types {
        let dtype = DType::from_name(name).unwrap();
        let mut random = Random(1);
        let mut bytes: Vec<u8> = (0..n_blocks * dtype.block_bytes()).map(|_| random.byte()).collect();
        for block in bytes.chunks_mut(dtype.block_bytes()) {
            scales(dtype).iter().for_each(|&at| block[at] &= 0xbf);
            if dtype == DType::MXFP4 {
                block[0] &= 0x7f;
            }
        }
        let mut values = vec![f32::NAN; n_blocks * dtype.block_len()];
        dtype.decode(&bytes, &mut values).unwrap();
        for (i, (value, expected)) in values.iter().zip(expected["first"].as_array().unwrap()).enumerate() {
            assert_eq!(*value, expected.as_f64().unwrap() as f32, "{name}: value {i}");
        }
        let hash = Sha256::digest(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, expected["sha256_f32"].as_str().unwrap(), "{name}");
    }
    let blocks = DType::ALL.iter().filter(|dtype| dtype.is_quantized() && dtype.gguf().is_some());
    for dtype in blocks.filter(|dtype| **dtype != DType::Q8_K) {
        assert!(types.contains_key(dtype.name()), "{dtype} has no reference");
    }
}

/// Sums of twelve uniform numbers, every 61st one `factor` times as large.
fn normal(n: usize, factor: f32) -> Vec<f32> {
    let mut random = Random(7);
    let mut values: Vec<f32> = (0..n).map(|_| (0..12).map(|_| random.uniform()).sum::<f64>() as f32 * 0.02).collect();
    values.iter_mut().step_by(61).for_each(|value| *value *= factor);
    values
}

/// The values of a tensor in another fixture.
fn stored(place: &Value) -> Vec<f32> {
    let dtype = DType::from_name(place["dtype"].as_str().unwrap()).unwrap();
    let file = std::fs::read(fixtures().join(place["file"].as_str().unwrap())).unwrap();
    let mut values = vec![0.0; place["n"].as_u64().unwrap() as usize];
    let offset = place["offset"].as_u64().unwrap() as usize;
    dtype.decode(&file[offset..offset + dtype.row_bytes(values.len()).unwrap()], &mut values).unwrap();
    values
}

fn mean_squared_error(dtype: DType, values: &[f32]) -> f64 {
    let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
    dtype.encode(values, &mut bytes).unwrap();
    let mut back = vec![f32::NAN; values.len()];
    dtype.decode(&bytes, &mut back).unwrap();
    let squares: f64 = values.iter().zip(&back).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    squares / values.len() as f64
}

/// How much more than the reference quantizer we may err.
const MARGIN: f64 = 1.02;

#[test]
fn encoders_err_no_more_than_the_reference() {
    let reference = json("encode.json");
    let mut worse = Vec::new();
    for (input, place) in reference.as_object().unwrap() {
        let n = place["n"].as_u64().unwrap() as usize;
        let values = match input.as_str() {
            "normal" => normal(n, 1.0),
            "outliers" => normal(n, 12.0),
            _ => stored(place),
        };
        for (name, theirs) in place["mse"].as_object().unwrap() {
            let ratio = mean_squared_error(DType::from_name(name).unwrap(), &values) / theirs.as_f64().unwrap();
            println!("{input} {name}: {ratio:.4} of the reference's error");
            if ratio > MARGIN {
                worse.push(format!("{input} {name}: {ratio:.4}"));
            }
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}
