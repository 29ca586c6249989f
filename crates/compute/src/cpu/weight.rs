//! Tensors on the CPU device: matrices in the bytes of the file, vectors as `f32`.
//!
//! What belongs here: what `upload` makes and typed access to it. What does not: arithmetic (`op`).

use super::{argument, simd::Kernels};
use crate::{Error, Result, Weight, WeightUse};
use std::sync::Arc;
use tensor::{DType, HostTensor, SharedBytes};

/// What is behind [`Weight`] on this device.
pub(crate) enum CpuWeight {
    /// Rows as they lie in the file (zero copy).
    Rows(SharedBytes),
    /// Norms, biases, frequencies.
    Vector(Vec<f32>),
}

/// Brings a tensor to the device.
pub(crate) fn upload(tensor: &HostTensor, usage: WeightUse) -> Result<Weight> {
    let (dtype, shape) = (tensor.dtype(), *tensor.shape());
    let refused = |source| Error::Tensor { name: tensor.name().to_owned(), source };
    if !dtype.can_decode() {
        return Err(refused(tensor::Error::Unsupported { dtype, action: "computed with" }));
    }
    let (inner, resident, mapped) = match usage {
        WeightUse::Vector => {
            let values = tensor.to_f32().map_err(refused)?;
            let bytes = values.len() * size_of::<f32>();
            (CpuWeight::Vector(values), bytes, false)
        }
        WeightUse::Matrix | WeightUse::Experts | WeightUse::Table => {
            (CpuWeight::Rows(tensor.bytes().clone()), tensor.bytes().len(), true)
        }
    };
    Ok(Weight { inner: Arc::new(inner), dtype, shape, resident, mapped })
}

/// The values of a vector of `len` elements.
pub(crate) fn vector<'a>(op: &'static str, weight: &'a Weight, len: usize) -> Result<&'a [f32]> {
    match weight.inner.downcast_ref::<CpuWeight>() {
        Some(CpuWeight::Vector(values)) if values.len() == len => Ok(values),
        Some(CpuWeight::Vector(values)) => {
            Err(argument(op, format_args!("a vector of {} elements where {len} are needed", values.len())))
        }
        Some(CpuWeight::Rows(_)) => Err(argument(op, "a matrix where a vector is needed")),
        None => Err(argument(op, "a weight of another device")),
    }
}

/// [`vector`] of an optional weight.
pub(crate) fn optional_vector<'a>(
    op: &'static str,
    weight: Option<&'a Weight>,
    len: usize,
) -> Result<Option<&'a [f32]>> {
    weight.map(|w| vector(op, w, len)).transpose()
}

/// Rows of one dtype that lie one after another.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) dtype: DType,
    pub(crate) n_rows: usize,
    pub(crate) row_len: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// A weight seen as `[rows, row_len]`, all outer dimensions flattened.
    pub(crate) fn of(op: &'static str, weight: &'a Weight) -> Result<Self> {
        let bytes = match weight.inner.downcast_ref::<CpuWeight>() {
            Some(CpuWeight::Rows(bytes)) => bytes,
            Some(CpuWeight::Vector(_)) => return Err(argument(op, "a vector where a matrix is needed")),
            None => return Err(argument(op, "a weight of another device")),
        };
        let (n_rows, row_len) = (weight.shape.rows(), weight.shape.row_len());
        let row_bytes = weight.dtype.row_bytes(row_len).map_err(|e| argument(op, e))?;
        if row_bytes.checked_mul(n_rows) != Some(bytes.len()) {
            return Err(argument(op, "a weight whose bytes do not fit its shape"));
        }
        Ok(Self { dtype: weight.dtype, n_rows, row_len, row_bytes, bytes })
    }

    /// Rows `first..first + n_rows` of it.
    pub(crate) fn part(self, first: usize, n_rows: usize) -> Self {
        let bytes = &self.bytes[first * self.row_bytes..(first + n_rows) * self.row_bytes];
        Self { n_rows, bytes, ..self }
    }

    /// The stored bytes of columns `first..first + len` of a row; both are whole blocks.
    pub(crate) fn row_bytes(&self, row: usize, first: usize, len: usize) -> &'a [u8] {
        let (block_len, block_bytes) = (self.dtype.block_len(), self.dtype.block_bytes());
        let start = row * self.row_bytes + first / block_len * block_bytes;
        &self.bytes[start..start + len / block_len * block_bytes]
    }

    /// Columns `first..first + out.len()` of a row, exactly; both are whole blocks.
    pub(crate) fn decode(&self, kernels: &Kernels, row: usize, first: usize, out: &mut [f32]) {
        let bytes = self.row_bytes(row, first, out.len());
        match self.dtype {
            DType::F16 => widen(bytes, out, |from, to| kernels.f16_to_f32(from, to)),
            DType::BF16 => widen(bytes, out, |from, to| kernels.bf16_to_f32(from, to)),
            dtype => dtype.decode(bytes, out).expect("upload checked that the type decodes, this function the length"),
        }
    }
}

/// Runs `convert` over 16-bit elements that may lie at odd addresses.
fn widen(bytes: &[u8], out: &mut [f32], convert: impl Fn(&[u16], &mut [f32])) {
    // SAFETY: every bit pattern is a u16.
    let (head, aligned, _) = unsafe { bytes.align_to::<u16>() };
    if head.is_empty() && cfg!(target_endian = "little") {
        return convert(aligned, out);
    }
    let mut chunk = [0u16; 64];
    for (bytes, out) in bytes.chunks(128).zip(out.chunks_mut(64)) {
        for (c, b) in chunk.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *c = u16::from_le_bytes(*b);
        }
        convert(&chunk[..out.len()], out);
    }
}
