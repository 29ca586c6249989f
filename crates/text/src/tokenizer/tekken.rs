//! Reading `tekken.json`, Mistral's own tokenizer file: tokens in order of rank, an expression that cuts text into words,
//! and special tokens with the ids before all others.
//!
//! The rules are those of the mistral-common library: of the vocabulary only as much is used as
//! `default_vocab_size` says, and special ids without a name are `<SPECIAL_n>`.

use super::byte_text;
use super::split::Splitter;
use super::tiktoken::{base64, ranked};
use super::vocabulary::{Kind, Vocabulary, shown, shown_up_to};
use crate::error::{Error, Result};
use crate::limits;

/// The file.
pub(super) const FILE: &str = "tekken.json";

#[derive(serde::Deserialize)]
struct File<'f> {
    config: Config,
    #[serde(borrow)]
    vocab: Vec<Token<'f>>,
    #[serde(default)]
    special_tokens: Option<Vec<Special>>,
}

#[derive(serde::Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(serde::Deserialize)]
struct Token<'f> {
    rank: usize,
    token_bytes: &'f str,
}

#[derive(serde::Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
}

/// The special tokens of files that name none: those up to version 7 of the format.
const SPECIALS: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

fn wrong(field: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: format!("{FILE}: {field}"), problem: shown_up_to(&problem.into(), 300) }
}

/// The vocabulary in the bytes of the file.
pub(super) fn read(bytes: &[u8]) -> Result<Vocabulary> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| wrong("JSON", error.to_string()))?;
    let Config { pattern, default_vocab_size: n_vocab, default_num_special_tokens: n_special } = file.config;
    if n_vocab > limits::VOCABULARY_TOKENS {
        let limit = limits::VOCABULARY_TOKENS;
        return Err(wrong("config.default_vocab_size", format!("{n_vocab} tokens; the limit is {limit}")));
    }
    let n_ranked = n_vocab.checked_sub(n_special).filter(|&n| n > 0).ok_or_else(|| {
        wrong(
            "config.default_num_special_tokens",
            format!("{n_special} special tokens of {n_vocab} leave none for text"),
        )
    })?;
    let vocab = file.vocab.get(..n_ranked).ok_or_else(|| {
        wrong("vocab", format!("{} tokens where default_vocab_size wants {n_ranked}", file.vocab.len()))
    })?;
    let mut tokens = specials(file.special_tokens, n_special, bytes.len())?;
    let mut kinds = vec![Kind::Control; n_special];
    if let Some(unknown) = kinds.first_mut().filter(|_| tokens.first().is_some_and(|token| token == "<unk>")) {
        *unknown = Kind::Unknown;
    }
    for (rank, token) in vocab.iter().enumerate() {
        let bytes = base64(token.token_bytes.as_bytes()).filter(|bytes| !bytes.is_empty());
        match bytes {
            Some(bytes) if token.rank == rank => tokens.push(bytes.into_iter().map(byte_text::to_char).collect()),
            Some(_) => return Err(wrong("vocab", format!("the token of rank {} has the place {rank}", token.rank))),
            None => return Err(wrong("vocab", format!("token_bytes of rank {rank} is not base64"))),
        }
    }
    kinds.resize(n_vocab, Kind::Normal);
    let mut vocabulary = ranked(FILE, &tokens, kinds)?;
    vocabulary.splitter = Splitter::from_pattern(&pattern).map_err(|problem| wrong("config.pattern", problem))?;
    let find = |name: &str| vocabulary.tokens.find(name.as_bytes()).filter(|&id| (id as usize) < n_special);
    (vocabulary.bos, vocabulary.eos, vocabulary.unknown) = (find("<s>"), find("</s>"), find("<unk>"));
    Ok(vocabulary)
}

/// The names of the special tokens by id.
fn specials(named: Option<Vec<Special>>, n: usize, file_bytes: usize) -> Result<Vec<String>> {
    let field = "special_tokens";
    // Ids without a name need no bytes in the file, but there are never many.
    if n > file_bytes.saturating_add(4096) {
        return Err(wrong(
            "config.default_num_special_tokens",
            format!("{n} special tokens in a file of {file_bytes} bytes"),
        ));
    }
    let standard = || {
        let special = |(rank, name): (usize, &&str)| Special { rank, token_str: (*name).to_owned() };
        SPECIALS.iter().enumerate().map(special).take(n).collect()
    };
    let mut names: Vec<Option<String>> = vec![None; n];
    for Special { rank, token_str } in named.unwrap_or_else(standard) {
        match names.get_mut(rank) {
            Some(name @ None) if !token_str.is_empty() => *name = Some(token_str),
            Some(_) => return Err(wrong(field, format!("'{}' has the rank of another", shown(&token_str)))),
            None => return Err(wrong(field, format!("'{}' has the rank {rank} of {n}", shown(&token_str)))),
        }
    }
    Ok((0..).zip(names).map(|(id, name): (usize, _)| name.unwrap_or_else(|| format!("<SPECIAL_{id}>"))).collect())
}
