//! The tokenizer of GPT-2's two files, `vocab.json` (spelling → id) and `merges.txt` (a merge a line, the first ones first):
//! both are put into the form of a `tokenizer.json`, which then runs like any other.
//!
//! How text is cut into words stands in neither; it goes by the class that `tokenizer_config.json` names.

use checkpoint::Checkpoint;
use serde_json::json;
use serde_json::value::RawValue;

use super::tiktoken::class;
use super::vocabulary::shown;
use crate::error::{Error, Result};

/// The two files.
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// What errors about the two together name.
pub(super) const NAME: &str = "vocab.json with merges.txt";

/// The classes whose words are GPT-2's; the first one is that of files without a class.
const GPT2: &[&str] = &[
    "GPT2Tokenizer",
    "BartTokenizer",
    "CodeGenTokenizer",
    "GPTNeoXTokenizer",
    "LongformerTokenizer",
    "RobertaTokenizer",
    "WhisperTokenizer",
];
/// Those with a rule of their own.
const QWEN2: &[&str] = &["Qwen2Tokenizer"];
const QWEN2_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);

/// The text of the `tokenizer.json` that says the same; `None` where one of the files is missing.
pub(super) fn pipeline(checkpoint: &Checkpoint) -> Result<Option<String>> {
    let (Some(vocab), Some(merges)) = (checkpoint.sidecar(VOCAB)?, checkpoint.sidecar(MERGES)?) else {
        return Ok(None);
    };
    let class = class(checkpoint)?;
    let plain = class.map_or(GPT2[0], |class| class.strip_suffix("Fast").unwrap_or(class));
    let starts_with_blank = checkpoint.metadata().bool("tokenizer_config.add_prefix_space")?.unwrap_or(false);
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": starts_with_blank, "trim_offsets": true, "use_regex": use_regex});
    let (normalizer, pre_tokenizer) = if GPT2.contains(&plain) {
        (json!(null), byte_level(true))
    } else if QWEN2.contains(&plain) {
        let split =
            json!({"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": false});
        let steps = json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]});
        (json!({"type": "NFC"}), steps)
    } else {
        let known = [GPT2, QWEN2].concat().join(", ");
        let problem = format!(
            "tokenizer_class '{}' is not known, so how {VOCAB} cuts text is not (known: {known})",
            shown(plain)
        );
        return Err(Error::Vocabulary { key: "tokenizer_config.json".into(), problem });
    };
    let vocab: &RawValue = serde_json::from_slice(&vocab).map_err(|error| wrong(VOCAB, error.to_string()))?;
    let merges = std::str::from_utf8(&merges).map_err(|error| wrong(MERGES, format!("it is not UTF-8: {error}")))?;
    let file = File {
        normalizer,
        pre_tokenizer,
        decoder: byte_level(true),
        model: Model { kind: "BPE", vocab, merges: lines(merges)? },
    };
    serde_json::to_string(&file).map(Some).map_err(|error| wrong(NAME, error.to_string()))
}

/// The merges, each as its two parts.
fn lines(merges: &str) -> Result<Vec<(&str, &str)>> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(merges.lines()) {
        if (number == 1 && line.starts_with("#version")) || line.is_empty() {
            continue;
        }
        match line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
        {
            Some(parts) => all.push(parts),
            None => return Err(wrong(MERGES, format!("line {number} is not two parts with a blank between them"))),
        }
    }
    Ok(all)
}

#[derive(serde::Serialize)]
struct File<'f> {
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    model: Model<'f>,
}

#[derive(serde::Serialize)]
struct Model<'f> {
    #[serde(rename = "type")]
    kind: &'static str,
    vocab: &'f RawValue,
    merges: Vec<(&'f str, &'f str)>,
}

fn wrong(file: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: file.into(), problem: super::vocabulary::shown_up_to(&problem.into(), 300) }
}
