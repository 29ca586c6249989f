//! Ids back to text: the bytes of each token, whole sequences, and a stream that never shows half a character.

use std::borrow::Cow;
use std::sync::Arc;

use super::library::Joining;
use super::sentence_piece::BLANK;
use super::vocabulary::{Kind, TokenizerModel, Vocabulary};
use super::{Inner, byte_text};

/// The bytes token `id` stands for in text. Control tokens give their spelling; ids outside the vocabulary nothing.
pub(super) fn token_bytes(vocabulary: &Vocabulary, id: u32) -> Cow<'_, [u8]> {
    let Some(spelling) = vocabulary.tokens.get(id) else { return Cow::Borrowed(&[]) };
    match vocabulary.kind(id) {
        Kind::Control | Kind::Unknown | Kind::UserDefined => Cow::Borrowed(spelling),
        Kind::Unused => Cow::Borrowed(&[]),
        Kind::Byte => match byte_of(spelling) {
            Some(byte) => Cow::Owned(vec![byte]),
            None => Cow::Borrowed(spelling),
        },
        Kind::Normal if vocabulary.model == TokenizerModel::Bpe => bytes_of_byte_text(spelling),
        Kind::Normal => blanks_of(spelling),
    }
}

/// The byte that `<0x41>` spells.
fn byte_of(spelling: &[u8]) -> Option<u8> {
    let digits = spelling.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A spelling in the alphabet of bytes as its bytes; characters outside the alphabet stand for themselves.
fn bytes_of_byte_text(spelling: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(spelling) else { return Cow::Borrowed(spelling) };
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_text::to_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// A spelling with every U+2581 as a blank.
fn blanks_of(spelling: &[u8]) -> Cow<'_, [u8]> {
    let blank = BLANK.as_bytes();
    if !spelling.windows(blank.len()).any(|window| window == blank) {
        return Cow::Borrowed(spelling);
    }
    let mut bytes = Vec::with_capacity(spelling.len());
    let mut rest = spelling;
    while let Some((&first, tail)) = rest.split_first() {
        match rest.strip_prefix(blank) {
            Some(after) => {
                bytes.push(b' ');
                rest = after;
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    Cow::Owned(bytes)
}

/// Where a sequence begins, the text loses the blank that SentencePiece put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start(bool);

impl Start {
    fn of(vocabulary: &Vocabulary) -> Start {
        Start(vocabulary.add_space_prefix && vocabulary.model != TokenizerModel::Bpe)
    }

    /// What token `id` adds to the text at this place. Control and unknown tokens add nothing.
    fn shown<'v>(&mut self, vocabulary: &'v Vocabulary, id: u32) -> Cow<'v, [u8]> {
        if matches!(vocabulary.kind(id), Kind::Control | Kind::Unknown) {
            return Cow::Borrowed(&[]);
        }
        let bytes = token_bytes(vocabulary, id);
        if !std::mem::replace(&mut self.0, false) || bytes.first() != Some(&b' ') {
            return bytes;
        }
        match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(1..).unwrap_or_default()),
            Cow::Owned(mut bytes) => {
                bytes.remove(0);
                Cow::Owned(bytes)
            }
        }
    }
}

/// The bytes of a whole sequence.
pub(super) fn decode(tokenizer: &Inner, ids: &[u32]) -> Vec<u8> {
    let vocabulary = &tokenizer.vocabulary;
    if let Some(joining) = joining(tokenizer) {
        return joining.join(ids.iter().filter_map(|&id| joined_spelling(vocabulary, id)).collect()).into_bytes();
    }
    let mut start = Start::of(vocabulary);
    let mut bytes = Vec::new();
    for &id in ids {
        bytes.extend_from_slice(&start.shown(vocabulary, id));
    }
    if vocabulary.clean_spaces { cleaned(&bytes) } else { bytes }
}

/// How tokens that are not shown one by one are put together.
fn joining(tokenizer: &Inner) -> Option<&Joining> {
    tokenizer.library.as_ref()?.joining.as_ref()
}

/// The spelling of a token that is shown.
fn joined_spelling(vocabulary: &Vocabulary, id: u32) -> Option<String> {
    let hidden = matches!(vocabulary.kind(id), Kind::Control | Kind::Unknown | Kind::Unused);
    let spelling = vocabulary.tokens.get(id).filter(|_| !hidden)?;
    Some(String::from_utf8_lossy(spelling).into_owned())
}

/// Without the blanks that word-wise tokenizers leave before punctuation and contractions; the list is that of the
/// transformers library.
fn cleaned(bytes: &[u8]) -> Vec<u8> {
    const CLEANED: [(&[u8], &[u8]); 10] = [
        (b" .", b"."),
        (b" ?", b"?"),
        (b" !", b"!"),
        (b" ,", b","),
        (b" ' ", b"'"),
        (b" n't", b"n't"),
        (b" 'm", b"'m"),
        (b" 's", b"'s"),
        (b" 've", b"'ve"),
        (b" 're", b"'re"),
    ];
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match CLEANED.iter().find_map(|(from, to)| Some((rest.strip_prefix(*from)?, to))) {
            Some((after, to)) => {
                out.extend_from_slice(to);
                rest = after;
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Decodes token by token. What it returns, put together, is the text of the sequence: complete characters only, bytes
/// that cannot become one as U+FFFD. (Blanks before punctuation stay as the model wrote them.)
#[derive(Clone, Debug)]
pub struct DecodeStream {
    tokenizer: Arc<Inner>,
    start: Start,
    pending: Vec<u8>,
    /// Where tokens are joined: the last ones, and what of their text has been returned.
    window: Vec<String>,
    returned: String,
}

/// Joined tokens that are kept to see what one more adds. A character takes at most four of them.
const WINDOW: usize = 8;

impl DecodeStream {
    pub(super) fn new(tokenizer: Arc<Inner>) -> DecodeStream {
        let start = Start::of(&tokenizer.vocabulary);
        DecodeStream { tokenizer, start, pending: Vec::new(), window: Vec::new(), returned: String::new() }
    }

    /// The text that token `id` completes; empty while a character is still open.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(joining) = joining(&self.tokenizer) {
            let Some(spelling) = joined_spelling(&self.tokenizer.vocabulary, id) else { return String::new() };
            self.window.push(spelling);
            let text = joining.join(self.window.clone());
            if text.ends_with(char::REPLACEMENT_CHARACTER) && self.window.len() < WINDOW {
                return String::new();
            }
            let added = text.get(self.returned.len()..).unwrap_or_default().to_owned();
            self.returned = text;
            if self.window.len() >= WINDOW {
                self.window.drain(..WINDOW - 1);
                self.returned = joining.join(self.window.clone());
            }
            return added;
        }
        let bytes = self.start.shown(&self.tokenizer.vocabulary, id);
        self.pending.extend_from_slice(&bytes);
        drain(&mut self.pending, false)
    }

    /// The rest: an unfinished character becomes U+FFFD. The stream then begins anew.
    pub fn finish(&mut self) -> String {
        self.start = Start::of(&self.tokenizer.vocabulary);
        if let Some(joining) = joining(&self.tokenizer) {
            let text = joining.join(std::mem::take(&mut self.window));
            let returned = std::mem::take(&mut self.returned);
            return text.get(returned.len()..).unwrap_or_default().to_owned();
        }
        drain(&mut self.pending, true)
    }
}

/// Takes the text out of `pending`, leaving the beginning of a character that may still be completed, unless this is the
/// `end`.
fn drain(pending: &mut Vec<u8>, end: bool) -> String {
    let mut text = String::with_capacity(pending.len());
    let mut kept = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        kept += chunk.valid().len() + chunk.invalid().len();
        let is_last = kept == pending.len();
        if is_last && !end && is_beginning(chunk.invalid()) {
            kept -= chunk.invalid().len();
        } else if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    pending.drain(..kept.min(pending.len()));
    text
}

/// Whether `bytes`, not a character themselves, are the beginning of one.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_give_bytes() {
        let rows: [(&[u8], &[u8]); 4] = [
            ("Ġa".as_bytes(), b" a"),
            ("ÃĄ".as_bytes(), &[0xc3, 4]),
            ("→".as_bytes(), "→".as_bytes()),
            (b"\xff", b"\xff"),
        ];
        for (spelling, expected) in rows {
            assert_eq!(&*bytes_of_byte_text(spelling), expected);
        }
        let rows: [(&str, &str); 3] = [("\u{2581}a\u{2581}", " a "), ("abc", "abc"), ("", "")];
        for (spelling, expected) in rows {
            assert_eq!(&*blanks_of(spelling.as_bytes()), expected.as_bytes());
        }
        let rows: [(&[u8], Option<u8>); 4] =
            [(b"<0x0A>", Some(10)), (b"<0xff>", Some(255)), (b"<0x>", None), (b"a", None)];
        for (spelling, expected) in rows {
            assert_eq!(byte_of(spelling), expected);
        }
    }

    #[test]
    fn cleaning_joins_punctuation() {
        assert_eq!(cleaned(b"a , b . I 'm it 's ' x"), b"a, b. I'm it's'x");
    }

    #[test]
    fn half_characters_wait_and_bad_bytes_are_replaced() {
        type Row<'r> = (&'r [&'r [u8]], &'r [&'r str], &'r str);
        let rows: [Row; 5] = [
            (&[b"a\xc3", b"\xa9b"], &["a", "éb"], ""),
            (&[b"\xf0\x9f", b"\x98", b"\x80"], &["", "", "😀"], ""),
            (&[b"\xf0\x9f", b"x"], &["", "\u{fffd}x"], ""),
            (&[b"\xff\xc3"], &["\u{fffd}"], "\u{fffd}"),
            (&[b"\x80", b"\xe2\x82"], &["\u{fffd}", ""], "\u{fffd}"),
        ];
        for (pushes, expected, rest) in rows {
            let mut pending = Vec::new();
            for (bytes, expected) in pushes.iter().zip(expected) {
                pending.extend_from_slice(bytes);
                assert_eq!(drain(&mut pending, false), *expected, "{pushes:x?}");
            }
            assert_eq!(drain(&mut pending, true), rest, "{pushes:x?}");
            assert!(pending.is_empty());
        }
    }
}
