//! Vocabularies in files other than `tokenizer.json`: tiktoken's, `tekken.json`, `vocab.json` with `merges.txt`.

use serde_json::{Value, json};
use text::{EncodeOptions, Tokenizer};

use crate::fixtures;
use crate::hugging_face::tokenizer;
use crate::tokenizers::{Outcome, ids, streamed};

const TYPED: EncodeOptions = EncodeOptions { bos_eos: false, special: false };
const SPECIAL: EncodeOptions = EncodeOptions { bos_eos: false, special: true };

/// Ids both ways for every case whose `ids` are those of plain text; `first` is the id of the first token of text.
fn check_cases(name: &str, tokenizer: &Tokenizer, cases: &Value, first: u32) {
    let mut outcome = Outcome::default();
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = ids(&case["ids"]).into_iter().map(|id| id + first).collect();
        outcome.check("ids", text, tokenizer.encode(text, TYPED), expected.clone());
        outcome.check("protected ids", text, rendered_without_bos(tokenizer, text), expected.clone());
        let decoded = case["decoded"].as_str().unwrap();
        let ours = String::from_utf8_lossy(&tokenizer.decode(&expected)).into_owned();
        outcome.check("text", text, ours.as_str(), decoded);
        outcome.check("streamed text", text, streamed(tokenizer, &expected).as_str(), decoded);
        if first == 0 {
            outcome.check("special ids", text, tokenizer.encode(text, SPECIAL), ids(&case["ids_special"]));
        }
    }
    outcome.end(name);
}

fn rendered_without_bos(tokenizer: &Tokenizer, typed: &str) -> Vec<u32> {
    let mut ids = tokenizer.encode_rendered(&tokenizer.protect(typed));
    if tokenizer.adds_bos() {
        assert_eq!(Some(ids.remove(0)), tokenizer.bos());
    }
    ids
}

/// tiktoken's fixture: the file, and what tokenizer_config.json says beside it.
fn tiktoken() -> Option<(Vec<u8>, Value, Value, Value)> {
    let folder = fixtures::find("tokenizers/small/tiktoken")?;
    let meta = fixtures::json(&folder.join("gpt2-style.meta.json"));
    let added: serde_json::Map<String, Value> = meta["special_tokens"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, id)| (id.to_string(), json!({"content": name, "special": true})))
        .collect();
    let config = json!({"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": added});
    let cases = fixtures::json(&folder.join("gpt2-style.cases.json"));
    Some((std::fs::read(folder.join("gpt2-style.tiktoken")).unwrap(), meta, config, cases))
}

#[test]
fn tiktoken_agrees() {
    let Some((file, _, config, cases)) = tiktoken() else { return };
    let config = serde_json::to_vec(&config).unwrap();
    // The name is a matter of taste, but for SentencePiece's, which is told by what is in it.
    for name in ["gpt2-style.tiktoken", "tiktoken.model", "tokenizer.model"] {
        let tokenizer = tokenizer(&[(name, &file), ("tokenizer_config.json", &config)]).unwrap();
        assert_eq!((tokenizer.n_vocab(), tokenizer.eos()), (422, Some(420)));
        assert_eq!((tokenizer.is_control(421), tokenizer.adds_bos()), (true, false));
        check_cases(name, &tokenizer, &cases, 0);
    }
}

#[test]
fn tekken_agrees() {
    let Some((file, meta, _, cases)) = tiktoken() else { return };
    let vocab: Vec<Value> = std::str::from_utf8(&file)
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(token, rank)| json!({"rank": rank.parse::<u32>().unwrap(), "token_bytes": token, "token_str": null}))
        .collect();
    let n = vocab.len();
    let config = json!({"pattern": meta["pattern"], "num_vocab_tokens": n, "default_vocab_size": n + 30,
        "default_num_special_tokens": 30, "version": "v3"});
    let mut file = json!({"config": config, "vocab": vocab, "version": 1, "type": "Tekken"});
    let old = tokenizer(&[("tekken.json", &serde_json::to_vec(&file).unwrap())]).unwrap();
    let special = |rank: u32, name: &str| json!({"rank": rank, "token_str": name, "is_control": true});
    file["special_tokens"] = json!([special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"), special(3, "[THINK]")]);
    let new = tokenizer(&[("tekken.json", &serde_json::to_vec(&file).unwrap())]).unwrap();
    for (tokenizer, third) in [(&old, "[INST]"), (&new, "[THINK]")] {
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), true));
        assert_eq!(tokenizer.end_of_generation(), [2]);
        assert_eq!(tokenizer.encode(third, SPECIAL), [3]);
        assert_eq!(tokenizer.encode("<SPECIAL_29>", SPECIAL), [29]);
        assert_eq!(tokenizer.encode_rendered("<s>a</s>"), [1, 30 + 97, 2]);
        check_cases(third, tokenizer, &cases, 30);
    }
    file["config"]["default_vocab_size"] = json!(290);
    let shorter = tokenizer(&[("tekken.json", &serde_json::to_vec(&file).unwrap())]).unwrap();
    assert_eq!(shorter.n_vocab(), 290);
}

/// The two files that say what the model of a `tokenizer.json` says.
fn two_files(kind: &str) -> Option<(Vec<u8>, String, Value)> {
    let folder = fixtures::find("tokenizers/small/hf")?;
    let file = fixtures::json(&folder.join(format!("{kind}.json")));
    let part = |merge: &Value| match merge {
        Value::String(merge) => merge.clone(),
        parts => format!("{} {}", parts[0].as_str().unwrap(), parts[1].as_str().unwrap()),
    };
    let merges: Vec<String> = file["model"]["merges"].as_array().unwrap().iter().map(part).collect();
    let merges = format!("#version: 0.2\n{}\n", merges.join("\n"));
    let added = file["added_tokens"].clone();
    Some((serde_json::to_vec(&file["model"]["vocab"]).unwrap(), merges, added))
}

#[test]
fn vocab_and_merges_agree() {
    for (kind, class) in [("bpe-bytelevel-gpt2", None), ("bpe-bytelevel-qwen2", Some("Qwen2TokenizerFast"))] {
        let Some((vocab, merges, added)) = two_files(kind) else { return };
        let added: serde_json::Map<String, Value> = added
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["content"].as_str().unwrap().into(), t["id"].clone()))
            .collect();
        let names: Vec<&String> = added.keys().collect();
        let special = serde_json::to_vec(&json!({"additional_special_tokens": names})).unwrap();
        let config = serde_json::to_vec(&json!({"tokenizer_class": class})).unwrap();
        let added_file = serde_json::to_vec(&added).unwrap();
        let files: [(&str, &[u8]); 5] = [
            ("vocab.json", &vocab),
            ("merges.txt", merges.as_bytes()),
            ("special_tokens_map.json", &special),
            ("added_tokens.json", &added_file),
            ("tokenizer_config.json", &config),
        ];
        let tokenizer = tokenizer(&files).unwrap();
        let cases = fixtures::find("tokenizers/small/hf").unwrap().join(format!("{kind}.cases.json"));
        let mut outcome = Outcome::default();
        for case in fixtures::json(&cases)["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            outcome.check("ids", text, tokenizer.encode(text, SPECIAL), expected.clone());
            let decoded = case["decoded_skip_special"].as_str().unwrap();
            let ours = String::from_utf8_lossy(&tokenizer.decode(&expected)).into_owned();
            outcome.check("text", text, ours.as_str(), decoded);
            let typed = tokenizer.encode(text, TYPED);
            outcome.check("controls", text, typed.iter().filter(|&&id| tokenizer.is_control(id)).count(), 0);
        }
        outcome.end(kind);
    }
}

const TIKTOKEN: &str = "a.tiktoken";

#[test]
fn damaged_files_are_refused_by_name() {
    let bytes: String = (0..256u32).map(|byte| format!("{} {byte}\n", base64(byte as u8))).collect();
    let class = ("tokenizer_config.json", br#"{"tokenizer_class": "GPT2Tokenizer"}"#.as_slice());
    let unknown = ("tokenizer_config.json", br#"{"tokenizer_class": "Nonesuch"}"#.as_slice());
    let added =
        br#"{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"7": {"content": "<x>", "special": true}}}"#;
    let far = br#"{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"4000000000": {"content": "<x>"}}}"#;
    let ranks = |more: &str| format!("{bytes}{more}").into_bytes();
    let tekken = |config: Value, vocab: Value| serde_json::to_vec(&json!({"config": config, "vocab": vocab})).unwrap();
    let config = |n: u64, special: u64, pattern: &str| json!({"pattern": pattern, "default_vocab_size": n, "default_num_special_tokens": special});
    let token = json!([{"rank": 0, "token_bytes": "AA=="}, {"rank": 5, "token_bytes": "AQ=="}]);
    let merges = ("merges.txt", b"a b\n".as_slice());
    type Row<'r> = (Vec<(&'r str, Vec<u8>)>, &'r [&'r str]);
    let rows: Vec<Row> = vec![
        (
            vec![(TIKTOKEN, ranks("")), (class.0, b"{}".to_vec())],
            &["tokenizer_config.json", "tokenizer_class is missing"],
        ),
        (vec![(TIKTOKEN, ranks("")), (unknown.0, unknown.1.to_vec())], &["Nonesuch", "known: GPT2Tokenizer"]),
        (vec![(TIKTOKEN, ranks("IQ==\n")), (class.0, class.1.to_vec())], &[TIKTOKEN, "line 257"]),
        (vec![(TIKTOKEN, ranks("IQ 3 4\n")), (class.0, class.1.to_vec())], &[TIKTOKEN, "line 257"]),
        (vec![(TIKTOKEN, ranks("I!== 300\n")), (class.0, class.1.to_vec())], &[TIKTOKEN, "line 257"]),
        (vec![(TIKTOKEN, ranks("IQ== 5\n")), (class.0, class.1.to_vec())], &[TIKTOKEN, "rank 5", "twice"]),
        (vec![(TIKTOKEN, ranks("IQ== 99999999999\n")), (class.0, class.1.to_vec())], &[TIKTOKEN, "99999999999"]),
        (vec![(TIKTOKEN, bytes.as_bytes()[7..].to_vec()), (class.0, class.1.to_vec())], &[TIKTOKEN, "byte 0x00"]),
        (vec![(TIKTOKEN, ranks("")), (class.0, added.to_vec())], &[TIKTOKEN, "'<x>'", "another"]),
        (vec![(TIKTOKEN, ranks("")), (class.0, far.to_vec())], &[TIKTOKEN, "4000000000"]),
        (vec![(TIKTOKEN, b"\n".to_vec()), (class.0, class.1.to_vec())], &[TIKTOKEN, "byte 0x00"]),
        (vec![(TIKTOKEN, ranks("")), ("b.tiktoken", ranks(""))], &["tiktoken", "which one"]),
        (vec![("tekken.json", b"{".to_vec())], &["tekken.json: JSON"]),
        (vec![("tekken.json", tekken(config(10, 10, "a"), json!([])))], &["default_num_special_tokens"]),
        (vec![("tekken.json", tekken(config(1 << 40, 1, "a"), json!([])))], &["default_vocab_size", "limit"]),
        (vec![("tekken.json", tekken(config(1 << 24, (1 << 24) - 1, "a"), token.clone()))], &["default_num_special"]),
        (vec![("tekken.json", tekken(config(9, 2, "a"), token.clone()))], &["tekken.json: vocab", "2 tokens"]),
        (vec![("tekken.json", tekken(config(4, 2, "a"), token.clone()))], &["tekken.json: vocab", "rank 5"]),
        (vec![("tekken.json", tekken(config(3, 2, "a"), token))], &["tekken.json", "byte 0x01"]),
        (vec![("vocab.json", b"{\"a\": 0".to_vec()), ("merges.txt", merges.1.to_vec())], &["vocab.json"]),
        (vec![("vocab.json", b"{\"a\": 0}".to_vec()), ("merges.txt", b"ab\n".to_vec())], &["merges.txt", "line 1"]),
        (vec![("vocab.json", b"{\"a\": 0}".to_vec()), ("merges.txt", b"\xff\n".to_vec())], &["merges.txt", "UTF-8"]),
        (vec![("vocab.json", b"{\"a\": 0}".to_vec()), ("merges.txt", merges.1.to_vec())], &["vocab.json with merges"]),
        (
            vec![
                ("vocab.json", b"{\"a\": 0}".to_vec()),
                ("merges.txt", b"\n".to_vec()),
                (unknown.0, unknown.1.to_vec()),
            ],
            &["Nonesuch"],
        ),
        (vec![("vocab.json", b"{\"a\": 0}".to_vec())], &["there is no such file", "merges.txt"]),
    ];
    for (files, expected) in rows {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        let error = tokenizer(&files).expect_err(&format!("{expected:?}")).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error} has not {expected:?}");
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }
}

fn base64(byte: u8) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |n: u8| char::from(digits[usize::from(n)]);
    format!("{}{}==", digit(byte >> 2), digit((byte & 3) << 4))
}

#[test]
fn a_megabyte_of_one_character_is_no_trouble() {
    let Some((file, _, config, _)) = tiktoken() else { return };
    let config = serde_json::to_vec(&config).unwrap();
    let tokenizer = tokenizer(&[("a.tiktoken", &file), ("tokenizer_config.json", &config)]).unwrap();
    for text in ["a", " ", "^", "\u{1f600}"] {
        let text = text.repeat((1 << 20) / text.len());
        assert!(tokenizer.decode(&tokenizer.encode(&text, SPECIAL)) == text.as_bytes());
    }
}
