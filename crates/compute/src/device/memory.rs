//! What lies in the memory of a device: activations and weights.
//!
//! What belongs here: what callers see of both, which is little: the layout is the device's secret. What does not: the cache of
//! keys and values (`cache.rs`), how a device keeps them (`cpu/`).

use crate::{LowRank, Observer};
use std::{any::Any, sync::Arc};
use tensor::{DType, Shape};

/// The memory of a device that holds activations: `f32` elements. Opaque to callers.
pub struct Buffer {
    pub(crate) inner: Box<dyn Any + Send + Sync>,
    pub(crate) len: usize,
}

impl Buffer {
    /// Elements it can hold.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A tensor on the device. Its layout is the device's secret; dtype and shape are those of the checkpoint.
#[derive(Clone)]
pub struct Weight {
    pub(crate) inner: Arc<dyn Any + Send + Sync>,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) resident: usize,
    pub(crate) mapped: bool,
    pub(crate) is_integer: bool,
    pub(crate) low_rank: Vec<LowRank>,
    pub(crate) observer: Option<Arc<Observer>>,
}

impl Weight {
    /// From now on `observer` sees what this weight is multiplied with; clones made before do not report to it.
    pub fn observe(&mut self, observer: Arc<Observer>) {
        self.observer = Some(observer);
    }

    /// Stored type (of the checkpoint).
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes that the device holds for it.
    pub fn resident_bytes(&self) -> usize {
        self.resident
    }

    /// Whether the device still reads the bytes given to [`upload`](crate::Device::upload) (so that they must not be dropped).
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Whether its products are of integers: it was brought into a layout for them, or is whenever it is used.
    pub fn is_integer(&self) -> bool {
        self.is_integer
    }
}

/// What a weight will be used for: lets a device choose a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightUse {
    /// The right side of a product, `[n_out, n_in]`; also gathered by row if it is a tied embedding.
    Matrix,
    /// A stack of matrices, `[n_expert, n_out, n_in]`.
    Experts,
    /// Rows gathered by token id only, `[n_vocab, width]`.
    Table,
    /// A vector kept as `f32`: norms, biases, RoPE frequencies.
    Vector,
}
