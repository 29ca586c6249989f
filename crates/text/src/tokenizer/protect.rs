//! Marks that keep typed text from becoming control tokens on its way through a template.
//!
//! A template mixes the model's control tokens and what people typed into one string. So that a typed `<|im_end|>` stays
//! the ten characters it is, a noncharacter goes in after its first character; what holds one is no control token, and all
//! marks are dropped before the text is cut into tokens. U+FDD0 is a noncharacter: Unicode keeps it for such use, and text
//! does not have it. Should typed text have it all the same, it is doubled, and comes out as typed.

use std::borrow::Cow;

use super::special::Found;

/// The mark.
pub(super) const MARK: char = '\u{fdd0}';

/// `typed` with a mark inside every control token; `next` finds the first one from a place on.
pub(super) fn protect(typed: &str, next: impl Fn(usize) -> Option<Found>) -> String {
    let mut out = String::with_capacity(typed.len() + 16);
    let mut from = 0;
    let copy = |out: &mut String, from: usize, to: usize| {
        for c in typed.get(from..to).unwrap_or_default().chars() {
            out.push(c);
            if c == MARK {
                out.push(MARK);
            }
        }
    };
    while let Some(found) = next(from) {
        let first = typed.get(found.start..).and_then(|text| text.chars().next()).map_or(1, char::len_utf8);
        copy(&mut out, from, found.start + first);
        out.push(MARK);
        // Only past the first character: another token may begin inside this one.
        from = found.start + first;
    }
    copy(&mut out, from, typed.len());
    out
}

/// Whether the token found at `start..end` was typed. A mark inside it keeps it from being found, except where it is one
/// character long; then the mark stands behind it.
pub(super) fn is_marked(text: &str, start: usize, end: usize) -> bool {
    let single = text.get(start..end).is_some_and(|token| token.chars().count() == 1);
    let marks = text.get(end..).unwrap_or_default().chars().take_while(|&c| c == MARK).count();
    single && marks % 2 == 1
}

/// `text` without the marks.
pub(super) fn unmarked(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains(MARK) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != MARK {
            out.push(c);
        } else if let Some(after) = chars.next() {
            // Two are one that was typed; one is dropped.
            out.push(after);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "ab" and "x" are control tokens.
    fn next(typed: &str, from: usize) -> Option<Found> {
        let rest = typed.get(from..)?;
        let at =
            |token: &str| rest.find(token).map(|at| Found { start: from + at, end: from + at + token.len(), id: 0 });
        [at("ab"), at("x")].into_iter().flatten().min_by_key(|found| found.start)
    }

    #[test]
    fn marks_go_in_and_come_out() {
        let rows = [
            ("plain", "plain"),
            ("an ab", "an a\u{fdd0}b"),
            ("abab", "a\u{fdd0}ba\u{fdd0}b"),
            ("x", "x\u{fdd0}"),
            ("\u{fdd0}", "\u{fdd0}\u{fdd0}"),
            ("a\u{fdd0}b", "a\u{fdd0}\u{fdd0}b"),
            ("\u{fdd0}ab\u{fdd0}", "\u{fdd0}\u{fdd0}a\u{fdd0}b\u{fdd0}\u{fdd0}"),
            ("x\u{fdd0}", "x\u{fdd0}\u{fdd0}\u{fdd0}"),
        ];
        for (typed, expected) in rows {
            let marked = protect(typed, |from| next(typed, from));
            assert_eq!(marked, expected, "{typed:?}");
            assert_eq!(unmarked(Cow::Borrowed(&marked)), typed);
        }
        for (text, expected) in [("x", false), ("x\u{fdd0}", true), ("x\u{fdd0}\u{fdd0}", false)] {
            assert_eq!(is_marked(text, 0, 1), expected, "{text:?}");
        }
    }
}
