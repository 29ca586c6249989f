//! One model file: opened safely, then mapped or read; or bytes that the program has anyway.
//!
//! Safely means: a pipe or device cannot block or feed us (non-blocking open, then only regular files go on), the length
//! is taken once from the open handle, and every later range is checked against it.

use crate::{Error, Result, limits, mmap::Map};
use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tensor::SharedBytes;

/// Bytes read first when a head is read without a map; it grows as the head turns out longer.
const FIRST_READ: u64 = 1 << 20;

/// An open regular file of known length, or bytes in its place.
pub(crate) struct ModelFile {
    path: PathBuf,
    len: u64,
    source: Source,
}

/// Where the bytes come from.
enum Source {
    Disk { file: Mutex<File>, modified: Option<SystemTime>, map: Option<Arc<Map>> },
    Memory(SharedBytes),
}

impl ModelFile {
    /// Opens `path` for reading. Error: not there, not permitted, not a regular file, empty, or the map was refused.
    pub(crate) fn open(path: &Path, mmap: bool) -> Result<Self> {
        let file = open_nonblocking(path).map_err(|source| open_error(path, source))?;
        let facts = file.metadata().map_err(|source| io_error(path, "open", source))?;
        if let Some(kind) = kind_if_not_regular(&facts) {
            return Err(Error::NotRegular { path: path.to_owned(), kind });
        }
        if facts.len() == 0 {
            let detail = "the file is empty (0 bytes); was the download interrupted?".to_owned();
            return Err(Error::NotAModel { path: path.to_owned(), detail });
        }
        let map = mmap.then(|| Map::new(&file)).transpose().map_err(|e| io_error(path, "map into memory", e))?;
        let source = Source::Disk { file: Mutex::new(file), modified: facts.modified().ok(), map: map.map(Arc::new) };
        Ok(Self { path: path.to_owned(), len: facts.len(), source })
    }

    /// `bytes` as if they were the file `path`, which need not exist.
    pub(crate) fn in_memory(path: &Path, bytes: SharedBytes) -> Self {
        Self { path: path.to_owned(), len: bytes.len() as u64, source: Source::Memory(bytes) }
    }

    /// Whether it is on a disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.source, Source::Disk { .. })
    }

    /// All bytes, where they are in memory already.
    fn present(&self) -> Option<SharedBytes> {
        match &self.source {
            Source::Disk { map, .. } => {
                map.as_ref().map(|map| SharedBytes::new(Arc::clone(map) as Arc<dyn AsRef<[u8]> + Send + Sync>))
            }
            Source::Memory(bytes) => Some(bytes.clone()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The beginning of the file: all of it when mapped, else at least `at_least` bytes (or all, if it is shorter).
    pub(crate) fn head(&self, at_least: u64) -> Result<SharedBytes> {
        let wanted = at_least.max(FIRST_READ).min(self.len);
        let present = self.present().is_some();
        if !present && wanted > limits::HEAD_BYTES {
            let problem = format!("metadata and tensor directory are larger than {} bytes", limits::HEAD_BYTES);
            return Err(Error::Malformed { path: self.path.clone(), field: "header".to_owned(), problem });
        }
        let len = if present { self.len } else { wanted };
        self.bytes(0, len, || "the file's head".to_owned())
    }

    /// `len` bytes at `offset`: a view of the map, or read now. The range must lie inside the file.
    pub(crate) fn bytes(&self, offset: u64, len: u64, what: impl Fn() -> String) -> Result<SharedBytes> {
        let outside = || self.changed(format!("{} lies outside the file", what()));
        if let Some(all) = self.present() {
            let start = usize::try_from(offset).ok();
            let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
            let range = start.zip(end).map(|(start, end)| start..end);
            return range.and_then(|range| all.slice(range)).ok_or_else(outside);
        }
        match &self.source {
            Source::Disk { file, .. } => self.read(file, offset, len, &what).map(SharedBytes::from_vec),
            Source::Memory(_) => Err(outside()),
        }
    }

    fn read(&self, file: &Mutex<File>, offset: u64, len: u64, what: &dyn Fn() -> String) -> Result<Vec<u8>> {
        let no_memory = || Error::Memory { path: self.path.clone(), bytes: len, what: what() };
        let n = usize::try_from(len).map_err(|_| no_memory())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(n).map_err(|_| no_memory())?;
        bytes.resize(n, 0);
        // A poisoned lock only means that another reader panicked; the file position is set anew below.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(|source| match source
            .kind()
        {
            io::ErrorKind::UnexpectedEof => self.changed(format!("{} ends early", what())),
            _ => io_error(&self.path, "read", source),
        })?;
        Ok(bytes)
    }

    /// Lets mapped pages leave memory; reports whether `bytes` is a part of this file's map.
    pub(crate) fn release(&self, bytes: &[u8]) -> bool {
        matches!(&self.source, Source::Disk { map: Some(map), .. } if map.release(bytes))
    }

    /// Error when length or modification time are not those of the moment it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let Source::Disk { file, modified, .. } = &self.source else { return Ok(()) };
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = file.metadata().map_err(|source| io_error(&self.path, "examine", source))?;
        if facts.len() != self.len {
            return Err(self.changed(format!("it had {} bytes and now has {}", self.len, facts.len())));
        }
        if facts.modified().ok() != *modified {
            return Err(self.changed("it was written to".to_owned()));
        }
        Ok(())
    }

    fn changed(&self, detail: String) -> Error {
        Error::Changed { path: self.path.clone(), detail }
    }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), action, source }
}

/// Opening a socket fails with a puzzling system error: say what it is instead.
fn open_error(path: &Path, source: io::Error) -> Error {
    match std::fs::metadata(path).ok().as_ref().and_then(kind_if_not_regular) {
        Some(kind) => Error::NotRegular { path: path.to_owned(), kind },
        None => io_error(path, "open", source),
    }
}

#[cfg(unix)]
fn open_nonblocking(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(not(unix))]
fn open_nonblocking(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn kind_if_not_regular(facts: &Metadata) -> Option<&'static str> {
    if facts.is_file() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = facts.file_type();
        let special = [
            (kind.is_fifo(), "a FIFO (named pipe)"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
        ];
        if let Some((_, name)) = special.into_iter().find(|(is, _)| *is) {
            return Some(name);
        }
    }
    Some(if facts.is_dir() { "a directory" } else { "a special file" })
}
