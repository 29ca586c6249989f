//! A tensor of the new file, and how its bytes are made of the source's when they are written.
//!
//! What belongs here: each way of making one. What does not: which tensors there are and which way each goes (`tensors.rs`,
//! `divided.rs`), reading row by row (`rows.rs`).

use super::rows::Rows;
use crate::load::{transposed, unit_rows};
use crate::row_order::{Heads, source_row};
use crate::{Error, Result};
use checkpoint::Checkpoint;
use std::ops::Range;
use tensor::{DType, HostTensor, Shape, SharedBytes, Site};

/// A tensor of the new file.
#[derive(Clone, Debug)]
pub struct ExportTensor {
    /// Its name there.
    pub name: String,
    /// Its shape there.
    pub shape: Shape,
    /// Its type in the source.
    pub dtype: DType,
    /// Bytes it takes there.
    pub source_bytes: u64,
    /// Where it is in the model; none: it is kept exact, as a vector or a small table.
    pub site: Option<Site>,
    pub(super) source: Source,
}

/// What a tensor is made of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Tensors of the source one after another, rows of heads in another order.
    Tensors(Vec<String>, Vec<Heads>),
    /// Rows of one tensor, one run after another.
    Runs(String, Vec<Range<usize>>),
    /// A matrix `[n_in, n_out]`, or a stack of them, that becomes `[n_out, n_in]`; then the same runs of its rows.
    Transposed(String, [usize; 2], Vec<Range<usize>>),
    /// Runs of rows that become as many matrices `[n_in, n_out]`, each of which becomes `[n_out, n_in]`.
    TransposedRuns(String, [usize; 2], Vec<Range<usize>>),
    /// A matrix whose columns are put in another order, one run after another: whole blocks.
    Columns(String, Vec<Range<usize>>),
    /// A matrix whose rows are brought to the length 1.
    UnitRows(String),
    /// A vector of the source with `offset` added and its elements in another order.
    Vector { name: String, offset: f32, heads: Vec<Heads>, runs: Vec<Range<usize>> },
    /// The negative of the power of a vector of the source, its elements in another order.
    NegativePower(String, Vec<Range<usize>>),
    /// Numbers.
    Made(Vec<f32>),
}

impl ExportTensor {
    /// Opens it for reading.
    ///
    /// Error: the source cannot be read.
    pub fn open(&self, checkpoint: &Checkpoint) -> Result<Rows> {
        let made = |values: &[f32]| -> Result<Rows> {
            let tensor = HostTensor::from_f32(&self.name, self.shape, values).map_err(|e| self.failed(e))?;
            Ok(Rows::new(vec![tensor], Vec::new()))
        };
        match &self.source {
            Source::Tensors(names, heads) => {
                let pieces = names.iter().map(|name| checkpoint.load(name)).collect::<checkpoint::Result<Vec<_>>>()?;
                Ok(Rows::new(pieces, heads.clone()))
            }
            Source::Runs(name, runs) => Ok(Rows::of_runs(checkpoint.load(name)?, runs.clone())),
            Source::Transposed(name, [n_in, n_out], runs) => {
                let stored = checkpoint.load(name)?;
                let turned = transposed(&stored, *n_in, *n_out).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::of_runs(turned, runs.clone()))
            }
            Source::TransposedRuns(name, dims, runs) => {
                let stored = checkpoint.load(name)?;
                let turned = self.turned_runs(&stored, *dims, runs)?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![turned], Vec::new()))
            }
            Source::Columns(name, runs) => {
                let stored = checkpoint.load(name)?;
                let turned = self.columns(&stored, runs).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![turned], Vec::new()))
            }
            Source::UnitRows(name) => {
                let stored = checkpoint.load(name)?;
                let unit = unit_rows(&stored).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![unit], Vec::new()))
            }
            Source::Vector { name, offset, heads, runs } => {
                let values = checkpoint.load(name)?.to_f32().map_err(|e| self.failed(e))?;
                let at = |i: usize| values.get(source_row(heads, i)).copied().unwrap_or_default() + offset;
                made(&order(runs, values.len()).into_iter().map(at).collect::<Vec<f32>>())
            }
            Source::NegativePower(name, runs) => {
                let values = checkpoint.load(name)?.to_f32().map_err(|e| self.failed(e))?;
                let at = |i: usize| values.get(i).copied().unwrap_or_default();
                made(&order(runs, values.len()).into_iter().map(|i| -at(i).exp()).collect::<Vec<f32>>())
            }
            Source::Made(values) => made(values),
        }
    }

    fn turned_runs(&self, stored: &HostTensor, [n_in, n_out]: [usize; 2], runs: &[Range<usize>]) -> Result<HostTensor> {
        let mut bytes = Vec::new();
        let n_rows = runs.iter().map(Range::len).sum();
        Rows::of_runs(stored.clone(), runs.to_vec()).read(0..n_rows, &mut bytes)?;
        let overflow = || Error::Overflow { what: self.name.clone() };
        let shape = Shape::new(&[runs.len(), n_in, n_out]).ok_or_else(overflow)?;
        let gathered = HostTensor::new(&self.name, stored.dtype(), shape, SharedBytes::from_vec(bytes));
        // Elements of blocks have no place of their own.
        let plain = |gathered: HostTensor| match gathered.dtype().is_quantized() {
            true => HostTensor::from_f32(&self.name, shape, &gathered.to_f32()?),
            false => Ok(gathered),
        };
        gathered.and_then(plain).and_then(|plain| transposed(&plain, n_in, n_out)).map_err(|e| self.failed(e))
    }

    /// Columns in another order; those of blocks that the runs would cut become single numbers.
    fn columns(&self, stored: &HostTensor, runs: &[Range<usize>]) -> tensor::Result<HostTensor> {
        let block = stored.dtype().block_len();
        let is_whole = runs.iter().all(|run| run.start.is_multiple_of(block) && run.end.is_multiple_of(block));
        let plain = match is_whole {
            true => stored.clone(),
            false => HostTensor::from_f32(stored.name(), *stored.shape(), &stored.to_f32()?)?,
        };
        let (block, size) = (plain.dtype().block_len(), plain.dtype().block_bytes());
        let bytes = plain.bytes().chunks_exact(plain.row_bytes().max(1)).flat_map(|row| {
            let part = |run: &Range<usize>| row.get(run.start / block * size..run.end / block * size);
            runs.iter().filter_map(part).flatten().copied()
        });
        let bytes = SharedBytes::from_vec(bytes.collect());
        HostTensor::new(&self.name, plain.dtype(), self.shape, bytes)
    }

    fn failed(&self, source: tensor::Error) -> Error {
        Error::Tensor { name: self.name.clone(), source }
    }

    /// A vector of numbers.
    pub(super) fn made(name: &str, values: Vec<f32>) -> Option<ExportTensor> {
        let shape = Shape::new(&[values.len()])?;
        Some(ExportTensor {
            name: name.to_owned(),
            shape,
            dtype: DType::F32,
            source_bytes: 0,
            site: None,
            source: Source::Made(values),
        })
    }
}

/// The numbers of `runs`; all of `n` where there are none.
fn order(runs: &[Range<usize>], n: usize) -> Vec<usize> {
    if runs.is_empty() { (0..n).collect() } else { runs.iter().cloned().flatten().collect() }
}
