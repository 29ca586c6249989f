//! A vocabulary as plain data, and reading one from a checkpoint's metadata (`tokenizer.ggml.*`, as the GGUF
//! specification and llama.cpp define the keys).
//!
//! Everything that the algorithms rely on is checked here: as many scores and types as tokens, ids inside the vocabulary.

use checkpoint::{Checkpoint, Metadata};

use super::split::{PreTokenizer, Splitter};
use super::table::{Strings, TokenTable};
use crate::error::{Error, Result};
use crate::limits;

/// The algorithm of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerModel {
    /// Byte-level BPE: merges by rank.
    Bpe,
    /// SentencePiece BPE: merges by score, bytes as a fallback.
    SentencePiece,
    /// SentencePiece unigram: the most probable segmentation.
    Unigram,
    /// BERT's WordPiece: the longest match, word by word.
    WordPiece,
    /// Whole words only. In `tokenizer.json` alone.
    WordLevel,
}

/// The names of `tokenizer.ggml.model`.
const MODELS: &[(&str, TokenizerModel)] = &[
    ("gpt2", TokenizerModel::Bpe),
    ("llama", TokenizerModel::SentencePiece),
    (BY_MERGES, TokenizerModel::SentencePiece),
    ("t5", TokenizerModel::Unigram),
    ("bert", TokenizerModel::WordPiece),
];

/// A vocabulary of SentencePiece whose order is that of its merges (Gemma 4).
const BY_MERGES: &str = "gemma4";

/// What a token is, in the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// Stands for text the vocabulary has no token for.
    Unknown,
    /// Steers the model; never shown, never made from typed text.
    Control,
    /// Added by the model's maker: text that is always one token.
    UserDefined,
    /// Nothing.
    Unused,
    /// One byte, spelled `<0x..>`.
    Byte,
}

impl Kind {
    pub(super) fn from_number(number: i32) -> Kind {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }

    /// The inverse.
    pub(super) fn number(self) -> i32 {
        match self {
            Kind::Normal => 1,
            Kind::Unknown => 2,
            Kind::Control => 3,
            Kind::UserDefined => 4,
            Kind::Unused => 5,
            Kind::Byte => 6,
        }
    }
}

/// A vocabulary and the settings of its tokenizer.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) model: TokenizerModel,
    pub(crate) tokens: TokenTable,
    /// One for each token.
    pub(crate) kinds: Vec<Kind>,
    /// One for each token, or none at all (every score is then 0).
    pub(crate) scores: Vec<f32>,
    /// "left right", the first merges first. BPE only.
    pub(crate) merges: Strings,
    pub(crate) splitter: Splitter,
    /// A word that is a token is not split further. BPE only.
    pub(crate) ignore_merges: bool,
    /// There are no merges: any neighbours whose joint spelling is a token may merge, the lowest id first. BPE only.
    pub(crate) ranked: bool,
    /// Text is brought to Unicode's normal form C first. Only where `ranked`.
    pub(crate) composes: bool,
    /// Decoding tidies the blanks before punctuation.
    pub(crate) clean_spaces: bool,
    /// Characters without a token are spelled in byte tokens. Unigram only: the others always do.
    pub(crate) byte_fallback: bool,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    pub(crate) add_space_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    /// Blanks at the end go even where the text spells them U+2581, as SentencePiece itself does.
    pub(crate) trims_end: bool,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    /// The tokens that end an answer, ascending.
    pub(crate) end_of_generation: Vec<u32>,
    /// The special tokens that swallow the white space after them, ascending.
    pub(crate) strips_right: Vec<u32>,
    /// SentencePiece's table of replacements, as it is in the file. Unigram only.
    pub(crate) charsmap: Vec<u8>,
}

impl Vocabulary {
    /// A vocabulary of normal tokens only, with nothing set.
    pub(crate) fn new(model: TokenizerModel, tokens: TokenTable) -> Vocabulary {
        Vocabulary {
            model,
            kinds: vec![Kind::Normal; tokens.len()],
            tokens,
            scores: Vec::new(),
            merges: Strings::default(),
            splitter: Splitter::default(),
            ignore_merges: false,
            ranked: false,
            composes: false,
            clean_spaces: false,
            byte_fallback: false,
            add_bos: false,
            add_eos: false,
            add_space_prefix: false,
            remove_extra_whitespaces: false,
            trims_end: false,
            bos: None,
            eos: None,
            unknown: None,
            end_of_generation: Vec::new(),
            strips_right: Vec::new(),
            charsmap: Vec::new(),
        }
    }

    /// The vocabulary of a checkpoint.
    pub(crate) fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Vocabulary> {
        let metadata = checkpoint.metadata();
        let model = model(metadata)?;
        let mut vocabulary = Vocabulary::new(model, tokens(metadata)?);
        let n_vocab = vocabulary.tokens.len();
        if let Some(kinds) = metadata.i32_array(TOKEN_TYPE)? {
            same_length(TOKEN_TYPE, kinds.len(), n_vocab)?;
            vocabulary.kinds = kinds.into_iter().map(Kind::from_number).collect();
        }
        match model {
            TokenizerModel::Bpe => vocabulary.read_bpe(metadata)?,
            TokenizerModel::SentencePiece => vocabulary.read_sentence_piece(metadata)?,
            TokenizerModel::Unigram => vocabulary.read_unigram(metadata)?,
            TokenizerModel::WordPiece | TokenizerModel::WordLevel => vocabulary.read_word_piece(metadata)?,
        }
        vocabulary.read_common(metadata)?;
        Ok(vocabulary)
    }

    fn read_bpe(&mut self, metadata: &Metadata) -> Result<()> {
        let pre = metadata.str("tokenizer.ggml.pre")?.unwrap_or("default");
        let pre = PreTokenizer::find(pre)?;
        self.splitter = Splitter::new(pre)?;
        self.ignore_merges = pre.ignore_merges;
        self.clean_spaces = pre.clean_spaces;
        self.add_bos = pre.add_bos;
        let merges = metadata.string_array(MERGES)?.ok_or_else(|| missing(MERGES))?;
        self.merges = Strings::new(merges.iter());
        Ok(())
    }

    fn read_sentence_piece(&mut self, metadata: &Metadata) -> Result<()> {
        if metadata.str(MODEL)? == Some(BY_MERGES) {
            return self.read_merges_as_scores(metadata);
        }
        self.read_scores(metadata)?;
        self.add_bos = true;
        self.add_space_prefix = true;
        let control = |id: u32| (self.kinds.get(id as usize) == Some(&Kind::Control)).then_some(id);
        (self.bos, self.eos) = (control(1), control(2));
        self.unknown = (self.kinds.first() == Some(&Kind::Unknown)).then_some(0);
        Ok(())
    }

    /// Each token's score is the place of the first merge that makes it: such a vocabulary has all merges of a token, one after
    /// another. What no merge makes is never made.
    fn read_merges_as_scores(&mut self, metadata: &Metadata) -> Result<()> {
        let merges = metadata.string_array(MERGES)?.ok_or_else(|| missing(MERGES))?;
        self.scores = vec![f32::NEG_INFINITY; self.tokens.len()];
        let mut joined = Vec::new();
        for (place, merge) in merges.iter().enumerate() {
            joined.clear();
            // The first blank that is not the first byte parts the two.
            let parting = merge.iter().skip(1).position(|&byte| byte == b' ').map(|at| at + 1);
            let (left, right) = merge.split_at(parting.unwrap_or(merge.len()));
            joined.extend_from_slice(left);
            joined.extend_from_slice(right.get(1..).unwrap_or_default());
            let score = self.tokens.find(&joined).and_then(|id| self.scores.get_mut(id as usize));
            score.filter(|score| **score == f32::NEG_INFINITY).into_iter().for_each(|score| *score = -(place as f32));
        }
        self.add_bos = true;
        Ok(())
    }

    fn read_unigram(&mut self, metadata: &Metadata) -> Result<()> {
        self.read_scores(metadata)?;
        self.add_eos = true;
        self.add_space_prefix = true;
        self.remove_extra_whitespaces = metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(true);
        if let Some(array) = metadata.array(CHARSMAP)? {
            let byte = |value: checkpoint::Value| {
                let number = value.as_integer()?;
                u8::try_from(number).ok().or_else(|| i8::try_from(number).ok().map(i8::cast_unsigned))
            };
            let bytes: Option<Vec<u8>> = array.iter().map(byte).collect();
            self.charsmap = bytes.ok_or_else(|| wrong(CHARSMAP, "it is not a list of bytes"))?;
        }
        Ok(())
    }

    fn read_word_piece(&mut self, metadata: &Metadata) -> Result<()> {
        self.add_bos = true;
        self.add_eos = true;
        self.bos = self.id(metadata, "tokenizer.ggml.cls_token_id")?.or_else(|| self.tokens.find(b"[CLS]"));
        self.eos = self.id(metadata, "tokenizer.ggml.seperator_token_id")?.or_else(|| self.tokens.find(b"[SEP]"));
        self.unknown = self.tokens.find(b"[UNK]");
        Ok(())
    }

    fn read_scores(&mut self, metadata: &Metadata) -> Result<()> {
        if let Some(scores) = metadata.f32_array(SCORES)? {
            same_length(SCORES, scores.len(), self.tokens.len())?;
            self.scores = scores;
        }
        Ok(())
    }

    /// The keys that every algorithm has: they override what the algorithm presets.
    fn read_common(&mut self, metadata: &Metadata) -> Result<()> {
        self.bos = self.id(metadata, "tokenizer.ggml.bos_token_id")?.or(self.bos);
        self.eos = self.id(metadata, "tokenizer.ggml.eos_token_id")?.or(self.eos);
        self.unknown = self.id(metadata, "tokenizer.ggml.unknown_token_id")?.or(self.unknown);
        self.add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(self.add_bos);
        self.add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(self.add_eos);
        self.add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(self.add_space_prefix);
        let mut ends: Vec<u32> = self.eos.into_iter().collect();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            ends.extend(self.id(metadata, key)?);
        }
        self.set_end_of_generation(ends);
        let name = metadata.get("general.name").and_then(|name| name.as_str()).unwrap_or_default().to_lowercase();
        if name.contains("phi-3") || name.contains("phi3") {
            self.set_phi3_strips();
        }
        Ok(())
    }

    /// The id under `key`, which has to be inside the vocabulary.
    fn id(&self, metadata: &Metadata, key: &str) -> Result<Option<u32>> {
        // Some writers say "none" with -1.
        if metadata.get(key).and_then(|value| value.as_integer()).is_some_and(|n| n == -1 || n == i128::from(u32::MAX))
        {
            return Ok(None);
        }
        match metadata.u32(key)? {
            Some(id) if id as usize >= self.tokens.len() => {
                Err(wrong(key, format!("token {id} is beyond the vocabulary of {} tokens", self.tokens.len())))
            }
            id => Ok(id),
        }
    }

    /// Sets the tokens that end an answer: `ends` and the well-known spellings, which thereby become control tokens even
    /// where the file forgot to say so (the reference does the same).
    pub(crate) fn set_end_of_generation(&mut self, mut ends: Vec<u32>) {
        for spelling in ENDS {
            if let Some(id) = self.tokens.find(spelling.as_bytes()) {
                ends.push(id);
                if let Some(kind) = self.kinds.get_mut(id as usize) {
                    *kind = Kind::Control;
                }
            }
        }
        // In this format `<|end|>` ends a message of several that make one answer.
        let has = |spelling: &str| self.tokens.find(spelling.as_bytes()).is_some();
        if has("<|return|>") && has("<|call|>") {
            let message_end = self.tokens.find(b"<|end|>");
            ends.retain(|&id| Some(id) != message_end || Some(id) == self.eos);
        }
        ends.sort_unstable();
        ends.dedup();
        self.end_of_generation = ends;
    }

    /// Phi-3's special tokens swallow the white space after them, except the three that stand for nothing. GGUF has no
    /// key for it; the reference goes by the model's name too.
    fn set_phi3_strips(&mut self) {
        let keeps = |id: u32| {
            [b"<unk>".as_slice(), b"<s>", b"<|endoftext|>"].contains(&self.tokens.get(id).unwrap_or_default())
        };
        let special = |kind: Kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        self.strips_right =
            (0u32..).zip(&self.kinds).filter(|(id, kind)| special(**kind) && !keeps(*id)).map(|(id, _)| id).collect();
    }

    /// The score of a token; 0 where the file has none.
    pub(crate) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// What a token is; ids outside the vocabulary are nothing.
    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// The token that text spelled `bytes` may become. Control tokens are never among them: what a person typed must not
    /// steer the model, whatever the merges of a file lead to.
    pub(crate) fn text_token(&self, bytes: &[u8]) -> Option<u32> {
        self.tokens.find(bytes).filter(|&id| self.kind(id) != Kind::Control)
    }

    /// The token for a byte: `<0x41>`, or else the byte itself.
    pub(crate) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.text_token(format!("<0x{byte:02X}>").as_bytes()).or_else(|| self.text_token(&[byte]))
    }
}

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// Spellings of tokens that end an answer, of all families.
const ENDS: &[&str] = &[
    "</s>",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|call|>",
    "<|calls|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|flush|>",
    "<|im_end|>",
    "<|return|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[EOS]",
    "[EOT]",
    "_<EOT>",
];

fn wrong(key: &str, problem: impl Into<String>) -> Error {
    Error::Vocabulary { key: key.into(), problem: problem.into() }
}

fn missing(key: &str) -> Error {
    wrong(key, "the key is missing")
}

fn same_length(key: &str, found: usize, n_vocab: usize) -> Result<()> {
    if found == n_vocab {
        return Ok(());
    }
    Err(wrong(key, format!("{found} entries for {n_vocab} tokens")))
}

fn model(metadata: &Metadata) -> Result<TokenizerModel> {
    let name = metadata.str(MODEL)?.ok_or_else(|| missing(MODEL))?;
    MODELS.iter().find(|row| row.0 == name).map(|row| row.1).ok_or_else(|| {
        let known: Vec<&str> = MODELS.iter().map(|row| row.0).collect();
        Error::UnknownTokenizer { found: shown(name), known: known.join(", ") }
    })
}

/// A name from the file, short and without control characters.
pub(super) fn shown(name: &str) -> String {
    shown_up_to(name, 60)
}

/// At most `most` characters of a text from the file, without control characters.
pub(super) fn shown_up_to(text: &str, most: usize) -> String {
    let visible = |c: char| -> Box<dyn Iterator<Item = char>> {
        if c.is_control() { Box::new(c.escape_debug()) } else { Box::new(std::iter::once(c)) }
    };
    text.chars().take(most).flat_map(visible).collect()
}

fn tokens(metadata: &Metadata) -> Result<TokenTable> {
    let tokens = metadata.string_array(TOKENS)?.ok_or_else(|| missing(TOKENS))?;
    if tokens.is_empty() {
        return Err(wrong(TOKENS, "the vocabulary has no tokens"));
    }
    if tokens.len() > limits::VOCABULARY_TOKENS {
        return Err(wrong(TOKENS, format!("{} tokens; the limit is {}", tokens.len(), limits::VOCABULARY_TOKENS)));
    }
    Ok(TokenTable::new(tokens.iter()))
}
