//! The vocabularies of the shared fixtures, token for token as the reference cuts text, and back.

use std::path::Path;

use checkpoint::{Checkpoint, OpenOptions};
use serde_json::Value;
use text::{EncodeOptions, Tokenizer};

use crate::fixtures;

fn open(path: &Path) -> Tokenizer {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    Tokenizer::from_checkpoint(&checkpoint).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().map(|id| u32::try_from(id).unwrap())
}

fn decoded(case: &Value) -> Vec<u8> {
    match (case["decoded"].as_str(), case["decoded_hex"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(hex)) => {
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        }
        (None, None) => panic!("case without decoded text"),
    }
}

/// Collects what disagrees, so that one run shows all of it.
#[derive(Default)]
pub(crate) struct Outcome {
    passed: usize,
    failed: Vec<String>,
}

impl Outcome {
    pub(crate) fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, text: &str, got: T, expected: T) {
        if got == expected {
            self.passed += 1;
        } else {
            let text: String = text.chars().take(60).collect();
            self.failed.push(format!("{what} of {text:?}: got {got:?}, expected {expected:?}"));
        }
    }

    pub(crate) fn end(self, name: &str) {
        println!("{name}: {} checks agree, {} do not", self.passed, self.failed.len());
        let shown: Vec<&str> = self.failed.iter().take(12).map(String::as_str).collect();
        assert!(self.failed.is_empty(), "{name}: {} of {}\n{}", self.failed.len(), self.passed, shown.join("\n"));
    }
}

fn check_vocabulary(name: &str) {
    let Some(folder) = fixtures::find("tokenizers/gguf-vocab") else { return };
    let tokenizer = open(&folder.join(format!("ggml-vocab-{name}.gguf")));
    let file = fixtures::json(&folder.join(format!("{name}.json")));
    let mut outcome = Outcome::default();
    let facts = &file["vocab"];
    assert_eq!(tokenizer.n_vocab() as u64, facts["n_vocab"].as_u64().unwrap());
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (id(&facts["bos"]), id(&facts["eos"])));
    assert_eq!(Some(tokenizer.adds_bos()), facts["add_bos"].as_bool());
    assert_eq!(tokenizer.end_of_generation(), ids(&facts["eog"]));
    for case in file["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let plain = tokenizer.encode(text, EncodeOptions::default());
        let special = tokenizer.encode(text, EncodeOptions { bos_eos: true, special: true });
        outcome.check("ids", text, &plain, &ids(&case["ids"]));
        outcome.check("special ids", text, &special, &ids(&case["ids_special"]));
        outcome.check("text", text, tokenizer.decode(&ids(&case["ids"])), decoded(case));
        let whole = String::from_utf8_lossy(&decoded(case)).into_owned();
        // GPT-2's whole texts are tidied, what streams is not.
        let whole = if name == "gpt-2" { whole.replace("\"'s", "\" 's") } else { whole };
        outcome.check("streamed text", text, streamed(&tokenizer, &ids(&case["ids"])), whole);
        let mut rendered = special;
        if tokenizer.adds_bos() && rendered.first() == rendered.get(1) && rendered.len() > 1 {
            rendered.remove(0);
        }
        outcome.check("rendered ids", text, tokenizer.encode_rendered(text), rendered);
        let typed = tokenizer.encode_rendered(&tokenizer.protect(text));
        let mut expected = plain;
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
            expected.insert(0, bos);
        }
        outcome.check("protected ids", text, typed, expected);
    }
    for case in file["upstream"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        outcome.check("upstream ids", text, tokenizer.encode(text, EncodeOptions::default()), ids(&case["ids"]));
    }
    outcome.end(name);
}

/// What the stream says, put together.
pub(crate) fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.decode_stream();
    let text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text + &stream.finish()
}

#[test]
fn gpt2_agrees() {
    check_vocabulary("gpt-2");
}

#[test]
fn qwen2_agrees() {
    check_vocabulary("qwen2");
}

#[test]
fn llama_agrees() {
    check_vocabulary("llama-spm");
}

#[test]
fn phi3_agrees() {
    check_vocabulary("phi-3");
}

#[test]
fn stories_agrees() {
    let Some(folder) = fixtures::find("stories260K") else { return };
    let tokenizer = open(&folder.join("gguf/stories260K-f32.gguf"));
    let mut outcome = Outcome::default();
    for case in fixtures::json(&folder.join("tokenizer-cases.json")).as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["llama_cpp_ids"]);
        outcome.check("ids", text, tokenizer.encode(text, EncodeOptions { bos_eos: true, special: false }), expected);
    }
    outcome.end("stories260K");
}
