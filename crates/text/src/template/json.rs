//! The `tojson` filter as the reference renderer defines it: Python's `json.dumps` without HTML escapes.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::pystr;
use super::render::{Limit, check_clock, over_limit};
use crate::limits;

/// How deep values are written; deeper ones are an error rather than recursion.
const DEPTH: usize = 1000;

/// The layout: Python's `indent`, `separators`, `ensure_ascii` and `sort_keys`.
struct Layout {
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, positions as in the reference.
pub(super) fn tojson(state: &State, value: &Value, given: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    check_clock()?;
    let option = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = if kwargs.has(name) { Some(kwargs.get::<Value>(name)?) } else { given.get(index).cloned() };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ensure_ascii = option(0, "ensure_ascii")?;
    let indent = option(1, "indent")?;
    let separators = option(2, "separators")?;
    let sort_keys = option(3, "sort_keys")?;
    if given.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    kwargs.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(indent) => Some(indent_of(&indent)?),
    };
    let (item_separator, key_separator) = match separators {
        // Python drops the blank after the comma when every item is on a line of its own.
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => {
            let mut texts = pair.try_iter()?.map(|text| text.as_str().map(str::to_owned));
            match (texts.next().flatten(), texts.next().flatten(), texts.next()) {
                (Some(item), Some(key), None) => (item, key),
                _ => return Err(type_error("tojson: separators has to be two strings")),
            }
        }
    };
    let layout = Layout {
        indent,
        item_separator,
        key_separator,
        ensure_ascii: ensure_ascii.is_some_and(|v| v.is_true()),
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
    };
    let mut out = String::new();
    write(&mut out, value, &layout, 0)?;
    state.consume_fuel(out.len() as u64 / 16)?;
    Ok(out)
}

fn indent_of(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.into());
    }
    let width =
        i64::try_from(indent.clone()).map_err(|_| type_error("tojson: indent has to be a number or a string"))?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width > limits::TEMPLATE_STRING_BYTES {
        return Err(over_limit(Limit::String));
    }
    Ok(" ".repeat(width))
}

fn type_error(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

fn write(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(type_error("tojson: the value is nested too deep"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&number(f64::try_from(value.clone()).unwrap_or(f64::NAN))),
        ValueKind::String => write_str(out, value.as_str().unwrap_or_default(), layout.ensure_ascii),
        ValueKind::Map => write_map(out, value, layout, depth)?,
        ValueKind::Seq => write_items(out, value.try_iter()?.checked(), ['[', ']'], layout, depth, |out, item| {
            write(out, &item?, layout, depth + 1)
        })?,
        // The engine's slices and repetitions are lists to Python, and have a length; generators have none.
        ValueKind::Iterable if value.len().is_some() => {
            write_items(out, value.try_iter()?.checked(), ['[', ']'], layout, depth, |out, item| {
                write(out, &item?, layout, depth + 1)
            })?;
        }
        kind => return Err(type_error(format!("tojson: a value of type {kind} is not JSON"))),
    }
    if out.len() > limits::TEMPLATE_STRING_BYTES {
        return Err(over_limit(Limit::String));
    }
    Ok(())
}

fn write_map(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    let object = value.as_object().ok_or_else(|| type_error("tojson: this map has no entries"))?;
    let mut entries: Vec<(Value, Value)> = object.try_iter_pairs().into_iter().flatten().collect();
    if layout.sort_keys {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
    }
    write_items(out, entries.into_iter(), ['{', '}'], layout, depth, |out, (key, item)| {
        match key.kind() {
            ValueKind::String => write_str(out, key.as_str().unwrap_or_default(), layout.ensure_ascii),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                out.push('"');
                write(out, &key, layout, depth + 1)?;
                out.push('"');
            }
            kind => return Err(type_error(format!("tojson: keys cannot be of type {kind}"))),
        }
        out.push_str(&layout.key_separator);
        write(out, &item, layout, depth + 1)
    })
}

fn write_items<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    brackets: [char; 2],
    layout: &Layout,
    depth: usize,
    mut write_one: impl FnMut(&mut String, T) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(brackets[0]);
    let mut any = false;
    for item in items {
        if any {
            out.push_str(&layout.item_separator);
        }
        any = true;
        new_line(out, layout, depth + 1)?;
        write_one(out, item)?;
    }
    if any {
        new_line(out, layout, depth)?;
    }
    out.push(brackets[1]);
    Ok(())
}

fn new_line(out: &mut String, layout: &Layout, depth: usize) -> Result<(), Error> {
    let Some(indent) = &layout.indent else { return Ok(()) };
    if indent.len().saturating_mul(depth).saturating_add(out.len()) > limits::TEMPLATE_STRING_BYTES {
        return Err(over_limit(Limit::String));
    }
    out.push('\n');
    for _ in 0..depth {
        out.push_str(indent);
    }
    Ok(())
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        v => pystr::float(v),
    }
}

fn write_str(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
