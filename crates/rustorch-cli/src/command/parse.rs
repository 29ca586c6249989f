//! Reading a line that may be a command (specification S8): exact words at column 0, quoted arguments.
//!
//! `//x` is the message `/x`. A line that begins with a slash and is no command is an error, never a message.

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Text for the model.
    Message(String),
    /// A command: its word without the slash, and the rest of the line.
    Command {
        /// The word.
        name: String,
        /// What follows it, trimmed.
        rest: String,
    },
    /// Nothing but white space.
    Empty,
}

/// Tells what a line (or a block of lines) is.
pub(crate) fn line(text: &str) -> Line {
    if text.trim().is_empty() {
        return Line::Empty;
    }
    match text.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => Line::Message(rest.to_owned()),
        Some(rest) => {
            let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Line::Command { name: name.to_owned(), rest: rest.trim().to_owned() }
        }
        None => Line::Message(text.to_owned()),
    }
}

/// Splits arguments at white space. Quotes `'…'` keep everything, `"…"` too except `\"` and `\\`; outside of quotes a
/// backslash keeps the next character if that is white space, a quote or a backslash, and is itself otherwise (Windows
/// paths).
///
/// # Errors
/// The quote that is not closed.
pub(crate) fn arguments(rest: &str) -> Result<Vec<String>, char> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '\\') if matches!(chars.peek(), Some('"' | '\\')) => {
                current.get_or_insert_default().extend(chars.next());
            }
            (Some(_), _) => current.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                current.get_or_insert_default();
            }
            (None, '\\') if chars.peek().is_some_and(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '\\')) => {
                current.get_or_insert_default().extend(chars.next());
            }
            (None, _) if c.is_whitespace() => arguments.extend(current.take()),
            (None, _) => current.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(open);
    }
    arguments.extend(current);
    Ok(arguments)
}

/// The candidate that is spelled most like `word`, if any is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| {
            let begins = !word.is_empty() && (candidate.starts_with(&word) || word.starts_with(candidate));
            (if begins { 0 } else { crate::settings::layers::distance(&word, candidate) }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Line {
        Line::Message(text.into())
    }

    fn command(name: &str, rest: &str) -> Line {
        Line::Command { name: name.into(), rest: rest.into() }
    }

    #[test]
    fn lines() {
        for (text, expected) in [
            ("hello", message("hello")),
            (" /exit", message(" /exit")),
            ("/exit", command("exit", "")),
            ("/exiting", command("exiting", "")),
            ("/save  a b ", command("save", "a b")),
            ("/system two\nlines", command("system", "two\nlines")),
            ("//exit", message("/exit")),
            ("///", message("//")),
            ("/", command("", "")),
            ("  \t\n", Line::Empty),
            ("", Line::Empty),
        ] {
            assert_eq!(line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn quoted_arguments() {
        let check = |text: &str, expected: Result<&[&str], char>| {
            assert_eq!(
                arguments(text),
                expected.map(|list| list.iter().map(|s| (*s).to_owned()).collect()),
                "{text:?}"
            );
        };
        check("", Ok(&[]));
        check("a  b", Ok(&["a", "b"]));
        check("\"my file.json\" --force", Ok(&["my file.json", "--force"]));
        check("'it\\n' x", Ok(&["it\\n", "x"]));
        check(r#""a\"b\\c\d""#, Ok(&[r#"a"b\c\d"#]));
        check(r"my\ file", Ok(&["my file"]));
        check(r"C:\models\x.gguf", Ok(&[r"C:\models\x.gguf"]));
        check("\"\"", Ok(&[""]));
        check("日本 語", Ok(&["日本", "語"]));
        check("pre\"fix\"ed", Ok(&["prefixed"]));
        check("\"open", Err('"'));
        check("it's", Err('\''));
        check("end\\", Ok(&["end\\"]));
    }

    #[test]
    fn suggestions() {
        let names = ["exit", "quit", "help", "clear", "system", "save", "stats"];
        for (word, expected) in [
            ("exiting", Some("exit")),
            ("sytem", Some("system")),
            ("Help", Some("help")),
            ("zzz", None),
            ("sav", Some("save")),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
    }
}
