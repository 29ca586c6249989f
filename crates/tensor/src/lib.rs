//! Data types, shapes, host tensors and the reference codecs of block quantization.
//!
//! What belongs here: facts about bytes (how many weights a block holds, how they decode to `f32`) and the plain types
//! that every floor above shares. What does not: files, devices, kernels that are merely faster.
//!
//! Floor 0: imports no crate of this workspace.
#![forbid(unsafe_code)]

pub mod block;
mod bytes;
mod dtype;
mod error;
mod host;
mod shape;
mod transcode;

pub use block::affine::Affine;
pub use block::mixture::{MIXTURES, Mixture, Place, Site};
pub use bytes::SharedBytes;
pub use dtype::DType;
pub use error::{Error, Result};
pub use host::HostTensor;
pub use shape::Shape;
