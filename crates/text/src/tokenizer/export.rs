//! A tokenizer as the metadata of a GGUF file (`tokenizer.ggml.*`): what llama.cpp's converter writes, from the files of a
//! Hugging Face directory.
//!
//! What belongs here: the keys, and the name of the pre-tokenizer, found by its pattern. Whatever is written is tried: texts
//! of many kinds are encoded as a reader of the new file would, and compared with the source. What does not: chat templates
//! ([`crate::ChatTemplate::source_in`]), reading (`vocabulary`).

use checkpoint::{Checkpoint, Value};
use serde_json::Value as Json;

use super::hugging_face::TOKENIZER;
use super::sentence_piece_model;
use super::split::{PreTokenizer, Splitter};
use super::table::{Strings, TokenTable};
use super::vocabulary::{Kind, Vocabulary};
use super::{EncodeOptions, Tokenizer, TokenizerModel};
use crate::error::{Error, Result};
use crate::limits;

/// The score of a token that no merge makes: merges of text never reach it.
const NO_MERGE: f32 = -1e6;
/// The score that the reference converter gives to added tokens.
const ADDED: f32 = -1000.0;

/// Texts that tell tokenizers apart.
const PROBES: &[&str] = &[
    "Hello, world! It's 12345 o'clock; we'LL see 3.14159 and 2024-06-01.",
    " leading and  double   and trailing blanks  ",
    "\tTabs\n\nand\r\nline ends \n \n x",
    "fn main() { let x = vec![1, 22, 333]; println!(\"{:?}\", x[0..2]); } // 4444",
    "日本語のテキストと漢字、カタカナ。中文也在這裡。한국어 텍스트",
    "Ünïcödé Ñandú été Straße ЁЖИК привет مرحبا שלום ไทย हिन्दी",
    "🦀🎉👍🏽 emoji — “quotes” … €100 ½ ²",
    "HTTPServer camelCase snake_case SCREAMING don't DON'T I'm we've they'd",
    "a1b22c333d4444 007 1,000,000 #hash @user $var <tag/> a/b\\c",
];

/// A tokenizer's metadata, and what a user should know about them.
#[derive(Debug)]
pub struct ExportedTokenizer {
    /// Keys and values, in the order of the file.
    pub fields: Vec<(String, Value)>,
    /// Remarks, in English.
    pub notes: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer of `checkpoint` as metadata for a model whose embedding has `n_vocab` rows.
    ///
    /// Errors: those of [`Tokenizer::from_checkpoint`]; a kind of tokenizer, or a pre-tokenizer, that such files cannot say;
    /// more tokens than rows.
    pub fn export(checkpoint: &Checkpoint, n_vocab: usize) -> Result<ExportedTokenizer> {
        let source = Tokenizer::from_checkpoint(checkpoint)?;
        let vocabulary = &source.inner.vocabulary;
        let n_tokens = vocabulary.tokens.len();
        if n_tokens > n_vocab {
            return Err(wrong("vocabulary", format!("{n_tokens} tokens for an embedding of {n_vocab} rows")));
        }
        if n_vocab > limits::VOCABULARY_TOKENS {
            let limit = limits::VOCABULARY_TOKENS;
            return Err(wrong("vocabulary", format!("an embedding of {n_vocab} rows; the limit is {limit}")));
        }
        let mut tables = Tables::of(vocabulary, n_vocab);
        let pipeline = Pipeline::read(checkpoint)?;
        let mut notes = Vec::new();
        let (model, pre) = match vocabulary.model {
            TokenizerModel::Bpe => ("gpt2", byte_level(&source, &mut tables, &pipeline, &mut notes)?),
            TokenizerModel::SentencePiece => {
                sentence_piece(checkpoint, &source, &mut tables, &pipeline, &mut notes)?;
                ("llama", "default")
            }
            TokenizerModel::Unigram => {
                unigram(checkpoint, &source, &mut tables, &mut notes)?;
                ("t5", "default")
            }
            other => {
                return Err(wrong(
                    "model",
                    format!("a tokenizer of the kind {other:?} cannot be written to this format"),
                ));
            }
        };
        let fields = tables.fields(checkpoint, &source, model, pre)?;
        Ok(ExportedTokenizer { fields, notes })
    }
}

fn wrong(field: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: format!("{TOKENIZER}: {field}"), problem: problem.into() }
}

/// The lists, one entry for each row of the embedding.
struct Tables {
    spellings: Vec<Vec<u8>>,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
    merges: Vec<String>,
    ignore_merges: bool,
}

impl Tables {
    fn of(vocabulary: &Vocabulary, n_vocab: usize) -> Tables {
        let ids = 0..u32::try_from(n_vocab).unwrap_or(u32::MAX);
        let (mut spellings, mut kinds) = (Vec::new(), Vec::new());
        for id in ids {
            let spelling = vocabulary.tokens.get(id).unwrap_or_default();
            let kind = if spelling.is_empty() { Kind::Unused } else { vocabulary.kind(id) };
            let hole = || format!("[PAD{id}]").into_bytes();
            spellings.push(if spelling.is_empty() { hole() } else { spelling.to_vec() });
            kinds.push(kind);
        }
        Tables { spellings, kinds, scores: Vec::new(), merges: Vec::new(), ignore_merges: false }
    }

    /// A vocabulary as a reader of the new file makes it.
    fn vocabulary(&self, model: TokenizerModel, source: &Vocabulary) -> Vocabulary {
        let tokens = TokenTable::new(self.spellings.iter().map(Vec::as_slice));
        let mut vocabulary = Vocabulary::new(model, tokens);
        vocabulary.kinds = self.kinds.clone();
        vocabulary.scores = self.scores.clone();
        vocabulary.merges = Strings::new(self.merges.iter().map(String::as_bytes));
        vocabulary.ignore_merges = self.ignore_merges;
        vocabulary.add_space_prefix = source.add_space_prefix;
        vocabulary.remove_extra_whitespaces = source.remove_extra_whitespaces;
        vocabulary.charsmap = source.charsmap.clone();
        vocabulary.unknown = source.unknown;
        vocabulary
    }

    fn fields(
        &self,
        checkpoint: &Checkpoint,
        source: &Tokenizer,
        model: &str,
        pre: &str,
    ) -> Result<Vec<(String, Value)>> {
        let vocabulary = &source.inner.vocabulary;
        let mut fields = Vec::new();
        let mut put = |key: &str, value: Value| fields.push((format!("tokenizer.ggml.{key}"), value));
        put("model", Value::text(model));
        put("pre", Value::text(pre));
        put("tokens", Value::texts(self.spellings.iter().map(Vec::as_slice)));
        if !self.scores.is_empty() {
            put("scores", Value::floats(&self.scores));
        }
        put("token_type", Value::integers(&self.kinds.iter().map(|kind| kind.number()).collect::<Vec<i32>>()));
        if vocabulary.model == TokenizerModel::Bpe {
            put("merges", Value::texts(self.merges.iter().map(String::as_bytes)));
        }
        let padding = pad_token(checkpoint, vocabulary)?;
        let mut ends = vocabulary.end_of_generation.iter().copied().filter(|&id| Some(id) != vocabulary.eos);
        let (turn, message) = (ends.next(), ends.next());
        for (key, id) in [
            ("bos_token_id", vocabulary.bos),
            ("eos_token_id", vocabulary.eos),
            ("unknown_token_id", vocabulary.unknown),
            ("padding_token_id", padding),
            ("eot_token_id", turn),
            ("eom_token_id", message),
        ] {
            if let Some(id) = id {
                put(key, Value::U32(id));
            }
        }
        put("add_bos_token", Value::Bool(vocabulary.add_bos));
        put("add_eos_token", Value::Bool(vocabulary.add_eos));
        if vocabulary.model != TokenizerModel::Bpe {
            put("add_space_prefix", Value::Bool(vocabulary.add_space_prefix));
        }
        if vocabulary.model == TokenizerModel::Unigram {
            put("remove_extra_whitespaces", Value::Bool(vocabulary.remove_extra_whitespaces));
            if !vocabulary.charsmap.is_empty() {
                put("precompiled_charsmap", Value::bytes(&vocabulary.charsmap));
            }
        }
        Ok(fields)
    }
}

/// The token that fills up batches, which only other programs ask for.
fn pad_token(checkpoint: &Checkpoint, vocabulary: &Vocabulary) -> Result<Option<u32>> {
    for key in
        ["tokenizer_config.pad_token", "tokenizer_config.pad_token.content", "special_tokens_map.pad_token.content"]
    {
        if let Some(Value::String(spelling)) = checkpoint.metadata().get(key) {
            return Ok(vocabulary.tokens.find(spelling.as_bytes()));
        }
    }
    Ok(None)
}

/// What `tokenizer.json` says about cutting and merging.
#[derive(Default)]
struct Pipeline {
    /// The expressions that cut text, one after the other.
    patterns: Vec<String>,
    merges: Vec<(String, String)>,
    ignore_merges: bool,
    is_there: bool,
}

impl Pipeline {
    fn read(checkpoint: &Checkpoint) -> Result<Pipeline> {
        let Some(bytes) = checkpoint.sidecar(TOKENIZER)? else { return Ok(Pipeline::default()) };
        let json: Json = serde_json::from_slice(&bytes).map_err(|error| wrong("JSON", error.to_string()))?;
        let mut patterns = Vec::new();
        if let Some(step) = json.get("pre_tokenizer") {
            collect_patterns(step, &mut patterns);
        }
        let model = json.get("model").unwrap_or(&Json::Null);
        let merges = model.get("merges").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let pair = |json: &Json| match json {
            Json::String(both) => both.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
            Json::Array(both) => match both.as_slice() {
                [Json::String(a), Json::String(b)] => Some((a.clone(), b.clone())),
                _ => None,
            },
            _ => None,
        };
        let merges: Option<Vec<_>> = merges.iter().map(pair).collect();
        let merges = merges.ok_or_else(|| wrong("model.merges", "an entry is no pair of texts"))?;
        let ignore_merges = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
        Ok(Pipeline { patterns, merges, ignore_merges, is_there: true })
    }
}

/// The expressions of a pre-tokenizer, in order; what is none is left to the trial.
fn collect_patterns(step: &Json, patterns: &mut Vec<String>) {
    let flag = |key: &str, assumed: bool| step.get(key).and_then(Json::as_bool).unwrap_or(assumed);
    match step.get("type").and_then(Json::as_str) {
        Some("Sequence") => {
            let steps = step.get("pretokenizers").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
            // As deep as the JSON reader lets it be.
            steps.iter().for_each(|step| collect_patterns(step, patterns));
        }
        Some("Split") => patterns.extend(step.pointer("/pattern/Regex").and_then(Json::as_str).map(str::to_owned)),
        Some("Digits") => patterns.push(if flag("individual_digits", false) { r"\p{N}" } else { r"\p{N}+" }.to_owned()),
        Some("ByteLevel") if flag("use_regex", true) => patterns.push(super::split::byte_level_pattern()),
        _ => {}
    }
}

/// Fills in merges; gives the name of the pre-tokenizer.
fn byte_level(
    source: &Tokenizer,
    tables: &mut Tables,
    pipeline: &Pipeline,
    notes: &mut Vec<String>,
) -> Result<&'static str> {
    if !pipeline.is_there {
        return Err(wrong("model", "byte-level BPE of another file cannot be written to this format"));
    }
    // A blank divides the parts of a merge; in the alphabet of bytes no token has one, others spell it as that does.
    let part = |text: &str| text.replace(' ', "\u{120}");
    tables.merges = pipeline.merges.iter().map(|(a, b)| format!("{} {}", part(a), part(b))).collect();
    let expected: Vec<Vec<u32>> = PROBES.iter().map(|text| source.encode(text, EncodeOptions::default())).collect();
    let mut failed_by_pattern = None;
    let likely =
        |row: &&PreTokenizer| (row.patterns() != pipeline.patterns, row.ignore_merges != pipeline.ignore_merges);
    let mut rows: Vec<&'static PreTokenizer> = PreTokenizer::all().iter().collect();
    rows.sort_by_key(likely);
    for row in rows {
        tables.ignore_merges = row.ignore_merges;
        let mut vocabulary = tables.vocabulary(TokenizerModel::Bpe, &source.inner.vocabulary);
        vocabulary.splitter = Splitter::new(row)?;
        let n_failed = failures(vocabulary, &expected)?;
        if n_failed == 0 {
            return Ok(row.name());
        }
        if likely(&row) == (false, false) && failed_by_pattern.is_none() {
            failed_by_pattern = Some((row.name(), n_failed));
        }
    }
    match failed_by_pattern {
        Some((name, n)) => {
            notes.push(format!(
                "the pre-tokenizer is `{name}` by its pattern, yet {n} of {} texts get other tokens: the normalizer of \
                 tokenizer.json has no place in a GGUF file",
                PROBES.len()
            ));
            Ok(name)
        }
        None => Err(wrong("pre_tokenizer", "it cuts text as no pre-tokenizer that GGUF files can name")),
    }
}

/// How many texts get other tokens from `vocabulary`.
fn failures(vocabulary: Vocabulary, expected: &[Vec<u32>]) -> Result<usize> {
    let tokenizer = Tokenizer::new(vocabulary, None)?;
    let differs = |(text, ids): &(&&str, &Vec<u32>)| tokenizer.encode(text, EncodeOptions::default()) != **ids;
    Ok(PROBES.iter().zip(expected).filter(differs).count())
}

/// Fills in scores, from SentencePiece's own file or from the order of the merges.
fn sentence_piece(
    checkpoint: &Checkpoint,
    source: &Tokenizer,
    tables: &mut Tables,
    pipeline: &Pipeline,
    notes: &mut Vec<String>,
) -> Result<()> {
    let pieces = match checkpoint.sidecar(sentence_piece_model::FILE)? {
        Some(bytes) => Some(sentence_piece_model::read(&bytes)?),
        None => None,
    };
    let mut ranks = std::collections::HashMap::new();
    for (rank, (a, b)) in pipeline.merges.iter().enumerate() {
        ranks.entry([a.as_bytes(), b.as_bytes()].concat()).or_insert(rank);
    }
    let score = |id: usize, spelling: &[u8], kind: Kind| {
        let id = u32::try_from(id).ok()?;
        if let Some(pieces) = pieces.as_ref().filter(|p| p.tokens.get(id) == Some(spelling)) {
            return Some(pieces.score(id));
        }
        match (ranks.get(spelling), kind) {
            (Some(rank), _) => Some(-(*rank as f32)),
            (None, Kind::Normal) => Some(NO_MERGE),
            (None, _) => None,
        }
    };
    let scored = tables.spellings.iter().zip(&tables.kinds).enumerate();
    tables.scores = scored.map(|(id, (spelling, &kind))| score(id, spelling, kind).unwrap_or(ADDED)).collect();
    // Text is sought for these before blanks are replaced.
    for (spelling, kind) in tables.spellings.iter_mut().zip(&tables.kinds) {
        if *kind == Kind::UserDefined
            && let Ok(text) = std::str::from_utf8(spelling)
        {
            *spelling = text.replace('\u{2581}', " ").into_bytes();
        }
    }
    try_out(source, tables, TokenizerModel::SentencePiece, notes)
}

/// Fills in scores from SentencePiece's own file.
fn unigram(checkpoint: &Checkpoint, source: &Tokenizer, tables: &mut Tables, notes: &mut Vec<String>) -> Result<()> {
    let Some(bytes) = checkpoint.sidecar(sentence_piece_model::FILE)? else {
        return Err(wrong(
            "model",
            format!("Unigram without a {} cannot be written to this format", sentence_piece_model::FILE),
        ));
    };
    let pieces = sentence_piece_model::read(&bytes)?;
    let ids = 0..u32::try_from(tables.spellings.len()).unwrap_or(u32::MAX);
    tables.scores = ids.map(|id| if (id as usize) < pieces.tokens.len() { pieces.score(id) } else { ADDED }).collect();
    try_out(source, tables, TokenizerModel::Unigram, notes)
}

fn try_out(source: &Tokenizer, tables: &Tables, model: TokenizerModel, notes: &mut Vec<String>) -> Result<()> {
    let expected: Vec<Vec<u32>> = PROBES.iter().map(|text| source.encode(text, EncodeOptions::default())).collect();
    let n_failed = failures(tables.vocabulary(model, &source.inner.vocabulary), &expected)?;
    if n_failed > 0 {
        let n = PROBES.len();
        notes.push(format!(
            "{n_failed} of {n} texts get other tokens than from {TOKENIZER}: this format cannot say all of it"
        ));
    }
    Ok(())
}
