//! Zip archives as PyTorch writes them: every entry stored, so that its bytes can be used where they lie.
//!
//! The central directory is read and proven: every entry has one name, its local header agrees, and no two entries share
//! bytes. Names are keys and never become paths. Compressed and encrypted entries are refused when they are asked for,
//! so nothing ever grows. Checksums are left to whoever reads an entry. The format is PKWARE's APPNOTE 6.3.10
//! (§4.3, with §4.5.3 for 64-bit sizes).

use crate::{Error, Result, error::quoted, file::ModelFile, limits};
use std::collections::HashMap;

const LOCAL_MAGIC: u32 = 0x0403_4b50;
const CENTRAL_MAGIC: u32 = 0x0201_4b50;
const END_MAGIC: u32 = 0x0605_4b50;
const END64_MAGIC: u32 = 0x0606_4b50;
const LOCATOR64_MAGIC: u32 = 0x0706_4b50;

const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: u64 = 46;
const END_BYTES: u64 = 22;
const END64_BYTES: u64 = 56;
const LOCATOR64_BYTES: u64 = 20;
/// The number of the extra field that holds 64-bit sizes.
const EXTRA64: u16 = 1;

/// An entry of an archive: proven to lie inside the file, apart from all others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
    /// How many there are, as stored.
    pub(crate) len: u64,
    /// The checksum that the archive gives for its contents.
    pub(crate) crc: u32,
    /// Why its bytes cannot be used as they are.
    unusable: Option<String>,
}

/// The directory of an archive.
#[derive(Debug)]
pub(crate) struct Archive {
    entries: HashMap<String, Entry>,
}

impl Archive {
    /// Reads the directory of `file`. Error: no archive, truncated, or a directory that contradicts the file or itself.
    pub(crate) fn read(file: &ModelFile) -> Result<Self> {
        let reader = Reader { file };
        let (start, len, n_entries) = reader.end()?;
        let listed = reader.central(start, len, n_entries)?;
        let mut placed = Vec::new();
        for Listed { name, entry, local } in listed {
            let offset = reader.local(&name, local, start, &entry)?;
            placed.push((local, name, Entry { offset, ..entry }));
        }
        placed.sort_by_key(|(local, ..)| *local);
        for ((_, first, entry), (local, second, _)) in placed.iter().zip(placed.iter().skip(1)) {
            if entry.offset.saturating_add(entry.len) > *local {
                let problem = format!("its bytes overlap those of the entry {}", quoted(second));
                return Err(reader.malformed(entry_field(first), problem));
            }
        }
        let mut entries = HashMap::new();
        for (_, name, entry) in placed {
            if entries.contains_key(&name) {
                return Err(reader.malformed(entry_field(&name), "duplicate: the name occurs twice".to_owned()));
            }
            entries.insert(name, entry);
        }
        Ok(Self { entries })
    }

    /// The names of all entries, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The entry `name`, if there is one. `Err`: it is compressed or encrypted.
    pub(crate) fn get(&self, name: &str) -> std::result::Result<Option<&Entry>, &str> {
        match self.entries.get(name) {
            Some(Entry { unusable: Some(reason), .. }) => Err(reason),
            entry => Ok(entry),
        }
    }
}

/// The field of a message about an entry.
fn entry_field(name: &str) -> String {
    format!("zip entry {}", quoted(name))
}

/// An entry as the central directory lists it: its place is that of its local header.
struct Listed {
    name: String,
    entry: Entry,
    local: u64,
}

struct Reader<'a> {
    file: &'a ModelFile,
}

impl Reader<'_> {
    fn malformed(&self, field: String, problem: String) -> Error {
        Error::Malformed { path: self.file.path().to_owned(), field, problem }
    }

    fn directory(&self, problem: impl Into<String>) -> Error {
        self.malformed("zip central directory".to_owned(), problem.into())
    }

    /// Finds the end record: where the central directory begins, its length, its number of entries.
    fn end(&self) -> Result<(u64, u64, u64)> {
        let file_len = self.file.len();
        // The record is followed by a comment of at most 65 535 bytes, whose length it gives.
        let tail_len = file_len.min(END_BYTES + u64::from(u16::MAX));
        let tail_start = file_len - tail_len;
        let tail = self.file.bytes(tail_start, tail_len, || "the end of the archive".to_owned())?;
        let at = (0..=tail.len().saturating_sub(END_BYTES as usize)).rev().find(|at| {
            let record = Fields(tail.get(*at..).unwrap_or_default());
            record.u32(0) == Some(END_MAGIC)
                && record.u16(20).is_some_and(|comment| record.0.len() as u64 == END_BYTES + u64::from(comment))
        });
        let Some(at) = at else {
            let problem = "the end of the zip archive is missing: truncated, was the download interrupted?";
            return Err(self.directory(problem));
        };
        let record = Fields(tail.get(at..).unwrap_or_default());
        let narrow = (|| {
            let disks = (record.u16(4)?, record.u16(6)?, record.u16(8)?);
            Some((disks, u64::from(record.u16(10)?), u64::from(record.u32(12)?), u64::from(record.u32(16)?)))
        })();
        let Some(((disk, first_disk, on_disk), total, len, start)) = narrow else {
            return Err(self.directory("its end record is truncated"));
        };
        let end = tail_start.saturating_add(at as u64);
        if total == u64::from(u16::MAX) || len == u64::from(u32::MAX) || start == u64::from(u32::MAX) {
            if let Some(wide) = self.end64(end)? {
                return Ok(wide);
            }
        } else if disk != 0 || first_disk != 0 || u64::from(on_disk) != total {
            return Err(self.directory("the archive is split over several files, which is not supported"));
        }
        self.check_directory(start, len, total, end)
    }

    /// The 64-bit end record, if there is one before the plain one at `end`.
    fn end64(&self, end: u64) -> Result<Option<(u64, u64, u64)>> {
        let Some(locator) = end.checked_sub(LOCATOR64_BYTES) else { return Ok(None) };
        let bytes = self.file.bytes(locator, LOCATOR64_BYTES, || "the zip64 locator".to_owned())?;
        let fields = Fields(&bytes);
        let Some((LOCATOR64_MAGIC, at)) = fields.u32(0).zip(fields.u64(8)) else { return Ok(None) };
        if at.checked_add(END64_BYTES).is_none_or(|record_end| record_end > locator) {
            return Err(self.directory(format!("its zip64 end record at offset {at} is out of bounds")));
        }
        let bytes = self.file.bytes(at, END64_BYTES, || "the zip64 end record".to_owned())?;
        let fields = Fields(&bytes);
        let record = (|| {
            let magic = fields.u32(0)?;
            let disks = (fields.u32(16)?, fields.u32(20)?);
            Some((magic, disks, fields.u64(24)?, fields.u64(32)?, fields.u64(40)?, fields.u64(48)?))
        })();
        match record {
            Some((END64_MAGIC, (0, 0), on_disk, total, len, start)) if on_disk == total => {
                self.check_directory(start, len, total, at).map(Some)
            }
            _ => Err(self.directory("its zip64 end record is invalid, or says that the archive is split")),
        }
    }

    /// Proves that the directory lies before `limit` and can hold so many entries.
    fn check_directory(&self, start: u64, len: u64, n_entries: u64, limit: u64) -> Result<(u64, u64, u64)> {
        if start.checked_add(len).is_none_or(|end| end > limit) {
            let problem = format!("its {len} bytes at offset {start} reach beyond the end of the file");
            return Err(self.directory(problem));
        }
        if n_entries > limits::ZIP_ENTRIES || n_entries.saturating_mul(CENTRAL_BYTES) > len {
            return Err(self.directory(format!("{n_entries} entries are too many for its {len} bytes")));
        }
        if len > limits::HEAD_BYTES {
            return Err(self.directory(format!("its size of {len} bytes is too large")));
        }
        Ok((start, len, n_entries))
    }

    /// All entries of the central directory.
    fn central(&self, start: u64, len: u64, n_entries: u64) -> Result<Vec<Listed>> {
        let bytes = self.file.bytes(start, len, || "the zip central directory".to_owned())?;
        let mut rest: &[u8] = &bytes;
        let mut listed = Vec::new();
        for index in 0..n_entries {
            let entry = Fields(rest);
            let lengths = (|| {
                let fixed = (entry.u32(0)? == CENTRAL_MAGIC).then_some(CENTRAL_BYTES as usize)?;
                let name_end = fixed.checked_add(entry.u16(28)?.into())?;
                let extra_end = name_end.checked_add(entry.u16(30)?.into())?;
                let end = extra_end.checked_add(entry.u16(32)?.into())?;
                Some((rest.get(fixed..name_end)?, rest.get(name_end..extra_end)?, rest.get(end..)?))
            })();
            let Some((name, extra, next)) = lengths else {
                return Err(self.directory(format!("entry number {index} is truncated or invalid")));
            };
            let Ok(name) = std::str::from_utf8(name) else {
                return Err(self.directory(format!("the name {} of an entry is not UTF-8", quoted(name))));
            };
            match parse_central(entry, extra) {
                Some((entry, local)) => listed.push(Listed { name: name.to_owned(), entry, local }),
                None => return Err(self.malformed(entry_field(name), "its sizes are missing".to_owned())),
            }
            rest = next;
        }
        if !rest.is_empty() {
            return Err(self.directory(format!("it has more than the {n_entries} entries it claims")));
        }
        Ok(listed)
    }

    /// Where the bytes of an entry begin, by the local header at `local`; all before `limit`, the central directory.
    fn local(&self, name: &str, local: u64, limit: u64, entry: &Entry) -> Result<u64> {
        let outside = || {
            let problem = format!("its {} bytes at offset {local} reach beyond the archive's contents", entry.len);
            self.malformed(entry_field(name), format!("{problem}: truncated, or the offset is out of bounds"))
        };
        let header_len = LOCAL_BYTES.saturating_add(name.len() as u64);
        if local.checked_add(header_len).is_none_or(|end| end > limit) {
            return Err(outside());
        }
        let bytes = self.file.bytes(local, header_len, || "the header of a zip entry".to_owned())?;
        let header = Fields(&bytes);
        let named = bytes.get(LOCAL_BYTES as usize..).unwrap_or_default();
        match (header.u32(0), header.u16(26), header.u16(28)) {
            (Some(LOCAL_MAGIC), Some(name_len), Some(extra_len))
                if usize::from(name_len) == name.len() && named == name.as_bytes() =>
            {
                let offset = local.saturating_add(header_len).saturating_add(extra_len.into());
                let end = offset.checked_add(entry.len).filter(|end| *end <= limit);
                end.map(|_| offset).ok_or_else(outside)
            }
            _ => {
                let problem = format!("the header at offset {local} does not belong to it");
                Err(self.malformed(entry_field(name), problem))
            }
        }
    }
}

/// An entry of the central directory with the offset of its local header. `None`: 64-bit sizes are missing.
fn parse_central(fields: Fields<'_>, extra: &[u8]) -> Option<(Entry, u64)> {
    let (flags, method, crc) = (fields.u16(8)?, fields.u16(10)?, fields.u32(16)?);
    let mut wide = extra64(extra);
    // The extra field holds those values, in this order, that do not fit here.
    let mut value = |at: usize| match fields.u32(at)? {
        u32::MAX => {
            let (value, rest) = wide.split_first_chunk()?;
            wide = rest;
            Some(u64::from_le_bytes(*value))
        }
        narrow => Some(u64::from(narrow)),
    };
    let (size, len, local) = (value(24)?, value(20)?, value(42)?);
    let unusable = match (flags, method) {
        (flags, _) if flags & 1 != 0 => Some("is encrypted, which is not supported".to_owned()),
        (_, 0) if size == len => None,
        (_, 0) => Some(format!("is stored as {len} bytes but claims a size of {size}")),
        (_, method) => {
            let name = if method == 8 { " (deflate)" } else { "" };
            Some(format!(
                "is compressed by method {method}{name}; only stored entries can be read, as PyTorch writes them"
            ))
        }
    };
    Some((Entry { offset: 0, len, crc, unusable }, local))
}

/// The contents of the extra field with 64-bit sizes; empty when there is none.
fn extra64(mut extra: &[u8]) -> &[u8] {
    while let Some((number, len)) = Fields(extra).u16(0).zip(Fields(extra).u16(2)) {
        let body = extra.get(4..).unwrap_or_default();
        let Some((body, rest)) = body.split_at_checked(len.into()) else { break };
        if number == EXTRA64 {
            return body;
        }
        extra = rest;
    }
    &[]
}

/// Little-endian fields at fixed places.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn fixed<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.fixed(at).map(u16::from_le_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.fixed(at).map(u32::from_le_bytes)
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.fixed(at).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_fields() {
        #[track_caller]
        fn check(extra: &[u8], expected: &[u8]) {
            assert_eq!(extra64(extra), expected);
        }
        check(b"", b"");
        check(b"\x01\0\x02\0ab", b"ab");
        check(b"FB\x03\0ZZZ\x01\0\x02\0ab", b"ab");
        check(b"\x01\0\x09\0ab", b"");
        check(b"\x01\0\x02", b"");
    }
}
