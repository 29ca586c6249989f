//! The elements of constant tensors: of which type, how many, and where they are: in the graph's file or beside it.
//!
//! What belongs here: proving that the bytes are there, whatever way they are stored in. What does not: what a tensor is
//! for (`graph.rs`). Files with external data have plain file names, so that a model cannot reach outside its folder.

use super::proto::{self, External, Stored, Tensor};
use crate::{
    Error, OpenOptions, Result,
    error::quoted,
    file::ModelFile,
    format::hugging_face::is_plain_name,
    levels::Data,
    limits,
    protobuf::{Message, Value},
};
use std::{path::PathBuf, sync::Arc};
use tensor::DType;

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElementType {
    /// Its number in `TensorProto.DataType`.
    number: u64,
    pub(super) name: &'static str,
    pub(super) bits: usize,
    pub(super) kind: Kind,
    /// The type of a tensor that is used as it is stored.
    pub(super) dtype: Option<DType>,
}

/// What kind of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Signed,
    Unsigned,
    Other,
}

const fn row(number: u64, name: &'static str, bits: usize, kind: Kind, dtype: Option<DType>) -> ElementType {
    ElementType { number, name, bits, kind, dtype }
}

static TYPES: &[ElementType] = &[
    row(1, "float", 32, Kind::Float, Some(DType::F32)),
    row(2, "uint8", 8, Kind::Unsigned, None),
    row(3, "int8", 8, Kind::Signed, None),
    row(4, "uint16", 16, Kind::Unsigned, None),
    row(5, "int16", 16, Kind::Signed, None),
    row(6, "int32", 32, Kind::Signed, None),
    row(7, "int64", 64, Kind::Signed, None),
    row(9, "bool", 8, Kind::Other, None),
    row(10, "float16", 16, Kind::Float, Some(DType::F16)),
    row(11, "double", 64, Kind::Float, Some(DType::F64)),
    row(12, "uint32", 32, Kind::Unsigned, None),
    row(13, "uint64", 64, Kind::Unsigned, None),
    row(16, "bfloat16", 16, Kind::Float, Some(DType::BF16)),
    row(21, "uint4", 4, Kind::Unsigned, None),
    row(22, "int4", 4, Kind::Signed, None),
];

/// A constant tensor whose elements are proven to be there.
pub(super) struct Constant<'a> {
    pub(super) name: &'a str,
    pub(super) dims: Vec<usize>,
    pub(super) element: ElementType,
    pub(super) data: Data,
}

impl Constant<'_> {
    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        // Proven not to overflow.
        self.dims.iter().product()
    }

    /// Whether it holds floats.
    pub(super) fn is_float(&self) -> bool {
        self.element.kind == Kind::Float
    }

    /// Type and dimensions, for messages.
    pub(super) fn described(&self) -> String {
        format!("{} ({} {:?})", quoted(self.name), self.element.name, self.dims)
    }
}

/// The graph's file and those beside it that it names.
pub(super) struct Parts {
    directory: PathBuf,
    options: OpenOptions,
    pub(super) files: Vec<ModelFile>,
    /// What each file but the first is called.
    names: Vec<String>,
}

impl Parts {
    pub(super) fn new(directory: PathBuf, file: ModelFile, options: &OpenOptions) -> Self {
        Self { directory, options: options.clone(), files: vec![file], names: Vec::new() }
    }

    /// Proves that the elements of `tensor`, called `name`, are where it says.
    pub(super) fn constant<'a>(&mut self, tensor: &Tensor<'a>, name: &'a str) -> Result<Constant<'a>> {
        let in_tensor = |problem: String| self.malformed(name, problem);
        let Some(element) = TYPES.iter().find(|known| known.number == tensor.data_type).copied() else {
            return Err(in_tensor(format!("the element type {} is unknown or not supported", tensor.data_type)));
        };
        let dims = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<Vec<_>>>();
        let len = dims.as_ref().and_then(|dims| dims.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim)));
        let bits = len.and_then(|len| (len as u64).checked_mul(element.bits as u64));
        let (Some(dims), Some(len), Some(bits)) = (dims, len, bits) else {
            return Err(in_tensor(format!("the shape {:?} is negative or overflows", tensor.dims)));
        };
        let bytes = bits.div_ceil(8);
        let size = |found: u64| {
            let kind = element.name;
            in_tensor(format!("the shape {:?} of {kind} needs {bytes} bytes, there are {found}", tensor.dims))
        };
        let data = match &tensor.stored {
            Stored::Raw(raw) if raw.bytes.len() as u64 == bytes => Data::File { part: 0, offset: raw.at, bytes },
            Stored::Raw(raw) => return Err(size(raw.bytes.len() as u64)),
            Stored::Nowhere if len == 0 => Data::Owned(Arc::default()),
            Stored::Nowhere => return Err(in_tensor("it has no data".to_owned())),
            Stored::Numbers { field, pieces } => match contiguous(element, *field, pieces) {
                Some(packed) if packed.bytes.len() as u64 == bytes => Data::File { part: 0, offset: packed.at, bytes },
                Some(packed) => return Err(size(packed.bytes.len() as u64)),
                None => Data::Owned(Arc::new(single(element, *field, pieces, len).map_err(in_tensor)?)),
            },
            Stored::External(external) => {
                let external = external.clone();
                self.external(name, &external, bytes)?
            }
        };
        Ok(Constant { name, dims, element, data })
    }

    fn malformed(&self, name: &str, problem: String) -> Error {
        let path = self.files.first().map(|file| file.path().to_owned()).unwrap_or_default();
        Error::Malformed { path, field: format!("tensor {}", quoted(name)), problem }
    }

    /// Proves that `bytes` of a tensor are in another file.
    fn external(&mut self, name: &str, external: &External<'_>, bytes: u64) -> Result<Data> {
        let number = |text: Option<&str>, what: &str| match text.map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(self.malformed(
                name,
                format!("the {what} of its external data is no number: {}", quoted(text.unwrap_or_default())),
            )),
        };
        let offset = number(external.offset, "offset")?.unwrap_or(0);
        let length = number(external.length, "length")?;
        let Some(location) = external.location else {
            return Err(self.malformed(name, "its external data has no location".to_owned()));
        };
        if let Some(length) = length.filter(|length| *length != bytes) {
            let problem = format!("its shape needs {bytes} bytes, the length of its external data is {length}");
            return Err(self.malformed(name, problem));
        }
        let part = self.part(name, location)?;
        let len = self.files.get(part).map_or(0, ModelFile::len);
        if offset.checked_add(bytes).is_none_or(|end| end > len) {
            let problem = format!(
                "its external data, {bytes} bytes at offset {offset}, reaches beyond the end of {} ({len} bytes): truncated, \
                 or out of bounds",
                quoted(location)
            );
            return Err(self.malformed(name, problem));
        }
        Ok(Data::File { part, offset, bytes })
    }

    /// The number of the file called `location`, which is opened when it is new.
    fn part(&mut self, name: &str, location: &str) -> Result<usize> {
        // Exporters write `./name` now and then.
        let location = location.strip_prefix("./").unwrap_or(location);
        if let Some(index) = self.names.iter().position(|known| known == location) {
            return Ok(index + 1);
        }
        if !is_plain_name(location) {
            let problem = format!(
                "its external data is at {}, which is not a plain file name: nothing outside the model's folder is read",
                quoted(location)
            );
            return Err(self.malformed(name, problem));
        }
        if self.names.len() == limits::SHARDS {
            return Err(self.malformed(name, "too many files of external data".to_owned()));
        }
        let path = self.directory.join(location);
        if let Err(source) = std::fs::metadata(&path) {
            let problem = format!("the file of its external data, {}, cannot be read: {source}", quoted(location));
            return Err(self.malformed(name, problem));
        }
        self.files.push(ModelFile::open(&path, self.options.mmap)?);
        self.names.push(location.to_owned());
        Ok(self.names.len())
    }

    /// The floats of a constant; none when it holds something else.
    pub(super) fn floats(&self, constant: &Constant<'_>) -> Result<Option<Vec<f32>>> {
        let Some(dtype) = constant.element.dtype else { return Ok(None) };
        let bytes = constant.data.read(&self.files, || "a constant".to_owned())?;
        let mut out = Vec::new();
        if out.try_reserve_exact(constant.len()).is_err() {
            return Ok(None);
        }
        out.resize(constant.len(), 0.0);
        Ok(dtype.decode(&bytes, &mut out).is_ok().then_some(out))
    }
}

/// Single numbers that lie in the file just as raw bytes would.
fn contiguous<'a>(element: ElementType, field: u32, pieces: &[Value<'a>]) -> Option<Message<'a>> {
    match (pieces, field, element.name) {
        ([Value::Bytes(packed)], proto::FLOATS, "float") => Some(*packed),
        ([Value::Bytes(packed)], proto::DOUBLES, "double") => Some(*packed),
        _ => None,
    }
}

/// The bytes of elements stored as single numbers: of `len`, which is compared before anything is made.
fn single(element: ElementType, field: u32, pieces: &[Value<'_>], len: usize) -> std::result::Result<Vec<u8>, String> {
    let fits = match field {
        proto::FLOATS => element.name == "float",
        proto::DOUBLES => element.name == "double",
        proto::INTS => element.bits >= 8 && (element.bits <= 16 || element.name == "int32"),
        proto::LONGS => element.name == "int64",
        _ => element.kind == Kind::Unsigned && element.bits >= 32,
    };
    if !fits {
        return Err(format!("its {} elements are stored in a field (number {field}) of another type", element.name));
    }
    let width = element.bits / 8;
    let mut out = Vec::new();
    let mut add = |number: u64| match out.len() / width < len {
        true => {
            out.extend(number.to_le_bytes().into_iter().take(width));
            Ok(())
        }
        false => Err(format!("it has more than the {len} elements of its shape")),
    };
    for piece in pieces {
        match *piece {
            Value::Varint(number) => add(number)?,
            Value::Fixed32(bits) if field == proto::FLOATS => add(u64::from(bits))?,
            Value::Fixed64(bits) if field == proto::DOUBLES => add(bits)?,
            Value::Bytes(packed) if field == proto::FLOATS || field == proto::DOUBLES => {
                for chunk in packed.bytes.chunks(width) {
                    let mut number = [0; 8];
                    number.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                    add(u64::from_le_bytes(number))?;
                }
            }
            Value::Bytes(packed) => {
                for number in packed.varints() {
                    add(number.map_err(|fault| fault.problem)?)?;
                }
            }
            _ => return Err("its numbers have an invalid wire type".to_owned()),
        }
    }
    match out.len() / width == len {
        true => Ok(out),
        false => Err(format!("it has {} elements, its shape needs {len}", out.len() / width)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_numbers() {
        #[track_caller]
        fn check(number: u64, field: u32, pieces: &[Value<'_>], len: usize, expected: Result<&[u8], &str>) {
            let element = *TYPES.iter().find(|known| known.number == number).unwrap();
            match (single(element, field, pieces, len), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} {expected:?}"),
            }
        }
        use std::result::Result;
        let packed = |bytes| Value::Bytes(Message { bytes, at: 0 });
        check(2, proto::INTS, &[packed(&[1, 0x80, 1])], 2, Ok(&[1, 128]));
        // -1 as an integer of 64 bits.
        check(3, proto::INTS, &[Value::Varint(u64::MAX)], 1, Ok(&[0xff]));
        check(10, proto::INTS, &[Value::Varint(0x3c00)], 1, Ok(&[0, 0x3c]));
        check(7, proto::LONGS, &[Value::Varint(3)], 1, Ok(&[3, 0, 0, 0, 0, 0, 0, 0]));
        check(
            1,
            proto::FLOATS,
            &[Value::Fixed32(0x3f80_0000), packed(&[0, 0, 0, 0x40])],
            2,
            Ok(&[0, 0, 128, 63, 0, 0, 0, 64]),
        );
        check(1, proto::FLOATS, &[Value::Fixed32(0)], 2, Err("it has 1 elements, its shape needs 2"));
        check(2, proto::INTS, &[packed(&[1, 1])], 1, Err("more than the 1 elements"));
        check(1, proto::INTS, &[Value::Varint(1)], 1, Err("another type"));
        check(21, proto::INTS, &[Value::Varint(1)], 1, Err("another type"));
        check(2, proto::INTS, &[packed(&[0x80])], 1, Err("truncated"));
        check(2, proto::INTS, &[Value::Fixed32(1)], 1, Err("wire type"));
    }
}
