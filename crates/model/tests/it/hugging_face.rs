//! Models in Hugging Face's convention: logits of every family against transformers, the same weights in both conventions,
//! and what a changed `config.json` or tensor gets for an answer.

use crate::fixtures::{entries, find_all, find_or_skip, floats, ids, json, max_difference, npy};
use crate::running::{all_logits, batch, device, greedy, load, load_for, nll};
use checkpoint::{Checkpoint, OpenOptions};
use compute::{KvType, Precision};
use model::{Architecture, Decoder, HyperParams, LoadOptions, RopeParams, RopeScaling};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compares one family's directory; `kept` says whether the repository holds it.
#[track_caller]
fn check(name: &str, kept: bool) {
    let Some(folder) = find_or_skip(&format!("archs/{name}/hf"), kept) else { return };
    let beside = folder.join("..");
    let reference = json(&beside.join("ref.json"));
    let tokens = ids(&reference["ids"]);
    let bound = 0.002 * reference["logits_std"].as_f64().unwrap() as f32 + 0.001;
    let mut decoder = load(&folder, Precision::F32, 512);
    let got = all_logits(&mut decoder, &tokens);
    let difference = max_difference(&got, &npy(&beside.join("logits.npy")));
    assert!(difference <= bound, "{name}: {difference} > {bound}");
    assert!((nll(&got, &tokens) - reference["nll"].as_f64().unwrap()).abs() < 1e-4, "{name}: nll");
    let expected = ids(&reference["greedy"]);
    if reference["greedy_min_gap"].as_f64().unwrap() as f32 > 2.0 * difference {
        assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "{name}");
    }
    // LongRoPE's factors go by the length of the prompt in the reference, by that of the context here.
    let tokens = ids(&reference["short"]["ids"]);
    let last = floats(&reference["short"]["logits_last"]);
    let mut decoder = load_for(&folder, Precision::F32, 512, Some(tokens.len()));
    let got = all_logits(&mut decoder, &tokens);
    let short = max_difference(&got[got.len() - last.len()..], &last);
    assert!(short <= bound, "{name}, short: {short} > {bound}");
    println!("{name}: logits differ by {difference:.2e}, of the short prompt by {short:.2e} (bound {bound:.2e})");
}

/// Every family of which the repository holds a folder.
#[test]
fn every_kept_family() {
    let names = entries("archs");
    let folders = names.iter().filter(|name| find_all(&format!("archs/{name}/hf")).next().is_some());
    let n_seen = folders.inspect(|name| check(name, true)).count();
    assert!(n_seen >= 4 || names.is_empty(), "{n_seen} folders");
}

#[test]
fn other_families() {
    for name in ["mistral", "mixtral", "qwen2", "qwen3", "gemma2", "granite", "olmo2", "smollm3", "gpt2"] {
        check(name, false);
    }
}

/// Every folder below `fixtures/<name>`: its models in both conventions against one set of logits at all positions.
#[track_caller]
fn check_all(name: &str, at_least: usize) {
    let Some(folder) = find_or_skip(name, true) else { return };
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut n_seen = 0;
    let mut wrong = Vec::new();
    for model in folders {
        let reference = json(&model.join("ref.json"));
        let bound = 0.002 * reference["logits_std"].as_f64().unwrap() as f32 + 0.001;
        let expected = npy(&model.join("logits.npy"));
        for path in ["hf", "model.gguf"].map(|file| model.join(file)).iter().filter(|path| path.exists()) {
            let got = all_logits(&mut load(path, Precision::F32, 512), &ids(&reference["ids"]));
            let difference = max_difference(&got, &expected);
            let line = format!("{}: logits differ by {difference:.2e} (bound {bound:.2e})", path.display());
            println!("{line}");
            if difference > bound {
                wrong.push(line);
            }
        }
        n_seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(n_seen >= at_least, "{n_seen} in {name}");
}

/// One feature of a configuration at a time.
#[test]
fn variants() {
    check_all("variants", 15);
}

/// One family after another.
#[test]
fn families() {
    check_all("families", 20);
}

/// The two conventions order the rows of Q and K differently and spell everything differently: the model is the same.
#[test]
fn both_conventions_give_the_same_model() {
    // Where a family's two files do not mean the same (windows and long factors), nothing is compared.
    for name in
        ["llama", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3", "granite", "olmo2", "smollm3"]
    {
        let Some(folder) = find_or_skip(&format!("archs/{name}/hf"), false) else { continue };
        let tokens = ids(&json(&folder.join("../ref.json"))["ids"]);
        let [one, other] =
            ["../model.gguf", "."].map(|path| all_logits(&mut load(&folder.join(path), Precision::F32, 512), &tokens));
        let difference = max_difference(&one, &other);
        println!("{name}: the conventions differ by {difference:.2e}");
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

/// A trained model in every float type, in one file and in shards.
#[test]
fn stories() {
    let Some(folder) = find_or_skip("stories260K", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let prompts = reference["prompts"].as_array().unwrap();
    for name in ["hf", "hf-bf16", "hf-f16", "hf-sharded", "pytorch", "pytorch-legacy", "pytorch-sharded"] {
        let expected = if name == "hf" { &reference["hf_f32"] } else { &reference["hf_dtypes"][name] };
        let mut decoder = load(&folder.join(name), Precision::F32, 32);
        let mut worst = 0f32;
        for (prompt, expected) in prompts.iter().zip(expected.as_array().unwrap()) {
            let tokens = ids(&prompt["ids"]);
            let got = all_logits(&mut decoder, &tokens);
            let last = floats(&expected["logits_last"]);
            worst = worst.max(max_difference(&got[got.len() - last.len()..], &last));
            assert!((nll(&got, &tokens) - expected["nll"].as_f64().unwrap()).abs() < 1e-4, "{name}");
            if !expected["greedy"].is_null() {
                let expected = ids(&expected["greedy"]);
                assert_eq!(greedy(&mut decoder, &tokens, expected.len()), expected, "{name} after {}", prompt["text"]);
            }
        }
        println!("stories, {name}: logits differ by {worst:.2e}");
        assert!(worst < 1e-3, "{name}: {worst}");
    }
}

/// Meta's own names and order of weights.
#[test]
fn stories_as_meta_writes_them() {
    let Some(folder) = find_or_skip("stories260K", false) else { return };
    let reference = json(&folder.join("reference.json"));
    let expected = reference["hf_dtypes"]["hf-bf16"].as_array().unwrap();
    let mut decoder = load(&folder.join("meta"), Precision::F32, 32);
    for (prompt, expected) in reference["prompts"].as_array().unwrap().iter().zip(expected) {
        let got = all_logits(&mut decoder, &ids(&prompt["ids"]));
        let last = floats(&expected["logits_last"]);
        let difference = max_difference(&got[got.len() - last.len()..], &last);
        println!("stories, meta: logits differ by {difference:.2e}");
        assert!(difference < 1e-3, "{difference}");
    }
}

/// A copy of a family's directory that a test may change.
struct Copy(PathBuf);

impl Copy {
    /// `None`: there is no such fixture.
    fn of(folder: &str) -> Option<Copy> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let from = find_or_skip(&format!("{folder}/hf"), true)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hf-{}-{number}", std::process::id()));
        std::fs::create_dir(&to).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::write(to.join(file), std::fs::read(from.join(file)).unwrap()).unwrap();
        }
        Some(Copy(to))
    }

    fn change(&self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let mut config = json(&self.0.join("config.json"));
        change(config.as_object_mut().unwrap());
        std::fs::write(self.0.join("config.json"), config.to_string()).unwrap();
    }

    fn read(&self) -> Result<HyperParams, String> {
        let checkpoint = Checkpoint::open(&self.0, &OpenOptions::default()).map_err(|e| e.to_string())?;
        HyperParams::read(&checkpoint).map_err(|e| e.to_string())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn refusals_name_the_key_of_the_file() {
    let Some(copy) = Copy::of("archs/llama") else { return };
    let good = std::fs::read(copy.0.join("config.json")).unwrap();
    for (key, value, expected) in [
        ("model_type", json!("lama"), "the model_type \"lama\" is not supported; close to it is llama"),
        ("hidden_size", json!("64"), "config.hidden_size"),
        ("hidden_size", json!(0), "config.hidden_size is 0"),
        ("hidden_size", Value::Null, "config.hidden_size is missing"),
        ("hidden_size", json!(32), "model.embed_tokens.weight has the shape [512, 64]"),
        ("vocab_size", json!(511), "has the shape [512, 64], expected [511, 64]"),
        ("vocab_size", json!(1u64 << 40), "config.vocab_size"),
        ("num_hidden_layers", json!(1_000_000_000), "config.num_hidden_layers"),
        ("num_attention_heads", json!(-4), "config.num_attention_heads"),
        ("num_key_value_heads", json!(3), "config.num_key_value_heads is 3"),
        ("head_dim", json!(15), "config.head_dim is 15"),
        ("partial_rotary_factor", json!(1.5), "config.partial_rotary_factor is 24"),
        ("rms_norm_eps", json!("x"), "config.rms_norm_eps"),
        ("rope_theta", json!(-1), "config.rope_theta is -1"),
        ("max_position_embeddings", json!(0), "config.max_position_embeddings is 0"),
        ("hidden_act", json!("mish"), "the activation \"mish\" (config.hidden_act)"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantized by \"gptq\""),
        ("quantization", json!({"bits": 4, "group_size": 64}), "(config.quantization.bits) is not supported"),
        ("rope_scaling", json!({"type": "other"}), "RoPE scaling \"other\" (config.rope_scaling.type)"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "config.rope_scaling.low_freq_factor is missing"),
        ("rope_scaling", json!({"type": "longrope", "long_factor": [1, 1]}), "rope_scaling.long_factor is 2 long"),
        (
            "rope_scaling",
            json!({"type": "longrope", "long_factor": [1, 1, 1, 1, 1, 1, 1, 1]}),
            "short_factor is missing",
        ),
        ("num_local_experts", json!(4), "config.num_experts_per_tok is missing"),
    ] {
        std::fs::write(copy.0.join("config.json"), &good).unwrap();
        copy.change(|config| drop(config.insert(key.to_owned(), value.clone())));
        let error = copy.read().expect_err(key);
        assert!(error.contains(expected), "{key} {value}: {error}");
    }
}

/// A change as RFC 7396 defines it: objects are merged, null removes, anything else takes the place.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().unwrap();
    for (key, value) in patch {
        match value {
            Value::Null => drop(object.remove(key)),
            value => merge(object.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Everything that the support matrix says is refused is refused, with those words.
#[test]
fn refused() {
    let Some(rows) = find_or_skip("refused.json", true) else { return };
    for row in json(&rows).as_array().unwrap() {
        let Some(copy) = Copy::of(row["model"].as_str().unwrap()) else { continue };
        copy.change(|config| {
            let mut changed = Value::Object(std::mem::take(config));
            merge(&mut changed, &row["config"]);
            *config = changed.as_object().unwrap().clone();
        });
        let load = || -> Result<Decoder, String> {
            let checkpoint = Checkpoint::open(&copy.0, &OpenOptions::default()).map_err(|e| e.to_string())?;
            let mut all = |_| ControlFlow::Continue(());
            Decoder::load(&checkpoint, device(Precision::F32), &LoadOptions::default(), &mut all)
                .map_err(|e| e.to_string())
        };
        let expected = row["error"].as_str().unwrap();
        match load() {
            Ok(_) => panic!("{}: loads", row["en"]),
            Err(error) => assert!(error.contains(expected), "{}: {error}", row["en"]),
        }
    }
}

#[test]
fn numbers_are_read_where_they_are() {
    let Some(copy) = Copy::of("archs/llama") else { return };
    let plain = copy.read().unwrap();
    assert_eq!(plain.rope.scaling, RopeScaling::Bands { factor: 8.0, low: 1.0, high: 4.0 });
    assert_eq!((plain.rope.original_context, plain.tied_embeddings), (32, Some(false)));
    // A model with other modalities keeps the language model's numbers in an object of its own.
    copy.change(|config| {
        let inner = std::mem::take(config);
        config.insert("model_type".to_owned(), json!("anything"));
        config.insert("text_config".to_owned(), Value::Object(inner));
    });
    assert_eq!(copy.read().unwrap(), plain);
    // Version 5 of transformers renames RoPE's object and moves the base into it.
    copy.change(|config| {
        let inner = config["text_config"].as_object_mut().unwrap();
        let mut rope = inner.remove("rope_scaling").unwrap();
        rope["rope_theta"] = inner.remove("rope_theta").unwrap();
        inner.insert("rope_parameters".to_owned(), rope);
    });
    assert_eq!(copy.read().unwrap(), plain);
}

#[test]
fn scalings_by_number() {
    let Some(copy) = Copy::of("archs/llama") else { return };
    let with = |rope: Value| {
        copy.change(|config| drop(config.insert("rope_scaling".to_owned(), rope)));
        copy.read().unwrap().rope
    };
    assert_eq!(with(Value::Null).scaling, RopeScaling::None);
    assert_eq!(with(json!({"rope_type": "default"})).scaling, RopeScaling::None);
    assert_eq!(with(json!({"type": "linear", "factor": 4})).scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(with(json!({"type": "dynamic", "factor": 2.0})).scaling, RopeScaling::Dynamic { factor: 2.0 });
    let yarn = with(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}));
    let expected = RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true };
    assert_eq!((yarn.scaling, yarn.original_context), (expected, 64));
    assert!((yarn.magnitude(true) - 1.138_629_4).abs() < 1e-6);
    // The file's factor is the whole magnitude; the two weights make it a ratio.
    let given = with(json!({"type": "yarn", "factor": 4.0, "attention_factor": 1.5}));
    assert!((given.magnitude(true) - 1.5).abs() < 1e-6);
    let ratio = with(json!({"type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}));
    assert!((ratio.magnitude(true) - 1.0).abs() < 1e-6);
}

/// Frequencies and magnitude as transformers 4.57.6 computes them for the context.
#[test]
fn frequencies_against_the_reference() {
    let Some(copy) = Copy::of("archs/llama") else { return };
    let long = json!({"rope_type": "longrope", "original_max_position_embeddings": 64,
        "short_factor": [1, 1, 1, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1, 1.5, 2, 3, 4, 5, 6, 8]});
    #[rustfmt::skip]
    let rows: [(Value, usize, &[f32], f32); 9] = [
        (json!({"rope_type": "dynamic", "factor": 2.0}), 256,
         &[1.0, 0.316_227_76, 0.1, 0.031_622_78, 0.01, 0.003_162_278, 0.001, 0.000_316_227_8], 1.0),
        (json!({"rope_type": "dynamic", "factor": 2.0}), 1024,
         &[1.0, 0.239_481_38, 0.057_351_32, 0.013_734_572, 0.003_289_174, 0.000_787_695_9, 0.000_188_638_47, 4.517_539_5e-5], 1.0),
        (json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}), 256,
         &[1.0, 0.237_170_82, 0.05, 0.007_905_695, 0.0025, 0.000_790_569_5, 0.000_25, 7.905_695e-5], 1.138_629_4),
        (json!({"rope_type": "yarn", "factor": 4.0}), 256,
         &[1.0, 0.256_935_06, 0.0625, 0.013_834_965, 0.0025, 0.000_790_569_5, 0.000_25, 7.905_695e-5], 1.138_629_4),
        (json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 0.7}), 256,
         &[1.0, 0.177_878_11, 0.0125, 0.003_952_847, 0.00125, 0.000_395_284_73, 0.000_125, 3.952_847_3e-5], 1.054_456_5),
        (json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "truncate": false}), 256,
         &[1.0, 0.120_533_99, 0.0125, 0.003_952_847, 0.00125, 0.000_395_284_73, 0.000_125, 3.952_847_3e-5], 1.207_944_2),
        (json!({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0}), 256,
         &[1.0, 0.095_839_98, 0.0125, 0.003_952_847, 0.00125, 0.000_395_284_73, 0.000_125, 3.952_847_3e-5], 1.0),
        (long.clone(), 32,
         &[1.0, 0.316_227_76, 0.1, 0.028_747_98, 0.008_333_333, 0.002_432_521_4, 0.000_714_285_7, 0.000_210_818_51], 1.154_700_5),
        (long, 200,
         &[1.0, 0.210_818_5, 0.05, 0.010_540_925, 0.0025, 0.000_632_455_6, 0.000_166_666_67, 3.952_847_3e-5], 1.154_700_5),
    ];
    for (scaling, context, expected, magnitude) in rows {
        copy.change(|config| {
            config.insert("rope_theta".to_owned(), json!(10_000));
            config.insert("rope_scaling".to_owned(), scaling.clone());
        });
        let rope = copy.read().unwrap().rope;
        let divisors =
            rope.divisors.as_ref().map(|[short, long]| if context > rope.original_context { long } else { short });
        let got = rope.frequencies(divisors.map(Vec::as_slice), context);
        let is_near = |(g, e): (&f32, &f32)| (g - e).abs() <= 2e-6 * e;
        assert!(got.len() == 8 && got.iter().zip(expected).all(is_near), "{scaling}: {got:?} {expected:?}");
        assert!((rope.magnitude(true) - magnitude).abs() < 1e-6, "{scaling}: {}", rope.magnitude(true));
    }
}

#[test]
fn windows_of_the_configuration() {
    let Some(copy) = Copy::of("variants/qwen2-windows") else { return };
    let windows = |change: &[(&str, Value)]| {
        copy.change(|config| {
            change.iter().for_each(|(key, value)| drop(config.insert((*key).to_owned(), value.clone())))
        });
        copy.read().map(|hyper| hyper.layers.iter().map(|l| l.window).collect::<Vec<_>>())
    };
    assert_eq!(windows(&[]), Ok(vec![None, Some(8)]), "layer_types");
    assert_eq!(windows(&[("layer_types", Value::Null)]), Ok(vec![None, Some(8)]), "max_window_layers");
    assert_eq!(windows(&[("max_window_layers", json!(0))]), Ok(vec![Some(8); 2]));
    assert_eq!(windows(&[("use_sliding_window", json!(false))]), Ok(vec![None; 2]));
    assert_eq!(windows(&[("use_sliding_window", Value::Null), ("sliding_window", Value::Null)]), Ok(vec![None; 2]));
    let types = json!(["sliding_attention", "full_attention"]);
    let on = [("use_sliding_window", json!(true)), ("sliding_window", json!(4)), ("layer_types", types)];
    assert_eq!(windows(&on), Ok(vec![Some(4), None]));
    let error = windows(&[("layer_types", json!(["full_attention", "dilated_attention"]))]).unwrap_err();
    assert!(error.contains("\"dilated_attention\" (config.layer_types)"), "{error}");
}

/// A family that only its user knows.
#[test]
fn described_families() {
    let Some(copy) = Copy::of("archs/llama") else { return };
    let plain = copy.read().unwrap();
    copy.change(|config| drop(config.insert("model_type".to_owned(), json!("anything_new"))));
    assert!(copy.read().unwrap_err().contains("\"anything_new\" is not supported"));
    let text = "name = \"anything\"\nmodel_types = [\"anything_new\"]\n[renamed]\nattn_q = \"self_attn.queries\"";
    Architecture::add(Architecture::from_description(text).unwrap());
    let hyper = copy.read().unwrap();
    assert_eq!((hyper.architecture.name, &hyper.layers), ("anything", &plain.layers));
    let checkpoint = Checkpoint::open(&copy.0, &OpenOptions::default()).unwrap();
    let mut all = |_| ControlFlow::Continue(());
    let error = Decoder::load(&checkpoint, device(Precision::F32), &LoadOptions::default(), &mut all).err().unwrap();
    assert!(error.to_string().contains("model.layers.0.self_attn.queries.weight is missing"), "{error}");
}

#[test]
fn expressly_no_soft_cap_is_none() {
    let Some(copy) = Copy::of("variants/gemma2-no-cap") else { return };
    let caps = || copy.read().map(|hyper| (hyper.attention_softcap, hyper.logit_softcap));
    assert_eq!(caps(), Ok((None, Some(30.0))));
    copy.change(|config| drop(config.remove("attn_logit_softcapping")));
    assert_eq!(caps(), Ok((Some(50.0), Some(30.0))));
}

/// What the reference library's class has where a Gemma 4 file says nothing of RoPE.
#[test]
fn rope_that_is_not_told_is_the_familys() {
    let Some(copy) = Copy::of("families/gemma4") else { return };
    let rope = || copy.read().map(|hyper| hyper.rope);
    let told = rope();
    assert!(matches!(told, Ok(RopeParams { scaling: RopeScaling::Leading { .. }, .. })), "{told:?}");
    copy.change(|config| assert!(config.remove("rope_parameters").is_some()));
    assert_eq!(rope(), told);
}

/// Whatever single value is changed, the answer is an error or a model that runs: never a panic.
#[test]
fn changed_configurations_never_panic() {
    for folder in ["variants/llama-yarn", "variants/qwen3_moe-dense-first", "variants/gemma3-vision"] {
        let Some(copy) = Copy::of(folder) else { continue };
        let good = json(&copy.0.join("config.json"));
        let mut keys: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        keys.extend(
            ["layer_types", "partial_rotary_factor", "text_config", "no_rope_layers", "rope_parameters"]
                .map(str::to_owned),
        );
        let values = [
            Value::Null,
            json!(0),
            json!(1),
            json!(3),
            json!(-1),
            json!(1e-45),
            json!(1e300),
            json!(u64::MAX),
            json!("x"),
            json!(true),
            json!([]),
            json!([1, 0, 2]),
            json!(["full_attention", "sliding_attention", "x"]),
            json!({"rope_type": "yarn", "factor": 1e38, "original_max_position_embeddings": 1}),
            json!({"rope_type": "dynamic", "factor": 1e-38}),
            json!({"rope_type": "longrope", "short_factor": [1], "long_factor": [0]}),
        ];
        for (key, value) in keys.iter().flat_map(|key| values.iter().map(move |value| (key, value))) {
            let mut config = good.clone();
            config[key] = value.clone();
            std::fs::write(copy.0.join("config.json"), config.to_string()).unwrap();
            let Ok(checkpoint) = Checkpoint::open(&copy.0, &OpenOptions::default()) else { continue };
            let options = LoadOptions { max_rows: 4, context_length: None };
            let mut all = |_| ControlFlow::Continue(());
            let Ok(mut decoder) = Decoder::load(&checkpoint, device(Precision::F32), &options, &mut all) else {
                continue;
            };
            let Ok(mut cache) = decoder.new_cache(256, KvType::F16) else { continue };
            drop(decoder.forward(&batch(&[1, 2], 0, 0), &mut cache));
        }
    }
}
