//! PyTorch files before 1.6: five pickles one after another, then the storages.
//!
//! The pickles are a magic number, the protocol's version, facts about the machine, the object itself, and the keys of
//! the storages in their order; each storage is its number of elements (64 bits) and its elements. After
//! `torch/serialization.py`, `_legacy_save` and `_legacy_load`.

use super::{
    pytorch,
    pytorch_tensors::{self, Found, Place},
};
use crate::{
    Error, Result,
    error::quoted,
    file::ModelFile,
    limits,
    pickle::{self, Fault, Node, Pickle},
};
use std::collections::HashMap;

/// 0x1950a86a20f9469cfc6c, which begins every file.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;
/// Bytes of a storage's number of elements.
const COUNT_BYTES: u64 = 8;

/// Reads the pickles of `file` and finds its storages.
pub(super) fn read(file: &ModelFile) -> Result<Found> {
    let mut wanted = 0;
    loop {
        let head = file.head(wanted)?;
        let most = usize::try_from(limits::PICKLE_BYTES).unwrap_or(usize::MAX);
        let bytes = head.get(..most).unwrap_or(&head);
        match Stream::read(bytes) {
            Ok(stream) => return stream.collect(file),
            // Only without a map. Doubling keeps the repeated reading linear in all.
            Err(Stop::Fault(Fault::Truncated(_))) if bytes.len() == head.len() && (head.len() as u64) < file.len() => {
                wanted = (head.len() as u64).saturating_mul(2);
            }
            Err(Stop::Fault(fault)) => return Err(pytorch::refusal(file, fault)),
            Err(Stop::NotAModel(detail)) => {
                return Err(Error::NotAModel { path: file.path().to_owned(), detail: detail.to_owned() });
            }
            Err(Stop::Version(detail)) => {
                return Err(Error::UnsupportedVersion { path: file.path().to_owned(), detail });
            }
        }
    }
}

/// Why the pickles were not read.
enum Stop {
    Fault(Fault),
    NotAModel(&'static str),
    Version(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The pickles that matter, and where they end.
struct Stream<'a> {
    object: Pickle<'a>,
    keys: Pickle<'a>,
    end: u64,
}

impl<'a> Stream<'a> {
    fn read(bytes: &'a [u8]) -> std::result::Result<Self, Stop> {
        let mut rest = bytes;
        let mut next = || {
            let pickle = pickle::read(rest)?;
            rest = rest.get(pickle.len..).unwrap_or_default();
            Ok::<_, Fault>(pickle)
        };
        match next()?.root() {
            Node::Long(magic) if *magic == MAGIC => {}
            _ => return Err(Stop::NotAModel("it is a pickle, but not one of PyTorch's: its magic number is missing")),
        }
        match next()?.root() {
            Node::Int(VERSION) => {}
            Node::Int(other) => {
                return Err(Stop::Version(format!("version {other} of PyTorch's pickle stream is unknown")));
            }
            other => return Err(Stop::Version(format!("the version of PyTorch's pickle stream is {}", other.kind()))),
        }
        let machine = next()?;
        if let Node::Dict(facts) = machine.root() {
            let is_order = |key: &Node<'_>| matches!(key, Node::Text(key) if *key == "little_endian");
            let order = facts.iter().find(|(key, _)| is_order(machine.node(*key)));
            if order.is_some_and(|(_, value)| !matches!(machine.node(*value), Node::Bool(true))) {
                let detail = "the byte order is big endian, only little endian is supported".to_owned();
                return Err(Stop::Version(detail));
            }
        }
        let object = next()?;
        let keys = next()?;
        let end = bytes.len().saturating_sub(rest.len()) as u64;
        Ok(Self { object, keys, end })
    }

    fn collect(&self, file: &ModelFile) -> Result<Found> {
        let places = self.storages(file)?;
        pytorch_tensors::collect(file, &self.object, &mut |storage, key| {
            let bad = |problem: String| {
                let field = format!("storage {}", quoted(key));
                Error::Malformed { path: file.path().to_owned(), field, problem }
            };
            let place = places.get(key).ok_or_else(|| bad("missing in the file".to_owned()))?;
            let end = storage.window.checked_add(storage.n_elements);
            match end.and_then(|end| end.checked_mul(storage.element.bytes)) {
                Some(needed) if needed <= place.bytes => Ok(place.clone()),
                _ => Err(bad(format!("a size of {} elements is more than is stored", storage.n_elements))),
            }
        })
    }

    /// Where the bytes of each storage are, by key.
    fn storages(&self, file: &ModelFile) -> Result<HashMap<&str, Place>> {
        let bad = |field: String, problem: &str| Error::Malformed {
            path: file.path().to_owned(),
            field,
            problem: problem.to_owned(),
        };
        let Node::List(keys) = self.keys.root() else {
            return Err(bad("pickle of storage keys".to_owned(), "it is no list"));
        };
        let element_bytes: HashMap<&str, u64> = self.object.storages().map(|(s, key)| (key, s.element.bytes)).collect();
        let mut places = HashMap::new();
        let mut at = self.end;
        for id in keys {
            let Node::Text(key) = self.keys.node(*id) else {
                return Err(bad("pickle of storage keys".to_owned(), "a key is no string"));
            };
            let field = || format!("storage {}", quoted(key.as_bytes()));
            let Some(element_bytes) = element_bytes.get(key) else {
                return Err(bad(field(), "no tensor says what type it has"));
            };
            let left = file.len().saturating_sub(at);
            let Some(left) = left.checked_sub(COUNT_BYTES) else {
                return Err(bad(field(), "truncated: the file ends before it"));
            };
            let count = file.bytes(at, COUNT_BYTES, field)?;
            let count = count.first_chunk().map_or(u64::MAX, |count| u64::from_le_bytes(*count));
            let bytes = count.checked_mul(*element_bytes).filter(|bytes| *bytes <= left);
            let Some(bytes) = bytes else {
                let problem = format!("truncated: its {count} elements reach beyond the end of the file");
                return Err(bad(field(), &problem));
            };
            let offset = at.saturating_add(COUNT_BYTES);
            if places.insert(*key, Place { offset, bytes, guard: None }).is_some() {
                return Err(bad(field(), "duplicate: the key occurs twice"));
            }
            at = offset.saturating_add(bytes);
        }
        Ok(places)
    }
}
