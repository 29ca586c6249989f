//! The layout of a GGUF file, version 3 (ggml's `docs/gguf.md`): the inverse of `format/gguf.rs`.

use super::{Layout, NewTensor, unwritable};
use crate::{
    Error, Result, Value, ValueType,
    error::quoted,
    format::gguf::{ALIGNMENT_KEY, COUNT_KEY, DEFAULT_ALIGNMENT, MAGIC, NUMBER_KEY, TENSORS_KEY, value_type_number},
    limits,
    value::Array,
};
use std::collections::HashSet;

const VERSION: u32 = 3;

/// Which part of a split model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub number: u16,
    /// How many there are.
    pub count: u16,
    /// Tensors of all of them.
    pub n_tensors: usize,
}

impl Layout {
    /// A GGUF file of `fields` and `tensors`, each in its order. Keys about splitting and alignment are ours: those among
    /// `fields` are left out.
    ///
    /// Error: a type that such files do not have, names twice, too many or too long ones, a head that is too large.
    pub fn gguf(fields: &[(String, Value)], tensors: &[NewTensor], part: Option<Part>) -> Result<Layout> {
        let ours = [ALIGNMENT_KEY, COUNT_KEY, NUMBER_KEY, TENSORS_KEY];
        let mut fields: Vec<(&str, Value)> = fields
            .iter()
            .filter(|(key, _)| !ours.contains(&key.as_str()))
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        if let Some(part) = part {
            let n_tensors = i32::try_from(part.n_tensors).map_err(|_| too_many("tensors"))?;
            fields.push((NUMBER_KEY, Value::U16(part.number)));
            fields.push((COUNT_KEY, Value::U16(part.count)));
            fields.push((TENSORS_KEY, Value::I32(n_tensors)));
        }
        if tensors.len() as u64 > limits::TENSORS {
            return Err(too_many("tensors"));
        }
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        head.extend_from_slice(&(fields.len() as u64).to_le_bytes());
        let mut seen = HashSet::new();
        for (key, value) in &fields {
            let fail =
                |problem: &str| Error::Unwritable { what: format!("key {}", quoted(key)), problem: problem.into() };
            if key.is_empty() || key.len() as u64 > limits::KEY_BYTES || !seen.insert(*key) {
                return Err(fail("empty, too long, or twice"));
            }
            put_text(&mut head, key.as_bytes());
            put(&mut head, value).map_err(|problem| fail(&problem))?;
        }
        let places = directory(&mut head, tensors)?;
        let data = padded(head.len() as u64)?;
        if data > limits::HEAD_BYTES {
            return Err(too_many("bytes of metadata"));
        }
        head.resize(usize::try_from(data).map_err(|_| too_many("bytes of metadata"))?, 0);
        Ok(Layout { head, tensors: places })
    }
}

fn too_many(what: &str) -> Error {
    Error::Unwritable { what: what.to_owned(), problem: "more than a file may have".to_owned() }
}

/// `at`, or the next place where tensor data may begin.
fn padded(at: u64) -> Result<u64> {
    at.checked_next_multiple_of(DEFAULT_ALIGNMENT).ok_or_else(|| too_many("bytes"))
}

/// Appends the entries of all tensors. Gives their names, bytes and padding.
fn directory(head: &mut Vec<u8>, tensors: &[NewTensor]) -> Result<Vec<(String, u64, u64)>> {
    let (mut offset, mut places, mut seen) = (0u64, Vec::with_capacity(tensors.len()), HashSet::new());
    for tensor in tensors {
        let fail = |problem: &str| unwritable(&tensor.name, problem);
        let number = tensor.dtype.gguf().ok_or_else(|| fail(&format!("GGUF has no type {}", tensor.dtype)))?;
        let dims = tensor.shape.dims();
        let n_dims = u32::try_from(dims.len()).ok().filter(|n| *n <= limits::DIMS);
        let n_dims = n_dims.ok_or_else(|| fail("GGUF has no tensors of so many dimensions"))?;
        if tensor.name.is_empty() || tensor.name.len() as u64 > limits::TENSOR_NAME_BYTES || !seen.insert(&tensor.name)
        {
            return Err(fail("the name is empty, too long, or there twice"));
        }
        put_text(head, tensor.name.as_bytes());
        head.extend_from_slice(&n_dims.to_le_bytes());
        dims.iter().rev().for_each(|dim| head.extend_from_slice(&(*dim as u64).to_le_bytes()));
        head.extend_from_slice(&number.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        let bytes = tensor.bytes()?;
        let end = offset.checked_add(bytes).ok_or_else(|| too_many("bytes"))?;
        let next = padded(end)?;
        places.push((tensor.name.clone(), bytes, next - end));
        offset = next;
    }
    Ok(places)
}

fn put_text(head: &mut Vec<u8>, text: &[u8]) {
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(text);
}

/// Appends a value with its type.
fn put(head: &mut Vec<u8>, value: &Value) -> std::result::Result<(), String> {
    let number = value_type_number(value.value_type()).ok_or("GGUF has no null")?;
    head.extend_from_slice(&number.to_le_bytes());
    put_bare(head, value)
}

fn put_bare(head: &mut Vec<u8>, value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::U8(v) => head.push(*v),
        Value::I8(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => head.push(u8::from(*v)),
        Value::String(text) => put_text(head, text.as_bytes()),
        Value::Array(array) => put_array(head, array)?,
        Value::Null => return Err("GGUF has no null".to_owned()),
    }
    Ok(())
}

fn put_array(head: &mut Vec<u8>, array: &Array) -> std::result::Result<(), String> {
    let element = if array.is_empty() { ValueType::U32 } else { array.element_type() };
    let number = value_type_number(element).ok_or("GGUF has no null")?;
    head.extend_from_slice(&number.to_le_bytes());
    head.extend_from_slice(&(array.len() as u64).to_le_bytes());
    array.iter().try_for_each(|value| put_bare(head, &value))
}
