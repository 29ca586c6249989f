//! Tokens that are found by their spelling before anything else: control, unknown and user-defined ones.
//!
//! One pass over the text, the longest spelling at each place.

use super::prefixes::Prefixes;
use super::vocabulary::{Kind, Vocabulary};

/// A special token in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

/// The special tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct Specials {
    spellings: Prefixes,
}

impl Specials {
    pub(super) fn new(vocabulary: &Vocabulary) -> Specials {
        let special = |kind: Kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        let is_text = |id: u32| vocabulary.tokens.get(id).is_some_and(|spelling| std::str::from_utf8(spelling).is_ok());
        let ids = (0u32..).zip(&vocabulary.kinds).filter(|(_, kind)| special(**kind)).map(|(id, _)| id);
        Specials { spellings: Prefixes::new(&vocabulary.tokens, ids.filter(|&id| is_text(id))) }
    }

    /// The first special token of `text` at or after `from` that is `wanted`.
    pub(super) fn next(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        from: usize,
        wanted: impl Fn(&Found) -> bool,
    ) -> Option<Found> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|start| {
            let here = self.spellings.of(&vocabulary.tokens, bytes.get(start..)?);
            here.map(|(length, id)| Found { start, end: start + length, id }).filter(&wanted).last()
        })
    }
}
