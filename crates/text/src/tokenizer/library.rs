//! The pipeline of a `tokenizer.json`: added tokens, normalizers, pre-tokenizer and model, run by the Hugging Face
//! tokenizers library, whose ids are the reference for such files.
//!
//! What belongs here: running the pipeline so that nothing typed becomes a control token, and putting tokens together
//! where a decoder looks at more than one at a time. What does not: reading and checking the file
//! ([`super::hugging_face`]).
//!
//! The library is called inside `catch_unwind`: it was written for files that their users trust, and unwraps what a
//! damaged table contains. A text that it fails on is the unknown token (nothing, where there is none); reading a file
//! tries the pipeline first, so that a file it always fails on is refused.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::normalizer::Range;
use tokenizers::{
    Decoder, DecoderWrapper, Model, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetType,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper, Token,
};

use super::added::{AddedTokens, Match};
use super::protect;
use super::vocabulary::{Kind, Vocabulary};

/// Which control tokens are taken from the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controls {
    /// None: it is all text.
    Typed,
    /// All that are spelled in it.
    Spelled,
    /// Those without the marks of [`protect`], which are dropped.
    Unmarked,
}

/// A pipeline, checked and ready.
#[derive(Debug)]
pub(super) struct Library {
    /// Control tokens, and those that are sought before normalization.
    pub(super) raw: AddedTokens,
    /// Those that are sought after it.
    pub(super) normalized: AddedTokens,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(super) model: ModelWrapper,
    /// Where tokens cannot be shown one by one: how they are put together.
    pub(super) joining: Option<Joining>,
    /// What stands before a text, and after it.
    pub(super) prefix: Vec<u32>,
    pub(super) suffix: Vec<u32>,
}

/// How tokens become text: the file's decoder; without one, with blanks between them.
#[derive(Debug)]
pub(super) struct Joining(pub(super) Option<DecoderWrapper>);

impl Library {
    /// The ids of `text`, without prefix and suffix.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, controls: Controls) -> Vec<u32> {
        let ids = self.try_encode(vocabulary, text, controls);
        ids.unwrap_or_else(|_| vocabulary.unknown.into_iter().collect())
    }

    /// The same, with what the library had to say where it failed.
    pub(super) fn try_encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        controls: Controls,
    ) -> Result<Vec<u32>, String> {
        guarded(|| {
            let mut pieces = PreTokenizedString::from(text);
            pieces.split(|_, piece| {
                let found = self.raw.find(piece.get(), |token, start, end| match controls {
                    _ if vocabulary.kind(token.id) == Kind::UserDefined => true,
                    Controls::Typed => false,
                    Controls::Spelled => true,
                    Controls::Unmarked => !protect::is_marked(piece.get(), start, end),
                });
                let mut pieces = cut(&piece, &found)?;
                if controls == Controls::Unmarked {
                    let texts = pieces.iter_mut().filter(|(_, tokens)| tokens.is_none());
                    texts.for_each(|(piece, _)| unmark(piece));
                }
                Ok(pieces)
            })?;
            pieces.split(|_, mut piece| {
                if let Some(normalizer) = &self.normalizer {
                    normalizer.normalize(&mut piece)?;
                }
                let found = self.normalized.find(piece.get(), |_, _, _| true);
                cut(&piece, &found)
            })?;
            if let Some(pre_tokenizer) = &self.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.tokenize(vocabulary, piece.get()))?;
            Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
        })
    }

    /// The model's tokens of a word. Where one of them is a control token (a vocabulary may hold its spelling like any
    /// other), its characters are tokens by themselves.
    fn tokenize(&self, vocabulary: &Vocabulary, word: &str) -> tokenizers::Result<Vec<Token>> {
        let is_control = |token: &Token| vocabulary.kind(token.id) == Kind::Control;
        let tokens = self.model.tokenize(word)?;
        if !tokens.iter().any(is_control) {
            return Ok(tokens);
        }
        let mut out = Vec::with_capacity(tokens.len());
        for token in tokens {
            if !is_control(&token) {
                out.push(token);
                continue;
            }
            for c in word.get(token.offsets.0..token.offsets.1).unwrap_or_default().chars() {
                let single = self.model.tokenize(c.encode_utf8(&mut [0; 4]))?;
                out.extend(single.into_iter().filter(|token| !is_control(token)));
            }
        }
        Ok(out)
    }

    /// `text` as the normalizers leave it.
    pub(super) fn normalized(normalizer: Option<&NormalizerWrapper>, text: &str) -> Result<String, String> {
        let Some(normalizer) = normalizer else { return Ok(text.to_owned()) };
        guarded(|| {
            let mut normalized = NormalizedString::from(text);
            normalizer.normalize(&mut normalized)?;
            Ok(normalized.get().to_owned())
        })
    }
}

impl Joining {
    /// The text of the tokens spelled `tokens`.
    pub(super) fn join(&self, tokens: Vec<String>) -> String {
        match &self.0 {
            None => tokens.join(" "),
            Some(decoder) => {
                let plain = tokens.concat();
                guarded(|| decoder.decode(tokens)).unwrap_or(plain)
            }
        }
    }
}

/// Runs a part of the library; its panics are errors.
pub(super) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library broke down over it".into()),
    }
}

/// `piece` cut at `found`: the texts between, and the tokens.
fn cut(piece: &NormalizedString, found: &[Match]) -> tokenizers::Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    let slice = |from: usize, to: usize| {
        piece.slice(Range::Normalized(from..to)).ok_or("an added token begins or ends inside a character")
    };
    let mut pieces = Vec::with_capacity(found.len() * 2 + 1);
    let mut from = 0;
    for found in found {
        if from < found.start {
            pieces.push((slice(from, found.start)?, None));
        }
        let token = Token::new(found.id, String::new(), (0, 0));
        pieces.push((slice(found.start, found.end)?, Some(vec![token])));
        from = found.end;
    }
    if from < piece.get().len() {
        pieces.push((slice(from, piece.get().len())?, None));
    }
    Ok(pieces)
}

/// Drops the marks of [`protect`]: of each run every first, third, … one.
fn unmark(piece: &mut NormalizedString) {
    if !piece.get().contains(protect::MARK) {
        return;
    }
    let after_mark = Cell::new(false);
    piece.filter(|c| {
        let keep = after_mark.get() || c != protect::MARK;
        after_mark.set(!keep);
        keep
    });
}
