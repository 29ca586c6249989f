//! JSON files beside the weights: read whole, bounded, and laid out flat as metadata.
//!
//! What belongs here: the tree, its bounds, and flattening. What does not: which files there are (`format`), what their
//! keys mean (the crates above). Follows RFC 8259, with duplicate keys refused: two readers would see two models.

use crate::{
    error::quoted,
    limits,
    value::{Array, Text, Value, ValueType},
};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::{cell::Cell, collections::HashSet, fmt};
use tensor::SharedBytes;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value of `key`, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Parses `bytes`. The problem is in words, with line and column.
pub(crate) fn parse(bytes: &[u8]) -> Result<Json, String> {
    let budget = Cell::new(limits::JSON_VALUES);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde::de::DeserializeSeed::deserialize(Seed(&budget), &mut deserializer);
    let parsed = parsed.and_then(|json| deserializer.end().map(|()| json));
    parsed.map_err(|e| crate::error::harmless(&e.to_string()))
}

/// Reads one value, within what is left of the budget of values.
#[derive(Clone, Copy)]
pub(crate) struct Seed<'a>(pub(crate) &'a Cell<usize>);

impl<'de> serde::de::DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let Some(left) = self.0.get().checked_sub(1) else {
            return Err(D::Error::custom(format!("more than {} values", limits::JSON_VALUES)));
        };
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Unsigned(value), Json::Signed))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate key {}", quoted(&key))));
            }
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Json::Object(entries))
    }
}

/// Hands out every value below `prefix` with its path, joined by dots: `prefix.outer.inner`. An array of scalars of one
/// kind is one value; of any other array each element has its number as its name. Objects called as in `skipped` are
/// left out. Stops at the first error of `add`.
pub(crate) fn flatten<E>(
    json: Json,
    prefix: &str,
    skipped: &[&str],
    add: &mut dyn FnMut(String, Value) -> Result<(), E>,
) -> Result<(), E> {
    // An endless key is handed out once, for the caller to refuse, and never copied into those below it.
    if prefix.len() > limits::JSON_KEY_BYTES {
        return add(prefix.to_owned(), Value::Null);
    }
    match json {
        Json::Null => add(prefix.to_owned(), Value::Null),
        Json::Bool(v) => add(prefix.to_owned(), Value::Bool(v)),
        Json::Signed(v) => add(prefix.to_owned(), Value::I64(v)),
        Json::Unsigned(v) => add(prefix.to_owned(), Value::U64(v)),
        Json::Float(v) => add(prefix.to_owned(), Value::F64(v)),
        Json::Text(v) => add(prefix.to_owned(), Value::String(Text(SharedBytes::from_vec(v.into_bytes())))),
        Json::Object(entries) => {
            for (key, value) in entries.into_iter().filter(|(key, _)| !skipped.contains(&key.as_str())) {
                flatten(value, &format!("{prefix}.{key}"), skipped, add)?;
            }
            Ok(())
        }
        Json::List(list) => match array(&list) {
            Some(array) => add(prefix.to_owned(), Value::Array(array)),
            None => {
                for (index, value) in list.into_iter().enumerate() {
                    flatten(value, &format!("{prefix}.{index}"), skipped, add)?;
                }
                Ok(())
            }
        },
    }
}

/// Scalars of one kind as an array: integers, numbers, truth values or strings. `None` for anything else.
fn array(list: &[Json]) -> Option<Array> {
    let fixed = |element, bytes: Option<Vec<[u8; 8]>>| {
        let bytes = SharedBytes::from_vec(bytes?.concat());
        Some(Array::fixed(element, list.len(), bytes))
    };
    let integers = || list.iter().map(|v| if let Json::Signed(v) = v { Some(v.to_le_bytes()) } else { None }).collect();
    let numbers = || {
        let number = |v: &Json| match *v {
            Json::Float(v) => Some(v.to_le_bytes()),
            Json::Signed(v) => Some((v as f64).to_le_bytes()),
            Json::Unsigned(v) => Some((v as f64).to_le_bytes()),
            _ => None,
        };
        list.iter().map(number).collect()
    };
    let flags = || {
        let flag = |v: &Json| if let Json::Bool(v) = *v { Some(u8::from(v)) } else { None };
        let bytes: Option<Vec<u8>> = list.iter().map(flag).collect();
        Some(Array::fixed(ValueType::Bool, list.len(), SharedBytes::from_vec(bytes?)))
    };
    fixed(ValueType::I64, integers())
        .or_else(|| fixed(ValueType::F64, numbers()))
        .or_else(flags)
        .or_else(|| strings(list))
}

fn strings(list: &[Json]) -> Option<Array> {
    let mut bytes = Vec::new();
    let mut starts = vec![0];
    for value in list {
        let text = value.as_text()?;
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        starts.push(bytes.len());
    }
    Some(Array::strings(SharedBytes::from_vec(bytes), starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_laid_out_flat() {
        #[track_caller]
        fn check(text: &str, expected: &[(&str, &str)]) {
            let mut found = Vec::new();
            let json = parse(text.as_bytes()).unwrap();
            let flattened = flatten(json, "c", &["left_out"], &mut |key, value| {
                let shown = match &value {
                    Value::Array(array) => format!("{:?}", array.iter().map(|v| v.described()).collect::<Vec<_>>()),
                    other => other.described(),
                };
                found.push((key, shown));
                Ok::<(), ()>(())
            });
            flattened.unwrap();
            let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(found, expected);
        }
        check(r#"{"a": 1, "b": {"c": null, "left_out": 2}}"#, &[("c.a", "i64 1"), ("c.b.c", "null")]);
        check("[1, -2]", &[("c", r#"["i64 1", "i64 -2"]"#)]);
        check("[1, 0.5]", &[("c", r#"["f64 1", "f64 0.5"]"#)]);
        check("[true]", &[("c", r#"["bool true"]"#)]);
        check(r#"["x", ""]"#, &[("c", r#"["string `x`", "string ``"]"#)]);
        check(r#"[1, "x"]"#, &[("c.0", "i64 1"), ("c.1", "string `x`")]);
        check(r#"[{"n": 18446744073709551615}]"#, &[("c.0.n", "u64 18446744073709551615")]);
        check("[]", &[("c", "[]")]);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        check("", "EOF");
        check("{} x", "trailing");
        check(r#"{"a": 1, "a": 1}"#, "duplicate key `a`");
        check(&"[".repeat(129), "recursion limit");
        check(&format!("[{}1]", "0,".repeat(limits::JSON_VALUES)), "more than 1048576 values");
        check(r#"{"\u001b": 1, "\u001b": 1}"#, "\\u{1b}");
    }
}
