//! Memory maps of model files: the only unsafe code of this crate.
//!
//! A map is read-only and shared with the page cache, so a model costs memory once however many programs use it. The
//! price: if the file is truncated while it is mapped, touching a page behind its new end raises SIGBUS. The length is
//! therefore checked against the open file before bytes are handed out ([`crate::Checkpoint::check_unchanged`]), and
//! `OpenOptions { mmap: false }` avoids maps altogether.

use std::{fs::File, io};

/// A whole file mapped read-only.
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps all of `file`, which must not be empty.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the map is private and read-only, and the bytes are used only as plain bytes: no value of them is
        // assumed beyond checks made on copies of them. Another process that writes to or truncates the file while it
        // is mapped breaks Rust's view of `&[u8]`, as with every mapped file; the module's text says how that risk is
        // kept small and how to avoid it.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }

    /// Lets the pages that hold `bytes` leave memory; they come back from the file when they are read again. Does
    /// nothing when `bytes` is no part of this map, and reports whether it was.
    pub(crate) fn release(&self, bytes: &[u8]) -> bool {
        let map = self.0.as_ptr_range();
        let part = bytes.as_ptr_range();
        let inside = map.start <= part.start && part.end <= map.end;
        if inside && !bytes.is_empty() {
            self.release_range(part.start as usize - map.start as usize, bytes.len());
        }
        inside
    }

    #[cfg(unix)]
    fn release_range(&self, offset: usize, len: usize) {
        // SAFETY: MADV_DONTNEED on a read-only, file-backed map drops clean pages only; the next access reads the same
        // bytes from the file again, so views into the map stay valid. The range lies inside the map (checked by the
        // caller).
        let advised = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        // Advice that is refused costs memory, never correctness.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn release_range(&self, _offset: usize, _len: usize) {}
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
