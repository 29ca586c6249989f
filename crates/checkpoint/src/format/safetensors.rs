//! Safetensors: eight bytes of length, a header in JSON, then the bytes of all tensors without a gap.
//!
//! The specification is the format's README (Hugging Face, `safetensors`): little endian, the header at most 100 MB, each
//! byte of the rest in exactly one tensor. What belongs here: one file. What does not: shards and the files beside them
//! (`hugging_face.rs`).

use super::{
    Directory, Format,
    hugging_face::{self, Part},
};
use crate::{
    Error, OpenOptions, Result, TensorInfo,
    checkpoint::Contents,
    error::{harmless, quoted},
    file::ModelFile,
    json::{Json, Seed},
    limits,
};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::{cell::Cell, collections::HashSet, fmt, path::Path};
use tensor::{DType, Shape};

/// The format's name.
pub(super) const NAME: &str = "safetensors";
/// The header's key that is no tensor.
const TEXTS: &str = "__metadata__";
/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// Most dimensions of a tensor (a `Shape` holds six).
const DIMS: usize = 6;

/// The format's row.
pub(super) struct SafeTensors;

impl Format for SafeTensors {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sniff(&self, head: &[u8]) -> bool {
        let len = head.first_chunk().map(|len| u64::from_le_bytes(*len));
        len.is_some_and(|len| len <= limits::SAFETENSORS_HEADER_BYTES) && head.get(8) == Some(&b'{')
    }

    fn open(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents> {
        hugging_face::SAFETENSORS.open_file(file, options)
    }

    fn is_in(&self, directory: &Directory<'_>, is_wanted: bool) -> bool {
        hugging_face::SAFETENSORS.are_in(directory, is_wanted)
    }

    fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
        hugging_face::SAFETENSORS.open_in(directory, options)
    }
}

/// Reads and checks the header of `file`: its tensors in the order of their bytes.
pub(super) fn read(file: ModelFile) -> Result<Part> {
    let path = file.path();
    let in_header = |problem: String| malformed(path, "header", problem);
    let field = || "the header's length".to_owned();
    let Some(after) = file.len().checked_sub(LENGTH_BYTES) else {
        return Err(in_header(format!("truncated: {} bytes are too short for its length", file.len())));
    };
    let len = file.bytes(0, LENGTH_BYTES, field)?;
    let len = len.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if len > limits::SAFETENSORS_HEADER_BYTES {
        let most = limits::SAFETENSORS_HEADER_BYTES;
        return Err(in_header(format!("the length {len} is too large (at most {most} bytes)")));
    }
    let Some(data_len) = after.checked_sub(len) else {
        return Err(in_header(format!("truncated: its length is {len}, the file ends after {after} more bytes")));
    };
    let bytes = file.bytes(LENGTH_BYTES, len, || "the header".to_owned())?;
    if bytes.first() != Some(&b'{') {
        return Err(in_header("it is no JSON object: it does not begin with `{`".to_owned()));
    }
    let header: Header =
        serde_json::from_slice(&bytes).map_err(|e| in_header(format!("invalid JSON: {}", harmless(&e.to_string()))))?;
    let tensors = place(path, header.entries, LENGTH_BYTES + len, data_len)?;
    Ok(Part { texts: header.texts, notes: Vec::new(), tensors, file })
}

fn malformed(path: &Path, field: &str, problem: String) -> Error {
    Error::Malformed { path: path.to_owned(), field: field.to_owned(), problem }
}

/// Proves that the tensors cover the file's data, each byte once, and have the bytes that their shapes need. `start` is
/// where the data begins.
fn place(path: &Path, mut entries: Vec<(String, Entry)>, start: u64, data_len: u64) -> Result<Vec<TensorInfo>> {
    let mut seen = HashSet::new();
    if let Some((name, _)) = entries.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return Err(malformed(
            path,
            &format!("tensor {}", quoted(name)),
            "duplicate: the header has it twice".to_owned(),
        ));
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut at = 0;
    for (name, entry) in entries {
        let Entry { dtype, shape, data_offsets: (begin, end) } = entry;
        let bad = |problem| malformed(path, &format!("tensor {}", quoted(&name)), problem);
        // Names of types are those of the format; block types have no name there.
        let known = DType::from_name(&dtype).filter(|d| d.name() == dtype && !d.is_quantized());
        let dtype = known.ok_or_else(|| Error::UnsupportedType {
            path: path.to_owned(),
            tensor: quoted(&name),
            type_name: quoted(&dtype),
        })?;
        let shape = shape_of(&shape).ok_or_else(|| bad(format!("the shape {shape:?} overflows")))?;
        let bytes = dtype.tensor_bytes(&shape).map_err(|e| bad(format!("shape {shape}: {e}")))? as u64;
        if end > data_len {
            return Err(bad(format!(
                "its offsets {begin} to {end} reach beyond the end of the file ({data_len} bytes of data): truncated, or \
                 out of bounds"
            )));
        }
        if end.checked_sub(begin) != Some(bytes) {
            return Err(bad(format!(
                "the shape {shape} of {dtype} needs {bytes} bytes, its offsets are {begin} to {end}"
            )));
        }
        if begin != at {
            let what = if begin < at { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return Err(bad(format!("its offset {begin} {what}, which ends at {at}")));
        }
        at = end;
        // Both end inside the file, whose length is a u64.
        tensors.push(TensorInfo { name, dtype, shape, bytes, part: 0, offset: start + begin, view: None, made: None });
    }
    if at != data_len {
        let problem =
            format!("the tensors end at offset {at} and {data_len} bytes of data follow it: the size is wrong");
        return Err(malformed(path, "header", problem));
    }
    Ok(tensors)
}

/// A single number has no dimensions in the file and one here.
fn shape_of(dims: &[u64]) -> Option<Shape> {
    let dims: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let dims = dims?;
    Shape::new(if dims.is_empty() { &[1] } else { &dims })
}

/// The header as it is written.
struct Header {
    entries: Vec<(String, Entry)>,
    texts: Vec<(String, String)>,
}

/// A tensor as the header has it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    #[serde(deserialize_with = "dims")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Dimensions: no more than are possible, however long the list in the file is.
fn dims<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u64>, D::Error> {
    struct Dims;
    impl<'de> Visitor<'de> for Dims {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a shape: a list of dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
            let mut dims = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if dims.len() == DIMS {
                    return Err(A::Error::custom(format!("a shape of more than {DIMS} dimensions")));
                }
                dims.push(dim);
            }
            Ok(dims)
        }
    }
    deserializer.deserialize_seq(Dims)
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Header, A::Error> {
                entries(map)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn entries<'de, A: MapAccess<'de>>(mut map: A) -> std::result::Result<Header, A::Error> {
    let mut header = Header { entries: Vec::new(), texts: Vec::new() };
    let mut has_texts = false;
    while let Some(name) = map.next_key::<String>()? {
        if name == TEXTS {
            if std::mem::replace(&mut has_texts, true) {
                return Err(A::Error::custom(format!("duplicate key {TEXTS}")));
            }
            header.texts = texts(map.next_value_seed(Seed(&Cell::new(limits::JSON_VALUES)))?)
                .ok_or_else(|| A::Error::custom(format!("{TEXTS} holds something else than strings")))?;
            continue;
        }
        if name.is_empty() || name.len() as u64 > limits::TENSOR_NAME_BYTES {
            let (len, most) = (name.len(), limits::TENSOR_NAME_BYTES);
            return Err(A::Error::custom(format!("a tensor name of length {len} (1 to {most} bytes are possible)")));
        }
        if header.entries.len() as u64 == limits::TENSORS {
            return Err(A::Error::custom(format!("more than {} tensors, which is too many", limits::TENSORS)));
        }
        let entry = map.next_value();
        let entry = entry.map_err(|e| A::Error::custom(format!("tensor {}: {e}", quoted(&name))))?;
        header.entries.push((name, entry));
    }
    Ok(header)
}

fn texts(json: Json) -> Option<Vec<(String, String)>> {
    let Json::Object(entries) = json else { return None };
    let text = |(key, value)| if let Json::Text(text) = value { Some((key, text)) } else { None };
    entries.into_iter().map(text).collect()
}
