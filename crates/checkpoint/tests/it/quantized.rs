//! Directories whose weights are integers beside scales: what the joined tensors hold, and what is refused.

use crate::open::{MAPPED, READ, write};
use checkpoint::Checkpoint;
use serde_json::{Map, Value, json};
use tensor::DType;

/// A tensor of a file in the making.
#[derive(Clone)]
struct Entry {
    name: &'static str,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn entry(name: &'static str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Entry {
    Entry { name, dtype, shape: shape.to_vec(), bytes }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The upper halves of singles.
fn brains(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()[2..].to_vec()).collect()
}

/// The directory of these tensors and this configuration.
fn directory(entries: &[Entry], config: &Value, format: &str) -> tempfile::TempDir {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": format}));
    let mut data = Vec::new();
    for Entry { name, dtype, shape, bytes } in entries {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    write(directory.path(), "model.safetensors", &file);
    write(directory.path(), "config.json", config.to_string().as_bytes());
    directory
}

/// A model that a test may change.
#[derive(Clone)]
struct Model {
    entries: Vec<Entry>,
    config: Value,
    format: &'static str,
}

impl Model {
    fn with(&self, change: impl FnOnce(&mut Model)) -> Model {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn get(&mut self, name: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.name == name).unwrap()
    }

    fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }

    /// The matrix `m.weight`, mapped and read: the same both times.
    #[track_caller]
    fn matrix(&self) -> (DType, Vec<usize>, Vec<f32>) {
        let directory = directory(&self.entries, &self.config, self.format);
        let [one, other] = [MAPPED, READ].map(|options| {
            let model = Checkpoint::open(directory.path(), &options).unwrap();
            assert!(model.metadata().iter().all(|(key, _)| !key.contains("quant")));
            assert_eq!(model.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["m.weight"]);
            let tensor = model.load("m.weight").unwrap();
            assert_eq!(tensor.bytes().len() as u64, model.tensors()[0].bytes);
            (tensor.dtype(), tensor.shape().dims().to_vec(), tensor.to_f32().unwrap())
        });
        assert_eq!(one, other);
        one
    }

    /// The error of opening and loading, which names the file and has all `parts`.
    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let directory = directory(&self.entries, &self.config, self.format);
        let loaded = Checkpoint::open(directory.path(), &MAPPED).and_then(|model| model.load("m.weight").map(drop));
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.len() <= 2000, "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{part} is not in: {error}"));
    }
}

/// Two rows of two groups of 32 levels of 4 bits: level `i` is `i % 16` in the first row, 15 less that in the second.
fn mlx() -> Model {
    let (up, down) = ([0x7654_3210, 0xfedc_ba98], [0x89ab_cdef, 0x0123_4567]);
    let weight = [up, up, up, up, down, down, down, down].concat();
    let entries = vec![
        entry("m.weight", "U32", &[2, 8], words(&weight)),
        entry("m.scales", "BF16", &[2, 2], brains(&[1.0, 0.5, 2.0, -1.0])),
        entry("m.biases", "F32", &[2, 2], singles(&[0.0, -4.0, 0.1, 8.0])),
    ];
    Model { entries, config: json!({"quantization": {"group_size": 32, "bits": 4, "mode": "affine"}}), format: "mlx" }
}

#[test]
fn mlx_groups() {
    let level = |i: usize| (i % 16) as f32;
    let first = (0..64).map(|i| if i < 32 { level(i) } else { 0.5 * level(i) - 4.0 });
    let second = (0..64).map(|i| if i < 32 { 2.0 * (15.0 - level(i)) + 0.1 } else { 8.0 - (15.0 - level(i)) });
    let expected: Vec<f32> = first.chain(second).collect();
    let good = mlx();
    let (dtype, dims, values) = good.matrix();
    assert_eq!((dtype.name(), dims, &values), ("AFFINE4_32", vec![2, 64], &expected));
    // The same in an entry of its own, and under the other name.
    let single = json!({"quantization": {"group_size": 64, "bits": 8, "m": {"group_size": 32, "bits": 4}, "n": false}});
    assert_eq!(good.with(|m| m.config = single).matrix().2, expected);
    assert_eq!(
        good.with(|m| m.config = json!({"quantization_config": {"group_size": 32, "bits": 4}})).matrix().2,
        expected
    );
    // A stack of matrices.
    let stack = good.with(|m| {
        m.get("m.weight").shape = vec![2, 1, 8];
        m.get("m.scales").shape = vec![2, 1, 2];
        m.get("m.biases").shape = vec![2, 1, 2];
    });
    assert_eq!(stack.matrix().1, [2, 1, 64]);
}

#[test]
fn mlx_floats_of_four_bits() {
    let entries = vec![
        entry("m.weight", "U32", &[1, 4], words(&[0x7654_3210, 0xfedc_ba98, 0, 0x7000_0000])),
        entry("m.scales", "U8", &[1, 1], vec![128]),
    ];
    let config = json!({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}});
    let good = Model { entries, config, format: "mlx" };
    let (dtype, dims, values) = good.matrix();
    assert_eq!((dtype.name(), dims), ("MXFP4", vec![1, 32]));
    let codes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    for i in 0..8 {
        assert_eq!((values[i], values[i + 8]), (2.0 * codes[i], -2.0 * codes[i]));
    }
    assert_eq!((values[16], values[30], values[31]), (0.0, 0.0, 12.0));
    good.with(|m| m.entries.push(entry("m.biases", "U8", &[1, 1], vec![0]))).refused(&["m.biases", "no biases"]);
    good.with(|m| m.get("m.scales").dtype = "I8").refused(&["m.scales", "I8", "U8"]);
    for (mode, bits) in [("mxfp8", 8), ("nvfp4", 4), ("x", 4)] {
        let config = json!({"quantization": {"group_size": 32, "bits": bits, "mode": mode}});
        good.with(|m| m.config = config).refused(&["m.weight", mode, "not supported"]);
    }
}

#[test]
fn mlx_refusals() {
    let good = mlx();
    let quantization = |group: i64, bits: i64| json!({"quantization": {"group_size": group, "bits": bits}});
    good.with(|m| m.config = json!({})).refused(&["m.weight", "U32", "quantization"]);
    good.with(|m| m.config = quantization(32, 8)).refused(&["[2, 8]", "[2, 2]", "8 bits", "groups of 32"]);
    good.with(|m| m.config = quantization(64, 4)).refused(&["4 bits", "groups of 64"]);
    good.with(|m| m.config = quantization(0, 4)).refused(&["groups of 0", "not supported"]);
    good.with(|m| m.config = quantization(32, 0)).refused(&["0 bits", "not supported"]);
    good.with(|m| m.config = quantization(32, 7)).refused(&["7 bits", "not supported"]);
    good.with(|m| m.remove("m.scales")).refused(&["`m.scales` is missing"]);
    good.with(|m| m.remove("m.biases")).refused(&["`m.biases`", "missing"]);
    good.with(|m| m.remove("m.weight")).refused(&["`m.weight` is missing"]);
    good.with(|m| m.get("m.weight").dtype = "F32").refused(&["m.weight", "F32", "U32"]);
    good.with(|m| m.get("m.scales").dtype = "I16").refused(&["m.scales", "I16", "BF16"]);
    good.with(|m| m.get("m.scales").shape = vec![1, 4]).refused(&["[1, 4]", "do not fit"]);
    good.with(|m| m.get("m.biases").shape = vec![4, 1]).refused(&["m.biases", "[4, 1]", "[2, 2]"]);
    good.with(|m| m.get("m.weight").shape = vec![16]).refused(&["[16]", "do not fit"]);
    let huge = json!({"quantization": {"group_size": u64::MAX, "bits": 4}});
    good.with(|m| m.config = huge).refused(&["not supported"]);
}

/// 32 inputs, 16 outputs, one group: input `i` of output `o` has the level `(i + o) % 16`, zeros are `o`, scales `o + 1`.
const N_IN: usize = 32;
const N_OUT: usize = 16;

fn level(i: usize, o: usize) -> u32 {
    ((i + o) % 16) as u32
}

fn expected() -> Vec<f32> {
    let weight = |o: usize, i: usize| (o as f32 + 1.0) * (level(i, o) as f32 - o as f32);
    (0..N_OUT).flat_map(|o| (0..N_IN).map(move |i| weight(o, i))).collect()
}

fn halves() -> Vec<u8> {
    (0..N_OUT).flat_map(|o| half::f16::from_f32(o as f32 + 1.0).to_le_bytes()).collect()
}

/// Eight numbers of 4 bits in a word.
fn packed(number: impl Fn(usize) -> u32) -> u32 {
    (0..8).map(|k| (number(k) & 15) << (4 * k)).sum()
}

/// Zeros are stored with `offset` added.
fn gptq(offset: u32) -> Model {
    let levels: Vec<u32> =
        (0..N_IN / 8).flat_map(|r| (0..N_OUT).map(move |o| packed(|k| level(r * 8 + k, o)))).collect();
    let zeros: Vec<u32> = (0..N_OUT / 8).map(|c| packed(|k| (c * 8 + k) as u32 + offset)).collect();
    let entries = vec![
        entry("m.qweight", "I32", &[N_IN / 8, N_OUT], words(&levels)),
        entry("m.qzeros", "I32", &[1, N_OUT / 8], words(&zeros)),
        entry("m.scales", "F16", &[1, N_OUT], halves()),
        entry("m.g_idx", "I32", &[N_IN], words(&[0; N_IN])),
    ];
    let config = json!({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}});
    Model { entries, config, format: "pt" }
}

#[test]
fn gptq_columns() {
    // Stored less one, 0 as 15.
    let first = gptq(15);
    let (dtype, dims, values) = first.matrix();
    assert_eq!((dtype.name(), dims, values), ("AFFINE4_32", vec![N_OUT, N_IN], expected()));
    assert_eq!(first.with(|m| m.remove("m.g_idx")).matrix().2, expected());
    let second = json!({"quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2"});
    assert_eq!(gptq(0).with(|m| m.config = json!({ "quantization_config": second })).matrix().2, expected());
}

/// Groups of inputs in any order: no blocks, but numbers.
#[test]
fn gptq_in_the_order_of_activations() {
    let doubled = halves()
        .as_chunks::<2>()
        .0
        .iter()
        .flat_map(|b| (half::f16::from_le_bytes(*b) * half::f16::from_f32(2.0)).to_le_bytes())
        .collect::<Vec<u8>>();
    let scattered = gptq(15).with(|m| {
        m.config =
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": true}});
        m.get("m.scales").shape = vec![2, N_OUT];
        m.get("m.scales").bytes = [halves(), doubled].concat();
        m.get("m.qzeros").shape = vec![2, N_OUT / 8];
        let zeros = m.get("m.qzeros").bytes.clone();
        m.get("m.qzeros").bytes = zeros.repeat(2);
        m.get("m.g_idx").bytes = words(&(0..N_IN as u32).map(|i| i % 2).collect::<Vec<u32>>());
    });
    let (dtype, dims, values) = scattered.matrix();
    assert_eq!((dtype.name(), dims), ("F16", vec![N_OUT, N_IN]));
    let twice = |(i, value): (usize, f32)| value * if i % 2 == 1 { 2.0 } else { 1.0 };
    assert_eq!(values, expected().into_iter().enumerate().map(twice).collect::<Vec<f32>>());
}

#[test]
fn gptq_refusals() {
    let good = gptq(15);
    let config = |key: &str, value: Value| {
        let mut config = json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
        config[key] = value;
        json!({ "quantization_config": config })
    };
    good.with(|m| m.config = config("bits", json!(5))).refused(&["GPTQ", "5 bits", "not supported"]);
    good.with(|m| m.config = config("bits", json!("4"))).refused_config(&["bits"]);
    good.with(|m| m.config = config("group_size", json!(7))).refused(&["groups of 7", "not supported"]);
    good.with(|m| m.config = config("group_size", json!(16))).refused(&["m.scales", "[1, 16]", "[2, 16]"]);
    good.with(|m| m.config = config("checkpoint_format", json!("marlin"))).refused(&["`marlin`", "not supported"]);
    for name in ["m.qweight", "m.qzeros", "m.scales"] {
        good.with(|m| m.remove(name)).refused(&[name, "missing"]);
        good.with(|m| m.get(name).shape.insert(0, 1)).refused(&[name]);
    }
    good.with(|m| m.get("m.qweight").dtype = "U32").refused(&["m.qweight", "U32", "I32"]);
    good.with(|m| m.get("m.qweight").shape = vec![2, 32]).refused(&["shape"]);
    good.with(|m| m.get("m.g_idx").bytes = words(&[1; N_IN])).refused(&["g_idx", "group 1 of 1"]);
    good.with(|m| m.entries.push(entry("m.weight", "F32", &[1], singles(&[1.0])))).refused(&["m.weight", "as well"]);
}

impl Model {
    /// The error names the configuration.
    #[track_caller]
    fn refused_config(&self, parts: &[&str]) {
        let directory = directory(&self.entries, &self.config, self.format);
        let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{part} is not in: {error}"));
    }
}

fn awq() -> Model {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let levels: Vec<u32> =
        (0..N_IN).flat_map(|i| (0..N_OUT / 8).map(move |c| packed(|k| level(i, c * 8 + ORDER[k])))).collect();
    let zeros: Vec<u32> = (0..N_OUT / 8).map(|c| packed(|k| (c * 8 + ORDER[k]) as u32)).collect();
    let entries = vec![
        entry("m.qweight", "I32", &[N_IN, N_OUT / 8], words(&levels)),
        entry("m.qzeros", "I32", &[1, N_OUT / 8], words(&zeros)),
        entry("m.scales", "F16", &[1, N_OUT], halves()),
    ];
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"});
    Model { entries, config: json!({ "quantization_config": config }), format: "pt" }
}

#[test]
fn awq_words() {
    let good = awq();
    let (dtype, dims, values) = good.matrix();
    assert_eq!((dtype.name(), dims, values), ("AFFINE4_32", vec![N_OUT, N_IN], expected()));
    let version =
        |version: &str| json!({"quantization_config": {"quant_method": "awq", "bits": 4, "version": version}});
    assert_eq!(good.with(|m| m.config = version("GEMM")).matrix().2, expected());
    good.with(|m| m.config = version("gemv")).refused(&["AWQ", "`gemv`", "not supported"]);
    let bits = json!({"quantization_config": {"quant_method": "awq", "bits": 8, "group_size": 32}});
    good.with(|m| m.config = bits).refused(&["AWQ", "8 bits", "not supported"]);
    for name in ["m.qweight", "m.qzeros", "m.scales"] {
        good.with(|m| m.remove(name)).refused(&[name, "missing"]);
        good.with(|m| m.get(name).shape.reverse()).refused(&[name, "shape"]);
    }
}

#[test]
fn floats_of_four_bits_in_stacks() {
    let codes = (0..16).map(|i| (2 * i % 16) | ((2 * i + 1) % 16) << 4).collect();
    let entries = vec![
        entry("m.weight_blocks", "U8", &[1, 1, 1, 16], codes),
        entry("m.weight_scales", "U8", &[1, 1, 1], vec![126]),
    ];
    let config = json!({"quantization_config": {"quant_method": "mxfp4"}});
    let good = Model { entries, config, format: "pt" };
    let (dtype, dims, values) = good.matrix();
    let halves = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0];
    let expected = |i: usize| if i % 16 < 8 { halves[i % 8] } else { -halves[i % 8] };
    assert_eq!((dtype.name(), dims), ("MXFP4", vec![1, 1, 32]));
    assert_eq!(values, (0..32).map(expected).collect::<Vec<f32>>());
    good.with(|m| m.get("m.weight_blocks").shape = vec![1, 2, 1, 8]).refused(&[
        "m.weight_blocks",
        "[1, 2, 1, 8]",
        "16",
    ]);
    good.with(|m| m.get("m.weight_blocks").shape = vec![16]).refused(&["[16]"]);
    good.with(|m| m.get("m.weight_scales").dtype = "I8").refused(&["m.weight_scales", "I8"]);
    good.with(|m| m.remove("m.weight_scales")).refused(&["`m.weight_scales` is missing"]);
}

/// A method that is not known stays in the metadata, by whose name the model is refused.
#[test]
fn other_methods_stay() {
    let plain = Model {
        entries: vec![entry("m.weight", "F32", &[1], singles(&[1.0]))],
        config: json!({"quantization_config": {"quant_method": "fp8"}}),
        format: "pt",
    };
    let directory = directory(&plain.entries, &plain.config, plain.format);
    let model = Checkpoint::open(directory.path(), &MAPPED).unwrap();
    assert_eq!(model.metadata().str("config.quantization_config.quant_method").unwrap(), Some("fp8"));
}
