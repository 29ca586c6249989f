//! Tokenizers: text to token ids and back.
//!
//! What belongs here: the algorithms, the special tokens around them, and [`Tokenizer`], which puts them together the
//! way llama.cpp does, whose ids are the reference. What does not: what a conversation looks like ([`crate::ChatTemplate`]).
//!
//! The algorithms are our own rather than the `tokenizers` library's: GGUF stores tables, not that library's pipeline, its
//! semantics differ in detail (scores decide merges, blanks and special tokens have rules of their own), and the tables of
//! 150 000 tokens have to be ready in a few tens of milliseconds. Files in that library's own format (`tokenizer.json`) run
//! through it, in [`library`], behind the same [`Tokenizer`]; so do the older files that are easily put into that form.

mod added;
mod bpe;
mod byte_text;
mod decode;
mod export;
mod hugging_face;
mod library;
mod merge;
mod merge_queue;
mod post_processor;
mod prefixes;
mod protect;
mod ranked;
mod sentence_piece;
mod sentence_piece_model;
mod special;
mod split;
mod table;
mod tekken;
mod tiktoken;
mod unigram;
mod vocab_merges;
mod vocabulary;
mod word_piece;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

pub use decode::DecodeStream;
pub use export::ExportedTokenizer;
pub use vocabulary::{Kind, TokenizerModel};

use bpe::Bpe;
use library::{Controls, Library};
use sentence_piece::BLANK;
use special::{Found, Specials};
use unigram::Unigram;
use vocabulary::Vocabulary;
use word_piece::WordPiece;

use crate::error::{Error, Result};

/// What [`Tokenizer::encode`] adds and looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the beginning- and end-of-text tokens where the model wants them.
    pub bos_eos: bool,
    /// Take spellings of control tokens in the text as those tokens.
    pub special: bool,
}

/// A model's tokenizer. Cheap to clone; clones share the tables.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocabulary: Vocabulary,
    specials: Specials,
    /// Made when the first text is encoded: decoding needs none of it.
    algorithm: OnceLock<Algorithm>,
    word_piece: Option<WordPiece>,
    /// The pipeline that encodes in place of all that, of a `tokenizer.json`.
    library: Option<Library>,
}

/// What an algorithm needs beyond the vocabulary.
#[derive(Debug)]
enum Algorithm {
    Bpe(Bpe),
    Ranked,
    SentencePiece,
    Unigram(Unigram),
}

/// A piece of text to encode.
enum Fragment<'t> {
    Text(Cow<'t, str>),
    Token(u32),
}

impl Tokenizer {
    /// The tokenizer of a checkpoint: that of a file beside the weights (a `tokenizer.json` before all others), or else the
    /// tables in its metadata.
    ///
    /// # Errors
    /// A key of the vocabulary, or a field of the file, that is missing, of the wrong type, or contradicts the others; an
    /// algorithm or pre-tokenizer that this program does not have.
    pub fn from_checkpoint(checkpoint: &checkpoint::Checkpoint) -> Result<Tokenizer> {
        match hugging_face::read(checkpoint)? {
            Some((vocabulary, library)) => Tokenizer::new(vocabulary, library),
            None if checkpoint.metadata().get("tokenizer.ggml.model").is_none() && checkpoint.format() != "gguf" => {
                let problem = format!("there is no such file beside the weights (known: {})", hugging_face::KNOWN);
                Err(Error::Vocabulary { key: hugging_face::TOKENIZER.into(), problem })
            }
            None => Tokenizer::new(Vocabulary::from_checkpoint(checkpoint)?, None),
        }
    }

    #[cfg(test)]
    fn from_vocabulary(vocabulary: Vocabulary) -> Result<Tokenizer> {
        Tokenizer::new(vocabulary, None)
    }

    fn new(vocabulary: Vocabulary, library: Option<Library>) -> Result<Tokenizer> {
        let specials = Specials::new(&vocabulary);
        let word_piece = match vocabulary.model {
            TokenizerModel::WordPiece if library.is_none() => Some(WordPiece::new()?),
            _ => None,
        };
        let inner = Inner { vocabulary, specials, algorithm: OnceLock::new(), word_piece, library };
        Ok(Tokenizer { inner: Arc::new(inner) })
    }

    /// The algorithm.
    pub fn model(&self) -> TokenizerModel {
        self.inner.vocabulary.model
    }

    /// How many tokens there are.
    pub fn n_vocab(&self) -> usize {
        self.inner.vocabulary.tokens.len()
    }

    /// The ids of `text`.
    ///
    /// User-defined tokens are always found by their spelling; control tokens only with [`EncodeOptions::special`]. As in
    /// the reference, the beginning-of-text token is added even to a text that spells it; only
    /// [`Tokenizer::encode_rendered`] knows that such a text has it already.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Vec<u32> {
        if let Some(library) = &self.inner.library {
            let controls = if options.special { Controls::Spelled } else { Controls::Typed };
            let ids = library.encode(&self.inner.vocabulary, text, controls);
            let around = |ids: &[u32]| if options.bos_eos { ids.to_vec() } else { Vec::new() };
            return [around(&library.prefix), ids, around(&library.suffix)].concat();
        }
        let fragments = self.fragments(text, |found| options.special || self.kind(found.id) == Kind::UserDefined);
        let mut ids: Vec<u32> = self.bos().filter(|_| options.bos_eos && self.adds_bos()).into_iter().collect();
        self.encode_fragments(fragments, &mut ids);
        ids.extend(self.eos().filter(|_| options.bos_eos && self.inner.vocabulary.add_eos));
        ids
    }

    /// `typed` with a mark in every spelling of a control token, so that [`Tokenizer::encode_rendered`] takes it as the
    /// plain text it is. Text without such spellings comes back as it is.
    pub fn protect(&self, typed: &str) -> String {
        protect::protect(typed, |from| {
            let inner = &*self.inner;
            inner.specials.next(&inner.vocabulary, typed, from, |found| self.kind(found.id) != Kind::UserDefined)
        })
    }

    /// The ids of a rendered template: control tokens are found by their spelling, except in what
    /// [`Tokenizer::protect`] marked. The beginning-of-text token is added where the model wants it and the text does not
    /// begin with it.
    pub fn encode_rendered(&self, rendered: &str) -> Vec<u32> {
        if let Some(library) = &self.inner.library {
            let ids = library.encode(&self.inner.vocabulary, rendered, Controls::Unmarked);
            let bos: Vec<u32> =
                self.bos().filter(|bos| self.adds_bos() && ids.first() != Some(bos)).into_iter().collect();
            return [bos, ids].concat();
        }
        let fragments = self.fragments(rendered, |found| !protect::is_marked(rendered, found.start, found.end));
        let unmarked = fragments.into_iter().map(|fragment| match fragment {
            Fragment::Text(text) => Fragment::Text(protect::unmarked(text)),
            token => token,
        });
        let mut ids: Vec<u32> = self.bos().filter(|_| self.adds_bos()).into_iter().collect();
        self.encode_fragments(unmarked.collect(), &mut ids);
        // The template wrote it as well.
        if let ([bos, first, ..], true) = (ids.as_slice(), self.adds_bos())
            && bos == first
        {
            ids.remove(0);
        }
        ids
    }

    /// Cuts `text` at the special tokens that are `wanted`.
    fn fragments<'t>(&self, text: &'t str, wanted: impl Fn(&Found) -> bool) -> Vec<Fragment<'t>> {
        let Inner { vocabulary, specials, .. } = &*self.inner;
        let mut fragments = Vec::new();
        let mut from = 0;
        let push_text = |fragments: &mut Vec<_>, from: usize, to: usize| {
            if let Some(text) = text.get(from..to).filter(|text| !text.is_empty()) {
                fragments.push(Fragment::Text(Cow::Borrowed(text)));
            }
        };
        while let Some(found) = specials.next(vocabulary, text, from, &wanted) {
            push_text(&mut fragments, from, found.start);
            fragments.push(Fragment::Token(found.id));
            from = found.end;
            if vocabulary.strips_right.binary_search(&found.id).is_ok() {
                let rest = text.get(from..).unwrap_or_default();
                from += rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b').len();
            }
        }
        push_text(&mut fragments, from, text.len());
        fragments
    }

    fn encode_fragments(&self, fragments: Vec<Fragment>, ids: &mut Vec<u32>) {
        let vocabulary = &self.inner.vocabulary;
        // SentencePiece puts a blank before the text, and before what follows a special token.
        let mut after_special = true;
        for fragment in fragments {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    self.encode_text(&text, after_special && vocabulary.add_space_prefix, ids);
                    after_special = false;
                }
            }
        }
    }

    fn encode_text(&self, text: &str, space_prefix: bool, ids: &mut Vec<u32>) {
        let Inner { vocabulary, word_piece, .. } = &*self.inner;
        if let Some(word_piece) = word_piece {
            return word_piece.encode(vocabulary, text, ids);
        }
        match self.algorithm() {
            Algorithm::Bpe(bpe) => bpe.encode(vocabulary, text, ids),
            Algorithm::Ranked => ranked::encode(vocabulary, text, ids),
            Algorithm::Unigram(unigram) => unigram.encode(vocabulary, text, ids),
            Algorithm::SentencePiece => {
                let prefix = if space_prefix { BLANK } else { "" };
                sentence_piece::encode(vocabulary, &[prefix, &text.replace(' ', BLANK)].concat(), ids);
            }
        }
    }

    fn algorithm(&self) -> &Algorithm {
        let vocabulary = &self.inner.vocabulary;
        self.inner.algorithm.get_or_init(|| match vocabulary.model {
            TokenizerModel::Bpe if vocabulary.ranked => Algorithm::Ranked,
            TokenizerModel::Bpe => Algorithm::Bpe(Bpe::new(vocabulary)),
            TokenizerModel::Unigram => Algorithm::Unigram(Unigram::new(vocabulary)),
            TokenizerModel::SentencePiece | TokenizerModel::WordPiece | TokenizerModel::WordLevel => {
                Algorithm::SentencePiece
            }
        })
    }

    /// The bytes of the text that `ids` stand for, control tokens left out. They need not be UTF-8.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        decode::decode(&self.inner, ids)
    }

    /// A decoder that takes one token at a time.
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.inner.clone())
    }

    /// The bytes of one token; the spelling of a control token; nothing for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        decode::token_bytes(&self.inner.vocabulary, id)
    }

    /// The token whose spelling in the vocabulary is exactly `spelling`.
    pub fn find_token(&self, spelling: &str) -> Option<u32> {
        self.inner.vocabulary.tokens.find(spelling.as_bytes())
    }

    /// What token `id` is.
    pub fn kind(&self, id: u32) -> Kind {
        self.inner.vocabulary.kind(id)
    }

    /// Whether token `id` steers the model and is never shown.
    pub fn is_control(&self, id: u32) -> bool {
        self.kind(id) == Kind::Control
    }

    /// The beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.inner.vocabulary.bos
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.inner.vocabulary.eos
    }

    /// Whether texts begin with the beginning-of-text token.
    pub fn adds_bos(&self) -> bool {
        self.inner.vocabulary.add_bos && self.inner.vocabulary.bos.is_some()
    }

    /// The tokens that end an answer, in ascending order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.inner.vocabulary.end_of_generation
    }
}

#[cfg(test)]
mod tests;
