//! Pickle, read as data: PyTorch's way of storing a dictionary of tensors.
//!
//! A pickle is a program for a stack machine that may call any function. This reader runs the machine but calls nothing:
//! a closed list of names ([`globals`]) stands for constructors of plain data, which become nodes of a graph; any other
//! name, and every opcode that could only serve other ends, is refused by name. There is no unsafe mode.
//!
//! Nodes live in one arena and refer to each other by number, so that shared and even cyclic values cost nothing, and
//! dropping them never recurses. Opcodes follow CPython's `pickletools` (protocols 0 to 5), the records of tensors
//! `torch/_utils.py`. What does not belong here: archives, files and where storages lie (`format/pytorch*.rs`).

mod construct;
mod globals;
mod machine;
mod memo;
mod node;
mod opcode;
mod program;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use machine::read;
pub(crate) use node::{Id, Node, Pickle, Storage, Tensor};

/// Why a pickle was not read.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// The bytes end before the pickle does. In a stream read piece by piece, more of them may help.
    Truncated(String),
    /// It breaks the rules of the format, or claims what cannot be.
    Bad(String),
    /// It asks for something that is not plain data.
    Forbidden(String),
}

/// What a step of reading gives.
pub(crate) type Read<T> = Result<T, Fault>;

/// Shorthand for a contradiction.
fn bad<T>(problem: impl Into<String>) -> Read<T> {
    Err(Fault::Bad(problem.into()))
}
