//! Splits Rust source into what the checks need: per line the code without literals, the code with them, and the comment.
//!
//! This is a lexer for comments, strings, character literals and `#[cfg(test)]` items (The Rust Reference, "Tokens"), not
//! a parser: it never rejects a file.

/// One line of a Rust file.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Line {
    /// Code with comments removed and the contents of literals blanked.
    pub(crate) code: String,
    /// Code with comments removed, literals kept.
    pub(crate) words: String,
    /// The text of comments, doc comments included.
    pub(crate) comment: String,
    /// Whether the line is part of an item under `#[cfg(test)]`.
    pub(crate) test: bool,
}

enum State {
    Code,
    LineComment,
    /// Nesting depth.
    BlockComment(usize),
    /// Number of `#` of a raw string; `None` for one with escapes.
    Literal(Option<usize>),
}

/// The lines of `text`.
pub(crate) fn split(text: &str) -> Vec<Line> {
    let mut lines = lex(text);
    mark_tests(&mut lines);
    lines
}

fn lex(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\n');
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut i = 0;
    while i < chars.len() {
        let c = at(i);
        let Some(line) = lines.last_mut() else { break };
        let mut step = 1;
        if c == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
            i += 1;
            continue;
        }
        match &mut state {
            State::LineComment => line.comment.push(c),
            State::BlockComment(depth) => match (c, at(i + 1)) {
                ('*', '/') => {
                    step = 2;
                    *depth -= 1;
                    if *depth == 0 {
                        state = State::Code;
                    }
                }
                ('/', '*') => {
                    step = 2;
                    *depth += 1;
                }
                _ => line.comment.push(c),
            },
            State::Literal(None) if c == '\\' => {
                line.words.extend([c, if at(i + 1) == '\n' { ' ' } else { at(i + 1) }]);
                line.code.push_str("  ");
                step = if at(i + 1) == '\n' { 1 } else { 2 };
            }
            State::Literal(hashes) => {
                let closing = hashes.unwrap_or(0);
                let ends = c == '"' && (1..=closing).all(|k| at(i + k) == '#');
                line.words.push(c);
                line.code.push(if ends { '"' } else { ' ' });
                if ends {
                    step = 1 + closing;
                    state = State::Code;
                }
            }
            State::Code => match literal_start(&chars, i) {
                _ if c == '/' && at(i + 1) == '/' => {
                    state = State::LineComment;
                    step = 2;
                }
                _ if c == '/' && at(i + 1) == '*' => {
                    state = State::BlockComment(1);
                    step = 2;
                }
                Some((length, hashes)) => {
                    line.code.push('"');
                    line.words.push('"');
                    step = length;
                    state = State::Literal(hashes);
                }
                None if c == '\'' => {
                    step = character_length(&chars, i);
                    line.words.extend(chars.iter().skip(i).take(step));
                    line.code.push('\'');
                    line.code.extend(std::iter::repeat_n(' ', step - 1));
                }
                None => {
                    line.code.push(c);
                    line.words.push(c);
                }
            },
        }
        i += step;
    }
    lines
}

/// Whether a string starts at `i`: the length of its opening and, if it is raw, the number of `#`.
fn literal_start(chars: &[char], i: usize) -> Option<(usize, Option<usize>)> {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\n');
    let inside_name = i > 0 && is_name(at(i - 1));
    if at(i) == '"' {
        return Some((1, None));
    }
    if inside_name || !matches!(at(i), 'r' | 'b' | 'c') {
        return None;
    }
    let raw_at = if at(i) == 'r' { i } else { i + 1 };
    if at(raw_at) == '"' && raw_at > i {
        return Some((2, None));
    }
    if at(raw_at) != 'r' {
        return None;
    }
    let hashes = (raw_at + 1..).take_while(|&k| at(k) == '#').count();
    (at(raw_at + 1 + hashes) == '"').then_some((raw_at - i + 2 + hashes, Some(hashes)))
}

/// The length of the character literal at `i`, or 1 when the quote opens a lifetime.
fn character_length(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\n');
    if at(i + 1) == '\\' {
        let end = (i + 3..i + 14).find(|&k| at(k) == '\'').unwrap_or(i + 2);
        return end - i + 1;
    }
    if at(i + 2) == '\'' && at(i + 1) != '\n' { 3 } else { 1 }
}

/// Marks the lines of items under `#[cfg(test)]`, from the attribute to the closing brace.
fn mark_tests(lines: &mut [Line]) {
    let mut depth = 0usize;
    let mut pending = false;
    let mut inside: Option<usize> = None;
    for line in lines {
        if line.code.contains("#[cfg(test)]") || line.code.contains("#[cfg(all(test") {
            pending = true;
        }
        line.test = pending || inside.is_some();
        for c in line.code.chars() {
            match c {
                '{' => {
                    if pending && inside.is_none() {
                        inside = Some(depth);
                        pending = false;
                    }
                    depth += 1;
                }
                '}' => {
                    depth = depth.saturating_sub(1);
                    if inside == Some(depth) {
                        inside = None;
                    }
                }
                ';' if inside.is_none() => pending = false,
                _ => {}
            }
        }
    }
}

/// Whether `c` can be part of a name.
pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names (identifiers and words inside literals) of a line, each with its byte offset.
pub(crate) fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !is_name(c)).filter(|w| !w.is_empty()).map(move |w| {
        // Pieces of `split` lie inside `text`, so the difference of addresses is the offset.
        (w.as_ptr() as usize - text.as_ptr() as usize, w)
    })
}

/// Whether `pattern` occurs in `text` as whole names: not as the tail or head of a longer one.
pub(crate) fn has(text: &str, pattern: &str) -> bool {
    let edge = |c: Option<char>, inner: Option<char>| !(c.is_some_and(is_name) && inner.is_some_and(is_name));
    text.match_indices(pattern).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = rest.get(pattern.len()..).unwrap_or("");
        edge(before.chars().next_back(), pattern.chars().next())
            && edge(after.chars().next(), pattern.chars().next_back())
    })
}

/// The parts of a name, lower-cased, trailing digits dropped: `Llama3Bpe` and `llama_bpe` both give `llama`, `bpe`.
pub(crate) fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous = '_';
    for c in name.chars() {
        let starts = c == '_' || (c.is_uppercase() && !previous.is_uppercase());
        if starts {
            parts.push(String::new());
        }
        if let (true, Some(last)) = (c != '_', parts.last_mut()) {
            last.extend(c.to_lowercase());
        }
        previous = c;
    }
    parts.retain(|p| !p.is_empty());
    parts.iter().map(|p| p.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let check = |text: &str, code: &str, words: &str, comment: &str| {
            let lines = split(text);
            assert_eq!((lines[0].code.as_str(), lines[0].words.as_str()), (code, words), "{text}");
            assert_eq!(lines[0].comment, comment, "{text}");
        };
        check("a // b", "a ", "a ", " b");
        check("a /* b /* c */ d */ e", "a  e", "a  e", " b  c  d ");
        check(r#"f("x // y")"#, r#"f("      ")"#, r#"f("x // y")"#, "");
        check(r#"f("\"z") // q"#, r#"f("   ") "#, r#"f("\"z") "#, " q");
        check(r##"f(r#"a"b"#) // c"##, r##"f("   ") "##, r##"f("a"b") "##, " c");
        check(r#"f(b"x")"#, r#"f(" ")"#, r#"f("x")"#, "");
        check("let r#type = 'x';", "let r#type = '  ;", "let r#type = 'x';", "");
        check(r"c == '\'' || d", "c == '    || d", r"c == '\'' || d", "");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)", "");
    }

    #[test]
    fn a_string_may_span_lines() {
        let lines = split("let s = \"a\n// b\"; // c");
        assert_eq!(lines[1].words, "// b\"; ");
        assert_eq!(lines[1].comment, " c");
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let lines =
            split("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { }\n}\nfn c() {}\n#[cfg(test)]\nmod t;\nfn d() {}");
        let marked: Vec<bool> = lines.iter().map(|l| l.test).collect();
        assert_eq!(marked, [false, true, true, true, true, false, true, true, false]);
    }

    #[test]
    fn names_are_taken_apart() {
        let check = |name: &str, expected: &[&str]| assert_eq!(parts(name), expected, "{name}");
        check("Llama3Bpe", &["llama", "bpe"]);
        check("llama_bpe", &["llama", "bpe"]);
        check("LLAMA", &["llama"]);
        check("ollama", &["ollama"]);
        check("qwen3moe", &["qwen3moe"]);
    }

    #[test]
    fn whole_names_only() {
        let check = |text: &str, pattern: &str, expected: bool| assert_eq!(has(text, pattern), expected, "{text}");
        check("println!(\"\")", "print!", false);
        check("println!(\"\")", "println!", true);
        check("std::env::var(", "env::", true);
        check("my_env::var(", "env::", false);
        check("env!(\"X\")", "env::", false);
        check("unsafe_code", "unsafe", false);
    }
}
