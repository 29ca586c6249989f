//! Makes untrusted text harmless for a terminal: what a model wrote, metadata of a file, names, error texts.
//!
//! Control characters (C0 except line feed and tab, DEL, C1) and the characters with Unicode's `Bidi_Control` property
//! (UAX #9) are shown instead of sent, so that text can neither move the cursor, retitle the window, write to the
//! clipboard nor reorder what is read. Piped answers keep their bidi controls (a terminal that shows them later is the
//! reader's), but no control characters; JSON carries the exact text, escaped.

use std::fmt::Write as _;

/// A filter for text that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct TerminalFilter {
    /// A carriage return was seen and not yet shown: a line feed behind it makes both a line end.
    pending_return: bool,
    /// Bidi controls stay.
    keep_bidi: bool,
}

impl TerminalFilter {
    /// A filter at the start of a text.
    pub(crate) fn new() -> TerminalFilter {
        TerminalFilter::default()
    }

    /// A filter for text that goes to a file or another program.
    pub(crate) fn for_pipe() -> TerminalFilter {
        TerminalFilter { keep_bidi: true, ..TerminalFilter::default() }
    }

    /// The next piece, made harmless.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        for c in piece.chars() {
            if std::mem::take(&mut self.pending_return) && c != '\n' {
                show('\r', &mut out);
            }
            match c {
                '\r' => self.pending_return = true,
                c if self.keep_bidi && is_bidi_control(c) => out.push(c),
                _ => show(c, &mut out),
            }
        }
        out
    }

    /// What is still held back at the end of the text.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        if std::mem::take(&mut self.pending_return) {
            show('\r', &mut out);
        }
        out
    }
}

/// A whole text made harmless; line ends and tabs stay.
pub(crate) fn visible(text: &str) -> String {
    let mut filter = TerminalFilter::new();
    let mut out = filter.push(text);
    out.push_str(&filter.finish());
    out
}

/// A text made harmless and kept on one line: for names and values inside a line of ours.
pub(crate) fn visible_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('␊'),
            '\t' => out.push('␉'),
            _ => show(c, &mut out),
        }
    }
    out
}

/// Control characters that JSON leaves as they are: DEL, C1 and the bidi controls.
pub(crate) fn is_hidden_control(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}') || is_bidi_control(c)
}

/// Unicode's `Bidi_Control` property.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn show(c: char, out: &mut String) {
    match c {
        '\n' | '\t' => out.push(c),
        // The control pictures block mirrors C0 in order.
        '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
        '\u{7f}' => out.push('␡'),
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => {
            let _ = write!(out, "<U+{:04X}>", u32::from(c));
        }
        _ => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        assert_eq!(visible(input), expected, "whole {input:?}");
        let mut filter = TerminalFilter::new();
        let mut out = String::new();
        for c in input.chars() {
            out.push_str(&filter.push(c.encode_utf8(&mut [0; 4])));
        }
        out.push_str(&filter.finish());
        assert_eq!(out, expected, "char by char {input:?}");
    }

    #[test]
    fn pipes_keep_directions_but_no_controls() {
        let mut filter = TerminalFilter::for_pipe();
        let mut out = filter.push("\u{200f}שלום\u{202c} \u{1b}[2J\u{9b}");
        out.push_str(&filter.finish());
        assert_eq!(out, "\u{200f}שלום\u{202c} ␛[2J<U+009B>");
    }

    #[test]
    fn rows() {
        check("plain 日本語 👩‍👩‍👧 ok\n\tx", "plain 日本語 👩‍👩‍👧 ok\n\tx");
        check("\x1b[31mred\x1b]52;c;eA==\x07", "␛[31mred␛]52;c;eA==␇");
        check("a\r\nb", "a\nb");
        check("a\rb", "a␍b");
        check("a\r", "a␍");
        check("\r\r\n", "␍\n");
        check("\0\x08\x7f", "␀␈␡");
        check("\u{9b}31m", "<U+009B>31m");
        check("a\u{202e}b\u{2066}c\u{200f}", "a<U+202E>b<U+2066>c<U+200F>");
        check("", "");
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(visible_line("a\nb\tc\r\n\x1b"), "a␊b␉c␍␊␛");
    }
}
