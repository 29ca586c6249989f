//! A checkpoint: metadata and a directory of tensors, whatever the file format.
//!
//! It knows files, not transformers: what names and keys mean is the business of the `model` crate.

use crate::{
    Error, Metadata, Result,
    error::quoted,
    file::ModelFile,
    format,
    levels::Made,
    view::{Piece, View},
};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tensor::{DType, HostTensor, Shape, SharedBytes};

/// How to open a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Map files into memory (the default) rather than read tensors into memory of our own.
    pub mmap: bool,
    /// Which format to open of a directory that holds several; the name is one of [`crate::format_names`]. `None`: the
    /// first in the order safetensors (and MLX), PyTorch, GGUF, ONNX. Has no effect on files.
    pub format: Option<&'static str>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mmap: true, format: None }
    }
}

/// A tensor of the directory: proven to lie inside its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name as the file spells it.
    pub name: String,
    /// Element or block type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Shape,
    /// Bytes it has when loaded; in the file they may be arranged, and counted, in another way.
    pub bytes: u64,
    /// Which file of a split model.
    pub(crate) part: usize,
    /// Where its bytes begin in that file.
    pub(crate) offset: u64,
    /// How it is made, where it is more than these bytes of the file.
    pub(crate) view: Option<Arc<View>>,
    /// What it is made of, where the file does not hold its elements as they are.
    pub(crate) made: Option<Arc<Made>>,
}

impl TensorInfo {
    /// The same tensor, of a file that turned out to be the part `part` of a model.
    pub(crate) fn in_part(mut self, part: usize) -> Self {
        self.part = part;
        if let Some(view) = &mut self.view {
            Arc::make_mut(view).set_part(part);
        }
        self
    }

    /// Its bytes, of the model at `path`.
    pub(crate) fn read(&self, path: &Path, parts: &[ModelFile]) -> Result<SharedBytes> {
        let missing = || Error::MissingTensor { path: path.to_owned(), tensor: quoted(&self.name) };
        let part = parts.get(self.part).ok_or_else(missing)?;
        part.check_unchanged()?;
        match (&self.made, &self.view) {
            (Some(made), _) => made.load(path, parts, self),
            (None, Some(view)) => view.load(path, parts, self),
            (None, None) => part.bytes(self.offset, self.bytes, || format!("tensor {}", quoted(&self.name))),
        }
    }

    /// Where its elements are, in pieces.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        match self.view.as_deref() {
            Some(View::Strided(view)) => view.pieces.clone(),
            _ => vec![Piece::in_order(self.part, self.offset, self.shape.dims())],
        }
    }
}

/// What a format's reader found.
pub(crate) struct Contents {
    pub(crate) parts: Vec<ModelFile>,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    /// Files beside the weights that belong to the model, by name.
    pub(crate) sidecars: Vec<(String, ModelFile)>,
    pub(crate) notes: Vec<String>,
    /// Formats that the directory holds besides.
    pub(crate) other_formats: Vec<&'static str>,
    /// The format's name where it is more special than that of the files it is kept in.
    pub(crate) kind: Option<&'static str>,
}

impl Contents {
    /// Of a format that keeps everything in its parts.
    pub(crate) fn new(parts: Vec<ModelFile>, metadata: Metadata, tensors: Vec<TensorInfo>) -> Self {
        Self {
            parts,
            metadata,
            tensors,
            sidecars: Vec::new(),
            notes: Vec::new(),
            other_formats: Vec::new(),
            kind: None,
        }
    }
}

/// An open model file, or all parts of a split one.
pub struct Checkpoint {
    format: &'static str,
    path: PathBuf,
    parts: Vec<ModelFile>,
    files: Vec<PathBuf>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    sidecars: Vec<(String, ModelFile)>,
    notes: Vec<String>,
    other_formats: Vec<&'static str>,
}

impl Checkpoint {
    /// Opens the model at `path`, a file or a directory: the format is told by the first bytes, never by the name. Of a
    /// split model any part may be named. Every count, length and range has been checked when this returns.
    ///
    /// Error: cannot be opened, not a model, a format or version that is not supported, or damaged.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        Self::of(path, format::open(path, options)?)
    }

    /// Opens the adapter at `path`, as [`Checkpoint::open`] does a model: a file, or a directory that has one beside its
    /// `adapter_config.json`. Whether it is one is for the reader of its metadata to say.
    ///
    /// Error: as of `open`; a directory without an adapter.
    pub fn open_adapter(path: &Path, options: &OpenOptions) -> Result<Self> {
        Self::of(path, format::open_adapter(path, options)?)
    }

    /// Opens a model whose one file is in memory: a GGUF file that is part of the program. `name` stands in messages and
    /// in [`Checkpoint::path`]; [`Checkpoint::files`] are none.
    ///
    /// Error: not a GGUF file, one part of a split model, or damaged.
    pub fn from_memory(name: &Path, bytes: SharedBytes) -> Result<Self> {
        Self::of(name, format::open_in_memory(name, bytes)?)
    }

    fn of(path: &Path, (format, contents): (&'static str, Contents)) -> Result<Self> {
        let Contents { parts, metadata, tensors, sidecars, notes, other_formats, kind } = contents;
        let format = kind.unwrap_or(format);
        let mut index = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if index.insert(tensor.name.clone(), i).is_some() {
                let file = parts.get(tensor.part).map_or(path, ModelFile::path);
                return Err(Error::Malformed {
                    path: file.to_owned(),
                    field: format!("tensor {}", quoted(&tensor.name)),
                    problem: "duplicate: another tensor has the same name".to_owned(),
                });
            }
        }
        let on_disk = parts.iter().filter(|part| part.is_on_disk());
        let files = on_disk.map(|part| part.path().to_owned()).collect();
        let path = path.to_owned();
        Ok(Self { format, path, parts, files, metadata, tensors, index, sidecars, notes, other_formats })
    }

    /// The format's name, e.g. `gguf`.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All files of the model, in order of the parts; none of a model in memory.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Size of all files together, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
    }

    /// The metadata; of a split model that of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Names of the files beside the weights that belong to the model (tokenizer, chat template); a file that holds
    /// everything itself has none.
    pub fn sidecars(&self) -> impl Iterator<Item = &str> + '_ {
        self.sidecars.iter().map(|(name, _)| name.as_str())
    }

    /// The bytes of the sidecar called `name`; `None` when there is no such file.
    ///
    /// Error: it changed since the model was opened, cannot be read, or no memory.
    pub fn sidecar(&self, name: &str) -> Result<Option<SharedBytes>> {
        let Some((_, file)) = self.sidecars.iter().find(|(known, _)| known == name) else { return Ok(None) };
        file.check_unchanged()?;
        file.bytes(0, file.len(), || "the file".to_owned()).map(Some)
    }

    /// What the reader noticed and a user should know: which of several formats was chosen, what is ignored. In English.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The formats that the directory holds besides the one that was opened; [`OpenOptions::format`] chooses.
    pub fn other_formats(&self) -> &[&'static str] {
        &self.other_formats
    }

    /// The tensors in file order. A vocabulary-only file has none.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// The tensor called `name` with its bytes: a view of the map, or read now when not mapped. Elements that lie in the
    /// file in another order, or in several files, are copied; quantized ones may be brought into blocks.
    ///
    /// Error: no such tensor, the file changed since it was opened, has another checksum than it says, cannot be read, has
    /// blocks in an order that has no exact form here, or no memory.
    pub fn load(&self, name: &str) -> Result<HostTensor> {
        let missing = || Error::MissingTensor { path: self.path.clone(), tensor: quoted(name) };
        let info = self.tensor(name).ok_or_else(missing)?;
        let bytes = info.read(&self.path, &self.parts)?;
        HostTensor::new(name, info.dtype, info.shape, bytes).map_err(|source| Error::Tensor {
            path: self.parts.get(info.part).map_or(self.path.as_path(), ModelFile::path).to_owned(),
            tensor: quoted(name),
            source,
        })
    }

    /// Lets the mapped pages of `tensor` leave memory, once a device has its own copy. The tensor stays valid: reading
    /// it brings the pages back. Does nothing to tensors that are not mapped.
    pub fn release(&self, tensor: &HostTensor) {
        let _ = self.parts.iter().any(|part| part.release(tensor.bytes()));
    }

    /// Error when a file's length or modification time is not that of the moment it was opened. A file truncated while
    /// it is mapped must not be read further.
    pub fn check_unchanged(&self) -> Result<()> {
        self.parts.iter().try_for_each(ModelFile::check_unchanged)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("format", &self.format)
            .field("files", &self.files)
            .field("n_keys", &self.metadata.len())
            .field("n_tensors", &self.tensors.len())
            .finish()
    }
}
