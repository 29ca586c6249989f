//! Reading the tokenizer of a directory: `tokenizer.json` or one of the other files that hold a vocabulary, and what
//! `tokenizer_config.json`, `added_tokens.json`, `special_tokens_map.json`, `generation_config.json` and `config.json` say
//! about its special tokens.
//!
//! Every part is parsed by itself, so that an error names it. What the tokenizers library would let a file do without
//! bound is bounded here: ids far beyond the vocabulary, replacements that make text explode, dropout.

use std::collections::{HashMap, HashSet};

use checkpoint::{Checkpoint, Metadata};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::{DecoderWrapper, Model, ModelWrapper, NormalizerWrapper};

use super::TokenizerModel;
use super::added::{AddedToken, AddedTokens};
use super::library::{Controls, Joining, Library, guarded};
use super::post_processor;
use super::sentence_piece_model;
use super::table::TokenTable;
use super::tekken;
use super::tiktoken;
use super::vocab_merges;
use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};
use crate::limits;

/// The file of the pipeline.
pub(super) const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// What a directory can hold a tokenizer in, for the message that there is none.
pub(super) const KNOWN: &str = "tokenizer.json, tokenizer.model, tekken.json, *.tiktoken or vocab.json with merges.txt";

/// The parts of a `tokenizer.json` that we use. Truncation and padding are for training.
#[derive(serde::Deserialize)]
struct File<'f> {
    #[serde(borrow, default)]
    added_tokens: Option<&'f RawValue>,
    #[serde(borrow, default)]
    normalizer: Option<&'f RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'f RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'f RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'f RawValue>,
    #[serde(borrow, default)]
    model: Option<&'f RawValue>,
}

/// What the model says about its unknown token.
#[derive(serde::Deserialize)]
struct Unknown {
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<u32>,
}

/// The tokenizer of a directory; `None` where it has no file that holds one.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Option<(Vocabulary, Option<Library>)>> {
    if let Some(bytes) = checkpoint.sidecar(TOKENIZER)? {
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong("text", format!("it is not UTF-8: {error}")))?;
        return read_pipeline(checkpoint, text).map(Some);
    }
    for read in [read_ranks, read_sentence_piece, read_tekken] {
        if let Some(vocabulary) = read(checkpoint)? {
            return Ok(Some((vocabulary, None)));
        }
    }
    let Some(text) = vocab_merges::pipeline(checkpoint)? else { return Ok(None) };
    let renamed = |error| match error {
        Error::Vocabulary { key, problem } => {
            let key = match key.strip_prefix(TOKENIZER) {
                Some(field) => format!("{}{field}", vocab_merges::NAME),
                None => key,
            };
            Error::Vocabulary { key, problem }
        }
        other => other,
    };
    read_pipeline(checkpoint, &text).map(Some).map_err(renamed)
}

/// The tokenizer that the text of a `tokenizer.json` describes.
fn read_pipeline(checkpoint: &Checkpoint, text: &str) -> Result<(Vocabulary, Option<Library>)> {
    let file: File = serde_json::from_str(text).map_err(|error| wrong("JSON", error.to_string()))?;
    let model_json = file.model.ok_or_else(|| wrong("model", "there is none"))?;
    let mut model: ModelWrapper = part("model", model_json)?;
    let unknown: Unknown = part("model", model_json)?;
    if let ModelWrapper::BPE(bpe) = &mut model {
        // Random merges are for training.
        bpe.dropout = None;
    }
    let mut added = added_tokens(checkpoint, file.added_tokens)?;
    for token in &mut added {
        // Where the model has the spelling, its id counts.
        token.id = model.token_to_id(&token.content).unwrap_or(token.id);
    }
    if file.added_tokens.is_none() {
        // Special tokens may be in the vocabulary itself, and only named as such.
        let names = special_names(checkpoint)?.into_iter().filter(|name| added.iter().all(|t| t.content != *name));
        let named: Vec<AddedToken> = names
            .filter_map(|content| Some((model.token_to_id(&content)?, content)))
            .map(|(id, content)| AddedToken { id, content, special: true, ..AddedToken::default() })
            .collect();
        added.extend(named);
        added.sort_by_key(|token| token.id);
    }
    let decoder: Option<DecoderWrapper> = optional("decoder", file.decoder)?;
    let decoder_json: Option<Value> = optional("decoder", file.decoder)?;
    bounded("decoder", decoder_json.as_ref())?;
    let normalizer_json: Option<Value> = optional("normalizer", file.normalizer)?;
    bounded("normalizer", normalizer_json.as_ref())?;
    let shown = Shown::of(decoder_json.as_ref());

    let tokens = tokens(&model, &added)?;
    let mut vocabulary = Vocabulary::new(shown.model(&model), tokens);
    vocabulary.add_space_prefix = shown == Shown::Blanks { strips: true };
    let unknown = unknown.unk_id.or_else(|| model.token_to_id(unknown.unk_token.as_deref()?));
    vocabulary.unknown = unknown.filter(|&id| (id as usize) < vocabulary.tokens.len());
    set_kinds(&mut vocabulary, &added, shown);

    let (prefix, suffix) = post_processor::around(optional("post_processor", file.post_processor)?.as_ref())
        .map_err(|problem| wrong("post_processor", problem))?;
    let ends = Ends { prefix, suffix };
    let (prefix, suffix) = read_config(checkpoint, &mut vocabulary, ends)?;

    let normalizer: Option<NormalizerWrapper> = optional("normalizer", file.normalizer)?;
    let (raw, normalized) = sought(&vocabulary, added, normalizer.as_ref())?;
    let pre_tokenizer = optional("pre_tokenizer", file.pre_tokenizer)?;
    let joining = (shown == Shown::Joined).then_some(Joining(decoder));
    let library = Library { raw, normalized, normalizer, pre_tokenizer, model, joining, prefix, suffix };
    // A pipeline that fails on plain text fails now.
    for text in ["a", " Hello, world 123\n", "\u{e9}\u{65e5}\u{1f600}\u{fdd0}\t\0"] {
        library.try_encode(&vocabulary, text, Controls::Spelled).map_err(|problem| wrong("pipeline", problem))?;
    }
    Ok((vocabulary, Some(library)))
}

/// The vocabulary of tiktoken's file; `None` where there is none.
fn read_ranks(checkpoint: &Checkpoint) -> Result<Option<Vocabulary>> {
    let mut files: Vec<&str> = checkpoint.sidecars().filter(|name| name.ends_with(tiktoken::SUFFIX)).collect();
    if let [first, second, ..] = files.as_slice() {
        let problem = format!("there is also {}, and nothing says which one counts", super::vocabulary::shown(second));
        return Err(Error::Vocabulary { key: super::vocabulary::shown(first), problem });
    }
    files.extend(tiktoken::FILES);
    for file in files {
        let Some(bytes) = checkpoint.sidecar(file)? else { continue };
        // SentencePiece's file may have the same name.
        if file == sentence_piece_model::FILE && !tiktoken::is_tiktoken(&bytes) {
            continue;
        }
        let added = added_tokens(checkpoint, None)?;
        let mut vocabulary = tiktoken::read(file, &bytes, tiktoken::class(checkpoint)?, &added)?;
        let ends = Ends { prefix: vocabulary.bos.into_iter().collect(), suffix: Vec::new() };
        read_config(checkpoint, &mut vocabulary, ends)?;
        return Ok(Some(vocabulary));
    }
    Ok(None)
}

/// The vocabulary of `tekken.json`; `None` where there is none.
fn read_tekken(checkpoint: &Checkpoint) -> Result<Option<Vocabulary>> {
    let Some(bytes) = checkpoint.sidecar(tekken::FILE)? else { return Ok(None) };
    let mut vocabulary = tekken::read(&bytes)?;
    let ends = Ends { prefix: vocabulary.bos.into_iter().collect(), suffix: Vec::new() };
    read_config(checkpoint, &mut vocabulary, ends)?;
    Ok(Some(vocabulary))
}

/// The vocabulary of SentencePiece's own file; `None` where there is none.
fn read_sentence_piece(checkpoint: &Checkpoint) -> Result<Option<Vocabulary>> {
    let Some(bytes) = checkpoint.sidecar(sentence_piece_model::FILE)? else { return Ok(None) };
    let mut vocabulary = sentence_piece_model::read(&bytes)?;
    let added: Vec<AddedToken> = added_tokens(checkpoint, None)?
        .into_iter()
        .filter(|token| vocabulary.tokens.find(token.content.as_bytes()).is_none())
        .collect();
    // They follow the pieces without a gap.
    for (id, token) in (vocabulary.tokens.len()..).zip(&added) {
        if token.id as usize != id {
            let problem = format!("token {} does not follow the {id} tokens before it", token.id);
            return Err(wrong_in(CONFIG, "added_tokens_decoder", problem));
        }
    }
    let n_pieces = u32::try_from(vocabulary.tokens.len()).unwrap_or(u32::MAX);
    let pieces = (0..n_pieces).map(|id| vocabulary.tokens.get(id).unwrap_or_default());
    vocabulary.tokens = TokenTable::new(pieces.chain(added.iter().map(|token| token.content.as_bytes())));
    vocabulary.kinds.extend(added.iter().map(|token| if token.special { Kind::Control } else { Kind::UserDefined }));
    vocabulary.scores.resize(vocabulary.tokens.len(), 0.0);
    // Without a word from the configuration: as the original tokenizers of Llama and T5 do.
    let around = match vocabulary.model {
        TokenizerModel::Unigram => Ends { prefix: Vec::new(), suffix: vocabulary.eos.into_iter().collect() },
        _ => Ends { prefix: vocabulary.bos.into_iter().collect(), suffix: Vec::new() },
    };
    read_config(checkpoint, &mut vocabulary, around)?;
    Ok(Some(vocabulary))
}

fn wrong(field: &str, problem: impl Into<String>) -> Error {
    wrong_in(TOKENIZER, field, problem)
}

fn wrong_in(file: &str, field: &str, problem: impl Into<String>) -> Error {
    let problem: String = super::vocabulary::shown_up_to(&problem.into(), 300);
    Error::Vocabulary { key: format!("{file}: {field}"), problem }
}

/// One part of the file.
fn part<T: DeserializeOwned>(field: &str, json: &RawValue) -> Result<T> {
    guarded(|| Ok(serde_json::from_str(json.get())?)).map_err(|problem| wrong(field, problem))
}

/// One part of the file that may be absent.
fn optional<T: DeserializeOwned>(field: &str, json: Option<&RawValue>) -> Result<Option<T>> {
    json.map_or(Ok(None), |json| part(field, json))
}

/// Refuses replacements that make a text much longer.
fn bounded(field: &str, json: Option<&Value>) -> Result<()> {
    /// How many times longer a text may become.
    fn growth(json: &Value) -> usize {
        let own = ["content", "prepend"].iter().filter_map(|key| json.get(key)?.as_str()).map(str::len);
        let own = own.fold(1, |product: usize, length| product.saturating_mul(length.max(1)));
        let nested: Box<dyn Iterator<Item = &Value>> = match json {
            Value::Array(items) => Box::new(items.iter()),
            Value::Object(entries) => Box::new(entries.values()),
            _ => return 1,
        };
        nested.map(growth).fold(own, usize::saturating_mul)
    }
    let growth = json.map_or(1, growth);
    if growth > limits::NORMALIZER_GROWTH {
        let limit = limits::NORMALIZER_GROWTH;
        return Err(wrong(field, format!("its replacements make a text up to {growth} times longer (limit: {limit})")));
    }
    Ok(())
}

/// The added tokens of all files; what `tokenizer.json` has counts, then the configuration.
fn added_tokens(checkpoint: &Checkpoint, json: Option<&RawValue>) -> Result<Vec<AddedToken>> {
    let mut added: Vec<AddedToken> = optional("added_tokens", json)?.unwrap_or_default();
    added.retain(|token| !token.content.is_empty());
    let mut known: HashSet<String> = added.iter().map(|token| token.content.clone()).collect();
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        added_tokens_decoder: HashMap<String, AddedToken>,
    }
    if let Some(bytes) = checkpoint.sidecar(CONFIG)? {
        let fail = |problem: String| wrong_in(CONFIG, "added_tokens_decoder", problem);
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        for (id, token) in config.added_tokens_decoder {
            if !token.content.is_empty() && known.insert(token.content.clone()) {
                let id = id.parse().map_err(|_| fail(format!("'{id}' is not a token id")))?;
                added.push(AddedToken { id, ..token });
            }
        }
    }
    if let Some(bytes) = checkpoint.sidecar(ADDED_TOKENS)?.filter(|_| json.is_none()) {
        let tokens: HashMap<String, u32> =
            serde_json::from_slice(&bytes).map_err(|error| wrong_in(ADDED_TOKENS, "JSON", error.to_string()))?;
        let special = special_names(checkpoint)?;
        for (content, id) in tokens {
            if !content.is_empty() && known.insert(content.clone()) {
                let special = special.contains(&content);
                added.push(AddedToken { id, special, normalized: !special, content, ..AddedToken::default() });
            }
        }
    }
    added.sort_by_key(|token| token.id);
    Ok(added)
}

/// The spellings that `special_tokens_map.json` names.
fn special_names(checkpoint: &Checkpoint) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    if let Some(bytes) = checkpoint.sidecar(SPECIAL_TOKENS)? {
        let map: HashMap<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| wrong_in(SPECIAL_TOKENS, "JSON", error.to_string()))?;
        let each = map.values().flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
        let name = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        names.extend(each.filter_map(name));
    }
    Ok(names)
}

/// The spelling of every id, empty where there is none.
fn tokens(model: &ModelWrapper, added: &[AddedToken]) -> Result<TokenTable> {
    let vocabulary = model.get_vocab();
    let ids = vocabulary.values().copied().chain(added.iter().map(|token| token.id));
    let most = limits::VOCABULARY_TOKENS.min((vocabulary.len() + added.len()).saturating_mul(4).saturating_add(4096));
    let n_vocab = ids.max().map_or(0, |id| id as usize + 1);
    if n_vocab == 0 {
        return Err(wrong("model", "the vocabulary has no tokens"));
    }
    if n_vocab > most {
        let n = vocabulary.len() + added.len();
        return Err(wrong("model", format!("a token has the id {}, which is too high for {n} tokens", n_vocab - 1)));
    }
    let mut spellings = vec![""; n_vocab];
    let all = vocabulary.iter().map(|(spelling, &id)| (spelling.as_str(), id));
    for (spelling, id) in all.chain(added.iter().map(|token| (token.content.as_str(), token.id))) {
        if let Some(slot) = spellings.get_mut(id as usize) {
            *slot = spelling;
        }
    }
    Ok(TokenTable::new(spellings.iter().map(|spelling| spelling.as_bytes())))
}

/// How tokens become text again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// One by one, in the alphabet of bytes.
    ByteText,
    /// One by one, with U+2581 for blanks and tokens for bytes; one blank in front may go.
    Blanks { strips: bool },
    /// By a decoder that looks at several.
    Joined,
}

impl Shown {
    fn of(decoder: Option<&Value>) -> Shown {
        let Some(decoder) = decoder else { return Shown::Joined };
        let kind = |json: &Value| json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let nested = decoder.get("decoders").and_then(Value::as_array).filter(|_| kind(decoder) == "Sequence");
        let steps: Vec<&Value> = nested.map_or_else(|| vec![decoder], |steps| steps.iter().collect());
        let kinds: Vec<String> = steps.iter().map(|step| kind(step)).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let replaces_blank = |step: &Value| {
            step.pointer("/pattern/String").and_then(Value::as_str) == Some("\u{2581}")
                && step.get("content").and_then(Value::as_str) == Some(" ")
        };
        let strips_one = |step: &Value| {
            let number = |key| step.get(key).and_then(Value::as_u64);
            step.get("content").and_then(Value::as_str) == Some(" ")
                && (number("start"), number("stop")) == (Some(1), Some(0))
        };
        match (kinds.as_slice(), steps.as_slice()) {
            (["ByteLevel"], _) => Shown::ByteText,
            (["Replace", "ByteFallback", "Fuse"], [replace, ..]) if replaces_blank(replace) => {
                Shown::Blanks { strips: false }
            }
            (["Replace", "ByteFallback", "Fuse", "Strip"], [replace, .., strip])
                if replaces_blank(replace) && strips_one(strip) =>
            {
                Shown::Blanks { strips: true }
            }
            _ => Shown::Joined,
        }
    }

    fn model(self, model: &ModelWrapper) -> TokenizerModel {
        match (model, self) {
            (ModelWrapper::BPE(_), Shown::Blanks { .. }) => TokenizerModel::SentencePiece,
            (ModelWrapper::BPE(_), _) => TokenizerModel::Bpe,
            (ModelWrapper::Unigram(_), _) => TokenizerModel::Unigram,
            (ModelWrapper::WordPiece(_), _) => TokenizerModel::WordPiece,
            (ModelWrapper::WordLevel(_), _) => TokenizerModel::WordLevel,
        }
    }
}

fn set_kinds(vocabulary: &mut Vocabulary, added: &[AddedToken], shown: Shown) {
    let tokens = &vocabulary.tokens;
    for (id, kind) in (0u32..).zip(&mut vocabulary.kinds) {
        let spelling = tokens.get(id).unwrap_or_default();
        let is_byte = spelling.len() == 6 && spelling.starts_with(b"<0x") && spelling.ends_with(b">");
        if spelling.is_empty() {
            *kind = Kind::Unused;
        } else if is_byte && matches!(shown, Shown::Blanks { .. }) {
            *kind = Kind::Byte;
        }
    }
    for token in added {
        if let Some(kind) = vocabulary.kinds.get_mut(token.id as usize) {
            *kind = match token.special {
                true if Some(token.id) == vocabulary.unknown => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
        }
    }
}

/// The tokens before and after a text, as the post-processor has them.
struct Ends {
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

/// What the files beside it say: the tokens that begin and end a text, and those that end an answer. Returns what stands
/// before and after a text.
fn read_config(checkpoint: &Checkpoint, vocabulary: &mut Vocabulary, ends: Ends) -> Result<(Vec<u32>, Vec<u32>)> {
    let metadata = checkpoint.metadata();
    let Ends { mut prefix, mut suffix } = ends;
    if let Some(id) = prefix.iter().chain(&suffix).find(|&&id| id as usize >= vocabulary.tokens.len()) {
        return Err(wrong("post_processor", format!("token {id} is beyond the vocabulary")));
    }
    vocabulary.bos = named(metadata, vocabulary, "bos_token")?.or(vocabulary.bos);
    vocabulary.eos = named(metadata, vocabulary, "eos_token")?.or(vocabulary.eos);
    let mut ends: Vec<u32> = vocabulary.eos.into_iter().collect();
    ends.extend(numbered(metadata, vocabulary, "generation_config.eos_token_id")?);
    // What config.json says may be no more than a default of its class.
    let has_names = checkpoint.sidecars().any(|name| [CONFIG, SPECIAL_TOKENS].contains(&name));
    if ends.is_empty() {
        ends.extend(numbered(metadata, vocabulary, "config.eos_token_id")?);
    }
    if vocabulary.bos.is_none() && !has_names {
        vocabulary.bos = numbered(metadata, vocabulary, "config.bos_token_id")?.first().copied();
    }
    vocabulary.eos = vocabulary.eos.or(ends.first().copied());
    match (metadata.bool("tokenizer_config.add_bos_token")?, vocabulary.bos) {
        (Some(true), Some(bos)) if prefix.first() != Some(&bos) => prefix.insert(0, bos),
        (Some(false), Some(bos)) if prefix.first() == Some(&bos) => drop(prefix.remove(0)),
        _ => {}
    }
    match (metadata.bool("tokenizer_config.add_eos_token")?, vocabulary.eos) {
        (Some(true), Some(eos)) if suffix.last() != Some(&eos) => suffix.push(eos),
        (Some(false), Some(eos)) if suffix.last() == Some(&eos) => drop(suffix.pop()),
        _ => {}
    }
    vocabulary.bos = vocabulary.bos.or(prefix.first().copied());
    vocabulary.add_bos = !prefix.is_empty() && prefix.first() == vocabulary.bos.as_ref();
    vocabulary.add_eos = !suffix.is_empty() && suffix.last() == vocabulary.eos.as_ref();
    for &id in ends.iter().chain(&vocabulary.bos) {
        if let Some(kind) = vocabulary.kinds.get_mut(id as usize).filter(|kind| **kind != Kind::Unknown) {
            *kind = Kind::Control;
        }
    }
    vocabulary.set_end_of_generation(ends);
    Ok((prefix, suffix))
}

/// The token that the configuration calls `name`, by its spelling.
fn named(metadata: &Metadata, vocabulary: &Vocabulary, name: &str) -> Result<Option<u32>> {
    for file in ["tokenizer_config", "special_tokens_map"] {
        for key in [format!("{file}.{name}"), format!("{file}.{name}.content")] {
            let Some(spelling) = metadata.str(&key)?.filter(|spelling| !spelling.is_empty()) else { continue };
            let missing = || Error::Vocabulary {
                key: key.clone(),
                problem: format!("the vocabulary has no token '{}'", super::vocabulary::shown(spelling)),
            };
            return vocabulary.tokens.find(spelling.as_bytes()).ok_or_else(missing).map(Some);
        }
    }
    Ok(None)
}

/// The tokens under `key`, by their numbers.
fn numbered(metadata: &Metadata, vocabulary: &Vocabulary, key: &str) -> Result<Vec<u32>> {
    let ids = metadata.u32_or_array(key)?.unwrap_or_default();
    let n_vocab = vocabulary.tokens.len();
    match ids.iter().find(|&&id| id as usize >= n_vocab) {
        Some(id) => Err(Error::Vocabulary {
            key: key.into(),
            problem: format!("token {id} is beyond the vocabulary of {n_vocab} tokens"),
        }),
        None => Ok(ids),
    }
}

/// The added tokens with the spellings they are sought with: in the text as written, and in its normalized form.
fn sought(
    vocabulary: &Vocabulary,
    added: Vec<AddedToken>,
    normalizer: Option<&NormalizerWrapper>,
) -> Result<(AddedTokens, AddedTokens)> {
    let is_text = |token: &AddedToken| vocabulary.kind(token.id) == Kind::UserDefined;
    let known: HashSet<u32> = added.iter().map(|token| token.id).collect();
    let (late, mut early): (Vec<_>, Vec<_>) = added.into_iter().partition(|token| token.normalized && is_text(token));
    // Control tokens that only the configuration, or a well-known spelling, makes such.
    for id in (0u32..).zip(&vocabulary.kinds).filter(|(_, kind)| **kind == Kind::Control).map(|(id, _)| id) {
        let spelling = vocabulary.tokens.get(id).and_then(|spelling| std::str::from_utf8(spelling).ok());
        if let Some(spelling) = spelling.filter(|_| !known.contains(&id)) {
            early.push(AddedToken { id, content: spelling.to_owned(), ..AddedToken::default() });
        }
    }
    let mut normalized = Vec::with_capacity(late.len());
    for token in late {
        let spelling =
            Library::normalized(normalizer, &token.content).map_err(|problem| wrong("normalizer", problem))?;
        normalized.push((spelling, token));
    }
    let raw = early.into_iter().map(|token| (token.content.clone(), token)).collect();
    Ok((AddedTokens::new(raw), AddedTokens::new(normalized)))
}
