//! PyTorch files: a pickle that says which tensors there are, and the storages that they are views of.
//!
//! Since 1.6 both are entries of a zip archive (`NAME/data.pkl`, `NAME/data/0` …); before, they follow one another in one
//! stream (`pytorch_legacy.rs`). What belongs here: telling the two apart, and the archive's layout, after
//! `torch/serialization.py`. What does not: reading pickles (`pickle/`) and archives (`zip.rs`), which are data here and
//! never run, and turning the pickle into tensors (`pytorch_tensors.rs`).

use super::{
    Directory, Format,
    hugging_face::{self, Part},
    pytorch_legacy, pytorch_meta,
    pytorch_tensors::{self, Found, Place},
};
use crate::{
    Error, OpenOptions, Result,
    checkpoint::Contents,
    error::quoted,
    file::ModelFile,
    limits,
    pickle::{self, Fault, Storage},
    view::Guard,
    zip::{Archive, Entry},
};
use std::{path::Path, sync::Arc};
use tensor::SharedBytes;

/// The format's name.
pub(super) const NAME: &str = "pytorch";
const PICKLE: &str = "data.pkl";

/// The format's row.
pub(super) struct PyTorch;

impl Format for PyTorch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sniff(&self, head: &[u8]) -> bool {
        is_zip(head) || is_pickle(head)
    }

    fn open(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents> {
        let name = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if pytorch_meta::is_part(name) {
            let path = hugging_face::directory_of(file.path());
            let directory = Directory { path: &path, names: &super::names_in(&path)? };
            if pytorch_meta::are_in(&directory) {
                return pytorch_meta::open_in(&directory, options);
            }
        }
        hugging_face::PYTORCH.open_file(file, options)
    }

    fn is_in(&self, directory: &Directory<'_>, is_wanted: bool) -> bool {
        pytorch_meta::are_in(directory) || hugging_face::PYTORCH.are_in(directory, is_wanted)
    }

    fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
        if pytorch_meta::are_in(directory) && !hugging_face::PYTORCH.are_usual_in(directory) {
            return pytorch_meta::open_in(directory, options);
        }
        hugging_face::PYTORCH.open_in(directory, options)
    }
}

/// Whether a file that begins with `head` is a zip archive, if only an empty one.
fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// Whether a file that begins with `head` is a pickle of a protocol that says so.
fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// Reads the tensors of `file`, in the order of the pickle. Error: damaged, asks for more than plain data, or none.
pub(super) fn read(file: ModelFile) -> Result<Part> {
    let head = file.bytes(0, file.len().min(4), || "the file's head".to_owned())?;
    let found = match &*head {
        head if is_zip(head) => read_zip(&file)?,
        head if is_pickle(head) => pytorch_legacy::read(&file)?,
        head => {
            let detail = format!("it begins with {}, which is neither a zip archive nor a pickle", quoted(head));
            return Err(Error::NotAModel { path: file.path().to_owned(), detail });
        }
    };
    Ok(Part { tensors: found.tensors, texts: Vec::new(), notes: found.notes, file })
}

/// The error for a pickle of `file` that could not be read.
pub(super) fn refusal(file: &ModelFile, fault: Fault) -> Error {
    let path = file.path().to_owned();
    match fault {
        Fault::Forbidden(problem) => Error::Forbidden { path, detail: format!("pickle {problem}") },
        Fault::Bad(problem) | Fault::Truncated(problem) => {
            Error::Malformed { path, field: "pickle".to_owned(), problem }
        }
    }
}

fn read_zip(file: &ModelFile) -> Result<Found> {
    let archive = Zip::open(file)?;
    archive.check_byte_order()?;
    let (name, entry) = archive.entry(PICKLE)?;
    if entry.len > limits::PICKLE_BYTES {
        let problem = format!("a pickle of {} bytes is too large (at most {})", entry.len, limits::PICKLE_BYTES);
        return Err(malformed(file.path(), name, problem));
    }
    let bytes = archive.verified(name.clone(), &entry)?;
    let pickle = pickle::read(&bytes).map_err(|fault| refusal(file, fault))?;
    if pickle.len != bytes.len() {
        let problem = format!("it ends after {} of its {} bytes", pickle.len, bytes.len());
        return Err(malformed(file.path(), name, problem));
    }
    pytorch_tensors::collect(file, &pickle, &mut |storage, key| archive.place(storage, key))
}

/// A PyTorch archive: all its names begin with the same folder.
struct Zip<'a> {
    file: &'a ModelFile,
    archive: Archive,
    /// That folder, with the slash.
    root: String,
}

impl<'a> Zip<'a> {
    fn open(file: &'a ModelFile) -> Result<Self> {
        let archive = Archive::read(file)?;
        let not_a_model = |detail: &str| Error::NotAModel { path: file.path().to_owned(), detail: detail.to_owned() };
        let root = archive.names().find_map(|name| {
            let root = name.strip_suffix(PICKLE)?.strip_suffix('/')?;
            (!root.contains('/')).then(|| format!("{root}/"))
        });
        let Some(root) = root else {
            let is_numpy = archive.names().any(|name| name.ends_with(".npy"));
            let kind = if is_numpy { "a NumPy archive (.npz)" } else { "a zip archive without NAME/data.pkl" };
            return Err(not_a_model(&format!("it is {kind}, which is not a PyTorch model")));
        };
        if let Some(stranger) = archive.names().find(|name| !name.starts_with(&root)) {
            let problem = format!("lies outside the archive's folder {}", quoted(&root));
            return Err(malformed(file.path(), format!("zip entry {}", quoted(stranger)), problem));
        }
        let code = format!("{root}code/");
        if archive.names().any(|name| name.starts_with(&code)) {
            let detail = "it is a TorchScript program (zip archive with code), not a dictionary of tensors; save its \
                          state_dict instead";
            return Err(not_a_model(detail));
        }
        Ok(Self { file, archive, root })
    }

    /// The entry `name` of the archive's folder, if there is one, and what messages call it.
    fn find(&self, name: &str) -> Result<(String, Option<Entry>)> {
        let full = format!("{}{name}", self.root);
        let field = format!("zip entry {}", quoted(&full));
        match self.archive.get(&full) {
            Ok(entry) => Ok((field, entry.cloned())),
            Err(reason) => Err(malformed(self.file.path(), field, reason.to_owned())),
        }
    }

    fn entry(&self, name: &str) -> Result<(String, Entry)> {
        match self.find(name)? {
            (field, Some(entry)) => Ok((field, entry)),
            (field, None) => Err(malformed(self.file.path(), field, "missing in the archive".to_owned())),
        }
    }

    /// The bytes of an entry, whose checksum they have.
    fn verified(&self, field: String, entry: &Entry) -> Result<SharedBytes> {
        Guard::new(field.clone(), entry.offset, entry.len, entry.crc).verify(self.file)?;
        self.file.bytes(entry.offset, entry.len, || field.clone())
    }

    /// Error: written on a machine of the other byte order. Old files do not say, and are little-endian.
    fn check_byte_order(&self) -> Result<()> {
        let (field, Some(entry)) = self.find("byteorder")? else { return Ok(()) };
        let len_limit = 16;
        let order = if entry.len <= len_limit { Some(self.verified(field, &entry)?) } else { None };
        match order.as_deref() {
            Some(b"little") => Ok(()),
            other => {
                let detail = format!(
                    "the byte order is {}, only little endian is supported",
                    other.map_or("unknown".to_owned(), quoted)
                );
                Err(Error::UnsupportedVersion { path: self.file.path().to_owned(), detail })
            }
        }
    }

    /// Where a storage is.
    fn place(&self, storage: &Storage, key: &str) -> Result<Place> {
        let (name, entry) = self.entry(&format!("data/{key}"))?;
        if storage.n_elements.checked_mul(storage.element.bytes) != Some(entry.len) {
            let problem = format!(
                "{} bytes are not the size of a storage of {} elements of {}",
                entry.len, storage.n_elements, storage.element.name
            );
            return Err(malformed(self.file.path(), name, problem));
        }
        let guard = Guard::new(name, entry.offset, entry.len, entry.crc);
        Ok(Place { offset: entry.offset, bytes: entry.len, guard: Some(Arc::new(guard)) })
    }
}

fn malformed(path: &Path, field: String, problem: String) -> Error {
    Error::Malformed { path: path.to_owned(), field, problem }
}
