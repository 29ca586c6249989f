//! What can go wrong on a device.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a device or an operation on it. It names the operation or the tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A shape, dtype or range that does not fit the operation: a bug of the caller or a model whose tensors disagree.
    #[error("{op}: {what}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        what: String,
    },
    /// Memory that the device cannot give.
    #[error("the {device} device cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The device.
        device: &'static str,
        /// Bytes asked for.
        bytes: usize,
        /// What for.
        what: String,
    },
    /// A tensor that the device cannot hold.
    #[error("tensor {name}: {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why.
        source: tensor::Error,
    },
    /// An option that makes no sense on this machine.
    #[error("{0}")]
    Option(String),
}
