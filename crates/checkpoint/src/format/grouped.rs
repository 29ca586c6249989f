//! Matrices that are stored input by input, of which groups of neighbours share scales and zeros: what GPTQ and AWQ have alike.
//!
//! What belongs here: the blocks that such a matrix becomes, and which scales are whose. What does not: how each packs levels
//! and zeros into words (`gptq`, `awq`).

use super::quantized::{FLOATS, Tensors};
use crate::{Result, TensorInfo};
use tensor::{Affine, DType};

/// Scale and bias of an output.
pub(super) type Head = (f32, f32);

/// The blocks of a matrix.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) affine: Affine,
    pub(super) n_in: usize,
    /// Inputs that share a scale.
    pub(super) stride: usize,
    /// The type of the scales.
    pub(super) scales: DType,
}

impl Blocks {
    /// Those of the matrix with `levels`, of `bits` each, `n_in` inputs and groups of `stride`, and their type. No group size, or
    /// -1: one group for all. Error: there is no such block; `method` is named in it.
    pub(super) fn new(
        tensors: &Tensors<'_>,
        method: &str,
        (levels, scales): (&TensorInfo, &TensorInfo),
        bits: usize,
        stride: Option<i32>,
        n_in: usize,
    ) -> Result<(Blocks, DType)> {
        let stride = stride.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(n_in).min(n_in);
        let Some((affine, dtype)) = block(bits, stride, n_in) else {
            let type_name = format!("{method} in groups of {stride} of {n_in} inputs (its shape is {})", levels.shape);
            return Err(tensors.unsupported(levels, type_name));
        };
        Ok((Blocks { affine, n_in, stride, scales: scales.dtype }, dtype))
    }

    /// Groups of inputs that share scales.
    pub(super) fn n_groups(&self) -> usize {
        self.n_in.div_ceil(self.stride)
    }

    /// Blocks of an output.
    fn n_blocks(&self) -> usize {
        self.n_in / self.affine.group
    }

    /// Calls `fill` with the number of each block and the heads of its outputs, which `heads` makes of a group's scales and
    /// zeros: rows of so many bytes. None: rows are missing, or one of both says none.
    pub(super) fn each(
        &self,
        (scales, scale_row): (&[u8], usize),
        (zeros, zero_row): (&[u8], usize),
        heads: impl Fn(&[u8], &[u8]) -> Option<Vec<Head>>,
        mut fill: impl FnMut(usize, &[Head]) -> Option<()>,
    ) -> Option<()> {
        let mut known: Option<(usize, Vec<Head>)> = None;
        for block in 0..self.n_blocks() {
            let of = block * self.affine.group / self.stride;
            let own = match known.take() {
                Some((group, own)) if group == of => own,
                _ => heads(row(scales, of, scale_row)?, row(zeros, of, zero_row)?)?,
            };
            fill(block, &own)?;
            known = Some((of, own));
        }
        Some(())
    }

    /// Writes block `block` of the outputs from `first` on, whose levels are `lanes`, into the rows `out`.
    pub(super) fn write<const N: usize>(
        &self,
        block: usize,
        first: usize,
        lanes: &[[u8; N]],
        heads: &[Head],
        out: &mut [u8],
    ) -> Option<()> {
        let block_bytes = self.affine.block_bytes();
        let rows = out.chunks_exact_mut(self.n_blocks() * block_bytes).skip(first);
        for ((lane, (scale, bias)), row) in lanes.iter().zip(heads).zip(rows) {
            self.affine.write(*scale, *bias, lane, row.get_mut(block * block_bytes..)?);
        }
        Some(())
    }
}

/// The type for rows of `n_in`, of which every `stride` share a scale.
pub(super) fn block(bits: usize, stride: usize, n_in: usize) -> Option<(Affine, DType)> {
    let affine = Affine::dividing(bits, stride, n_in)?;
    Some((affine, affine.dtype()?))
}

/// Error: levels and zeros that are no words, scales that are no numbers.
pub(super) fn check_dtypes(tensors: &Tensors<'_>, [levels, zeros, scales]: [&TensorInfo; 3]) -> Result<()> {
    tensors.check_dtype(levels, &[DType::I32])?;
    tensors.check_dtype(zeros, &[DType::I32])?;
    tensors.check_dtype(scales, FLOATS)
}

fn row(bytes: &[u8], i: usize, len: usize) -> Option<&[u8]> {
    bytes.get(i * len..)?.get(..len)
}
