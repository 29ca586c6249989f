//! What can go wrong with bytes, dtypes and shapes.

use crate::DType;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about bytes, dtypes or shapes. It names the thing, never the file: the caller knows that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A row that is no whole number of blocks.
    #[error("a row of {len} elements is no whole number of {dtype} blocks (of {block})")]
    RaggedRow {
        /// Elements in the row.
        len: usize,
        /// The block type.
        dtype: DType,
        /// Elements in one block.
        block: usize,
    },
    /// A byte slice whose length does not fit the elements that it should hold.
    #[error("{elements} elements of {dtype} need {expected} bytes, there are {actual}")]
    ByteCount {
        /// Elements asked for.
        elements: usize,
        /// Their type.
        dtype: DType,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// A size that does not fit the address space.
    #[error("the size of shape {shape} in {dtype} overflows")]
    Overflow {
        /// The shape, printed.
        shape: String,
        /// The element type.
        dtype: DType,
    },
    /// A type that has no decoder or no encoder here.
    #[error("{dtype} cannot be {action} here")]
    Unsupported {
        /// The type.
        dtype: DType,
        /// "decoded" or "encoded".
        action: &'static str,
    },
    /// A number that a type cannot hold.
    #[error("{value} cannot be stored as {dtype}")]
    Range {
        /// The number, printed.
        value: String,
        /// The type.
        dtype: DType,
    },
    /// Too many dimensions, or a zero among them.
    #[error("{0}")]
    Shape(String),
}
