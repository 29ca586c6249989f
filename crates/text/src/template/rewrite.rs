//! What Python's jinja2 does that the engine does not, and that no hook of the engine reaches: rewritten in the source.
//!
//! * `{% generation %}` blocks, which the reference only records, become blocks that always render.
//! * `{% for x in EXPR %}`: the engine takes `none` as an empty list, Python refuses it; so `EXPR` goes through a filter
//!   that refuses it too.
//! * `A|safe + B`: adding to a safe string escapes the other operand in Python, even where nothing else escapes; so `+`
//!   beside a `safe` becomes a filter that does that.
//!
//! Rewriting goes by tokens, keeps line breaks where they are, and leaves every other tag as it is, so that errors still
//! name the right line.

use crate::error::{Error, Result};
use crate::limits;

/// The filter that refuses to iterate what Python cannot iterate.
pub(super) const ITERATED: &str = "rustorch_iterated";
/// The filter that adds as Python adds safe strings.
pub(super) const ADDED: &str = "rustorch_added";

/// A token inside a tag: what it is and where it stands in the tag.
struct Token<'s> {
    text: &'s str,
    at: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// The source with everything above rewritten.
///
/// # Errors
/// [`Error::TemplateLimit`] for a tag with more tokens than [`limits::TEMPLATE_TAG_TOKENS`]: the engine goes through the
/// operators of an expression one inside the other.
pub(super) fn rewrite(source: &str) -> Result<String> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = next_tag(rest) {
        out.push_str(before);
        let (inside, whole) = tag_inside(tag);
        match tag.as_bytes().get(1) {
            Some(b'#') => out.push_str(whole),
            kind => {
                let tokens = tokens(inside);
                if tokens.len() > limits::TEMPLATE_TAG_TOKENS {
                    let limit = format!("{} tokens", limits::TEMPLATE_TAG_TOKENS);
                    return Err(Error::TemplateLimit { what: "one tag", limit });
                }
                out.push_str(whole.get(..2).unwrap_or_default());
                out.push_str(&rewrite_tag(inside, &tokens, kind == Some(&b'%')));
                out.push_str(whole.get(2 + inside.len()..).unwrap_or_default());
                if kind == Some(&b'%') && names(&tokens).eq(["raw"]) {
                    let after = tag.get(whole.len()..).unwrap_or_default();
                    let raw = after.get(..raw_end(after)).unwrap_or_default();
                    out.push_str(raw);
                    rest = after.get(raw.len()..).unwrap_or_default();
                    continue;
                }
            }
        }
        rest = tag.get(whole.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// Splits before the next `{%`, `{{` or `{#`.
fn next_tag(source: &str) -> Option<(&str, &str)> {
    let at = source.as_bytes().windows(2).position(|pair| matches!(pair, b"{%" | b"{{" | b"{#"))?;
    source.split_at_checked(at)
}

/// The inside of the tag that `source` begins with, and the whole tag; to the end of the source when it is not closed.
fn tag_inside(source: &str) -> (&str, &str) {
    let bytes = source.as_bytes();
    let body = source.get(2..).unwrap_or_default();
    if bytes.get(1) == Some(&b'#') {
        let end = body.find("#}").unwrap_or(body.len());
        let whole = source.get(..(end + 4).min(source.len())).unwrap_or(source);
        return (body.get(..end).unwrap_or_default(), whole);
    }
    let close = if bytes.get(1) == Some(&b'%') { "%}" } else { "}}" };
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(tail) = body.get(at..).filter(|tail| !tail.is_empty()) {
        if depth == 0 && tail.starts_with(close) {
            return (body.get(..at).unwrap_or_default(), source.get(..at + 4).unwrap_or(source));
        }
        let length = token_bytes(tail);
        match tail.as_bytes().first() {
            Some(b'(' | b'[' | b'{') => depth += 1,
            Some(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += length;
    }
    (body, source)
}

/// How long the token at the start of `text` is; never 0 and never inside a character.
fn token_bytes(text: &str) -> usize {
    let Some(first) = text.chars().next() else { return 1 };
    if first == '"' || first == '\'' {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    if first == '_' || first.is_alphanumeric() {
        return text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len());
    }
    const PAIRS: [&str; 6] = ["==", "!=", "<=", ">=", "//", "**"];
    if PAIRS.iter().any(|pair| text.starts_with(pair)) { 2 } else { first.len_utf8() }
}

fn tokens(inside: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(tail) = inside.get(at..).filter(|tail| !tail.is_empty()) {
        let length = token_bytes(tail).min(tail.len());
        if !tail.starts_with(char::is_whitespace) {
            tokens.push(Token { text: tail.get(..length).unwrap_or(tail), at });
        }
        at += length;
    }
    tokens
}

/// The tokens without the marks of white-space control at either end.
fn bare<'t, 's>(tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
    let is_mark = |token: &Token| token.text == "-" || token.text == "+";
    let tokens = tokens.strip_prefix_if(is_mark);
    match tokens {
        [rest @ .., last] if is_mark(last) => rest,
        all => all,
    }
}

trait StripPrefixIf {
    fn strip_prefix_if(&self, test: impl Fn(&Token) -> bool) -> &Self;
}

impl StripPrefixIf for [Token<'_>] {
    fn strip_prefix_if(&self, test: impl Fn(&Token) -> bool) -> &Self {
        match self {
            [first, rest @ ..] if test(first) => rest,
            all => all,
        }
    }
}

fn names<'t>(tokens: &'t [Token]) -> impl Iterator<Item = &'t str> {
    bare(tokens).iter().map(|token| token.text)
}

/// Where the raw text at the start of `source` ends: before its `{% endraw %}`.
fn raw_end(source: &str) -> usize {
    let mut ends = source.match_indices("{%").filter(|(at, _)| {
        let inside = source.get(at + 2..).unwrap_or_default();
        inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start().starts_with("endraw")
    });
    ends.next().map_or(source.len(), |(at, _)| at)
}

/// Text put in at a place of the tag, instead of the `skip` bytes there.
struct Edit {
    at: usize,
    skip: usize,
    text: String,
}

fn rewrite_tag(inside: &str, tokens: &[Token], statement: bool) -> String {
    let tokens = bare(tokens);
    let mut edits = Vec::new();
    if statement {
        match tokens {
            [only] if only.text == "generation" => edits.push(replace(only, "if true")),
            [only] if only.text == "endgeneration" => edits.push(replace(only, "endif")),
            [first, rest @ ..] if first.text == "for" => check_iterated(rest, &mut edits),
            _ => {}
        }
    }
    if tokens.windows(2).any(|pair| matches!(pair, [bar, name] if bar.text == "|" && name.text == "safe")) {
        add_safe_strings(tokens, &mut edits);
    }
    // In order of place; at one place, what is inserted first stays first.
    edits.sort_by_key(|edit| edit.at);
    let mut out = String::with_capacity(inside.len() + 64);
    let mut from = 0;
    for edit in &edits {
        out.push_str(inside.get(from..edit.at).unwrap_or_default());
        out.push_str(&edit.text);
        from = edit.at + edit.skip;
    }
    out.push_str(inside.get(from..).unwrap_or_default());
    out
}

fn replace(token: &Token, text: &str) -> Edit {
    Edit { at: token.at, skip: token.text.len(), text: text.into() }
}

fn insert(at: usize, text: &str) -> Edit {
    Edit { at, skip: 0, text: text.into() }
}

/// Each token with the depth of brackets it stands in; brackets count as standing outside themselves.
fn with_depth<'t, 's>(tokens: &'t [Token<'s>]) -> impl Iterator<Item = (usize, &'t Token<'s>)> {
    let mut depth = 0usize;
    tokens.iter().map(move |token| match token.text {
        "(" | "[" | "{" => {
            depth += 1;
            (depth - 1, token)
        }
        ")" | "]" | "}" => {
            depth = depth.saturating_sub(1);
            (depth, token)
        }
        _ => (depth, token),
    })
}

/// `for TARGETS in EXPR [if …] [recursive]`: puts the filter behind `EXPR`. `tokens` come after the `for`.
fn check_iterated(tokens: &[Token], edits: &mut Vec<Edit>) {
    let mut outer = with_depth(tokens).filter(|(depth, _)| *depth == 0).map(|(_, token)| token);
    let Some(start) = outer.by_ref().find(|token| token.text == "in") else { return };
    let stop = outer.find(|token| token.text == "if" || token.text == "recursive").map_or(usize::MAX, |token| token.at);
    let mut expression = tokens.iter().filter(|token| token.at > start.at && token.at < stop);
    let Some(first) = expression.next() else { return };
    let last = expression.next_back().unwrap_or(first);
    edits.push(insert(first.at, "("));
    edits.push(insert(last.end(), &format!(")|{ITERATED}")));
}

/// What ends a sum: everything that binds weaker than `+`.
const WEAKER: &[&str] = &[
    "==", "!=", "<", ">", "<=", ">=", "=", ",", ":", "and", "or", "not", "if", "else", "elif", "in", "is", "set", "do",
    "call", "for", "filter",
];

/// Rewrites each sum with a `|safe` in it.
fn add_safe_strings(tokens: &[Token], edits: &mut Vec<Edit>) {
    // One open sum for each depth: the places of its tokens.
    let mut sums: Vec<Vec<&Token>> = vec![Vec::new()];
    for token in tokens {
        match token.text {
            "(" | "[" | "{" => {
                last_sum(&mut sums).push(token);
                sums.push(Vec::new());
            }
            ")" | "]" | "}" => {
                add_in_sum(&sums.pop().unwrap_or_default(), edits);
                last_sum(&mut sums).push(token);
            }
            text if WEAKER.contains(&text) => add_in_sum(&std::mem::take(last_sum(&mut sums)), edits),
            _ => last_sum(&mut sums).push(token),
        }
    }
    for sum in sums {
        add_in_sum(&sum, edits);
    }
}

fn last_sum<'v, 't, 's>(sums: &'v mut Vec<Vec<&'t Token<'s>>>) -> &'v mut Vec<&'t Token<'s>> {
    if sums.is_empty() {
        sums.push(Vec::new());
    }
    let last = sums.len() - 1;
    &mut sums[last]
}

fn add_in_sum(sum: &[&Token], edits: &mut Vec<Edit>) {
    let safe = sum.windows(2).any(|pair| matches!(pair, [bar, name] if bar.text == "|" && name.text == "safe"));
    let plus = sum.iter().filter(|token| token.text == "+").count();
    let (Some(first), Some(last)) = (sum.first(), sum.last()) else { return };
    if !safe || plus == 0 || first.text == "+" || sum.iter().any(|token| token.text == "-") {
        return;
    }
    edits.push(insert(first.at, "("));
    edits.extend(sum.iter().filter(|token| token.text == "+").map(|token| replace(token, &format!(")|{ADDED}("))));
    edits.push(insert(last.end(), ")"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_is_rewritten() {
        let rows = [
            ("a {{ b }} {% if c %}{% endif %}", "a {{ b }} {% if c %}{% endif %}"),
            ("{%- generation -%}x{% endgeneration %}", "{%- if true -%}x{% endif %}"),
            ("{% for a in b %}", "{% for a in (b)|rustorch_iterated %}"),
            ("{%- for a, c in b.items() if a in d -%}", "{%- for a, c in (b.items())|rustorch_iterated if a in d -%}"),
            ("{% for a in [1, 2] + b recursive %}", "{% for a in ([1, 2] + b)|rustorch_iterated recursive %}"),
            ("{{ 'for a in b %}' }}{# for a in b #}", "{{ 'for a in b %}' }}{# for a in b #}"),
            ("{% raw %}{% for a in b %}{% endraw %}", "{% raw %}{% for a in b %}{% endraw %}"),
            ("{{ a|safe + b + c|d() }}", "{{ (a|safe )|rustorch_added( b )|rustorch_added( c|d()) }}"),
            ("{{ f(a + 'x'|safe, b + 1) }}", "{{ f((a )|rustorch_added( 'x'|safe), b + 1) }}"),
            ("{{ {'a': {}}|safe }}x", "{{ {'a': {}}|safe }}x"),
            ("{% for a in b", "{% for a in (b)|rustorch_iterated"),
            ("{{ 'ü", "{{ 'ü"),
            ("{%", "{%"),
            ("{# a", "{# a"),
        ];
        for (source, expected) in rows {
            assert_eq!(rewrite(source).unwrap(), expected);
        }
    }
}
