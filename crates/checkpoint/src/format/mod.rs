//! File formats, told apart by their first bytes: one row in [`FORMATS`] each.
//!
//! Formats that are known but cannot be read, and things that people often hand in by mistake, have a row too, so that
//! the refusal says what the file is.

mod awq;
mod bitnet;
mod fp4;
pub(crate) mod gguf;
mod gguf_scan;
mod gguf_split;
mod gptq;
mod grouped;
mod hugging_face;
mod mlx;
mod onnx;
mod pytorch;
mod pytorch_legacy;
mod pytorch_meta;
mod pytorch_tensors;
mod quantized;
mod safetensors;

use crate::{Error, OpenOptions, Result, checkpoint::Contents, error::quoted, file::ModelFile, limits};
use std::path::Path;
use tensor::SharedBytes;

/// A file format that can be opened.
pub(crate) trait Format: Sync {
    /// Its name, in lower case.
    fn name(&self) -> &'static str;
    /// Whether a file that begins with `head` is of this format.
    fn sniff(&self, head: &[u8]) -> bool;
    /// Reads the head of `file` (and opens its other parts).
    fn open(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents>;
    /// Whether `directory` seems to hold a model of this format, by the names in it. `is_wanted`: nothing else will do, so
    /// that names count which other formats have as well.
    fn is_in(&self, directory: &Directory<'_>, is_wanted: bool) -> bool;
    /// Opens the model of this format in `directory`.
    fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents>;
}

/// A directory with a model.
pub(crate) struct Directory<'a> {
    path: &'a Path,
    /// What it holds, sorted.
    names: &'a [String],
}

impl Directory<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    fn fail<T>(&self, detail: String) -> Result<T> {
        Err(Error::Directory { path: self.path.to_owned(), detail })
    }
}

/// The formats, in the order they are tried. MLX's directories are safetensors with a convention of their own.
static FORMATS: &[&dyn Format] = &[&gguf::Gguf, &pytorch::PyTorch, &safetensors::SafeTensors, &onnx::Onnx];

/// The same in the order in which a directory that holds several is searched.
static IN_DIRECTORIES: &[&dyn Format] = &[&safetensors::SafeTensors, &pytorch::PyTorch, &gguf::Gguf, &onnx::Onnx];

/// The names of the formats that can be opened.
pub fn format_names() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|format| format.name()).chain([mlx::NAME])
}

/// Bytes that are enough to tell a format.
const SNIFF_BYTES: u64 = 64;

/// Opens `path` with the format that its first bytes name.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<(&'static str, Contents)> {
    let file = match ModelFile::open(path, options.mmap) {
        Err(Error::NotRegular { .. }) if path.is_dir() => {
            return open_directory(&Directory { path, names: &names_in(path)? }, options);
        }
        other => other?,
    };
    let whole = file.head(SNIFF_BYTES)?;
    let head = whole.get(..SNIFF_BYTES as usize).unwrap_or(&whole);
    match FORMATS.iter().find(|format| format.sniff(head)) {
        Some(format) => Ok((format.name(), format.open(file, options)?)),
        None => Err(refusal(path, head, file.len())),
    }
}

/// Opens the model in `directory`, in the wanted format or the first that is there.
fn open_directory(directory: &Directory<'_>, options: &OpenOptions) -> Result<(&'static str, Contents)> {
    // MLX's models are kept as safetensors; whether it is one is seen when it is open.
    let wanted = options.format.map(|name| if name == mlx::NAME { safetensors::NAME } else { name });
    let is_held = |format: &&&dyn Format| format.is_in(directory, wanted == Some(format.name()));
    let held: Vec<&dyn Format> = IN_DIRECTORIES.iter().filter(is_held).copied().collect();
    let names = held.iter().map(|format| format.name());
    let chosen = held.iter().find(|format| wanted.is_none_or(|wanted| wanted == format.name()));
    let Some(chosen) = chosen else {
        return match wanted {
            Some(wanted) if !held.is_empty() => {
                let held: Vec<&str> = names.collect();
                directory.fail(format!("it holds a model as {}, and none as {wanted}", held.join(" and as ")))
            }
            _ => Err(directory_error(directory)),
        };
    };
    let mut contents = chosen.open_in(directory, options)?;
    contents.other_formats = names.filter(|name| *name != chosen.name()).collect();
    Ok((chosen.name(), contents))
}

/// Opens a GGUF file that is in memory.
pub(crate) fn open_in_memory(name: &Path, bytes: SharedBytes) -> Result<(&'static str, Contents)> {
    let format = &gguf::Gguf;
    let head = bytes.get(..SNIFF_BYTES as usize).unwrap_or(&bytes);
    if !format.sniff(head) {
        return Err(refusal(name, head, bytes.len() as u64));
    }
    // A part of a split model finds no siblings: there are no files.
    let contents = gguf::open_alone(ModelFile::in_memory(name, bytes))?;
    Ok((format.name(), contents))
}

/// Opens the adapter at `path`: a file, or a directory with one.
pub(crate) fn open_adapter(path: &Path, options: &OpenOptions) -> Result<(&'static str, Contents)> {
    if path.is_dir() {
        return open(&hugging_face::adapter_in(path)?, options);
    }
    open(path, options)
}

/// Something that is no supported model, and how it begins.
struct Foreign {
    /// A format's name, or what else the file is.
    name: &'static str,
    /// Whether it is a model format.
    is_model: bool,
    matches: fn(head: &[u8]) -> bool,
}

/// What people hand in, most telling first bytes first.
static FOREIGN: &[Foreign] = &[
    Foreign {
        name: "GGML (the predecessor of GGUF; convert the model anew)",
        is_model: true,
        matches: |head| [b"lmgg", b"tjgg", b"fmgg", b"algg"].iter().any(|magic| head.starts_with(*magic)),
    },
    Foreign {
        name: "an HTML page, not a model: the download went wrong",
        is_model: false,
        matches: |head| {
            let start = head.trim_ascii_start().get(..5).unwrap_or_default().to_ascii_lowercase();
            start == b"<!doc" || start == b"<html"
        },
    },
    Foreign {
        name: "a Git LFS pointer: fetch the real file with `git lfs pull`",
        is_model: false,
        matches: |head| head.starts_with(b"version https://git-lfs"),
    },
];

fn refusal(path: &Path, head: &[u8], file_len: u64) -> Error {
    let path = path.to_owned();
    match FOREIGN.iter().find(|foreign| (foreign.matches)(head)) {
        Some(Foreign { name, is_model: true, .. }) => Error::UnsupportedFormat { path, format: name },
        Some(Foreign { name, .. }) => Error::NotAModel { path, detail: format!("it is {name}") },
        None if b"GGUF".starts_with(head) => {
            let detail = format!("truncated: {file_len} bytes are too short for a header");
            Error::NotAModel { path, detail }
        }
        None => {
            let start = head.get(..8).unwrap_or(head);
            let detail = format!("no known format begins with {} (GGUF files have the magic `GGUF`)", quoted(start));
            Error::NotAModel { path, detail }
        }
    }
}

/// Names in a directory, sorted; those that are not UTF-8 belong to no model.
pub(crate) fn names_in(path: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(path);
    let entries = entries.map_err(|source| Error::Io { path: path.to_owned(), action: "list", source })?;
    let entries = entries.take(limits::DIRECTORY_ENTRIES).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Why no model was found in `directory`.
fn directory_error(directory: &Directory<'_>) -> Error {
    let detail = match directory.names.iter().find(|name| hugging_face::is_adapter(name)) {
        Some(_) => "it holds an adapter, which is added to a model, and no model",
        None if directory.has(hugging_face::CONFIG) => {
            "it has a config.json and no weights (model.safetensors, pytorch_model.bin): was the download interrupted?"
        }
        None => "it holds no model file",
    };
    Error::Directory { path: directory.path.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_named() {
        #[track_caller]
        fn check(head: &[u8], expected: &str) {
            let error = refusal(Path::new("m.gguf"), head, 1 << 20).to_string();
            assert!(error.contains(expected), "{error}");
        }
        check(b"\n <!DOCTYPE html><html>", "HTML");
        check(b"version https://git-lfs.github.com/spec/v1", "git lfs pull");
        check(b"tjgg\x01\0\0\0", "predecessor");
        check(b"gguf\x03\0\0\0", "not a model file");
        check(b"\0\0\0\0\0\0\0\0\0", "not a model file");
        check(b"GG", "too short");
        check(b"\x1b]0;x", "\\u{1b}");
    }
}
