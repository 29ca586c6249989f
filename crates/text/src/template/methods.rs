//! The methods of Python's `str`, `dict` and `list` that templates call, as one table per type.
//!
//! The sandbox of the reference forbids the methods that change their object (`append`, `update`, `pop` …); they are not
//! here, so that calling one is an error there and here.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use super::render::{Limit, check_clock, over_limit};
use crate::limits;

/// The arguments of a call.
struct Arguments {
    positional: Vec<Value>,
    named: Kwargs,
}

impl Arguments {
    /// The argument at `index`, or called `name`.
    fn get(&self, index: usize, name: &str) -> Result<Option<Value>, Error> {
        if self.named.has(name) {
            return self.named.get::<Value>(name).map(Some);
        }
        Ok(self.positional.get(index).cloned())
    }

    fn text(&self, index: usize, name: &str) -> Result<String, Error> {
        match self.get(index, name)? {
            Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| {
                type_error(format!("a string was expected for {name}, not a value of type {}", value.kind()))
            }),
            None => Err(Error::new(ErrorKind::MissingArgument, format!("{name} is missing"))),
        }
    }

    /// Like [`Arguments::text`], where leaving it out and `none` are the same.
    fn optional_text(&self, index: usize, name: &str) -> Result<Option<String>, Error> {
        match self.get(index, name)? {
            Some(value) if !value.is_none() => self.text(index, name).map(Some),
            _ => Ok(None),
        }
    }

    fn integer(&self, index: usize, name: &str) -> Result<Option<i64>, Error> {
        match self.get(index, name)? {
            Some(value) if !value.is_none() => i64::try_from(value).map(Some),
            _ => Ok(None),
        }
    }

    fn flag(&self, index: usize, name: &str) -> Result<bool, Error> {
        Ok(self.get(index, name)?.is_some_and(|value| value.is_true()))
    }
}

fn type_error(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

type StrMethod = fn(&str, &Arguments) -> Result<Value, Error>;

/// `str`.
const STR: &[(&str, usize, StrMethod)] = &[
    ("capitalize", 0, |s, _| Ok(capitalize(s).into())),
    ("casefold", 0, |s, _| Ok(s.to_lowercase().replace('ß', "ss").into())),
    ("center", 2, |s, a| pad(s, a, |width| width / 2)),
    ("count", 3, |s, a| Ok(count(s, a)?.into())),
    ("endswith", 3, |s, a| affix(s, a, |s, end| s.ends_with(end))),
    ("find", 3, |s, a| Ok(find(s, a, |s, what| s.find(what))?.into())),
    ("index", 3, |s, a| found(find(s, a, |s, what| s.find(what))?)),
    ("isalnum", 0, |s, _| Ok(all(s, |c| c.is_alphanumeric()))),
    ("isalpha", 0, |s, _| Ok(all(s, |c| c.is_alphabetic()))),
    ("isascii", 0, |s, _| Ok(s.is_ascii().into())),
    ("isdecimal", 0, |s, _| Ok(all(s, |c| c.is_numeric()))),
    ("isdigit", 0, |s, _| Ok(all(s, |c| c.is_numeric()))),
    ("islower", 0, |s, _| Ok((s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)).into())),
    ("isnumeric", 0, |s, _| Ok(all(s, |c| c.is_numeric()))),
    ("isspace", 0, |s, _| Ok(all(s, is_space))),
    ("istitle", 0, |s, _| Ok((title(s) == s && s.chars().any(char::is_alphabetic)).into())),
    ("isupper", 0, |s, _| Ok((s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)).into())),
    ("join", 1, join),
    ("ljust", 2, |s, a| pad(s, a, |_| 0)),
    ("lower", 0, |s, _| Ok(s.to_lowercase().into())),
    ("lstrip", 1, |s, a| strip(s, a, true, false)),
    ("partition", 1, |s, a| {
        let at = a.text(0, "sep")?;
        partition(s, &at, s.find(&at), false)
    }),
    ("removeprefix", 1, |s, a| Ok(s.strip_prefix(a.text(0, "prefix")?.as_str()).unwrap_or(s).into())),
    ("removesuffix", 1, |s, a| Ok(s.strip_suffix(a.text(0, "suffix")?.as_str()).unwrap_or(s).into())),
    ("replace", 3, replace),
    ("rfind", 3, |s, a| Ok(find(s, a, |s, what| s.rfind(what))?.into())),
    ("rindex", 3, |s, a| found(find(s, a, |s, what| s.rfind(what))?)),
    ("rjust", 2, |s, a| pad(s, a, |width| width)),
    ("rpartition", 1, |s, a| {
        let at = a.text(0, "sep")?;
        partition(s, &at, s.rfind(&at), true)
    }),
    ("rsplit", 2, |s, a| split(s, a, true)),
    ("rstrip", 1, |s, a| strip(s, a, false, true)),
    ("split", 2, |s, a| split(s, a, false)),
    ("splitlines", 1, |s, a| Ok(split_lines(s, a.flag(0, "keepends")?).into_iter().map(Value::from).collect())),
    ("startswith", 3, |s, a| affix(s, a, |s, start| s.starts_with(start))),
    ("strip", 1, |s, a| strip(s, a, true, true)),
    ("swapcase", 0, |s, _| Ok(s.chars().flat_map(swapped).collect::<String>().into())),
    ("title", 0, |s, _| Ok(title(s).into())),
    ("upper", 0, |s, _| Ok(s.to_uppercase().into())),
    ("zfill", 1, zfill),
];

type ObjectMethod = fn(&Value, &Arguments) -> Result<Value, Error>;

/// `dict`.
const DICT: &[(&str, usize, ObjectMethod)] = &[
    ("copy", 0, |dict, _| Ok(dict.clone())),
    ("get", 2, dict_get),
    ("items", 0, |dict, _| Ok(dict_pairs(dict).map(|(k, v)| Value::from(Tuple::from([k, v]))).collect())),
    ("keys", 0, |dict, _| Ok(dict_pairs(dict).map(|(k, _)| k).collect())),
    ("values", 0, |dict, _| Ok(dict_pairs(dict).map(|(_, v)| v).collect())),
];

/// The methods of `dict` that the sandbox refuses to call, but that attributes find.
const DICT_FORBIDDEN: &[&str] = &["clear", "fromkeys", "pop", "popitem", "setdefault", "update"];

/// `list` and `tuple`.
const LIST: &[(&str, usize, ObjectMethod)] = &[
    ("copy", 0, |list, _| Ok(list.clone())),
    ("count", 1, |list, a| {
        let what = a.get(0, "value")?.unwrap_or_default();
        let mut n = 0;
        for item in list.try_iter()?.checked() {
            n += i64::from(item? == what);
        }
        Ok(n.into())
    }),
    ("index", 3, |list, a| {
        let what = a.get(0, "value")?.unwrap_or_default();
        for (i, item) in list.try_iter()?.checked().enumerate() {
            if item? == what {
                return Ok(i.into());
            }
        }
        Err(type_error("the value is not in the list"))
    }),
];

/// The name of `dict`'s method called `name`, if it has one.
pub(super) fn dict_method(name: &str) -> Option<&'static str> {
    let callable = DICT.iter().map(|row| row.0);
    callable.chain(DICT_FORBIDDEN.iter().copied()).find(|&known| known == name)
}

/// Calls a method on a value that the engine knows no method of.
pub(super) fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    check_clock()?;
    let work = value.as_str().map_or(0, str::len) / 64;
    state.consume_fuel(work as u64)?;
    let row = |table: &[(&str, usize, ObjectMethod)]| table.iter().find(|row| row.0 == name).map(|row| (row.1, row.2));
    let object_method = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            return match STR.iter().find(|row| row.0 == name) {
                Some((_, most, method)) => method(text, &arguments(args, *most)?),
                None if name == "format" => format(state, value, args),
                None => Err(Error::from(ErrorKind::UnknownMethod)),
            };
        }
        ValueKind::Map => row(DICT),
        ValueKind::Seq | ValueKind::Iterable => row(LIST),
        _ => None,
    };
    match object_method {
        Some((most, method)) => method(value, &arguments(args, most)?),
        None => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn arguments(args: &[Value], most: usize) -> Result<Arguments, Error> {
    let (positional, named): (Rest<Value>, Kwargs) = from_args(args)?;
    if positional.0.len() > most {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    Ok(Arguments { positional: positional.0, named })
}

/// `str.format`, by the engine's own; a width that alone breaks the limit is refused before it is filled.
fn format(state: &mut State, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    let wide = |value: &Value| value.as_i64().is_some_and(|n| n > limits::TEMPLATE_STRING_BYTES as i64);
    let runs = text.split(|c: char| !c.is_ascii_digit());
    let mut widths = runs.map(|run| run.parse::<usize>().unwrap_or(if run.is_empty() { 0 } else { usize::MAX }));
    // A width may also come from an argument (`{:{}}`).
    if widths.any(|width| width > limits::TEMPLATE_STRING_BYTES) || (text.contains("{:") && args.iter().any(wide)) {
        return Err(over_limit(Limit::String));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, "format", args)
}

/// What Python's `str.isspace` and `str.strip` take as white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn all(s: &str, test: fn(char) -> bool) -> Value {
    (!s.is_empty() && s.chars().all(test)).into()
}

fn capitalize(s: &str) -> String {
    let mut chars = s.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().to_lowercase().chars()).collect()
}

fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn strip(s: &str, a: &Arguments, left: bool, right: bool) -> Result<Value, Error> {
    let chars: Option<Vec<char>> = a.optional_text(0, "chars")?.map(|chars| chars.chars().collect());
    let drop = |c: char| chars.as_ref().map_or(is_space(c), |chars| chars.contains(&c));
    let s = if left { s.trim_start_matches(drop) } else { s };
    let s = if right { s.trim_end_matches(drop) } else { s };
    Ok(s.into())
}

/// `s[start:end]` in characters as Python slices, for the methods that take `start` and `end` after one argument.
/// Returns also the number of characters before the part.
fn part<'s>(s: &'s str, a: &Arguments) -> Result<Option<(&'s str, usize)>, Error> {
    let (start, end) = (a.integer(1, "start")?, a.integer(2, "end")?);
    if start.is_none() && end.is_none() {
        return Ok(Some((s, 0)));
    }
    let n_chars = s.chars().count();
    let clamp = |at: i64| {
        let from_end = n_chars.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX));
        usize::try_from(at).unwrap_or(from_end)
    };
    let (start, end) = (start.map_or(0, clamp), end.map_or(n_chars, clamp).min(n_chars));
    if start > end {
        return Ok(None);
    }
    let byte = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(at, _)| at);
    Ok(s.get(byte(start)..byte(end)).map(|text| (text, start)))
}

fn count(s: &str, a: &Arguments) -> Result<usize, Error> {
    let what = a.text(0, "sub")?;
    let Some((text, _)) = part(s, a)? else { return Ok(0) };
    Ok(if what.is_empty() { text.chars().count() + 1 } else { text.matches(&what).count() })
}

fn find(s: &str, a: &Arguments, search: fn(&str, &str) -> Option<usize>) -> Result<i64, Error> {
    let what = a.text(0, "sub")?;
    let Some((text, before)) = part(s, a)? else { return Ok(-1) };
    let Some(at) = search(text, &what) else { return Ok(-1) };
    let chars = text.get(..at).unwrap_or_default().chars().count() + before;
    Ok(i64::try_from(chars).unwrap_or(i64::MAX))
}

fn found(at: i64) -> Result<Value, Error> {
    if at < 0 { Err(type_error("substring not found")) } else { Ok(at.into()) }
}

fn affix(s: &str, a: &Arguments, test: fn(&str, &str) -> bool) -> Result<Value, Error> {
    let what = a.get(0, "prefix")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
    let Some((text, _)) = part(s, a)? else { return Ok(false.into()) };
    if let Some(what) = what.as_str() {
        return Ok(test(text, what).into());
    }
    if !what.is_tuple() {
        return Err(type_error(format!("a string or a tuple of strings was expected, not {}", what.kind())));
    }
    for item in what.try_iter()?.checked() {
        let item = item?;
        let item = item.as_str().ok_or_else(|| type_error("a tuple of strings was expected"))?;
        if test(text, item) {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn check_bytes(bytes: usize) -> Result<(), Error> {
    if bytes > limits::TEMPLATE_STRING_BYTES { Err(over_limit(Limit::String)) } else { Ok(()) }
}

fn join(s: &str, a: &Arguments) -> Result<Value, Error> {
    let items = a.get(0, "iterable")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
    if items.is_none() || items.is_undefined() {
        return Err(type_error("join: a list was expected"));
    }
    let mut out = String::new();
    for (i, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        let text = item.as_str().ok_or_else(|| type_error(format!("join: item {i} is not a string")))?;
        check_bytes(out.len().saturating_add(s.len()).saturating_add(text.len()))?;
        if i > 0 {
            out.push_str(s);
        }
        out.push_str(text);
    }
    Ok(out.into())
}

fn replace(s: &str, a: &Arguments) -> Result<Value, Error> {
    let (old, new) = (a.text(0, "old")?, a.text(1, "new")?);
    let most = usize::try_from(a.integer(2, "count")?.unwrap_or(-1)).unwrap_or(usize::MAX);
    let n = s.matches(&old).take(most).count();
    check_bytes(new.len().saturating_mul(n).saturating_add(s.len()))?;
    Ok(s.replacen(&old, &new, most).into())
}

fn pad(s: &str, a: &Arguments, left: fn(usize) -> usize) -> Result<Value, Error> {
    let width = usize::try_from(a.integer(0, "width")?.unwrap_or(0)).unwrap_or(0);
    let fill = a.optional_text(1, "fillchar")?.unwrap_or_else(|| " ".into());
    if fill.chars().count() != 1 {
        return Err(type_error("the fill character has to be one character"));
    }
    let missing = width.saturating_sub(s.chars().count());
    check_bytes(missing.saturating_mul(fill.len()).saturating_add(s.len()))?;
    // Python's centre puts the odd blank on the left only when the width is odd.
    let before = left(missing + usize::from(width % 2 == 1 && missing % 2 == 1)).min(missing);
    Ok(format!("{}{s}{}", fill.repeat(before), fill.repeat(missing - before)).into())
}

fn zfill(s: &str, a: &Arguments) -> Result<Value, Error> {
    let width = usize::try_from(a.integer(0, "width")?.unwrap_or(0)).unwrap_or(0);
    let missing = width.saturating_sub(s.chars().count());
    check_bytes(missing.saturating_add(s.len()))?;
    let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
    Ok(format!("{sign}{}{digits}", "0".repeat(missing)).into())
}

fn partition(s: &str, sep: &str, at: Option<usize>, right: bool) -> Result<Value, Error> {
    if sep.is_empty() {
        return Err(type_error("empty separator"));
    }
    let parts = match at {
        Some(at) => [s.get(..at).unwrap_or_default(), sep, s.get(at + sep.len()..).unwrap_or_default()],
        None if right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn split(s: &str, a: &Arguments, right: bool) -> Result<Value, Error> {
    let most = usize::try_from(a.integer(1, "maxsplit")?.unwrap_or(-1)).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match a.optional_text(0, "sep")? {
        Some(sep) if sep.is_empty() => return Err(type_error("empty separator")),
        Some(sep) if right => s.rsplitn(most + 1, sep.as_str()).collect(),
        Some(sep) => s.splitn(most + 1, sep.as_str()).collect(),
        None => split_on_space(s, most, right),
    };
    if right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Splitting on runs of white space, with the rest uncut after `most` cuts; the parts in the order they are cut off.
fn split_on_space(s: &str, most: usize, right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s;
    loop {
        rest = if right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            return parts;
        }
        let cut = if right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut.filter(|_| parts.len() < most) else {
            parts.push(if right { rest.trim_start_matches(is_space) } else { rest.trim_end_matches(is_space) });
            if parts.len() > most {
                // Python keeps the white space at the far end of the part it leaves uncut.
                parts.pop();
                parts.push(rest);
            }
            return parts;
        };
        let after = cut + rest.get(cut..).and_then(|t| t.chars().next()).map_or(1, char::len_utf8);
        if right {
            parts.push(rest.get(after..).unwrap_or_default());
            rest = rest.get(..cut).unwrap_or_default();
        } else {
            parts.push(rest.get(..cut).unwrap_or_default());
            rest = rest.get(after..).unwrap_or_default();
        }
    }
}

fn split_lines(s: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: [char; 10] = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(ENDS) {
        let tail = rest.get(at..).unwrap_or_default();
        let end = if tail.starts_with("\r\n") { 2 } else { tail.chars().next().map_or(1, char::len_utf8) };
        lines.push(rest.get(..if keep_ends { at + end } else { at }).unwrap_or_default());
        rest = rest.get(at + end..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn dict_pairs(dict: &Value) -> impl Iterator<Item = (Value, Value)> {
    dict.as_object()
        .and_then(|object| object.try_iter_pairs().map(|pairs| pairs.collect::<Vec<_>>()))
        .into_iter()
        .flatten()
}

fn dict_get(dict: &Value, a: &Arguments) -> Result<Value, Error> {
    let key = a.get(0, "key")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
    let found = dict.as_object().and_then(|object| object.get_value(&key));
    Ok(match found {
        Some(value) => value,
        None => a.get(1, "default")?.unwrap_or(Value::from(())),
    })
}
