//! The tools for scripts: exact ids, exact bytes, the numbers of the reference.

use crate::support::{Home, fixture, json, llama};
use serde_json::Value;

#[test]
fn tokens_of_a_vocabulary_and_back() {
    let Some(folder) = fixture("tokenizers/gguf-vocab") else { return };
    let mut n = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "json") {
            continue;
        }
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let model = folder.join(format!("ggml-vocab-{stem}.gguf"));
        let home = Home::new();
        for case in json(&path)["cases"].as_array().unwrap().iter().take(3) {
            let text = case["text"].as_str().unwrap();
            let run = |more: &[&str]| {
                let base = ["tokenize", "--model", model.to_str().unwrap()];
                home.run_with(&[&base[..], more].concat(), Some(text.as_bytes())).ends_with(0).json()
            };
            assert_eq!(run(&["--no-bos"]), case["ids"], "{text:?}");
            assert_eq!(run(&["--special"]), case["ids_special"], "{text:?}");
            if let Some(decoded) = case["decoded"].as_str() {
                let ids = case["ids"].to_string();
                let back = home.run_with(&["detokenize", "--model", model.to_str().unwrap()], Some(ids.as_bytes()));
                assert_eq!(back.ends_with(0).text(), decoded);
            }
            n += 1;
        }
    }
    assert!(n > 0);
}

#[test]
fn detokenize_refuses_what_is_no_id() {
    let model = llama();
    for input in ["[1, -2]", "[99999999]", "{}", "[1", ""] {
        let ran = Home::new().run_with(&["detokenize", "--model", model.to_str().unwrap()], Some(input.as_bytes()));
        assert!(ran.ends_with(2).err.contains("JSON"), "{input}");
    }
}

#[test]
fn templates_of_files_are_rendered_without_a_model() {
    let Some(path) = fixture("templates/Qwen-Qwen2.5-7B-Instruct.json") else { return };
    let reference = json(&path);
    let home = Home::new();
    home.file("t.jinja", reference["template"].as_str().unwrap());
    let mut n = 0;
    for case in reference["cases"].as_array().unwrap() {
        let Some(expected) = case["expected"].as_str() else { continue };
        home.file("m.json", &case["messages"].to_string());
        let mut vars = case["vars"].as_object().cloned().unwrap_or_default();
        for key in ["bos_token", "eos_token"] {
            vars.insert(key.into(), reference[key].clone());
        }
        if case["tools"].is_array() {
            vars.insert("tools".into(), case["tools"].clone());
        }
        home.file("v.json", &Value::Object(vars).to_string());
        let mut arguments = vec!["template", "--template", "t.jinja", "--messages", "m.json", "--vars", "v.json"];
        arguments.extend(["--now", reference["now"].as_str().unwrap_or("2026-08-18T12:34:56")]);
        if case["add_generation_prompt"] == false {
            arguments.push("--no-generation-prompt");
        }
        assert_eq!(home.run(&arguments).ends_with(0).text(), expected, "{}", case["name"]);
        n += 1;
    }
    assert!(n > 0);
    home.file("t.jinja", "{% if %}");
    let ran = home.run(&["template", "--template", "t.jinja", "--messages", "m.json"]).ends_with(2);
    assert!(ran.err.contains("line 1"), "{}", ran.err);
    home.file("t.jinja", "{{ raise_exception('no') }}");
    home.run(&["template", "--template", "t.jinja", "--messages", "m.json"]).ends_with(1);
}

/// Shape and values of a NumPy file of float32 in C order.
fn npy(bytes: &[u8]) -> (Vec<usize>, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(head.contains("'<f4'") && head.contains("'fortran_order': False"), "{head}");
    let shape = head.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (shape, values)
}

#[test]
fn logits_are_those_of_the_reference() {
    let folder = fixture("archs/llama").unwrap();
    let reference = json(&folder.join("ref.json"));
    let ids = reference["ids"].to_string();
    let (ids, home) = (ids.trim_matches(['[', ']']), Home::new());
    let model = folder.join("model.gguf");
    let base = ["logits", "--model", model.to_str().unwrap(), "--tokens", ids, "--precision", "f32", "--out", "l.npy"];
    home.run(&base).ends_with(0);
    let (shape, values) = npy(&std::fs::read(home.path().join("l.npy")).unwrap());
    let (expected_shape, expected) = npy(&std::fs::read(folder.join("logits.npy")).unwrap());
    assert_eq!(shape, expected_shape);
    let allowed = 0.002 * reference["logits_std"].as_f64().unwrap() as f32 + 0.001;
    let worst = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= allowed, "{worst} > {allowed}");
    home.run(&[&base[..], &["--last"]].concat()).ends_with(0);
    let (shape, last) = npy(&std::fs::read(home.path().join("l.npy")).unwrap());
    assert_eq!(shape, [1, expected_shape[1]]);
    // Another number of rows may be summed in another order.
    let apart = last.iter().zip(&values[values.len() - shape[1]..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(last.len() == shape[1] && apart < 1e-4, "{apart}");
}

#[test]
fn logits_that_fail_leave_no_file() {
    let model = llama();
    let home = Home::new();
    let run =
        |tokens: &str| home.run(&["logits", "--model", model.to_str().unwrap(), "--tokens", tokens, "--out", "l.npy"]);
    assert!(run("1,2,99999999").code != Some(0));
    run("1,x").ends_with(2);
    assert!(!home.path().join("l.npy").exists());
}

#[test]
fn perplexity_agrees_with_the_reference() {
    let folder = fixture("archs/llama").unwrap();
    let reference = json(&folder.join("ref.json"));
    let home = Home::new();
    home.file("t.txt", reference["prompt"].as_str().unwrap());
    let model = folder.join("model.gguf");
    let base = ["perplexity", "--model", model.to_str().unwrap(), "--file", "t.txt", "--precision", "f32"];
    let result = home.run(&[&base[..], &["--json"]].concat()).ends_with(0).json();
    let (nll, expected) = (result["nll"].as_f64().unwrap(), reference["nll"].as_f64().unwrap());
    assert!((nll - expected).abs() < 0.002, "{nll} {expected}");
    let text = home.run(&base).ends_with(0);
    let shown: f64 = text.text().split_whitespace().next().unwrap().parse().unwrap();
    assert!((shown / nll.exp() - 1.0).abs() < 1e-4, "{}", text.text());
}

#[test]
fn bench_has_the_keys_of_the_interface() {
    let model = llama();
    let base = ["bench", "--model", model.to_str().unwrap(), "--prompt-tokens", "16", "--gen-tokens", "4"];
    let more = ["--repeat", "2", "--depth", "8", "--parallel", "2", "--threads", "1"];
    let home = Home::new();
    let result = home.run(&[&base[..], &more, &["--json"]].concat()).ends_with(0).json();
    let keys: Vec<&String> = result.as_object().unwrap().keys().collect();
    let expected =
        ["prefill_tps", "decode_tps", "load_s", "peak_rss_bytes", "kv_bytes", "weights_bytes", "isa", "threads"];
    assert_eq!(keys, expected);
    assert_eq!(result["threads"], 1);
    for key in ["prefill_tps", "decode_tps"] {
        let at = |part: &str| result[key][part].as_f64().unwrap();
        assert!(at("min") > 0.0 && at("min") <= at("median") && at("median") <= at("max"), "{result}");
    }
    home.run(&[&base[..], &more].concat()).ends_with(0);
}

#[test]
fn bench_sweeps_over_what_fits() {
    let model = llama();
    let base = ["bench", "--model", model.to_str().unwrap(), "--sweep", "--repeat", "1", "--threads", "1"];
    let home = Home::new();
    let result = home.run(&[&base[..], &["--ctx", "200", "--json"]].concat()).ends_with(0).json();
    assert_eq!(result["context"], 200);
    assert_eq!(result["prefill"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(result["decode"][0]["depth"], 0);
    let passes = result["passes"].as_array().unwrap();
    assert_eq!(
        passes.iter().map(|row| row["tokens"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 6, 8, 12, 16, 32]
    );
    assert!(passes[3]["draft_ms"]["median"].as_f64().unwrap() > 0.0, "{result}");
    assert!(passes[8].get("batch_ms").is_none());
    let skipped: Vec<&str> = result["skipped"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
    assert!(skipped.iter().any(|why| why.starts_with("prefill 512") && why.contains("200")), "{skipped:?}");
    assert!(home.run(&[&base[..], &["--ctx", "200"]].concat()).ends_with(0).text().contains("pass of"));
    home.run(&[&base[..], &["--depth", "5"]].concat()).ends_with(2);
}

#[test]
fn inspect_shows_what_is_in_the_file() {
    let model = llama();
    let home = Home::new();
    let result =
        home.run(&["inspect", "--model", model.to_str().unwrap(), "--ctx", "64", "--json"]).ends_with(0).json();
    assert_eq!(result["model"]["architecture"], "llama");
    assert_eq!(result["memory"]["context"], 64);
    assert_eq!(result["metadata"]["general.architecture"], "llama");
    assert_eq!(result["memory"]["fits"], true);
    let text = home.run(&["inspect", "--model", model.to_str().unwrap()]).ends_with(0);
    assert!(text.text().contains("[tensors]") && text.text().contains("general.architecture = llama"));
    let Some(vocabulary) = fixture("tokenizers/gguf-vocab/ggml-vocab-qwen2.gguf") else { return };
    home.run(&["inspect", "--model", vocabulary.to_str().unwrap()]).ends_with(0);
}

#[test]
fn models_of_other_programs_are_listed_and_used_by_name() {
    let home = Home::new();
    let folder = home.path().join(".lmstudio/models/someone/small-GGUF");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(llama(), folder.join("small-F16.gguf")).unwrap();
    home.file(".lmstudio/models/someone/broken/broken.gguf", "GGUF and nothing of the kind behind it");
    let rows = home.run(&["models", "--json"]).ends_with(0).json();
    let of = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    let small = of("someone/small-GGUF/small-F16");
    assert_eq!(
        (&small["store"], &small["family"], &small["fits"]),
        (&"LM Studio".into(), &"llama".into(), &true.into())
    );
    assert!(of("someone/broken/broken")["problem"].is_string());
    let text = home.run(&["models"]).ends_with(0);
    assert!(text.text().contains("small-F16") && text.text().contains("F16"), "{}", text.text());
    for name in ["someone/small-GGUF/small-F16", "small-f16"] {
        let facts = home.run(&["inspect", "--model", name, "--json"]).ends_with(0).json();
        assert_eq!(facts["model"]["architecture"], "llama", "{name}");
    }
    std::fs::copy(llama(), folder.join("other.gguf")).unwrap();
    let other = home.path().join(".rustorch/models");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::copy(llama(), other.join("other.gguf")).unwrap();
    assert!(home.run(&["inspect", "--model", "nonesuch"]).ends_with(3).err.contains("nonesuch"));
    home.run(&["inspect", "--model", "other", "--json"]).ends_with(0);
    std::fs::rename(folder.join("other.gguf"), home.path().join(".lmstudio/models/someone/other.gguf")).unwrap();
    std::fs::rename(other.join("other.gguf"), home.path().join(".lmstudio/models/other.gguf")).unwrap();
    let several = home.run(&["inspect", "--model", "OTHER", "--json"]);
    assert!(several.code == Some(0) || several.err.contains("someone/other"), "{}", several.err);
}
