//! Devices and kernels: the fused operations that a language model is made of.
//!
//! What belongs here: memory of a device, the operations on it, the thread pool, SIMD. What does not: files,
//! architectures, scheduling. The public interface is safe; `unsafe` stays inside, each block with its reason.
//!
//! Floor 1: imports only `tensor`.

pub mod cpu;
mod device;
mod error;
mod low_rank;
mod observer;

pub use device::*;
pub use error::{Error, Result};
pub use low_rank::LowRank;
pub use observer::{Observed, Observer};
