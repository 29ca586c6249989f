//! Writing model files: the head from metadata and a list of tensors, then the bytes of each tensor as the caller makes
//! them, one after another. Nothing but the head is held in memory.
//!
//! What belongs here: layouts of files. What does not: which tensors and keys a model needs (the crates above), where the
//! bytes go (the caller's writer, and what becomes of it on failure).

mod gguf;
mod safetensors;
mod values;

use crate::{Error, Result};
use std::io::{self, Write};
use tensor::{DType, Shape};

pub use gguf::Part;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Shape,
}

impl NewTensor {
    /// Bytes it will take. Error: rows of no whole number of blocks, or too large.
    fn bytes(&self) -> Result<u64> {
        self.dtype.tensor_bytes(&self.shape).map(|n| n as u64).map_err(|source| unwritable(&self.name, source))
    }
}

pub(crate) fn unwritable(name: &str, problem: impl ToString) -> Error {
    Error::Unwritable { what: format!("tensor {}", crate::error::quoted(name)), problem: problem.to_string() }
}

/// A file about to be written: its head, and how many bytes each tensor must have.
#[derive(Clone, Debug)]
pub struct Layout {
    head: Vec<u8>,
    /// For each tensor: its name, its bytes, and the zeros after them.
    tensors: Vec<(String, u64, u64)>,
}

impl Layout {
    /// What the bytes of tensors in GGUF files begin at multiples of.
    pub const GGUF_ALIGNMENT: usize = 32;

    /// What stands before the tensors.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        let tensors = self.tensors.iter().fold(0u64, |sum, (_, bytes, zeros)| sum.saturating_add(bytes + zeros));
        tensors.saturating_add(self.head.len() as u64)
    }

    /// Writes the file. `tensor(i, out)` writes all bytes of the tensor `i` of the list that the layout was made of.
    ///
    /// Error: that of the writer or of `tensor`; a tensor of another length than its type and shape say.
    pub fn write<E: From<io::Error>>(
        &self,
        out: &mut dyn Write,
        mut tensor: impl FnMut(usize, &mut dyn Write) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        out.write_all(&self.head)?;
        for (index, (name, bytes, zeros)) in self.tensors.iter().enumerate() {
            let mut counted = Counted { out: &mut *out, written: 0 };
            tensor(index, &mut counted)?;
            let written = counted.written;
            if written != *bytes {
                let name = crate::error::quoted(name);
                return Err(io::Error::other(format!("tensor {name}: {written} bytes written of {bytes}")).into());
            }
            // At most an alignment long.
            out.write_all(&vec![0; usize::try_from(*zeros).unwrap_or_default()])?;
        }
        Ok(())
    }
}

/// Counts what goes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written = self.written.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_of_another_length_is_an_error() {
        let shape = Shape::new(&[2, 3]).unwrap();
        let tensors = [NewTensor { name: "a".into(), dtype: DType::F16, shape }];
        let layout = Layout::gguf(&[], &tensors, None).unwrap();
        let write = |n: usize| {
            let mut file = Vec::new();
            let result = layout.write::<io::Error>(&mut file, |_, out| out.write_all(&vec![1; n]));
            result.map(|()| file)
        };
        assert_eq!(write(12).unwrap().len() as u64, layout.file_bytes());
        for n in [0, 11, 13] {
            assert!(write(n).unwrap_err().to_string().contains("`a`"));
        }
    }
}
