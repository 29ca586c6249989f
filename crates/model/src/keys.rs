//! Numbers of the metadata by the house's keys: each read with its limits, an error naming the key as the file spells it.
//!
//! What belongs here: typed, bounded access. What does not: which numbers a model has (`hyper/`, `rope.rs`), how files
//! spell them (`convention.rs`).

use crate::convention::Convention;
use crate::{Architecture, Error, Result, hugging_face};
use checkpoint::{Metadata, Value, ValueType};

/// The keys of one file.
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static Architecture,
    pub(crate) convention: Convention,
}

impl<'a> Keys<'a> {
    /// Error: the file does not say what family it is of, or it is not supported.
    pub(crate) fn new(metadata: &'a Metadata) -> Result<Self> {
        let (convention, architecture) = Convention::of(metadata)?;
        Ok(Keys { metadata, architecture, convention })
    }

    /// The family.
    pub(crate) fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The key as the file spells it.
    pub(crate) fn full(&self, key: &str) -> String {
        self.convention.key(self.metadata, self.architecture, key)
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::MissingKey { key: self.full(key) }
    }

    pub(crate) fn bad(&self, key: &str, value: impl ToString, why: &str) -> Error {
        Error::BadKey { key: self.full(key), value: value.to_string(), why: why.to_owned() }
    }

    /// The key as the file spells it and, where the file says nothing, the family's number.
    fn or_default(&self, key: &str) -> (String, Option<f64>) {
        let full = self.full(key);
        let default = match self.metadata.get(&full) {
            Some(_) => None,
            None => self.convention.default(self.metadata, self.architecture, key),
        };
        (full, default)
    }

    /// Whether the file says expressly that there is no such number.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        matches!(self.metadata.get(&self.full(key)), Some(Value::Null))
    }

    /// Whether the file has something under this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.full(key)).is_some_and(|value| !matches!(value, Value::Null))
    }

    /// A count from 1 to `max` that must be there.
    pub(crate) fn required(&self, key: &str, max: usize) -> Result<usize> {
        self.count(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// A count from 1 to `max`.
    pub(crate) fn count(&self, key: &str, max: usize) -> Result<Option<usize>> {
        match self.count_or_zero(key, max)? {
            Some(0) => Err(self.bad(key, 0, "it must be at least 1")),
            other => Ok(other),
        }
    }

    /// A count from 0 to `max`.
    pub(crate) fn count_or_zero(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let (full, default) = self.or_default(key);
        let given = match self.uniform(&full) {
            Some(value) => Some(value),
            None => self.metadata.u64(&full)?,
        };
        let Some(value) = given.or(default.map(|d| d as u64)) else { return Ok(None) };
        match usize::try_from(value) {
            Ok(n) if n <= max => Ok(Some(n)),
            _ => Err(self.bad(key, value, &format!("it must be at most {max}"))),
        }
    }

    /// A count from 1 to `max` that a layer has of its own.
    pub(crate) fn own_count(&self, key: &str, layer: usize, max: usize) -> Result<Option<usize>> {
        let own = match self.convention {
            Convention::HuggingFace => hugging_face::own_key(self.metadata, key, layer),
            Convention::House | Convention::Meta => None,
        };
        let Some(full) = own else { return Ok(None) };
        let Some(value) = self.metadata.u64(&full)? else { return Ok(None) };
        let n = usize::try_from(value).ok().filter(|n| (1..=max).contains(n));
        let why = format!("it must be from 1 to {max}");
        n.map(Some).ok_or_else(|| Error::BadKey { key: full, value: value.to_string(), why })
    }

    /// The number that a list repeats: some files give one per layer of what the family has once.
    fn uniform(&self, full: &str) -> Option<u64> {
        let Some(Value::Array(array)) = self.metadata.get(full) else { return None };
        let mut values = array.iter().map(|value| value.as_integer().and_then(|v| u64::try_from(v).ok()));
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }

    /// A count from `min` to `max` for each layer: one number for all, or a list of them.
    pub(crate) fn per_layer(&self, key: &str, n_layers: usize, min: usize, max: usize) -> Result<Option<Vec<usize>>> {
        let Some(values) = self.list(key, n_layers)? else {
            return match self.count_or_zero(key, max)? {
                Some(n) if n < min => Err(self.bad(key, n, &format!("it must be at least {min}"))),
                one => Ok(one.map(|n| vec![n; n_layers])),
            };
        };
        let in_range = |v: u64| usize::try_from(v).ok().filter(|n| (min..=max).contains(n));
        let counts = values
            .iter()
            .map(|&v| in_range(v).ok_or_else(|| self.bad(key, v, &format!("each must be from {min} to {max}"))));
        counts.collect::<Result<_>>().map(Some)
    }

    /// One number or flag per layer; none when the key is absent or a single value.
    pub(crate) fn list(&self, key: &str, n_layers: usize) -> Result<Option<Vec<u64>>> {
        let full = self.full(key);
        let Some(Value::Array(array)) = self.metadata.get(&full) else { return Ok(None) };
        // As some configurations say that there is none.
        if array.is_empty() && self.convention == Convention::HuggingFace {
            return Ok(None);
        }
        self.check_len(key, array.len(), n_layers)?;
        Ok(match array.element_type() {
            ValueType::Bool => self.metadata.bool_array(&full)?.map(|flags| flags.into_iter().map(u64::from).collect()),
            _ => self.metadata.u32_array(&full)?.map(|counts| counts.into_iter().map(u64::from).collect()),
        })
    }

    /// One word per layer.
    pub(crate) fn words(&self, key: &str, n_layers: usize) -> Result<Option<Vec<String>>> {
        let Some(words) = self.metadata.string_array(&self.full(key))? else { return Ok(None) };
        self.check_len(key, words.len(), n_layers)?;
        Ok(Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()))
    }

    fn check_len(&self, key: &str, len: usize, n_layers: usize) -> Result<()> {
        if len == n_layers {
            return Ok(());
        }
        Err(self.bad(key, format!("{len} long"), &format!("there are {n_layers} layers")))
    }

    /// Finite numbers, as many as `len`.
    pub(crate) fn floats(&self, key: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(values) = self.numbers(key, len)? else { return Ok(None) };
        match values.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(self.bad(key, v, "each must be finite")),
            None => Ok(Some(values)),
        }
    }

    /// Numbers of any kind, as many as `len`.
    pub(crate) fn numbers(&self, key: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let full = self.full(key);
        let Some(array) = self.metadata.array(&full)? else { return Ok(None) };
        let number = |v: Value| v.as_f32().or_else(|| v.as_integer().map(|i| i as f32));
        let values: Option<Vec<f32>> = array.iter().map(number).collect();
        let values = values.ok_or_else(|| self.bad(key, "a list", "each must be a number"))?;
        if values.len() != len {
            return Err(self.bad(key, format!("{} long", values.len()), &format!("it must have {len} numbers")));
        }
        Ok(Some(values))
    }

    /// A truth value.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let (full, default) = self.or_default(key);
        match self.metadata.get(&full).and_then(Value::as_integer) {
            // Python takes numbers for truth values.
            Some(integer) if self.convention == Convention::HuggingFace => Ok(Some(integer != 0)),
            _ => Ok(self.metadata.bool(&full)?.or(default.map(|d| d != 0.0))),
        }
    }

    /// A word.
    pub(crate) fn word(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self.metadata.str(&self.full(key))?)
    }

    /// A finite number.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>> {
        let (full, default) = self.or_default(key);
        let value = match self.metadata.get(&full).and_then(Value::as_integer) {
            // JSON writes 10000.0 as 10000.
            Some(integer) if self.convention != Convention::House => Some(integer as f32),
            _ => self.metadata.f32(&full)?,
        };
        match value.or(default.map(|d| d as f32)) {
            Some(x) if !x.is_finite() => Err(self.bad(key, x, "it must be finite")),
            other => Ok(other),
        }
    }

    /// A finite number above 0; 0 in the file means that there is none.
    pub(crate) fn factor(&self, key: &str) -> Result<Option<f32>> {
        match self.float(key)? {
            // The reciprocal of a subnormal may be infinite.
            Some(x) if x < 0.0 || x.is_subnormal() => Err(self.bad(key, x, "it must be positive")),
            other => Ok(other.filter(|&x| x > 0.0)),
        }
    }

    /// A factor, or the family's where the file says nothing; none where it says expressly that there is none.
    pub(crate) fn factor_or(&self, key: &str, default: Option<f32>) -> Result<Option<f32>> {
        Ok(match self.factor(key)? {
            // Zero says so too.
            None if self.is_null(key) || self.has(key) => None,
            given => given.or(default),
        })
    }
}
