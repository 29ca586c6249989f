//! `tokenizer.json` files and the directories they come in: ids and texts as the reference has them, and what is damaged
//! or hostile refused by name.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, OpenOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use text::{ChatTemplate, EncodeOptions, Tokenizer};

use crate::fixtures;
use crate::tokenizers::{Outcome, ids, streamed};

/// A directory with `files` beside weights of no tensors.
pub(crate) fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let weights = [&2u64.to_le_bytes(), b"{}".as_slice()].concat();
    std::fs::write(directory.path().join("model.safetensors"), weights).unwrap();
    std::fs::write(directory.path().join("config.json"), b"{\"model_type\": \"llama\"}").unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    directory
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions { mmap: false, ..OpenOptions::default() }).unwrap()
}

pub(crate) fn tokenizer(files: &[(&str, &[u8])]) -> text::Result<Tokenizer> {
    Tokenizer::from_checkpoint(&open(directory(files).path()))
}

const PLAIN: EncodeOptions = EncodeOptions { bos_eos: false, special: true };
const WHOLE: EncodeOptions = EncodeOptions { bos_eos: true, special: true };

fn check_small(kind: &str) {
    let Some(folder) = fixtures::find("tokenizers/small/hf") else { return };
    let file = std::fs::read(folder.join(format!("{kind}.json"))).unwrap();
    let tokenizer = tokenizer(&[("tokenizer.json", &file)]).unwrap();
    let cases = fixtures::json(&folder.join(format!("{kind}.cases.json")));
    assert_eq!(tokenizer.n_vocab() as u64, cases["vocab_size"].as_u64().unwrap());
    let mut outcome = Outcome::default();
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        outcome.check("ids", text, tokenizer.encode(text, PLAIN), expected.clone());
        outcome.check("special ids", text, tokenizer.encode(text, WHOLE), ids(&case["ids_special"]));
        let decoded = case["decoded_skip_special"].as_str().unwrap();
        let ours = String::from_utf8_lossy(&tokenizer.decode(&expected)).into_owned();
        outcome.check("text", text, ours.as_str(), decoded);
        outcome.check("streamed text", text, streamed(&tokenizer, &expected).as_str(), decoded);
        for typed in
            [tokenizer.encode(text, EncodeOptions::default()), tokenizer.encode_rendered(&tokenizer.protect(text))]
        {
            let controls = typed.iter().filter(|&&id| tokenizer.is_control(id) && Some(id) != tokenizer.bos()).count();
            outcome.check("typed control tokens", text, controls, 0);
        }
    }
    outcome.end(kind);
}

#[test]
fn byte_level_bpe_agrees() {
    for kind in ["bpe-bytelevel-gpt2", "bpe-bytelevel-llama3", "bpe-bytelevel-qwen2", "bpe-added-tokens"] {
        check_small(kind);
    }
}

#[test]
fn bpe_with_byte_fallback_agrees() {
    check_small("bpe-bytefallback-prepend");
    check_small("bpe-bytefallback-metaspace");
}

#[test]
fn unigram_agrees() {
    check_small("unigram-nfkc");
}

#[test]
fn word_piece_agrees() {
    check_small("wordpiece-uncased");
}

#[test]
fn stories_agree() {
    for name in ["hf", "hf-bf16", "hf-sharded", "mlx", "pytorch"] {
        let Some(folder) = fixtures::find("stories260K") else { return };
        let path = folder.join(name);
        if !path.join("tokenizer.json").exists() {
            continue;
        }
        let checkpoint = open(&path);
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), true));
        assert_eq!((tokenizer.end_of_generation(), tokenizer.n_vocab()), ([2].as_slice(), 512));
        let mut outcome = Outcome::default();
        for case in fixtures::json(&folder.join("tokenizer-cases.json")).as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            outcome.check("ids", text, tokenizer.encode(text, WHOLE), ids(&case["hf_ids"]));
            outcome.check("rendered ids", text, tokenizer.encode_rendered(text), {
                let mut expected = ids(&case["hf_ids"]);
                // A text that spells the token has it already.
                if expected.starts_with(&[1, 1]) {
                    expected.remove(0);
                }
                expected
            });
        }
        outcome.end(name);
        let template = ChatTemplate::from_checkpoint(&checkpoint).unwrap().unwrap();
        assert!(template.source().contains("eos_token"), "{name}");
    }
}

#[test]
fn prompts_of_every_architecture_agree() {
    let Some(folder) = fixtures::find("archs") else { return };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut seen = 0;
    for path in paths {
        // The copy in the repository leaves out what other crates' tests do not need.
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/archs").join(&name);
        let model = [path.join("hf"), shared.join("hf")].into_iter().find(|path| path.join("tokenizer.json").exists());
        let Some(model) = model else { continue };
        let reference = fixtures::json(&path.join("ref.json"));
        let tokenizer = Tokenizer::from_checkpoint(&open(&model)).unwrap();
        let prompt = reference["prompt"].as_str().unwrap();
        assert_eq!(tokenizer.encode(prompt, WHOLE), ids(&reference["ids"]), "{name}");
        assert!(!tokenizer.end_of_generation().is_empty(), "{name}");
        seen += 1;
    }
    println!("{seen} architectures");
}

fn check_sentence_piece(kind: &str) {
    let Some(folder) = fixtures::find("tokenizers/small/spm") else { return };
    let file = std::fs::read(folder.join(format!("{kind}.model"))).unwrap();
    let tokenizer = tokenizer(&[("tokenizer.model", &file)]).unwrap();
    let cases = fixtures::json(&folder.join(format!("{kind}.cases.json")));
    assert_eq!(tokenizer.n_vocab() as u64, cases["vocab_size"].as_u64().unwrap());
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    let mut outcome = Outcome::default();
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        outcome.check("ids", text, tokenizer.encode(text, EncodeOptions::default()), expected.clone());
        // The library shows its unknown token, and takes more than its own blank from the start; we do neither.
        let decoded = case["decoded"].as_str().unwrap().replace(" \u{2047} ", "");
        if !decoded.contains('\u{fffd}') && !text.starts_with('\u{2581}') {
            let ours = String::from_utf8_lossy(&tokenizer.decode(&expected)).into_owned();
            outcome.check("text", text, ours, decoded);
        }
    }
    outcome.end(kind);
}

#[test]
fn sentence_piece_bpe_agrees() {
    check_sentence_piece("bpe-bytefallback");
}

#[test]
fn sentence_piece_unigram_agrees() {
    check_sentence_piece("unigram-bytefallback");
    check_sentence_piece("unigram-nmt-nfkc");
}

/// A small file of bytes and a few words, with `changes` (JSON pointer, new value) on top.
fn small(changes: &[(&str, Value)]) -> Vec<u8> {
    let mut vocabulary: serde_json::Map<String, Value> =
        "abcdefgh<>|/sĠ".chars().zip(0..).map(|(c, id)| (c.to_string(), json!(id))).collect();
    for (token, id) in ["ab", "<s>", "<unk>"].into_iter().zip(20..) {
        vocabulary.insert(token.into(), json!(id));
    }
    let mut file = json!({
        "version": "1.0",
        "added_tokens": [{"id": 21, "content": "<s>", "special": true}, {"id": 30, "content": "<|x|>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b"], "unk_token": null},
    });
    for (pointer, value) in changes {
        *file.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
    }
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn damaged_files_are_refused_by_field() {
    let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
    let bomb = json!({"type": "Sequence", "normalizers": vec![replace("aaaaaaaaaa"); 9]});
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let rows: Vec<(Vec<u8>, &[&str])> = vec![
        (b"[]".to_vec(), &["tokenizer.json: model"]),
        (b"{\"model\": \xff}".to_vec(), &["tokenizer.json", "UTF-8"]),
        (b"{}".to_vec(), &["tokenizer.json", "model"]),
        (small(&[])[..200].to_vec(), &["tokenizer.json", "JSON"]),
        (small(&[("/model", json!({"type": "BPE"}))]), &["tokenizer.json: model"]),
        (small(&[("/model/merges", json!(["a zz"]))]), &["tokenizer.json: model", "zz"]),
        (small(&[("/model/vocab", json!({}))]), &["tokenizer.json: model"]),
        (small(&[("/added_tokens/1/id", json!(4_000_000_000u32))]), &["tokenizer.json: model", "4000000000"]),
        (small(&[("/added_tokens", json!([1]))]), &["tokenizer.json: added_tokens"]),
        (small(&[("/normalizer", json!({"type": "Nonesuch"}))]), &["tokenizer.json: normalizer"]),
        (small(&[("/normalizer", bomb)]), &["tokenizer.json: normalizer", "limit"]),
        (small(&[("/decoder", replace(&"a".repeat(300)))]), &["tokenizer.json: decoder", "limit"]),
        (small(&[("/decoder", json!(7))]), &["tokenizer.json: decoder"]),
        (small(&[("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "("}}))]), &["pre_tokenizer"]),
        (small(&[("/post_processor", json!({"type": "X"}))]), &["tokenizer.json: post_processor"]),
        (format!("{{\"model\": {{}}, \"normalizer\": {deep}}}").into_bytes(), &["tokenizer.json"]),
    ];
    for (file, expected) in rows {
        let error = tokenizer(&[("tokenizer.json", &file)]).expect_err(expected[0]).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error} has not {expected:?}");
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }
    let config = |json: &str| tokenizer(&[("tokenizer.json", &small(&[])), ("tokenizer_config.json", json.as_bytes())]);
    let rows = [
        ("{\"bos_token\": \"nonesuch\"}", "tokenizer_config.bos_token"),
        ("{\"eos_token\": {\"content\": \"nonesuch\"}}", "tokenizer_config.eos_token.content"),
        ("{\"eos_token\": 1}", "tokenizer_config.eos_token"),
        ("{\"add_bos_token\": \"yes\"}", "tokenizer_config.add_bos_token"),
        ("{\"added_tokens_decoder\": {\"x\": {\"content\": \"q\"}}}", "added_tokens_decoder"),
    ];
    for (json, expected) in rows {
        let error = config(json).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} has not {expected}");
    }
    let error = tokenizer(&[]).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: there is no such file"), "{error}");
    let generation = ("generation_config.json", b"{\"eos_token_id\": [21, 99]}".as_slice());
    let error = tokenizer(&[("tokenizer.json", &small(&[])), generation]).unwrap_err().to_string();
    assert!(error.contains("generation_config.eos_token_id") && error.contains("99"), "{error}");
}

/// Every byte of a file changed or cut away: an error or a tokenizer that works.
#[test]
fn mutated_files_never_break_anything() {
    let Some(folder) = fixtures::find("tokenizers/small/hf") else { return };
    let mut seed = 1u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for kind in ["bpe-added-tokens", "bpe-bytefallback-metaspace", "unigram-nfkc", "wordpiece-uncased"] {
        let whole = std::fs::read(folder.join(format!("{kind}.json"))).unwrap();
        for round in 0..60 {
            let mut file = whole.clone();
            match round % 3 {
                0 => file.truncate(next(whole.len())),
                1 => file[next(whole.len())] = b"\"{}[],:0-9eatz\\"[next(15)],
                _ => drop(file.drain(next(1000)..1000 + next(200))),
            }
            if let Ok(tokenizer) = tokenizer(&[("tokenizer.json", &file)]) {
                for text in ["", "hello <s></s> Wörld\n\u{1f600} 12", "\u{fdd0}a"] {
                    let ids = tokenizer.encode(text, WHOLE);
                    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()), "{kind} {round}");
                    tokenizer.decode(&ids);
                    streamed(&tokenizer, &ids);
                    tokenizer.encode_rendered(&tokenizer.protect(text));
                }
            }
        }
    }
}

#[test]
fn the_files_beside_it_say_what_begins_and_ends() {
    type Row<'r> = (&'r str, &'r str, Option<u32>, Option<u32>, &'r [u32], &'r [u32]);
    let rows: [Row; 6] = [
        ("{}", "{}", None, None, &[], &[0]),
        ("{\"bos_token\": \"<s>\"}", "{}", Some(21), None, &[], &[0]),
        ("{\"bos_token\": \"<s>\", \"add_bos_token\": true}", "{}", Some(21), None, &[], &[21, 0]),
        ("{\"eos_token\": {\"content\": \"<|x|>\"}, \"add_eos_token\": true}", "{}", None, Some(30), &[30], &[0, 30]),
        ("{\"eos_token\": \"<|x|>\"}", "{\"eos_token_id\": [30, 22]}", None, Some(30), &[22, 30], &[0]),
        ("{\"bos_token\": null}", "{\"eos_token_id\": 22}", None, Some(22), &[22], &[0]),
    ];
    for (config, generation, bos, eos, ends, encoded) in rows {
        let file = small(&[]);
        let files: [(&str, &[u8]); 3] = [
            ("tokenizer.json", &file),
            ("tokenizer_config.json", config.as_bytes()),
            ("generation_config.json", generation.as_bytes()),
        ];
        let tokenizer = tokenizer(&files).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.end_of_generation()), (bos, eos, ends), "{config}");
        assert_eq!(tokenizer.encode("a", WHOLE), encoded, "{config}");
        assert!(ends.iter().all(|&id| tokenizer.is_control(id)), "{config}");
    }
    let extra = b"{\"added_tokens_decoder\": {\"31\": {\"content\": \"[extra]\", \"special\": true}}}";
    let tokenizer = tokenizer(&[("tokenizer.json", &small(&[])), ("tokenizer_config.json", extra)]).unwrap();
    assert_eq!((tokenizer.n_vocab(), tokenizer.encode("a[extra]", PLAIN)), (32, vec![0, 31]));
}

#[test]
fn typed_control_tokens_stay_text_even_where_the_model_spells_them() {
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [
        ["<unk>", 0.0], ["</s>", -1.0], ["<", -5.0], ["/", -5.0], ["s", -5.0], [">", -5.0], ["a", -5.0]]});
    let added = json!([{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "</s>", "special": true}]);
    let changes =
        [("/model", unigram), ("/added_tokens", added), ("/pre_tokenizer", Value::Null), ("/decoder", Value::Null)];
    let tokenizer = tokenizer(&[("tokenizer.json", &small(&changes))]).unwrap();
    let typed = "a</s>a";
    assert_eq!(tokenizer.encode(typed, PLAIN), [6, 1, 6]);
    let expected = [6, 2, 3, 4, 5, 6];
    assert_eq!(tokenizer.encode(typed, EncodeOptions::default()), expected);
    assert_eq!(tokenizer.encode_rendered(&tokenizer.protect(typed)), expected);
    let rendered = format!("</s>{}</s>", tokenizer.protect("a</s>\u{fdd0}"));
    assert_eq!(tokenizer.encode_rendered(&rendered), [1, 6, 2, 3, 4, 5, 0, 1]);
}

#[test]
fn a_pattern_without_end_comes_to_an_end() {
    let split = json!({"type": "Split", "pattern": {"Regex": "(?=(a+)+$b)x|(a|aa)+(?!a)\\b!"}, "behavior": "Isolated",
        "invert": false});
    let steps = json!({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": false}]});
    let tokenizer = tokenizer(&[("tokenizer.json", &small(&[("/pre_tokenizer", steps)]))]).unwrap();
    assert_eq!(tokenizer.encode(&"a".repeat(20_000), PLAIN).len(), 20_000);
}

#[test]
fn templates_are_found_beside_the_weights() {
    let named = br#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    let only = br#"{"chat_template": [{"name": "only", "template": "o"}]}"#;
    let config = br#"{"chat_template": "c"}"#;
    type Row<'r> = (&'r [(&'r str, &'r [u8])], Option<&'r str>);
    let rows: [Row; 7] = [
        (&[], None),
        (&[("tokenizer_config.json", config)], Some("c")),
        (&[("tokenizer_config.json", named)], Some("d")),
        (&[("tokenizer_config.json", only)], None),
        (&[("tokenizer_config.json", config), ("chat_template.jinja", b"j")], Some("j")),
        (&[("chat_template.json", br#"{"chat_template": "k"}"#)], Some("k")),
        (&[("tokenizer_config.json", b"{\"chat_template\": null}")], None),
    ];
    for (files, expected) in rows {
        let template = ChatTemplate::from_checkpoint(&open(directory(files).path())).unwrap();
        assert_eq!(template.as_ref().map(ChatTemplate::source), expected, "{files:?}");
    }
    let folder = ("additional_chat_templates/tool_use.jinja", b"f".as_slice());
    let other = ("chat_templates/rag.jinja", b"r".as_slice());
    type Named<'a> = (&'a [(&'a str, &'a [u8])], &'a [(&'a str, &'a str)]);
    let rows: [Named<'_>; 4] = [
        (&[("tokenizer_config.json", config)], &[]),
        (&[("tokenizer_config.json", named)], &[("default", "d"), ("tool_use", "t")]),
        (&[("tokenizer_config.json", named), folder, other], &[("default", "d"), ("rag", "r"), ("tool_use", "f")]),
        (&[("chat_template.jinja", b"j"), other], &[("rag", "r")]),
    ];
    for (files, expected) in rows {
        let found = ChatTemplate::named_in(&open(directory(files).path())).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, source)| (name.as_str(), source.as_str())).collect();
        assert_eq!(found, expected, "{files:?}");
    }
    let bad: [(&str, &[u8], &str); 4] = [
        ("chat_template.jinja", b"{% if", "template"),
        ("chat_template.jinja", b"\xff", "chat_template.jinja"),
        ("chat_template.json", b"[", "chat_template.json"),
        ("tokenizer_config.json", b"{\"chat_template\": 7}", "chat_template"),
    ];
    for (name, bytes, expected) in bad {
        let error = ChatTemplate::from_checkpoint(&open(directory(&[(name, bytes)]).path())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
