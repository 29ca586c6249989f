//! Metadata of a checkpoint: typed values by key, in file order.
//!
//! What the keys mean is the business of the crates above.

use crate::{
    Error, Result,
    error::quoted,
    value::{Array, StringArray, Value, ValueType},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// All metadata of a checkpoint. Keys are unique and keep the file's order.
#[derive(Clone, Debug)]
pub struct Metadata {
    path: PathBuf,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// No entries yet; `path` is for messages.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), entries: Vec::new(), index: HashMap::new() }
    }

    /// Adds an entry; reports false, and changes nothing, when the key exists.
    pub(crate) fn insert(&mut self, key: String, value: Value) -> bool {
        if self.index.contains_key(&key) {
            return false;
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        true
    }

    /// Gives a key a value, whether it has one or not.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.index.get(key).and_then(|index| self.entries.get_mut(*index)) {
            Some((_, old)) => *old = value,
            None => {
                self.insert(key.to_owned(), value);
            }
        }
    }

    /// Leaves out the keys that `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|(key, _)| keep(key));
        self.index = self.entries.iter().enumerate().map(|(index, (key, _))| (key.clone(), index)).collect();
    }

    /// Drops `key` and all keys below it, `key.…`.
    pub(crate) fn remove_below(&mut self, key: &str) {
        let is_below = |k: &str| k.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.retain(|k| !is_below(k));
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> + '_ {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(*self.index.get(key)?).map(|(_, value)| value)
    }

    /// The value of `key` converted, null being none; an error that names the key when it is of another type or out of
    /// range.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key).filter(|v| !matches!(v, Value::Null)) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.unexpected(key, expected, value.described()))
    }

    fn unexpected(&self, key: &str, expected: &'static str, found: String) -> Error {
        Error::Value { path: self.path.clone(), key: quoted(key), expected, found }
    }

    /// An integer of any stored type that fits `u32`. Error: another type, or out of range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer (type u32)", |v| v.as_integer()?.try_into().ok())
    }

    /// An integer of any stored type that fits `u64`. Error: another type, or negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer (type u64)", |v| v.as_integer()?.try_into().ok())
    }

    /// An integer of any stored type that fits `i32`. Error: another type, or out of range.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.typed(key, "an integer (type i32)", |v| v.as_integer()?.try_into().ok())
    }

    /// A size or count: an integer of any stored type that fits `usize`. Error: another type, or out of range.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a size (type u32 or u64)", |v| v.as_integer()?.try_into().ok())
    }

    /// A float; doubles are rounded. It may be infinite or NaN. Error: another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number (type f32)", Value::as_f32)
    }

    /// A bool. Error: another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a truth value (type bool)", Value::as_bool)
    }

    /// A string. Error: another type, or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "UTF-8 text (type string)", Value::as_str)
    }

    /// An array of any element type. Error: not an array.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        self.typed(key, "an array", |v| if let Value::Array(array) = v { Some(array) } else { None })
    }

    /// An array of strings, as a view. Error: not an array of strings.
    pub fn string_array(&self, key: &str) -> Result<Option<StringArray>> {
        self.typed(key, "an array of strings", |v| match v {
            // Writers store an empty array with any element type.
            Value::Array(array) if array.element_type() == ValueType::String || array.is_empty() => {
                Some(StringArray(array.clone()))
            }
            _ => None,
        })
    }

    /// The elements of an array converted; an error that names the key and the element.
    fn elements<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(array) =
            self.typed(key, expected, |v| if let Value::Array(array) = v { Some(array) } else { None })?
        else {
            return Ok(None);
        };
        let mut elements = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let Some(element) = convert(&value) else {
                let found = format!("element {index}: {}", value.described());
                return Err(self.unexpected(key, expected, found));
            };
            elements.push(element);
        }
        Ok(Some(elements))
    }

    /// An array of integers that fit `u32`. Error: another type, or an element out of range.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.elements(key, "an array of integers (type u32)", |v| v.as_integer()?.try_into().ok())
    }

    /// An array of integers that fit `i32`. Error: another type, or an element out of range.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.elements(key, "an array of integers (type i32)", |v| v.as_integer()?.try_into().ok())
    }

    /// An array of floats. Error: another type.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.elements(key, "an array of numbers (type f32)", Value::as_f32)
    }

    /// An array of truth values. Error: another type.
    pub fn bool_array(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.elements(key, "an array of truth values (type bool)", Value::as_bool)
    }

    /// One integer, or one per layer: `attention.head_count_kv` comes in both forms. A single one gives one element.
    pub fn u32_or_array(&self, key: &str) -> Result<Option<Vec<u32>>> {
        match self.get(key) {
            Some(Value::Array(_)) => self.u32_array(key),
            _ => Ok(self.u32(key)?.map(|v| vec![v])),
        }
    }
}
