//! Tensors of the file as the house wants them: found by name, checked, joined, turned, in another type.

use super::Loader;
use crate::{Error, Result, export};
use std::ops::Range;
use tensor::{HostTensor, Shape, SharedBytes};

/// The least length that a row is divided by.
const LEAST_LENGTH: f64 = 1e-12;

impl Loader<'_> {
    /// One tensor made of those that the file calls `pieces`, one after another along the first dimension of `shape`.
    pub(super) fn joined(&mut self, name: &str, pieces: &[String], shape: &[usize]) -> Result<HostTensor> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let sizes = pieces.iter().map(|piece| self.checkpoint.tensor(piece).map_or(0, |info| info.bytes));
        let n_bytes = sizes.fold(0u64, u64::saturating_add);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(n_bytes).map_err(|_| overflow())?).map_err(|_| overflow())?;
        let mut dtype = None;
        for piece in pieces {
            let tensor = self.fetch_spelled(piece, shape.get(1..).unwrap_or_default())?;
            let tensor = self.retyped(name, tensor)?;
            let first = *dtype.get_or_insert(tensor.dtype());
            if first != tensor.dtype() {
                let what = format!("{piece} in another type ({}) than its siblings ({first})", tensor.dtype());
                return Err(Error::Unsupported { what });
            }
            bytes.extend_from_slice(tensor.bytes());
            self.checkpoint.release(&tensor);
        }
        let (dtype, shape) = (dtype.ok_or_else(overflow)?, Shape::new(shape).ok_or_else(overflow)?);
        HostTensor::new(name, dtype, shape, SharedBytes::from_vec(bytes)).map_err(|e| in_tensor(name, e))
    }

    /// Whether the tensor that the file calls `name` is stored in blocks, and so by rows whatever the family does.
    pub(super) fn is_quantized(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some_and(|info| info.dtype.is_quantized())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.find(name).is_some()
    }

    pub(super) fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let spelled = self.names.spelled(name);
        let tensor = match shape {
            &[n_out, n_in] if self.names.is_transposed(name) && !self.is_quantized(&spelled) => {
                let stored = self.fetch_spelled(&spelled, &[n_in, n_out])?;
                let turned = transposed(&stored, n_in, n_out).map_err(|e| in_tensor(&spelled, e))?;
                self.checkpoint.release(&stored);
                turned
            }
            shape => self.fetch_spelled(&spelled, shape)?,
        };
        self.retyped(name, tensor)
    }

    /// The house's tensor `name`, or a piece of it, in the type that it is to be kept in.
    pub(super) fn retyped(&mut self, name: &str, tensor: HostTensor) -> Result<HostTensor> {
        let Some(retype) = self.retype else { return Ok(tensor) };
        let is_tied = self.hyper.tied_embeddings.unwrap_or(!self.has("output.weight"));
        let Some(site) = export::site(name, tensor.shape(), self.hyper, is_tied) else { return Ok(tensor) };
        let to = retype.mixture.dtype(&site, tensor.shape());
        if to == tensor.dtype() {
            return Ok(tensor);
        }
        let bytes = (retype.encode)(&tensor, to).map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&tensor);
        // Progress counts the bytes of the file.
        let lost = tensor.bytes().len().saturating_sub(bytes.len());
        self.at.done_bytes = self.at.done_bytes.saturating_add(lost as u64);
        let shape = *tensor.shape();
        HostTensor::new(tensor.name(), to, shape, SharedBytes::from_vec(bytes)).map_err(|e| in_tensor(name, e))
    }

    /// The tensor that the file calls `name`.
    pub(super) fn fetch_spelled(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let missing = || Error::MissingTensor { name: name.to_owned(), hint: "" };
        let info = self.checkpoint.tensor(name).ok_or_else(missing)?;
        if info.shape.dims() != shape {
            let (found, expected) = (info.shape.to_string(), format!("{shape:?}"));
            return Err(Error::TensorShape { name: name.to_owned(), found, expected });
        }
        self.used.insert(name.to_owned());
        Ok(self.checkpoint.load(name)?)
    }
}

/// A single range of rows.
pub(super) fn only(rows: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(rows).collect()
}

/// Some rows of a matrix, one range after another; those of a single range are not copied.
pub(super) fn rows_of(whole: &HostTensor, name: &str, rows: &[Range<usize>]) -> tensor::Result<HostTensor> {
    let named = |range: &Range<usize>| whole.rows(format!("{name}[{}..{}]", range.start, range.end), range.clone());
    if let [range] = rows {
        return named(range);
    }
    let mut bytes = Vec::new();
    for range in rows {
        bytes.extend_from_slice(named(range)?.bytes());
    }
    let n_rows = rows.iter().map(Range::len).sum();
    let shape = Shape::new(&[n_rows, whole.shape().row_len()]).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
    HostTensor::new(name, whole.dtype(), shape, SharedBytes::from_vec(bytes))
}

/// Single rows of a tensor in any order, as a tensor of `shape`.
pub(crate) fn chosen_rows(
    whole: &HostTensor,
    name: &str,
    rows: &[usize],
    shape: &[usize],
) -> tensor::Result<HostTensor> {
    let all: Vec<&[u8]> = whole.bytes().chunks_exact(whole.row_bytes().max(1)).collect();
    let bytes = rows.iter().filter_map(|&row| all.get(row)).flat_map(|row| row.iter()).copied().collect();
    let shape = Shape::new(shape).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
    HostTensor::new(name, whole.dtype(), shape, SharedBytes::from_vec(bytes))
}

/// A matrix `[n_in, n_out]`, or each of a stack of them, as `[n_out, n_in]`. Error: a type whose elements lie in blocks.
pub(crate) fn transposed(stored: &HostTensor, n_in: usize, n_out: usize) -> tensor::Result<HostTensor> {
    let dtype = stored.dtype();
    if dtype.block_len() != 1 {
        return Err(tensor::Error::Unsupported { dtype, action: "transposed" });
    }
    let (size, from) = (dtype.block_bytes(), stored.bytes());
    let mut bytes = vec![0; from.len()];
    let matrix_bytes = (n_in * n_out * size).max(1);
    for (from, bytes) in from.chunks_exact(matrix_bytes).zip(bytes.chunks_exact_mut(matrix_bytes)) {
        for (i, row) in from.chunks_exact((n_out * size).max(1)).enumerate() {
            for (element, to) in row.chunks_exact(size).zip(bytes.chunks_exact_mut((n_in * size).max(1))) {
                if let Some(to) = to.get_mut(i * size..(i + 1) * size) {
                    to.copy_from_slice(element);
                }
            }
        }
    }
    let outer = stored.shape().dims().iter().copied().rev().skip(2).rev();
    let dims: Vec<usize> = outer.chain([n_out, n_in]).collect();
    let shape = Shape::new(&dims).ok_or_else(|| tensor::Error::Shape(stored.name().to_owned()))?;
    HostTensor::new(stored.name(), dtype, shape, SharedBytes::from_vec(bytes))
}

/// A matrix whose rows are divided by their lengths, in the type that it has.
pub(crate) fn unit_rows(stored: &HostTensor) -> tensor::Result<HostTensor> {
    let dtype = stored.dtype();
    let mut values = vec![0.0; stored.shape().row_len()];
    let mut bytes = vec![0; stored.bytes().len()];
    let row_bytes = stored.row_bytes().max(1);
    for (from, to) in stored.bytes().chunks_exact(row_bytes).zip(bytes.chunks_exact_mut(row_bytes)) {
        dtype.decode(from, &mut values)?;
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(LEAST_LENGTH);
        values.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        dtype.encode(&values, to)?;
    }
    HostTensor::new(stored.name(), dtype, *stored.shape(), SharedBytes::from_vec(bytes))
}

pub(crate) fn in_tensor(name: &str, source: tensor::Error) -> Error {
    Error::Tensor { name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_length_1() {
        let stored = HostTensor::from_f32("t", Shape::new(&[3, 2]).unwrap(), &[3.0, -4.0, 0.0, 0.0, 0.5, 0.0]).unwrap();
        assert_eq!(unit_rows(&stored).unwrap().to_f32().unwrap(), [0.6, -0.8, 0.0, 0.0, 1.0, 0.0]);
    }
}
