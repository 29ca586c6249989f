//! GGUF: ggml's model file, versions 2 and 3, little endian.
//!
//! Layout: magic, version, counts, metadata, tensor directory, padding to the alignment, tensor data. The specification
//! is ggml's `docs/gguf.md`; dimensions are stored fastest first and are turned round here and nowhere else.

use super::{
    Directory, Format,
    gguf_scan::{Fault, Scan, Scanned, bad},
    gguf_split,
};
use crate::{
    Error, Metadata, OpenOptions, Result, TensorInfo, checkpoint::Contents, error::quoted, file::ModelFile, limits,
};
use std::path::Path;
use tensor::{DType, Shape};

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of tensor data where the file names none.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Least bytes of a metadata entry: an empty key, a type, one byte.
const LEAST_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// Least bytes of a directory entry: an empty name, one dimension, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

pub(crate) use super::gguf_scan::value_type_number;
pub(crate) use super::gguf_split::{COUNT as COUNT_KEY, NUMBER as NUMBER_KEY, TENSORS as TENSORS_KEY};

/// Types that ggml numbers and we cannot decode, so that the message can name them.
const UNSUPPORTED_TYPES: &[(u32, &str)] = &[
    (4, "Q4_2, removed from ggml"),
    (5, "Q4_3, removed from ggml"),
    (9, "Q8_1"),
    (31, "Q4_0_4_4, removed from ggml"),
    (32, "Q4_0_4_8, removed from ggml"),
    (33, "Q4_0_8_8, removed from ggml"),
    (36, "IQ4_NL_4_4, removed from ggml"),
    (37, "IQ4_NL_4_8, removed from ggml"),
    (38, "IQ4_NL_8_8, removed from ggml"),
    (41, "Q1_0"),
];

/// The format's row.
pub(super) struct Gguf;

impl Format for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn open(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents> {
        let part = Part::read(file)?;
        gguf_split::assemble(part, options)
    }

    fn is_in(&self, directory: &Directory<'_>, _is_wanted: bool) -> bool {
        !gguf_split::models(directory.names).is_empty()
    }

    fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
        match gguf_split::models(directory.names).as_slice() {
            [one] => self.open(ModelFile::open(&directory.path.join(one), options.mmap)?, options),
            several => {
                let list: Vec<String> = several.iter().take(20).map(quoted).collect();
                directory.fail(format!("several models, {}: name the one to open", list.join(", ")))
            }
        }
    }
}

/// The model that `file` is by itself.
///
/// Error: damaged, or one part of a split model.
pub(super) fn open_alone(file: ModelFile) -> Result<Contents> {
    let Part { file, metadata, tensors } = Part::read(file)?;
    match metadata.u32(COUNT_KEY)? {
        None | Some(0 | 1) => Ok(Contents::new(vec![file], metadata, tensors)),
        Some(count) => {
            let problem = format!("it is one of {count} parts, and the others are nowhere");
            Err(Error::Split { path: file.path().to_owned(), problem })
        }
    }
}

/// One file: its metadata and its own tensors.
pub(super) struct Part {
    pub(super) file: ModelFile,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

impl Part {
    /// Reads and checks the head of `file`.
    pub(super) fn read(file: ModelFile) -> Result<Self> {
        let mut at_least = 0;
        loop {
            let head = file.head(at_least)?;
            let available = head.len() as u64;
            let mut reader = Reader { path: file.path(), scan: Scan::new(head, file.len()) };
            match reader.read() {
                Ok((metadata, tensors)) => return Ok(Self { metadata, tensors, file }),
                Err(Stop::Error(error)) => return Err(*error),
                // Only without a map. Doubling keeps the repeated scans linear in all.
                Err(Stop::NeedMore(wanted)) => at_least = wanted.max(available.saturating_mul(2)),
            }
        }
    }
}

/// Why reading a head stopped.
enum Stop {
    NeedMore(u64),
    Error(Box<Error>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(error))
    }
}

/// A tensor's entry in the directory, before its place in the file is proven.
struct Entry {
    name: String,
    dtype: DType,
    shape: Shape,
    bytes: u64,
    /// Counted from the beginning of the tensor data.
    offset: u64,
}

struct Reader<'a> {
    path: &'a Path,
    scan: Scan,
}

impl Reader<'_> {
    fn read(&mut self) -> std::result::Result<(Metadata, Vec<TensorInfo>), Stop> {
        let (n_tensors, n_keys) = self.header()?;
        let mut metadata = Metadata::new(self.path);
        for index in 0..n_keys {
            self.entry(index, &mut metadata)?;
        }
        let mut entries = Vec::new();
        for index in 0..n_tensors {
            entries.push(self.tensor(index)?);
        }
        let alignment =
            alignment(&metadata).map_err(|p| self.malformed(&format!("metadata key `{ALIGNMENT_KEY}`"), p))?;
        Ok((metadata, self.place(entries, alignment)?))
    }

    fn malformed(&self, field: &str, problem: String) -> Stop {
        Error::Malformed { path: self.path.to_owned(), field: field.to_owned(), problem }.into()
    }

    /// Gives a scan's fault the field it happened in.
    fn within<T>(&self, scanned: Scanned<T>, field: impl FnOnce() -> String) -> std::result::Result<T, Stop> {
        scanned.map_err(|fault| match fault {
            Fault::NeedMore(wanted) => Stop::NeedMore(wanted),
            Fault::Bad(problem) => self.malformed(&field(), problem),
        })
    }

    /// Magic, version and counts: tensors, metadata keys.
    fn header(&mut self) -> std::result::Result<(u64, u64), Stop> {
        let header = || "header".to_owned();
        let magic = self.scan.u32("magic");
        self.within(magic, header)?;
        let version = self.scan.u32("version");
        let version = self.within(version, header)?;
        let detail = match version {
            2 | 3 => None,
            1 => Some("GGUF version 1 is not supported (versions 2 and 3 are): convert the model anew".to_owned()),
            v if matches!(v.swap_bytes(), 1..=99) => {
                Some(format!("big-endian GGUF (version {}) is not supported, only little endian is", v.swap_bytes()))
            }
            v => Some(format!("GGUF version {v} is unknown (versions 2 and 3 are supported)")),
        };
        if let Some(detail) = detail {
            return Err(Error::UnsupportedVersion { path: self.path.to_owned(), detail }.into());
        }
        let n_tensors = self.scan.count("tensor count", limits::TENSORS, LEAST_TENSOR_BYTES);
        let n_tensors = self.within(n_tensors, header)?;
        let n_keys = self.scan.count("metadata key count", limits::KEYS, LEAST_ENTRY_BYTES);
        Ok((n_tensors, self.within(n_keys, header)?))
    }

    /// One metadata entry.
    fn entry(&mut self, index: u64, metadata: &mut Metadata) -> std::result::Result<(), Stop> {
        let key = self.scan.text("key", limits::KEY_BYTES);
        let key = self.within(key, || format!("metadata key number {index}"))?;
        let field = || format!("metadata key {}", quoted(&*key));
        let Ok(key) = std::str::from_utf8(&key) else {
            return Err(self.malformed(&field(), "the key is not UTF-8".to_owned()));
        };
        let value = self.scan.value();
        let value = self.within(value, field)?;
        if !metadata.insert(key.to_owned(), value) {
            return Err(self.malformed(&field(), "duplicate: the key occurs twice".to_owned()));
        }
        Ok(())
    }

    /// One entry of the tensor directory.
    fn tensor(&mut self, index: u64) -> std::result::Result<Entry, Stop> {
        let name = self.scan.text("tensor name", limits::TENSOR_NAME_BYTES);
        let name = self.within(name, || format!("tensor number {index}"))?;
        let field = || format!("tensor {}", quoted(&*name));
        let name = match std::str::from_utf8(&name) {
            Ok("") => return Err(self.malformed(&format!("tensor number {index}"), "the name is empty".to_owned())),
            Ok(name) => name.to_owned(),
            Err(_) => return Err(self.malformed(&field(), "the name is not UTF-8".to_owned())),
        };
        let shape = self.shape();
        let shape = self.within(shape, field)?;
        let number = self.scan.u32("tensor type");
        let number = self.within(number, field)?;
        let offset = self.scan.u64("tensor offset");
        let offset = self.within(offset, field)?;
        let Some(dtype) = DType::from_gguf(number) else {
            return Err(self.unsupported_type(&name, number).into());
        };
        let bytes = dtype.tensor_bytes(&shape).map_err(|e| self.malformed(&field(), format!("shape {shape}: {e}")))?;
        Ok(Entry { name, dtype, shape, bytes: bytes as u64, offset })
    }

    fn unsupported_type(&self, name: &str, number: u32) -> Error {
        let known = UNSUPPORTED_TYPES.iter().find(|(n, _)| *n == number);
        let type_name = match known {
            Some((_, known)) => format!("{number} ({known})"),
            None => format!("{number} (unknown)"),
        };
        Error::UnsupportedType { path: self.path.to_owned(), tensor: quoted(name), type_name }
    }

    /// Dimensions, stored fastest first.
    fn shape(&mut self) -> Scanned<Shape> {
        let n_dims = self.scan.u32("number of dimensions")?;
        if n_dims == 0 || n_dims > limits::DIMS {
            return bad(format!("{n_dims} dimensions (1 to {} are possible)", limits::DIMS));
        }
        let mut dims = Vec::new();
        for _ in 0..n_dims {
            let dim = self.scan.u64("dimension")?;
            match usize::try_from(dim) {
                Ok(0) => return bad("a dimension of the shape is zero"),
                Ok(dim) => dims.push(dim),
                Err(_) => return bad(format!("dimension {dim} is too large")),
            }
        }
        dims.reverse();
        let overflow = || Fault::Bad(format!("the product of the dimensions {dims:?} overflows"));
        Shape::new(&dims).ok_or_else(overflow)
    }

    /// Proves that each tensor lies inside the file, aligned and apart from the others.
    fn place(&self, entries: Vec<Entry>, alignment: u64) -> std::result::Result<Vec<TensorInfo>, Stop> {
        let file_len = self.scan.position().saturating_add(self.scan.left());
        // The head is at most HEAD_BYTES long and the alignment bounded, so this does not overflow.
        let data = self.scan.position().next_multiple_of(alignment);
        let mut tensors = Vec::new();
        for Entry { name, dtype, shape, bytes, offset } in entries {
            let place =
                data.checked_add(offset).filter(|start| start.checked_add(bytes).is_some_and(|end| end <= file_len));
            let problem = match place {
                _ if offset % alignment != 0 => {
                    format!("offset {offset} is not a multiple of the alignment {alignment}")
                }
                Some(offset) => {
                    tensors.push(TensorInfo { name, dtype, shape, bytes, part: 0, offset, view: None, made: None });
                    continue;
                }
                None => format!(
                    "its {bytes} bytes at offset {offset} of the tensor data (which begins at {data}) reach beyond the \
                     end of the file ({file_len} bytes): truncated, or the offset is out of bounds"
                ),
            };
            return Err(self.malformed(&format!("tensor {}", quoted(name)), problem));
        }
        self.refuse_overlaps(&tensors)?;
        Ok(tensors)
    }

    fn refuse_overlaps(&self, tensors: &[TensorInfo]) -> std::result::Result<(), Stop> {
        let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
        by_place.sort_by_key(|tensor| tensor.offset);
        for (first, second) in by_place.iter().zip(by_place.iter().skip(1)) {
            if first.offset.saturating_add(first.bytes) > second.offset {
                let problem = format!(
                    "its shape needs {} bytes, which overlap the offset of tensor {}",
                    first.bytes,
                    quoted(&second.name)
                );
                return Err(self.malformed(&format!("tensor {}", quoted(&first.name)), problem));
            }
        }
        Ok(())
    }
}

/// The alignment of tensor data: a power of two.
fn alignment(metadata: &Metadata) -> std::result::Result<u64, String> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => match value.as_integer().and_then(|v| u64::try_from(v).ok()) {
            Some(v) if v.is_power_of_two() && v <= limits::ALIGNMENT => Ok(v),
            Some(v) => Err(format!("alignment {v} is no power of two up to {}", limits::ALIGNMENT)),
            None => Err(format!("the alignment has type {}, not u32", value.value_type().name())),
        },
    }
}
