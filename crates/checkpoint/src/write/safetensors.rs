//! The layout of a safetensors file (the format's README): the inverse of `format/safetensors.rs`.

use super::{Layout, NewTensor, unwritable};
use crate::{Error, Result, limits};
use serde_json::{Map, json};
use std::collections::HashSet;

/// The data begins at a multiple of this, as the format's own library writes it.
const ALIGNMENT: usize = 8;

impl Layout {
    /// A safetensors file of `tensors`, in their order.
    ///
    /// Error: a type that such files do not have, names twice, a header that is too large.
    pub fn safetensors(tensors: &[NewTensor]) -> Result<Layout> {
        let (mut header, mut places, mut at, mut seen) = (Map::new(), Vec::new(), 0u64, HashSet::new());
        // What readers ask for before they take a file.
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        for tensor in tensors {
            if tensor.dtype.is_quantized() {
                return Err(unwritable(&tensor.name, format!("safetensors has no type {}", tensor.dtype)));
            }
            if tensor.name.is_empty() || tensor.name.starts_with("__metadata__") || !seen.insert(&tensor.name) {
                return Err(unwritable(&tensor.name, "the name is not possible, or there twice"));
            }
            let bytes = tensor.bytes()?;
            let end = at.checked_add(bytes).ok_or_else(|| unwritable(&tensor.name, "the file would be too large"))?;
            let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape.dims(), "data_offsets": [at, end]});
            header.insert(tensor.name.clone(), entry);
            places.push((tensor.name.clone(), bytes, 0));
            at = end;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        if header.len() as u64 > limits::SAFETENSORS_HEADER_BYTES {
            let problem = format!("more than {} bytes", limits::SAFETENSORS_HEADER_BYTES);
            return Err(Error::Unwritable { what: "the header".to_owned(), problem });
        }
        let head = [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat();
        Ok(Layout { head, tensors: places })
    }
}
