//! Reading vocabularies of the tiktoken library: `*.tiktoken`, or a `tokenizer.model` or `tiktoken.model` that is one, a line
//! of base64 and a rank for each token.
//!
//! Such a file says neither how text is cut into words nor what the special tokens are: Python code beside it does, which is
//! never run. What that code says is a fact of the few families that ship such files; it is told by the class that
//! `tokenizer_config.json` names, and its `added_tokens_decoder` has the special tokens, or else [`LAYOUTS`].

use checkpoint::Checkpoint;

use super::added::AddedToken;
use super::byte_text;
use super::split::{PreTokenizer, Splitter};
use super::table::TokenTable;
use super::vocabulary::{Kind, TokenizerModel, Vocabulary, shown, shown_up_to};
use crate::error::{Error, Result};
use crate::limits;

/// How the files of this kind end.
pub(super) const SUFFIX: &str = ".tiktoken";
/// The files of this kind that have a name of their own.
pub(super) const FILES: [&str; 2] = ["tiktoken.model", "tokenizer.model"];

/// What the code beside a vocabulary says.
struct Layout {
    /// Names of the class.
    classes: &'static [&'static str],
    /// How text is cut into words, by a name of `tokenizer.ggml.pre`.
    words: &'static str,
    /// Whether text is brought to normal form C first.
    composes: bool,
    /// The special tokens after the ranked ones, where `tokenizer_config.json` does not list them.
    specials: fn() -> Vec<String>,
    bos: Option<&'static str>,
    eos: Option<&'static str>,
}

const LAYOUTS: &[Layout] = &[
    Layout {
        classes: &["GPT2Tokenizer"],
        words: "gpt-2",
        composes: false,
        specials: Vec::new,
        bos: None,
        eos: Some("<|endoftext|>"),
    },
    Layout {
        classes: &["QWenTokenizer", "QwenTokenizer"],
        words: "qwen2",
        composes: true,
        specials: || named(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], (0..205).map(|i| format!("<|extra_{i}|>"))),
        bos: None,
        eos: Some("<|endoftext|>"),
    },
    Layout {
        classes: &["ChatGLM4Tokenizer"],
        words: "glm4",
        composes: false,
        specials: Vec::new,
        bos: None,
        eos: Some("<|endoftext|>"),
    },
    Layout {
        classes: &["TikTokenTokenizer"],
        words: "kimi-k2",
        composes: false,
        specials: Vec::new,
        bos: Some("[BOS]"),
        eos: Some("[EOS]"),
    },
    LLAMA3,
];

/// The layout of a file of [`LLAMA3_RANKS`] ranks without a class: Meta's own directories have no `tokenizer_config.json`.
const LLAMA3: Layout = Layout {
    classes: &["Llama3Tokenizer"],
    words: "llama3",
    composes: false,
    specials: || {
        let names = [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>",
            "<|step_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
        ];
        named(names, (2..247).map(|i| format!("<|reserved_special_token_{i}|>")))
    },
    bos: Some("<|begin_of_text|>"),
    eos: Some("<|end_of_text|>"),
};
const LLAMA3_RANKS: usize = 128_000;

fn named<const N: usize>(names: [&str; N], more: impl Iterator<Item = String>) -> Vec<String> {
    names.into_iter().map(str::to_owned).chain(more).collect()
}

/// Whether the beginning of a file is a line of base64 and a number.
pub(super) fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.iter().position(|&byte| byte == b'\n').and_then(|end| bytes.get(..end));
    line.filter(|line| line.len() < 1024).is_some_and(|line| entry(line).is_some())
}

/// The vocabulary in `bytes` of `file`, with the special tokens that `added` or the layout has; `class` is what
/// `tokenizer_config.json` calls the tokenizer.
pub(super) fn read(file: &str, bytes: &[u8], class: Option<&str>, added: &[AddedToken]) -> Result<Vocabulary> {
    let mut tokens = ranks(file, bytes)?;
    let layout = layout(file, class, tokens.len())?;
    let first = tokens.len();
    let names = if added.is_empty() { (layout.specials)() } else { Vec::new() };
    let names = (first..).zip(names.into_iter().map(|name| (name, Kind::Control)));
    let added = added.iter().map(|token| {
        let kind = if token.special { Kind::Control } else { Kind::UserDefined };
        (token.id as usize, (token.content.clone(), kind))
    });
    let specials: Vec<(usize, (String, Kind))> = names.chain(added).collect();
    let n_vocab = specials.iter().map(|(id, _)| id + 1).max().unwrap_or(first).max(first);
    let most = first.saturating_mul(4).saturating_add(4096);
    if n_vocab > most {
        return Err(wrong(file, format!("a special token has the id {}, after {first} tokens", n_vocab - 1)));
    }
    let mut kinds = vec![Kind::Normal; first];
    tokens.resize(n_vocab, String::new());
    kinds.resize(n_vocab, Kind::Unused);
    for (id, (name, kind)) in specials {
        match tokens.get_mut(id).zip(kinds.get_mut(id)) {
            Some((token, slot)) if token.is_empty() || *token == name => (*token, *slot) = (name, kind),
            _ => return Err(wrong(file, format!("the special token '{}' has the id of another token", shown(&name)))),
        }
    }
    let mut vocabulary = ranked(file, &tokens, kinds)?;
    vocabulary.splitter = Splitter::new(PreTokenizer::find(layout.words)?)?;
    vocabulary.composes = layout.composes;
    let control = |name: &str| vocabulary.tokens.find(name.as_bytes());
    (vocabulary.bos, vocabulary.eos) = (layout.bos.and_then(control), layout.eos.and_then(control));
    Ok(vocabulary)
}

/// A vocabulary of tokens in the alphabet of bytes, without a splitter. Error: a byte has no token.
pub(super) fn ranked(file: &str, tokens: &[String], kinds: Vec<Kind>) -> Result<Vocabulary> {
    let mut vocabulary =
        Vocabulary::new(TokenizerModel::Bpe, TokenTable::new(tokens.iter().map(|token| token.as_bytes())));
    vocabulary.kinds = kinds;
    vocabulary.ranked = true;
    let missing = (0..=255).find(|&byte| {
        let mut buffer = [0; 4];
        vocabulary.text_token(byte_text::to_char(byte).encode_utf8(&mut buffer).as_bytes()).is_none()
    });
    match missing {
        Some(byte) => Err(wrong(file, format!("the byte {byte:#04x} has no token"))),
        None => Ok(vocabulary),
    }
}

/// The tokenizer's class, as `tokenizer_config.json` has it.
pub(super) fn class(checkpoint: &Checkpoint) -> Result<Option<&str>> {
    let class = checkpoint.metadata().str("tokenizer_config.tokenizer_class")?;
    Ok(class.filter(|class| !class.is_empty()))
}

fn layout(file: &str, class: Option<&str>, n_ranks: usize) -> Result<&'static Layout> {
    if class.is_none() && n_ranks == LLAMA3_RANKS {
        return Ok(&LLAMA3);
    }
    let find = |class: &str| {
        let plain = class.strip_suffix("Fast").unwrap_or(class);
        LAYOUTS.iter().find(|layout| layout.classes.contains(&plain))
    };
    class.and_then(find).ok_or_else(|| {
        let known: Vec<&str> = LAYOUTS.iter().flat_map(|layout| layout.classes).copied().collect();
        let found = class.map_or_else(|| "is missing".to_owned(), |class| format!("'{}' is not known", shown(class)));
        let problem =
            format!("tokenizer_class {found}, so how {} cuts text is not (known: {})", shown(file), known.join(", "));
        Error::Vocabulary { key: "tokenizer_config.json".into(), problem }
    })
}

fn wrong(file: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: shown(file), problem: shown_up_to(&problem.into(), 300) }
}

/// The tokens in order of rank, in the alphabet of bytes; ranks that no line has are empty.
fn ranks(file: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let mut tokens: Vec<String> = Vec::new();
    // As many ranks as there can be lines, at least 4 bytes each, and some that are left out.
    let most = (bytes.len() / 4 + 4096).min(limits::VOCABULARY_TOKENS);
    for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let (token, rank) =
            entry(line).ok_or_else(|| wrong(file, format!("line {number} is not base64 and a number")))?;
        if rank >= most {
            return Err(wrong(file, format!("line {number}: the rank {rank} is too high for the file")));
        }
        if tokens.len() <= rank {
            tokens.resize(rank + 1, String::new());
        }
        match tokens.get_mut(rank) {
            Some(slot) if slot.is_empty() => *slot = token.into_iter().map(byte_text::to_char).collect(),
            _ => return Err(wrong(file, format!("line {number}: the rank {rank} is there twice"))),
        }
    }
    Ok(tokens)
}

/// A line's bytes and rank.
fn entry(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let (token, rank) = (fields.next()?, fields.next()?);
    let rank = std::str::from_utf8(rank).ok()?.parse().ok()?;
    let token = base64(token).filter(|token| !token.is_empty())?;
    fields.next().is_none().then_some((token, rank))
}

/// The bytes behind base64 (RFC 4648, the standard alphabet, with or without padding).
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.iter().rposition(|&c| c != b'=').map_or(0, |last| last + 1);
    if digits % 4 == 1 || text.len() - digits > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits / 4 * 3 + 2);
    let (mut bits, mut n_bits) = (0u32, 0);
    for &c in text.get(..digits)? {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_and_rubbish_refused() {
        let rows: [(&str, Option<&[u8]>); 9] = [
            ("", Some(b"")),
            ("AA==", Some(&[0])),
            ("AA", Some(&[0])),
            ("aGk=", Some(b"hi")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("aGkh", Some(b"hi!")),
            ("a", None),
            ("a===", None),
            ("a-b=", None),
        ];
        for (text, expected) in rows {
            assert_eq!(base64(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn special_tokens_of_the_layouts_have_their_known_numbers() {
        let at = |layout: &Layout, name: &str| (layout.specials)().iter().position(|special| special == name);
        assert_eq!((LLAMA3.specials)().len(), 256);
        for (name, id) in [("<|eot_id|>", 9), ("<|python_tag|>", 10), ("<|reserved_special_token_2|>", 11)] {
            assert_eq!(at(&LLAMA3, name), Some(id));
        }
        let qwen = layout("x", Some("QWenTokenizer"), 0).unwrap();
        assert_eq!((at(qwen, "<|im_end|>"), at(qwen, "<|extra_204|>")), (Some(2), Some(207)));
    }
}
