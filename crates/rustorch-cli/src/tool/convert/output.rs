//! The files of a conversion: written beside their places, read back, and moved there together.

use super::{convert_unwritable, no_room, tensor_failed};
use crate::{
    disk,
    exit::{Exit, Failure, Result},
    loading, paths, safe_write,
};
use checkpoint::{Layout, NewTensor, Part, Value};
use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use tensor::DType;

/// Why writing a tensor stopped.
pub(super) enum Stop {
    /// The disk.
    Io(std::io::Error),
    /// Its type or its numbers.
    Type(tensor::Error),
    /// The tensor of that name.
    Tensor(String, String),
    /// Ctrl-C.
    Interrupted,
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Io(error)
    }
}

impl From<tensor::Error> for Stop {
    fn from(error: tensor::Error) -> Stop {
        Stop::Type(error)
    }
}

/// Takes bytes of a tensor, in order.
pub(super) type Take<'a> = &'a mut dyn FnMut(Vec<u8>) -> std::result::Result<(), Stop>;

/// Makes the bytes of the tensor of that number.
pub(super) type MakeTensor<'a> = &'a dyn Fn(usize, &NewTensor, Take<'_>) -> std::result::Result<(), Stop>;

/// Bytes that go to the system at once.
const BUFFER: usize = 1 << 20;

/// One file.
struct File {
    path: PathBuf,
    layout: Layout,
    /// The number of its first tensor.
    first: usize,
}

/// All files.
pub(super) struct Files {
    files: Vec<File>,
    tensors: Vec<NewTensor>,
}

impl Files {
    /// GGUF: one file, or `n_parts` of about the same size whose names follow from `target`.
    pub(super) fn gguf(
        target: &Path,
        fields: &[(String, Value)],
        tensors: Vec<NewTensor>,
        n_parts: usize,
    ) -> checkpoint::Result<Files> {
        let n_parts = n_parts.clamp(1, tensors.len().clamp(1, usize::from(u16::MAX)));
        if n_parts == 1 {
            let layout = Layout::gguf(fields, &tensors, None)?;
            let file = File { path: target.to_owned(), layout, first: 0 };
            return Ok(Files { files: vec![file], tensors });
        }
        let mut files = Vec::new();
        let mut first = 0;
        for (number, n_tensors) in shares(&tensors, n_parts).into_iter().enumerate() {
            let part = Part {
                number: u16::try_from(number).unwrap_or(u16::MAX),
                count: u16::try_from(n_parts).unwrap_or(u16::MAX),
                n_tensors: tensors.len(),
            };
            let own = tensors.get(first..first + n_tensors).unwrap_or_default();
            let fields = if number == 0 { fields } else { &[] };
            let layout = Layout::gguf(fields, own, Some(part))?;
            files.push(File { path: part_path(target, number, n_parts), layout, first });
            first += n_tensors;
        }
        Ok(Files { files, tensors })
    }

    /// Safetensors: one file.
    pub(super) fn safetensors(target: &Path, tensors: Vec<NewTensor>) -> checkpoint::Result<Files> {
        let layout = Layout::safetensors(&tensors)?;
        let file = File { path: target.to_owned(), layout, first: 0 };
        Ok(Files { files: vec![file], tensors })
    }

    /// Where they will be.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().map(|file| &file.path)
    }

    /// Bytes of all of them.
    pub(super) fn file_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.layout.file_bytes()))
    }

    /// The types of all tensors.
    pub(super) fn types(&self) -> impl Iterator<Item = DType> {
        self.tensors.iter().map(|tensor| tensor.dtype)
    }

    /// Writes all, checks what can be checked, and only then gives them their names. `done` hears bytes and says whether to
    /// go on; `check` reads a file that was written.
    pub(super) fn write(
        &self,
        tensor: MakeTensor<'_>,
        done: &dyn Fn(u64) -> bool,
        check: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<()> {
        let Some(target) = self.files.first().map(|file| &file.path) else { return Ok(()) };
        let shown = paths::display(target);
        let unwritable = |error: std::io::Error| Failure::new(Exit::Runtime, convert_unwritable(&shown)).because(error);
        let folder = safe_write::folder_of(target);
        safe_write::create_dirs(&folder).map_err(unwritable)?;
        let needed = self.file_bytes();
        if let Some(free) = disk::free_bytes(&folder).filter(|free| *free < needed) {
            let text = no_room(&shown, loading::size(needed), loading::size(free));
            return Err(Failure::new(Exit::Runtime, text));
        }
        let mut temporary = Vec::new();
        for file in &self.files {
            let new = safe_write::temporary_in(&folder).map_err(unwritable)?;
            let mut writer = BufWriter::with_capacity(BUFFER, new.as_file());
            let written = file.layout.write::<Stop>(&mut writer, |index, out| {
                let index = file.first + index;
                let Some(new) = self.tensors.get(index) else { return Ok(()) };
                let made = tensor(index, new, &mut |bytes| {
                    out.write_all(&bytes)?;
                    if done(bytes.len() as u64) { Ok(()) } else { Err(Stop::Interrupted) }
                });
                made.map_err(|stop| match stop {
                    Stop::Type(error) => Stop::Tensor(new.name.clone(), error.to_string()),
                    other => other,
                })
            });
            let written = written.and_then(|()| writer.flush().map_err(Stop::Io));
            drop(writer);
            written.and_then(|()| new.as_file().sync_all().map_err(Stop::Io)).map_err(|stop| match stop {
                Stop::Io(error) => unwritable(error),
                Stop::Interrupted => Failure::silent(Exit::Interrupted),
                Stop::Type(error) => Failure::new(Exit::Model, convert_unwritable(&shown)).because(error),
                Stop::Tensor(name, problem) => {
                    let name = crate::terminal_filter::visible_line(&name);
                    Failure::new(Exit::Model, convert_unwritable(&shown)).because(tensor_failed(name, problem))
                }
            })?;
            temporary.push(new);
        }
        // The parts of a split find each other by their names, which they do not have yet.
        if let [only] = temporary.as_slice() {
            check(only.path())?;
        }
        for (new, file) in temporary.into_iter().zip(&self.files) {
            safe_write::persist(new, &file.path).map_err(unwritable)?;
        }
        if self.files.len() > 1 {
            check(target)?;
        }
        Ok(())
    }
}

/// How many tensors, in order, each of `n_parts` files gets, so that they are of about the same size.
fn shares(tensors: &[NewTensor], n_parts: usize) -> Vec<usize> {
    let bytes = |tensor: &NewTensor| tensor.dtype.tensor_bytes(&tensor.shape).unwrap_or(0) as u128;
    let total: u128 = tensors.iter().map(bytes).sum::<u128>().max(1);
    let mut shares = vec![0; n_parts];
    let mut before = 0u128;
    for tensor in tensors {
        // The middle of the tensor decides.
        let middle = before + bytes(tensor) / 2;
        let part = usize::try_from(middle * n_parts as u128 / total).unwrap_or(0).min(n_parts - 1);
        if let Some(share) = shares.get_mut(part) {
            *share += 1;
        }
        before += bytes(tensor);
    }
    shares
}

/// `NAME-00001-of-00003.gguf`, counted from 0.
fn part_path(target: &Path, number: usize, n_parts: usize) -> PathBuf {
    let mut name = target.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{:05}-of-{n_parts:05}.gguf", number + 1));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Shape;

    #[test]
    fn parts_are_of_about_the_same_size() {
        #[track_caller]
        fn check(rows: &[usize], n_parts: usize, expected: &[usize]) {
            let tensor = |rows: &usize| NewTensor {
                name: "t".into(),
                dtype: DType::F32,
                shape: Shape::new(&[*rows, 8]).unwrap(),
            };
            let tensors: Vec<NewTensor> = rows.iter().map(tensor).collect();
            assert_eq!(shares(&tensors, n_parts), expected, "{rows:?}");
        }
        check(&[1, 1, 1, 1], 2, &[2, 2]);
        check(&[10, 1, 1, 1], 2, &[1, 3]);
        check(&[1, 1], 3, &[1, 0, 1]);
        check(&[], 1, &[0]);
        let path = part_path(Path::new("/a/m.q.gguf"), 0, 12);
        assert_eq!(path, Path::new("/a/m.q-00001-of-00012.gguf"));
    }
}
