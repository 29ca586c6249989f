//! `str()` and `repr()` of Python 3 for template values: what `{{ value }}` prints.

use std::fmt::Write;

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::render::{Limit, over_limit};
use crate::limits;

/// How deep containers are printed; deeper ones are an error rather than recursion.
const DEPTH: usize = 1000;

/// `str(value)`.
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None if value.is_undefined() => {}
        None => repr(&mut out, value, 0)?,
    }
    Ok(out)
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if out.len() > limits::TEMPLATE_STRING_BYTES || depth > DEPTH {
        return Err(over_limit(Limit::String));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => repr_str(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            out.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
        }
        ValueKind::Map if value.as_object().is_some() => {
            out.push('{');
            let object = value.as_object().into_iter().flat_map(|object| object.try_iter_pairs()).flatten();
            for (i, (key, item)) in object.enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &item, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            for (i, item) in value.try_iter()?.checked().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(out, &item?, depth + 1)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.push(',');
            }
            out.push(close);
        }
        // Writing to a string cannot fail.
        _ => drop(write!(out, "{value}")),
    }
    Ok(())
}

/// `repr()` of a string: single quotes unless only that would need escapes.
fn repr_str(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => drop(write!(out, "\\x{:02x}", u32::from(c))),
            // Python escapes whatever is not printable; of the rest of Unicode these are what text really holds.
            '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}'
            | '\u{3000}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1680}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// `repr()` of a float: the shortest digits that read back, in the notation Python chooses.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_python_prints_them() {
        let rows = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (123456789.125, "123456789.125"),
        ];
        for (value, expected) in rows {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn values_print_as_python_prints_them() {
        let list = Value::from(vec![Value::from(()), Value::from(true), Value::from(1.5), Value::from("it's")]);
        let rows = [
            (Value::from(()), "None"),
            (Value::from(false), "False"),
            (Value::from("a'b"), "a'b"),
            (list, "[None, True, 1.5, \"it's\"]"),
            (Value::from_pairs([("k", Value::from("v\n"))]), "{'k': 'v\\n'}"),
            (Value::UNDEFINED, ""),
        ];
        for (value, expected) in rows {
            assert_eq!(str_of(&value).unwrap(), expected);
        }
    }
}
