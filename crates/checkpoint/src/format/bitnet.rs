//! BitNet: ternary matrices as the package transformers stores them (quant_method `bitnet`).
//!
//! Packed, a matrix `M` of `[n_out, n_in]` is `M.weight` `[n_out / 4, n_in]`, bytes of four rows that lie a quarter of the rows
//! apart, the first in the lowest two bits (0, 1, 2 for −1, 0, 1), and `M.weight_scale` `[1]`. The linear class `autobitlinear`
//! multiplies with that, the older `bitlinear` divides by it. Otherwise (quantization mode `online`) a file holds the weights of
//! training, of which the ternary ones are made: divided by the mean of their sizes and rounded to −1, 0 or 1. Either becomes
//! affine blocks of 2 bits, in which `scale · 1 − scale` is zero exactly.

use super::{
    grouped,
    quantized::{self, Ending, FLOATS, Tensors, floats},
};
use crate::{
    Metadata, Result, TensorInfo,
    error::quoted,
    joined::{Outcome, Recipe, Refusal},
};
use std::sync::Arc;
use tensor::{Affine, DType, SharedBytes};

/// The convention's name in configurations.
const METHOD: &str = "bitnet";
const ENDINGS: [Ending; 2] = [Ending::needed(".weight"), Ending::needed(".weight_scale")];
const BITS: usize = 2;
/// Rows of a byte.
const FOUR: usize = 4;
/// Elements of the largest block.
const GROUP: usize = 128;
/// Matrices that are never ternary.
const EXACT: [&str; 2] = ["embed_tokens.weight", "lm_head.weight"];
/// The least mean that weights are divided by.
const LEAST: f32 = 1e-5;

/// Whether the configuration names this convention.
pub(super) fn applies(metadata: &Metadata) -> Result<bool> {
    Ok(quantized::text(metadata, "quant_method")? == Some(METHOD))
}

/// Joins all quantized matrices.
pub(super) fn join(metadata: &Metadata, tensors: &mut Tensors<'_>) -> Result<()> {
    let divides = quantized::text(metadata, "linear_class")? != Some("autobitlinear");
    let packed = |info: &TensorInfo| info.name.ends_with(".weight_scale") || info.dtype == DType::U8;
    for (matrix, parts) in tensors.groups(&ENDINGS, packed)? {
        let [Some(levels), Some(scale)] = parts else { continue };
        tensors.check_dtype(&levels, &[DType::U8])?;
        tensors.check_dtype(&scale, FLOATS)?;
        let [n_bytes, n_in] = *levels.shape.dims() else {
            return Err(tensors.damaged(&levels, format!("its shape is {}, which is no matrix", levels.shape)));
        };
        let Some(n_out) = n_bytes.checked_mul(FOUR) else {
            return Err(tensors.damaged(&levels, format!("its shape {} overflows", levels.shape)));
        };
        tensors.check_shape(&scale, &[1], "one for the whole matrix")?;
        let (affine, dtype) = block(tensors, &levels, n_in)?;
        let recipe = Packed { affine, n_in, scale: scale.dtype, divides };
        let inputs = vec![levels, scale];
        tensors.replace(format!("{matrix}.weight"), dtype, &[n_out, n_in], inputs, Arc::new(recipe))?;
    }
    if quantized::text(metadata, "quantization_mode")? != Some("online") {
        return Ok(());
    }
    let exact = |name: &str| EXACT.iter().any(|exact| name.ends_with(exact)) || !name.ends_with(".weight");
    let is_one =
        |info: &&TensorInfo| info.shape.dims().len() == 2 && FLOATS.contains(&info.dtype) && !exact(&info.name);
    let masters: Vec<TensorInfo> = tensors.all().filter(is_one).cloned().collect();
    for master in masters {
        let n_in = master.shape.row_len();
        let (affine, dtype) = block(tensors, &master, n_in)?;
        let (name, dims) = (master.name.clone(), master.shape.dims().to_vec());
        let recipe = Rounded { affine, n_in, dtype: master.dtype };
        tensors.replace(name, dtype, &dims, vec![master], Arc::new(recipe))?;
    }
    Ok(())
}

/// The type for rows of `n_in`.
fn block(tensors: &Tensors<'_>, info: &TensorInfo, n_in: usize) -> Result<(Affine, DType)> {
    grouped::block(BITS, GROUP, n_in)
        .ok_or_else(|| tensors.unsupported(info, format!("ternary rows of {n_in} weights ({})", quoted(&info.name))))
}

/// Writes a row of levels, each with the scale of the whole matrix.
fn write_row(affine: Affine, scale: f32, levels: &[u8], row: &mut [u8]) {
    let mut stream = [0; GROUP * BITS / 8];
    for (levels, block) in levels.chunks(affine.group).zip(row.chunks_exact_mut(affine.block_bytes())) {
        affine.pack(levels, &mut stream);
        affine.write(scale, -scale, &stream, block);
    }
}

/// Rows out of bytes that hold a level of four of them.
#[derive(Debug)]
struct Packed {
    affine: Affine,
    n_in: usize,
    scale: DType,
    divides: bool,
}

impl Recipe for Packed {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let mismatch = || Refusal::Damaged("levels and scale do not fit".to_owned());
        let [packed, scale] = inputs else { return Err(mismatch()) };
        let stored = floats(self.scale, scale).and_then(|s| s.first().copied()).ok_or_else(mismatch)?;
        let scale = if self.divides { 1.0 / stored } else { stored };
        if !scale.is_finite() {
            return Err(Refusal::Damaged(format!("its scale is {stored}")));
        }
        let row_bytes = self.n_in / self.affine.group * self.affine.block_bytes();
        let quarter = packed.len() / self.n_in.max(1) * row_bytes;
        let mut levels = vec![0; self.n_in];
        for (shift, rows) in (0..8).step_by(BITS).zip(out.chunks_exact_mut(quarter.max(1))) {
            for (bytes, row) in packed.chunks_exact(self.n_in.max(1)).zip(rows.chunks_exact_mut(row_bytes.max(1))) {
                for (level, byte) in levels.iter_mut().zip(bytes) {
                    *level = byte >> shift & 3;
                }
                if levels.contains(&3) {
                    return Err(Refusal::Damaged("a weight is none of −1, 0 and 1".to_owned()));
                }
                write_row(self.affine, scale, &levels, row);
            }
        }
        Ok(())
    }
}

/// Rows of weights of training, rounded.
#[derive(Debug)]
struct Rounded {
    affine: Affine,
    n_in: usize,
    dtype: DType,
}

impl Recipe for Rounded {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let [bytes] = inputs else { return Err(Refusal::Damaged("there is more than one matrix".to_owned())) };
        let in_row_bytes = (self.n_in * self.dtype.block_bytes()).max(1);
        let no_numbers = || Refusal::Damaged("it holds no whole numbers".to_owned());
        let mut sum = 0.0;
        for row in bytes.chunks_exact(in_row_bytes) {
            let values = floats(self.dtype, row).ok_or_else(no_numbers)?;
            sum += values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
        }
        let n = bytes.len() / self.dtype.block_bytes().max(1);
        let mean = ((sum / n.max(1) as f64) as f32).max(LEAST);
        if !mean.is_finite() {
            return Err(Refusal::Damaged("it holds weights that are no numbers".to_owned()));
        }
        let (factor, row_bytes) = (1.0 / mean, self.n_in / self.affine.group * self.affine.block_bytes());
        let mut levels = vec![0; self.n_in];
        for (row, out) in bytes.chunks_exact(in_row_bytes).zip(out.chunks_exact_mut(row_bytes.max(1))) {
            let values = floats(self.dtype, row).ok_or_else(no_numbers)?;
            for (level, value) in levels.iter_mut().zip(values) {
                *level = ((value * factor).round_ties_even().clamp(-1.0, 1.0) + 1.0) as u8;
            }
            write_row(self.affine, 1.0 / factor, &levels, out);
        }
        Ok(())
    }
}
