//! Model files: metadata and tensors of a checkpoint, every count, length and range proven before use.
//!
//! What belongs here: file formats, safe opening, memory maps, limits. What does not: what tensors and keys mean
//! (`model`, `text`), what block types decode to (`tensor`).
//!
//! Floor 1: imports only `tensor`. Unsafe code is confined to `mmap.rs`.
#![deny(unsafe_code)]

mod checkpoint;
mod crc32;
mod error;
mod file;
mod format;
mod importance;
mod joined;
mod json;
mod levels;
mod limits;
mod metadata;
#[allow(unsafe_code, reason = "memory maps")]
mod mmap;
mod pickle;
mod protobuf;
mod value;
mod view;
mod write;
mod zip;

pub use checkpoint::{Checkpoint, OpenOptions, TensorInfo};
pub use error::{Error, Result};
pub use format::format_names;
pub use importance::{Importance, ImportanceSums};
pub use metadata::Metadata;
pub use value::{Array, StringArray, Text, Value, ValueType};
pub use write::{Layout, NewTensor, Part};
