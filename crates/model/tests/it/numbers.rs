//! Numbers of a model: what is read, what is refused and in which words, and the memory plan made from them.

use crate::fixtures::{entries, find_all, mixtures};
use crate::made::{Made, Meta};
use crate::running::device;
use checkpoint::{Checkpoint, OpenOptions};
use compute::{KvType, Precision, cpu};
use model::{Decoder, HyperParams, LoadOptions, MemoryPlan, Retype, RopeScaling};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tensor::{DType, HostTensor, Mixture};

/// Reads a changed good model.
fn read(architecture: &'static str, change: impl FnOnce(&mut Made)) -> Result<HyperParams, String> {
    let mut made = Made::good(architecture);
    change(&mut made);
    HyperParams::read(&made.open()).map_err(|e| e.to_string())
}

#[test]
fn a_good_model() {
    let hyper = read("llama", |_| {}).unwrap();
    assert_eq!((hyper.n_vocab, hyper.width, hyper.n_layers, hyper.context_length), (32, 16, 2, 64));
    let layer = &hyper.layers[1];
    assert_eq!((layer.n_heads, layer.n_kv_heads, layer.head_dim, layer.v_head_dim, layer.n_ff), (4, 2, 4, 4, 24));
    assert_eq!((layer.window, layer.local, layer.rotates), (None, false, true));
    assert_eq!((hyper.attention_scale, hyper.embedding_scale, hyper.logit_scale), (0.5, 1.0, 1.0));
    assert_eq!((hyper.rope.n_dims, hyper.rope.base, hyper.rope.scaling), (4, 10_000.0, RopeScaling::None));
}

#[test]
fn refusals_name_the_key() {
    #[track_caller]
    fn check(key: &str, value: Meta, expected: &str) {
        let error = read("llama", |made| made.set(&format!("llama.{key}"), value)).unwrap_err();
        assert!(error.contains(&format!("llama.{key}")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    check("block_count", Meta::U32(0), "at least 1");
    check("block_count", Meta::U32(4097), "at most 4096");
    check("block_count", Meta::F32(2.0), "integer");
    check("attention.head_count", Meta::U32(0), "at least 1");
    check("attention.head_count", Meta::U32(65_537), "at most 65536");
    check("attention.head_count", Meta::U32(17), "more heads than width");
    check("attention.head_count", Meta::Counts(vec![4]), "there are 2 layers");
    check("attention.head_count_kv", Meta::U32(0), "at least 1");
    check("attention.head_count_kv", Meta::U32(3), "divide the 4 query heads");
    check("attention.head_count_kv", Meta::Counts(vec![2, 0]), "from 1 to 65536");
    check("attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN), "finite");
    check("attention.layer_norm_rms_epsilon", Meta::F32(-1.0), "below 1");
    check("attention.key_length", Meta::U32(0), "at least 1");
    check("context_length", Meta::U32(u32::MAX), "at most");
    check("rope.dimension_count", Meta::U32(3), "even");
    check("rope.dimension_count", Meta::U32(6), "at most 4");
    check("rope.freq_base", Meta::F32(0.0), "above 1");
    check("rope.freq_base", Meta::F32(f32::INFINITY), "finite");
    check("rope.scaling.type", Meta::Text("other"), "\"other\"");
    check("rope.scaling.factor", Meta::F32(-2.0), "positive");
    check("expert_count", Meta::U32(1 << 20), "at most");
    check("nextn_predict_layers", Meta::U32(2), "there are 2 layers in all");
    check("attention.shared_kv_layers", Meta::U32(2), "it must be below 2");
    check("rope.dimension_count_swa", Meta::U32(6), "at most 4");
    check("embedding_length_per_layer_input", Meta::U32(1 << 24), "too wide");
}

#[test]
fn refusals_without_a_key() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Made), expected: &str) {
        let error = read("llama", change).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    check(|m| m.set("general.architecture", Meta::Text("lama")), "\"lama\" is not supported; close to it is llama");
    check(|m| m.unset("general.architecture"), "general.architecture or config.model_type is missing");
    check(|m| m.unset("llama.block_count"), "llama.block_count is missing");
    check(|m| m.unset("llama.feed_forward_length"), "llama.feed_forward_length is missing");
    check(|m| m.unset("llama.attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon is missing");
    check(|m| m.tensors.clear(), "token_embd.weight is missing: the file holds a vocabulary and no model");
    check(|m| m.without("token_embd.weight"), "token_embd.weight is missing");
    check(|m| m.tensor("token_embd.weight", &[32, 8]), "token_embd.weight has the shape [32, 8]");
    let two = |m: &mut Made| {
        m.set("llama.expert_count", Meta::U32(2));
        m.set("llama.expert_used_count", Meta::U32(3));
    };
    check(two, "llama.expert_used_count is 3: there are 2 experts");
    check(|m| m.set("llama.expert_count", Meta::U32(2)), "llama.expert_used_count is missing");
    let short_pattern = |m: &mut Made| {
        m.set("llama.attention.sliding_window", Meta::U32(8));
        m.set("llama.attention.sliding_window_pattern", Meta::Flags(vec![true]));
    };
    check(short_pattern, "llama.attention.sliding_window_pattern is 1 long: there are 2 layers");
}

#[test]
fn layers_may_differ() {
    let hyper = read("llama", |m| {
        m.set("llama.attention.head_count_kv", Meta::Counts(vec![2, 4]));
        m.set("llama.feed_forward_length", Meta::Counts(vec![24, 48]));
        m.set("llama.attention.sliding_window", Meta::U32(16));
        m.set("llama.attention.sliding_window_pattern", Meta::Flags(vec![true, false]));
    });
    let hyper = hyper.unwrap();
    let seen: Vec<_> = hyper.layers.iter().map(|l| (l.n_kv_heads, l.n_ff, l.window, l.local)).collect();
    assert_eq!(seen, [(2, 24, Some(16), false), (4, 48, None, false)]);
}

#[test]
fn layers_share_and_layers_that_guess_do_not_count() {
    let hyper = read("llama", |m| m.set("llama.attention.shared_kv_layers", Meta::U32(1))).unwrap();
    assert_eq!(hyper.layers.iter().map(|l| l.shares).collect::<Vec<_>>(), [None, Some(0)]);
    assert_eq!(hyper.layers.iter().map(|l| l.n_cached_heads()).collect::<Vec<_>>(), [2, 0]);
    let other_kind = |m: &mut Made| {
        m.set("llama.attention.shared_kv_layers", Meta::U32(1));
        m.set("llama.attention.sliding_window", Meta::U32(8));
        m.set("llama.attention.sliding_window_pattern", Meta::Flags(vec![true, false]));
    };
    assert!(read("llama", other_kind).unwrap_err().contains("a layer of each kind before the rest"));
    let hyper = read("llama", |m| m.set("llama.nextn_predict_layers", Meta::U32(1))).unwrap();
    assert_eq!((hyper.n_layers, hyper.layers.len()), (1, 1));
}

#[test]
fn windows_of_each_kind() {
    #[track_caller]
    fn check(architecture: &'static str, window: Option<u32>, expected: [Option<usize>; 2]) {
        let hyper = read(architecture, |m| {
            if let Some(window) = window {
                m.set(&format!("{architecture}.attention.sliding_window"), Meta::U32(window));
            }
        });
        let got: Vec<_> = hyper.unwrap().layers.iter().map(|l| l.window).collect();
        assert_eq!(got, expected, "{architecture} {window:?}");
    }
    check("llama", None, [None, None]);
    check("llama", Some(8), [Some(8), Some(8)]);
    check("phi3", Some(0), [None, None]);
    check("phi3", Some(8), [Some(8), Some(8)]);
    check("gemma2", None, [Some(4096), None]);
    check("gemma2", Some(8), [Some(8), None]);
    check("gemma3", None, [None, None]);
    check("gemma3", Some(8), [Some(8), Some(8)]);
}

#[test]
fn scales_come_from_the_file_or_the_family() {
    let granite = read("granite", |m| {
        m.set("granite.attention.scale", Meta::F32(0.1));
        m.set("granite.embedding_scale", Meta::F32(6.0));
        m.set("granite.residual_scale", Meta::F32(0.25));
        m.set("granite.logit_scale", Meta::F32(2.0));
    });
    let granite = granite.unwrap();
    assert_eq!((granite.attention_scale, granite.embedding_scale), (0.1, 6.0));
    assert_eq!((granite.residual_scale, granite.logit_scale), (0.25, 0.5));
    let gemma = read("gemma2", |_| {}).unwrap();
    assert_eq!((gemma.embedding_scale, gemma.attention_softcap, gemma.logit_softcap), (4.0, Some(50.0), Some(30.0)));
}

#[test]
fn the_plan_adds_up() {
    let checkpoint = Made::good("llama").open();
    let hyper = HyperParams::read(&checkpoint).unwrap();
    // 64 positions · 2 layers · 2 heads · (4 + 4) elements
    for (n_positions, kv_type, kv_bytes) in
        [(64, KvType::F32, 8192), (64, KvType::F16, 4096), (65, KvType::F16, 8192), (0, KvType::F16, 0)]
    {
        let plan = MemoryPlan::new(&checkpoint, &hyper, n_positions, kv_type, 8).unwrap();
        assert_eq!(plan.kv_bytes, kv_bytes, "{n_positions} {kv_type:?}");
        assert_eq!(plan.weights_bytes, checkpoint.tensors().iter().map(|t| t.bytes).sum::<u64>());
        assert_eq!(plan.total_bytes, plan.weights_bytes + plan.kv_bytes + plan.scratch_bytes);
        assert_eq!(plan.total_bytes, plan.rows.iter().map(|row| row.bytes()).sum::<u64>());
    }
    assert!(MemoryPlan::new(&checkpoint, &hyper, usize::MAX, KvType::F16, 8).is_err());
    assert!(MemoryPlan::new(&checkpoint, &hyper, 64, KvType::F16, usize::MAX).is_err());
}

#[test]
fn the_plan_is_what_is_taken() {
    let made = Made::good("llama");
    let checkpoint = made.open();
    let options = LoadOptions { max_rows: 8, context_length: None };
    let mut all = |_| ControlFlow::Continue(());
    let decoder = Decoder::load(&checkpoint, device(Precision::F32), &options, &mut all).unwrap();
    for kv_type in [KvType::F32, KvType::F16] {
        let plan = MemoryPlan::new(&checkpoint, decoder.hyper(), 200, kv_type, 8).unwrap();
        assert_eq!(plan.kv_bytes, decoder.new_cache(200, kv_type).unwrap().bytes() as u64);
        assert_eq!(plan.scratch_bytes, decoder.memory().scratch_bytes);
    }
}

/// The plan of the weights against what the CPU keeps of them once they are loaded: in percent of it.
fn planned(path: &Path, precision: Precision, mixture: Option<&'static Mixture>) -> f64 {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let options = LoadOptions { max_rows: 8, context_length: None };
    let encode = |tensor: &HostTensor, to: DType| {
        let mut out = Vec::new();
        tensor.dtype().transcode(tensor.bytes(), to, &mut out)?;
        Ok(out)
    };
    let retype = mixture.map(|mixture| Retype { mixture, encode: &encode });
    let mut all = |_| ControlFlow::Continue(());
    let decoder = Decoder::load_as(&checkpoint, device(precision), &options, retype.as_ref(), &mut all);
    let decoder = decoder.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept = |dtype, shape: &_, usage| cpu::weight_bytes(precision, dtype, shape, usage);
    let plan = MemoryPlan::quantized(&checkpoint, decoder.hyper(), mixture, &kept, 0, KvType::F16, 8).unwrap();
    plan.weights_bytes as f64 / decoder.memory().weights_bytes as f64 * 100.0
}

/// Types of every kind, as files have them and brought to others: what the device keeps in a form of its own is
/// planned in that form.
#[test]
fn the_plan_is_what_the_device_keeps() {
    let mut cases: Vec<(PathBuf, Option<&str>)> = mixtures().into_iter().map(|(path, ..)| (path, None)).collect();
    for folder in ["archs", "quantized"] {
        for name in entries(folder) {
            let files = ["hf", "model.gguf"].map(|file| format!("{folder}/{name}/{file}"));
            cases.extend(files.iter().filter_map(|file| find_all(file).next()).map(|path| (path, None)));
            let unquantized = find_all(&files[0]).next().filter(|_| folder == "archs");
            let mixtures = ["Q8_0", "Q5_K_M", "Q4_0"].into_iter();
            cases.extend(
                unquantized.into_iter().flat_map(|path| mixtures.clone().map(move |m| (path.clone(), Some(m)))),
            );
        }
    }
    let mut wrong = Vec::new();
    for (path, mixture) in &cases {
        for precision in [Precision::Fast, Precision::F32] {
            let percent = planned(path, precision, mixture.and_then(Mixture::find));
            if !(95.0..=102.0).contains(&percent) {
                wrong.push(format!("{} {mixture:?} {precision:?}: {percent:.1} %", path.display()));
            }
        }
    }
    assert!(cases.len() > 50 && wrong.is_empty(), "{} cases, {wrong:#?}", cases.len());
}
