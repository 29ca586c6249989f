//! Adapters against peft: every base file with every adapter file, several at once, other scales, and none again.

use crate::fixtures::{find_all, find_or_skip, ids, json, max_difference, npy};
use crate::running::{all_logits, load};
use checkpoint::{Checkpoint, OpenOptions};
use compute::Precision;
use model::{Decoder, Error};
use std::path::{Path, PathBuf};

fn adapter(path: &Path) -> Checkpoint {
    Checkpoint::open_adapter(path, &OpenOptions::default()).unwrap()
}

/// The files of a model, in both conventions.
fn bases(base: &str) -> Vec<PathBuf> {
    let folder = find_all(base).next().unwrap();
    [folder.join("hf"), folder.join("model.gguf")].into_iter().filter(|path| path.exists()).collect()
}

/// A fixture's folder, its ids and the allowed difference: 16-bit weights of either kind round otherwise.
fn fixture(name: &str) -> Option<(PathBuf, String, Vec<u32>)> {
    let folder = find_or_skip(&format!("adapters/{name}"), true)?;
    let reference = json(&folder.join("ref.json"));
    Some((folder, reference["base"].as_str().unwrap().to_owned(), ids(&reference["ids"])))
}

#[track_caller]
fn check(name: &str) {
    let Some((folder, base, tokens)) = fixture(name) else { return };
    let mut n_seen = 0;
    for base in bases(&base) {
        let mut decoder = load(&base, Precision::F32, 512);
        let plain = all_logits(&mut decoder, &tokens);
        for which in ["one", "two"] {
            for path in ["", ".gguf", "-mlx"].map(|end| folder.join(format!("{which}{end}"))) {
                if !path.exists() {
                    continue;
                }
                decoder.add_adapter(&adapter(&path), 1.0).unwrap();
                assert!(decoder.memory().adapters_bytes > 0);
                let difference =
                    max_difference(&all_logits(&mut decoder, &tokens), &npy(&folder.join(format!("{which}.npy"))));
                println!("{}: {} {difference:.2e}", base.display(), path.display());
                assert!(difference < 1e-3, "{}: {} {difference}", base.display(), path.display());
                decoder.remove_adapter(0).unwrap();
                assert_eq!(all_logits(&mut decoder, &tokens), plain, "{}", path.display());
                n_seen += 1;
            }
        }
    }
    assert!(n_seen > 0, "{name}");
}

#[test]
fn of_llama() {
    check("llama");
}

#[test]
fn of_experts() {
    check("qwen2_moe");
}

#[test]
fn of_fused_heads() {
    check("gpt_neox");
}

#[test]
fn of_transposed_matrices() {
    check("gpt2");
}

/// Keys and values of latents are one matrix in one convention and two in the other.
#[test]
fn of_latent_attention() {
    check("deepseek_v2");
}

#[test]
fn of_fused_gates() {
    check("glm");
}

#[test]
fn several_with_scales() {
    let Some((folder, base, tokens)) = fixture("llama") else { return };
    let [first, second] = [0.5, -0.75];
    let expected = npy(&folder.join("all.npy"));
    for base in bases(&base) {
        let mut decoder = load(&base, Precision::F32, 512);
        let plain = all_logits(&mut decoder, &tokens);
        decoder.add_adapter(&adapter(&folder.join("one")), first).unwrap();
        decoder.add_adapter(&adapter(&folder.join("two")), 1.0).unwrap();
        assert!(max_difference(&all_logits(&mut decoder, &tokens), &expected) > 0.1);
        decoder.scale_adapter(1, second).unwrap();
        let difference = max_difference(&all_logits(&mut decoder, &tokens), &expected);
        println!("{}: both {difference:.2e}", base.display());
        assert!(difference < 1e-3, "{}: {difference}", base.display());
        let info: Vec<_> = decoder.adapters().iter().map(|a| (a.scale, a.n_matrices, a.rank)).collect();
        assert_eq!(info, [(first, 23, 4), (second, 9, 3)]);
        decoder.scale_adapter(0, 0.0).unwrap();
        decoder.scale_adapter(1, 0.0).unwrap();
        assert_eq!(all_logits(&mut decoder, &tokens), plain);
    }
}

/// A quantized model with an adapter in the fast arithmetic moves as the exact one does.
#[test]
fn quantized_models_keep_their_weights() {
    let Some((folder, base, tokens)) = fixture("llama") else { return };
    let base = find_all(&base).next().unwrap().join("model.gguf");
    let expected = npy(&folder.join("one.npy"));
    let mut decoder = load(&base, Precision::Fast, 512);
    let before = decoder.memory().weights_bytes;
    decoder.add_adapter(&adapter(&folder.join("one")), 1.0).unwrap();
    assert_eq!(decoder.memory().weights_bytes, before);
    let difference = max_difference(&all_logits(&mut decoder, &tokens), &expected);
    assert!(difference < 0.02, "{difference}");
}

#[test]
fn what_does_not_belong_is_refused() {
    let Some((folder, base, tokens)) = fixture("llama") else { return };
    let other = find_all("adapters/qwen2_moe").next().unwrap();
    let bases = bases(&base);
    let mut decoder = load(&bases[0], Precision::F32, 512);
    let plain = all_logits(&mut decoder, &tokens);
    let mut refused = |path: &Path, scale: f32| decoder.add_adapter(&adapter(path), scale).unwrap_err();
    assert!(matches!(refused(&other.join("one.gguf"), 1.0), Error::AdapterFamily { .. }));
    let error = refused(&other.join("one"), 1.0).to_string();
    assert!(error.contains("mlp.") || error.contains("shape"), "{error}");
    assert!(matches!(refused(&folder.join("one"), f32::NAN), Error::AdapterScale { .. }));
    let model = Checkpoint::open(&bases[1], &OpenOptions::default()).unwrap();
    assert!(matches!(decoder.add_adapter(&model, 1.0), Err(Error::NotAnAdapter)));
    assert!(matches!(decoder.remove_adapter(0), Err(Error::NoAdapter { index: 0 })));
    assert!(matches!(decoder.scale_adapter(3, 1.0), Err(Error::NoAdapter { index: 3 })));
    assert!(decoder.adapters().is_empty());
    assert_eq!(all_logits(&mut decoder, &tokens), plain);
}

/// Copies an adapter of peft with a changed configuration and sees what the answer is.
#[track_caller]
fn check_config(changes: serde_json::Value, expected: &str) {
    let Some((folder, base, _)) = fixture("llama") else { return };
    let name = format!("adapter-{}-{}", std::process::id(), expected.len() * 1000 + changes.to_string().len());
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&copy).unwrap();
    let mut config = json(&folder.join("two/adapter_config.json"));
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(copy.join("adapter_config.json"), config.to_string()).unwrap();
    std::fs::copy(folder.join("two/adapter_model.safetensors"), copy.join("adapter_model.safetensors")).unwrap();
    let mut decoder: Decoder = load(&bases(&base)[0], Precision::F32, 16);
    let result = decoder.add_adapter(&adapter(&copy), 1.0);
    std::fs::remove_dir_all(&copy).unwrap();
    let message = result.map_or_else(|error| error.to_string(), |()| "accepted".to_owned());
    assert!(message.contains(expected), "{message}");
}

#[test]
fn configurations() {
    use serde_json::json;
    check_config(json!({}), "accepted");
    check_config(json!({"init_lora_weights": "gaussian", "lora_alpha": 1.5}), "accepted");
    check_config(json!({"peft_type": "IA3"}), "IA3");
    check_config(json!({"use_dora": true}), "DoRA");
    check_config(json!({"bias": "all"}), "trained biases");
    check_config(json!({"modules_to_save": ["lm_head"]}), "modules_to_save");
    check_config(json!({"init_lora_weights": "pissa_niter_4"}), "pissa_niter_4");
    check_config(json!({"alpha_pattern": {"layers.[01].x": 3}}), "regular expression");
    check_config(json!({"lora_alpha": "x"}), "lora_alpha");
    check_config(json!({"lora_alpha": null}), "lora_alpha is missing");
    check_config(json!({"peft_type": null}), "peft_type");
    check_config(json!({"peft_type": null, "lora_parameters": {"scale": "x"}}), "scale");
    check_config(json!({"peft_type": null, "lora_parameters": {"rank": 1}}), "scale is missing");
    check_config(json!({"peft_type": null, "lora_parameters": {"scale": 1}, "fine_tune_type": "dora"}), "dora");
}
