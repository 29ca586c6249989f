//! Directories of Hugging Face's convention with other tensors in them: rare types, other places, missing and needless ones.

use crate::exports::made;
use crate::fixtures::{find_or_skip, ids, json, max_difference};
use crate::running::{all_logits, device};
use checkpoint::{Checkpoint, OpenOptions};
use compute::Precision;
use model::{Decoder, Export, LoadOptions};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tensor::DType;

/// A tensor of a file in the making.
#[derive(Clone)]
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    fn zeros(name: &str, shape: &[usize]) -> Entry {
        let bytes = vec![0; shape.iter().product::<usize>() * 4];
        Entry { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec(), bytes }
    }
}

/// A model as its configuration and tensors.
#[derive(Clone)]
struct Rewritten {
    config: Map<String, Value>,
    tensors: Vec<Entry>,
    prompt: Vec<u32>,
}

impl Rewritten {
    /// `None`: there is no such fixture.
    fn of(name: &str) -> Option<Rewritten> {
        let folder = find_or_skip(&format!("{name}/hf"), true)?;
        let checkpoint = Checkpoint::open(&folder, &OpenOptions::default()).unwrap();
        let tensors = checkpoint.tensors().iter().map(|info| Entry {
            name: info.name.clone(),
            dtype: info.dtype,
            shape: info.shape.dims().to_vec(),
            bytes: checkpoint.load(&info.name).unwrap().bytes().to_vec(),
        });
        let Value::Object(config) = json(&folder.join("config.json")) else { panic!("no object") };
        let mut prompt = ids(&json(&folder.join("../ref.json"))["ids"]);
        prompt.truncate(20);
        Some(Rewritten { config, tensors: tensors.collect(), prompt })
    }

    fn write(&self) -> PathBuf {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rewritten-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut header = Map::new();
        let mut data = Vec::new();
        for entry in &self.tensors {
            let start = data.len();
            data.extend(&entry.bytes);
            let value = json!({"dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [start, data.len()]});
            header.insert(entry.name.clone(), value);
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        std::fs::write(folder.join("model.safetensors"), file).unwrap();
        std::fs::write(folder.join("config.json"), Value::Object(self.config.clone()).to_string()).unwrap();
        folder
    }

    fn load(&self, precision: Precision) -> Result<Decoder, String> {
        let folder = self.write();
        let checkpoint = Checkpoint::open(&folder, &OpenOptions { mmap: false, ..OpenOptions::default() });
        std::fs::remove_dir_all(&folder).unwrap();
        let checkpoint = checkpoint.map_err(|e| e.to_string())?;
        let mut all = |_| ControlFlow::Continue(());
        Decoder::load(&checkpoint, device(precision), &LoadOptions::default(), &mut all).map_err(|e| e.to_string())
    }

    fn logits(&self, precision: Precision) -> Vec<f32> {
        all_logits(&mut self.load(precision).unwrap(), &self.prompt)
    }

    /// All matrices in `dtype`, rounded to the nearest number it has.
    fn encoded(&self, dtype: DType) -> Rewritten {
        let mut all = self.clone();
        for entry in all.tensors.iter_mut().filter(|entry| entry.shape.len() == 2) {
            let values = decoded(entry);
            entry.bytes = match dtype {
                DType::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
                DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                eight_bits => nearest(eight_bits, &values),
            };
            entry.dtype = dtype;
        }
        all
    }
}

fn decoded(entry: &Entry) -> Vec<f32> {
    let mut values = vec![0.0; entry.shape.iter().product()];
    entry.dtype.decode(&entry.bytes, &mut values).unwrap();
    values
}

/// The byte whose number is nearest to each value.
fn nearest(dtype: DType, values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut numbers = vec![0.0; 256];
    dtype.decode(&bytes, &mut numbers).unwrap();
    let distance = |byte: u8, value: f32| (numbers[usize::from(byte)] - value).abs();
    let finite: Vec<u8> = bytes.into_iter().filter(|&b| numbers[usize::from(b)].is_finite()).collect();
    let best =
        |&value: &f32| *finite.iter().min_by(|&&a, &&b| distance(a, value).total_cmp(&distance(b, value))).unwrap();
    values.iter().map(best).collect()
}

/// Weights in a rare type are the same model as their exact values in single precision.
#[test]
fn rare_types() {
    let Some(good) = Rewritten::of("archs/llama") else { return };
    for dtype in [DType::F8_E4M3, DType::F8_E5M2, DType::F64] {
        let rare = good.encoded(dtype);
        let plain = rare.encoded(DType::F32);
        for (precision, bound) in [(Precision::F32, 1e-5), (Precision::Fast, 0.05)] {
            let difference = max_difference(&rare.logits(precision), &plain.logits(precision));
            println!("{dtype} in {precision:?}: logits differ by {difference:.2e} from those of its values in F32");
            assert!(difference <= bound, "{dtype} {precision:?}: {difference}");
        }
    }
}

/// Experts in one tensor of each kind (as Apple's tools write them) become what they become one by one.
#[test]
fn stacks_of_experts_are_exported_like_single_ones() {
    for family in ["archs/qwen3_moe", "archs/mixtral"] {
        let Some(apart) = Rewritten::of(family) else { continue };
        let mut stacked = apart.clone();
        let (experts, others) = stacked.tensors.into_iter().partition(|t| t.name.contains(".experts."));
        stacked.tensors = others;
        let experts: Vec<Entry> = experts;
        for first in experts.iter().filter(|t| t.name.contains(".experts.0.")) {
            let n = experts
                .iter()
                .filter(|t| t.name.starts_with(first.name.split(".0.").next().unwrap_or_default()))
                .count();
            let names = (0..n).map(|i| first.name.replace(".experts.0.", &format!(".experts.{i}.")));
            let all: Vec<&Entry> = names.map_while(|name| experts.iter().find(|t| t.name == name)).collect();
            let new = [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")].into_iter();
            let name = first.name.replace(".experts.0.", ".switch_mlp.");
            let name = new.fold(name, |name, (from, to)| name.replace(&format!(".{from}."), &format!(".{to}.")));
            stacked.tensors.push(Entry {
                name,
                dtype: first.dtype,
                shape: [&[all.len()], first.shape.as_slice()].concat(),
                bytes: all.iter().flat_map(|t| t.bytes.clone()).collect(),
            });
        }
        let [one, other] = [&apart, &stacked].map(|model| {
            let folder = model.write();
            let checkpoint = Checkpoint::open(&folder, &OpenOptions { mmap: false, ..OpenOptions::default() }).unwrap();
            std::fs::remove_dir_all(&folder).unwrap();
            made(&checkpoint, &Export::new(&checkpoint).unwrap())
        });
        assert!(one.keys().any(|name| name.ends_with("ffn_down_exps.weight")), "{:?}", one.keys());
        assert!(one == other, "{family}: {:?} {:?}", one.keys(), other.keys());
    }
}

#[test]
fn a_language_model_among_other_modalities() {
    let Some(good) = Rewritten::of("archs/gemma3") else { return };
    let expected = good.logits(Precision::F32);
    for prefix in ["language_model.model.", "model.language_model.", ""] {
        let mut moved = good.clone();
        moved.tensors.iter_mut().for_each(|t| t.name = t.name.replacen("model.", prefix, 1));
        moved.tensors.push(Entry::zeros("vision_tower.patch.weight", &[2, 3, 2, 2, 2]));
        let mut decoder = moved.load(Precision::F32).unwrap();
        assert_eq!(decoder.unused_tensors(), ["vision_tower.patch.weight"]);
        assert_eq!(all_logits(&mut decoder, &good.prompt), expected, "{prefix}");
    }
}

#[test]
fn an_output_matrix_beside_a_tied_embedding_is_ignored() {
    let Some(good) = Rewritten::of("variants/phi3-partial") else { return };
    let mut copied = good.clone();
    copied.tensors.push(Entry::zeros("lm_head.weight", &[64, 32]));
    assert_eq!(copied.logits(Precision::F32), good.logits(Precision::F32));
    copied.config.insert("tie_word_embeddings".to_owned(), json!(false));
    assert!(copied.logits(Precision::F32).iter().all(|&logit| logit == 0.0));
}

#[test]
fn tensors_must_fit_the_numbers() {
    #[track_caller]
    fn check(family: &str, change: impl FnOnce(&mut Rewritten), expected: &str) {
        let Some(mut model) = Rewritten::of(family) else { return };
        change(&mut model);
        let error = model.load(Precision::F32).err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    fn without(name: &'static str) -> impl FnOnce(&mut Rewritten) {
        move |model| model.tensors.retain(|t| t.name != name)
    }
    fn with(name: &'static str, shape: &'static [usize]) -> impl FnOnce(&mut Rewritten) {
        move |model| {
            model.tensors.retain(|t| t.name != name);
            model.tensors.push(Entry::zeros(name, shape));
        }
    }
    let q = "model.layers.1.self_attn.q_proj.weight";
    check("archs/llama", without(q), "model.layers.1.self_attn.q_proj.weight is missing");
    check("archs/llama", with(q, &[64, 63]), "q_proj.weight has the shape [64, 63], expected [64, 64]");
    check("archs/llama", without("lm_head.weight"), "lm_head.weight is missing");
    check("archs/llama", without("model.embed_tokens.weight"), "model.embed_tokens.weight is missing");
    check(
        "archs/llama",
        without("model.layers.0.post_attention_layernorm.weight"),
        "post_attention_layernorm.weight is missing",
    );
    check(
        "archs/llama",
        with("model.layers.0.self_attn.q_proj.weight_scale", &[1]),
        "no place for, among them model.layers.0",
    );
    check(
        "variants/gemma2-no-cap",
        without("model.layers.1.pre_feedforward_layernorm.weight"),
        "pre_feedforward_layernorm.weight is missing",
    );
    let w1 = "model.layers.0.block_sparse_moe.experts.3.w1.weight";
    check("variants/mixtral-windows", without(w1), "experts.3.w1.weight is missing");
    check(
        "variants/mixtral-windows",
        with(w1, &[48, 32]),
        "experts.3.w1.weight in another type (F32) than its siblings (BF16)",
    );
    check(
        "variants/mixtral-windows",
        with(w1, &[32, 48]),
        "experts.3.w1.weight has the shape [32, 48], expected [48, 32]",
    );
    let one_more = "model.layers.0.block_sparse_moe.experts.4.w1.weight";
    check(
        "variants/mixtral-windows",
        with(one_more, &[48, 32]),
        "no place for, among them model.layers.0.block_sparse_moe.experts.4",
    );
}
