//! JSON values as the template sees them: Python's dictionaries and lists.
//!
//! The engine looks `x.items` up as the entry called `items`; Python finds the method first and the entry only when there
//! is no such method. Templates written for Python depend on it, so dictionaries made from JSON are our own type.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, State};
use serde_json::Value as Json;

use super::methods;

/// A dictionary made from a JSON object: the engine's own map, except that attributes find methods first.
struct Dict(DynObject);

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match methods::dict_method(key) {
            Some(name) => Some(Value::from_object(Method { owner: Value::from_dyn_object(self.clone()), name })),
            None => self.0.get_value_by_str(key),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.0.enumerate()
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.0.enumerator_len()
    }
}

/// A method taken from a dictionary but not called yet.
#[derive(Debug)]
struct Method {
    owner: Value,
    name: &'static str,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        methods::call(state, &self.owner, self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}

/// The template's value for `json`; adds the size of the data to `bytes`.
pub(super) fn from_json(json: Json, bytes: &mut u64) -> Value {
    *bytes = bytes.saturating_add(8);
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => {
            *bytes = bytes.saturating_add(s.len() as u64);
            Value::from(s)
        }
        Json::Array(items) => Value::from(items.into_iter().map(|item| from_json(item, bytes)).collect::<Vec<_>>()),
        Json::Object(entries) => {
            let pairs: Vec<(String, Value)> = entries
                .into_iter()
                .map(|(key, value)| {
                    *bytes = bytes.saturating_add(key.len() as u64);
                    (key, from_json(value, bytes))
                })
                .collect();
            let map = Value::from_pairs(pairs);
            match map.as_object() {
                Some(object) => Value::from_object(Dict(object.clone())),
                None => map,
            }
        }
    }
}
