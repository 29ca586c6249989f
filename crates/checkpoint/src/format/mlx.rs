//! MLX: directories as the package mlx-lm writes them.
//!
//! The layout is Hugging Face's. A quantized matrix `M` is `M.weight`, a stream of bits in rows of U32, with `M.scales` and
//! `M.biases`, one of each for a group of a row; the configuration's `quantization` says how many bits and elements, for
//! all and for single matrices. The bits lie as in our blocks, so a block is a group's scale, bias and bytes. In the mode
//! `mxfp4` scales are powers of two and there are no biases. Matrices may be stacks: all dimensions but the last are rows.
//!
//! Kernels of convolutions have their channels last here; those of one channel are given the shape that others have.

use super::{
    fp4::Fp4,
    quantized::{Ending, FLOATS, Tensors, floats},
};
use crate::{
    Metadata, Result, TensorInfo,
    error::quoted,
    joined::{Outcome, Recipe, Refusal},
};
use std::sync::Arc;
use tensor::{Affine, DType, Shape, SharedBytes};

/// The format's name.
pub(super) const NAME: &str = "mlx";

/// Where a configuration says it; the second for readers of other packages, which have methods there.
const PLACES: [&str; 2] = ["config.quantization", "config.quantization_config"];
const METHOD: &str = "config.quantization_config.quant_method";
const ENDINGS: [Ending; 3] =
    [Ending::needed(".weight"), Ending::needed(".scales"), Ending { text: ".biases", optional: true }];

/// Whether the directory is of this format, quantized or not.
pub(super) fn is(metadata: &Metadata) -> bool {
    metadata.str("safetensors.format").is_ok_and(|format| format == Some(NAME)) || applies(metadata).unwrap_or(false)
}

/// Whether the configuration says that matrices are quantized in this way.
pub(super) fn applies(metadata: &Metadata) -> Result<bool> {
    let [own, shared] = PLACES;
    let says = |key: &str, place: &str| {
        key.strip_prefix(place).is_some_and(|below| below.starts_with('.') && below.ends_with(".bits"))
    };
    let has_method = metadata.get(METHOD).is_some();
    Ok(metadata.iter().any(|(key, _)| says(key, own) || !has_method && says(key, shared)))
}

/// How groups are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Affine,
    Fp4,
}

/// What the configuration says of a matrix.
struct Scheme {
    mode: Mode,
    bits: usize,
    group: usize,
}

impl Scheme {
    /// Error: a number that is none, a mode that is not known.
    fn of(metadata: &Metadata, tensors: &Tensors<'_>, matrix: &str, weight: &TensorInfo) -> Result<Self> {
        let own = PLACES.iter().map(|place| format!("{place}.{matrix}"));
        let places: Vec<String> = own.chain(PLACES.iter().map(|place| (*place).to_owned())).collect();
        let says = |place: &&String| metadata.get(&format!("{place}.bits")).is_some();
        let Some(place) = places.iter().find(says) else {
            return Err(tensors.damaged(weight, "config.json's `quantization` does not say its bits".to_owned()));
        };
        let mode = match metadata.str(&format!("{place}.mode"))? {
            None | Some("affine") => Mode::Affine,
            Some("mxfp4") => Mode::Fp4,
            Some(other) => return Err(tensors.unsupported(weight, format!("MLX in its mode {}", quoted(other)))),
        };
        let usual = if mode == Mode::Affine { 64 } else { 32 };
        let number = |name: &str, usual: usize| -> Result<usize> {
            Ok(metadata.usize(&format!("{place}.{name}"))?.unwrap_or(usual))
        };
        Ok(Self { mode, bits: number("bits", 4)?, group: number("group_size", usual)? })
    }
}

/// Joins all quantized matrices.
pub(super) fn join(metadata: &Metadata, tensors: &mut Tensors<'_>) -> Result<()> {
    let is_part = |tensor: &TensorInfo| !tensor.name.ends_with(".weight") || tensor.dtype == DType::U32;
    for (matrix, parts) in tensors.groups(&ENDINGS, is_part)? {
        let [Some(weight), Some(scales), biases] = parts else { continue };
        let scheme = Scheme::of(metadata, tensors, &matrix, &weight)?;
        match scheme.mode {
            Mode::Affine => join_affine(tensors, &scheme, weight, scales, biases)?,
            Mode::Fp4 => join_fp4(tensors, &scheme, weight, scales, biases)?,
        }
    }
    Ok(())
}

/// The dimensions of the matrix whose rows have `n_groups` groups each, proven against those of its words.
fn dims(tensors: &Tensors<'_>, scheme: &Scheme, weight: &TensorInfo, scales: &TensorInfo) -> Result<Vec<usize>> {
    tensors.check_dtype(weight, &[DType::U32])?;
    let (Some((words, rows)), Some((n_groups, scale_rows))) =
        (weight.shape.dims().split_last(), scales.shape.dims().split_last())
    else {
        return Err(tensors.damaged(weight, "it has no rows".to_owned()));
    };
    let row_len = n_groups.checked_mul(scheme.group);
    let bits = row_len.and_then(|len| len.checked_mul(scheme.bits));
    if rows != scale_rows || bits.is_none() || bits != words.checked_mul(32) {
        let problem = format!(
            "its shape {} of U32 and the shape {} of its scales do not fit the quantization that config.json says: {} bits in \
             groups of {}",
            weight.shape, scales.shape, scheme.bits, scheme.group
        );
        return Err(tensors.damaged(weight, problem));
    }
    Ok(rows.iter().copied().chain(row_len).collect())
}

fn join_affine(
    tensors: &mut Tensors<'_>,
    scheme: &Scheme,
    weight: TensorInfo,
    scales: TensorInfo,
    biases: Option<TensorInfo>,
) -> Result<()> {
    let Some(biases) = biases else {
        let name = quoted(weight.name.replace(".weight", ".biases"));
        return Err(tensors.damaged(&weight, format!("the tensor {name} of the quantized matrix is missing")));
    };
    let affine = Affine { bits: scheme.bits, group: scheme.group };
    let Some(dtype) = affine.dtype() else {
        let type_name = format!("MLX with {} bits in groups of {}", scheme.bits, scheme.group);
        return Err(tensors.unsupported(&weight, type_name));
    };
    tensors.check_dtype(&scales, FLOATS)?;
    tensors.check_dtype(&biases, FLOATS)?;
    let dims = dims(tensors, scheme, &weight, &scales)?;
    tensors.check_shape(&biases, scales.shape.dims(), "that of the scales")?;
    let recipe = Groups { affine, scales: scales.dtype, biases: biases.dtype };
    let name = weight.name.clone();
    tensors.replace(name, dtype, &dims, vec![weight, scales, biases], Arc::new(recipe))
}

fn join_fp4(
    tensors: &mut Tensors<'_>,
    scheme: &Scheme,
    weight: TensorInfo,
    scales: TensorInfo,
    biases: Option<TensorInfo>,
) -> Result<()> {
    if (scheme.bits, scheme.group) != (4, 32) {
        let type_name = format!("MLX in its mode `mxfp4` with {} bits in groups of {}", scheme.bits, scheme.group);
        return Err(tensors.unsupported(&weight, type_name));
    }
    if let Some(biases) = biases {
        return Err(tensors.damaged(&biases, "the matrix is of the mode `mxfp4`, which has no biases".to_owned()));
    }
    tensors.check_dtype(&scales, &[DType::U8])?;
    let dims = dims(tensors, scheme, &weight, &scales)?;
    let name = weight.name.clone();
    tensors.replace(name, DType::MXFP4, &dims, vec![weight, scales], Arc::new(Fp4))
}

/// Puts scale and bias before the levels of each group.
#[derive(Debug)]
struct Groups {
    affine: Affine,
    scales: DType,
    biases: DType,
}

/// Groups whose scales are converted at once.
const CHUNK: usize = 1024;

impl Recipe for Groups {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let mismatch = || Refusal::Damaged("scales and weights do not fit".to_owned());
        let [weight, scales, biases] = inputs else { return Err(mismatch()) };
        let levels = weight.chunks(CHUNK * self.affine.level_bytes());
        let scales = scales.chunks(CHUNK * self.scales.block_bytes());
        let biases = biases.chunks(CHUNK * self.biases.block_bytes());
        let blocks = out.chunks_mut(CHUNK * self.affine.block_bytes());
        for (((levels, scales), biases), blocks) in levels.zip(scales).zip(biases).zip(blocks) {
            let scales = floats(self.scales, scales).ok_or_else(mismatch)?;
            let biases = floats(self.biases, biases).ok_or_else(mismatch)?;
            let levels = levels.chunks_exact(self.affine.level_bytes());
            let blocks = blocks.chunks_exact_mut(self.affine.block_bytes());
            for (((levels, scale), bias), block) in levels.zip(scales).zip(biases).zip(blocks) {
                self.affine.write(scale, bias, levels, block);
            }
        }
        Ok(())
    }
}

/// Gives the kernels of convolutions over single channels the shape that they have in other formats: `[channels, 1,
/// width]` for `[channels, width, 1]`, with the same bytes.
pub(super) fn turn_kernels(tensors: &mut [TensorInfo]) {
    for tensor in tensors.iter_mut().filter(|tensor| tensor.name.contains("conv")) {
        if let [channels, width, 1] = *tensor.shape.dims()
            && let Some(shape) = Shape::new(&[channels, 1, width])
        {
            tensor.shape = shape;
        }
    }
}
