//! GPTQ: matrices as the packages AutoGPTQ and GPTQModel store them.
//!
//! A matrix `M` of `[n_out, n_in]` is `M.qweight` `[n_in * bits / 32, n_out]`: each column of words is a stream of bits
//! with the levels of an output in order; `M.scales` `[n_groups, n_out]`; `M.qzeros` `[n_groups, n_out * bits / 32]`, a
//! stream of bits in each row; and `M.g_idx` `[n_in]`, the group of each input. A weight is `scale * (level - zero)`. The
//! first version of the format stores `zero - 1`, so that 0 is stored as all ones; `gptq_v2` stores it as it is.
//!
//! Groups become our affine blocks: `bias = -scale * zero` is exact, because scales are halves. Matrices quantized in the
//! order of their activations may have groups of scattered inputs, which no block can hold: they become what the packages
//! compute with, each weight as a number of the scales' type (singles where that has fewer than ten bits).

use super::{
    grouped::{Blocks, Head, check_dtypes},
    quantized::{self, Ending, Tensors, floats},
};
use crate::{
    Metadata, Result,
    error::quoted,
    joined::{Outcome, Recipe, Refusal},
};
use std::sync::Arc;
use tensor::{DType, SharedBytes};

/// The convention's name in configurations.
const METHOD: &str = "gptq";
const BITS: [usize; 4] = [2, 3, 4, 8];
const ENDINGS: [Ending; 4] = [
    Ending::needed(".qweight"),
    Ending::needed(".qzeros"),
    Ending::needed(".scales"),
    Ending { text: ".g_idx", optional: true },
];
/// Bits of a stored integer.
const WORD: usize = 32;
/// Outputs whose columns are gathered together: a cache line of words.
const LANES: usize = 16;
/// Bytes of levels of the largest block.
const LEVEL_BYTES: usize = 128;

/// Whether the configuration names this convention. Older models have a file of their own that names none.
pub(super) fn applies(metadata: &Metadata) -> Result<bool> {
    let named = quantized::text(metadata, "quant_method")?;
    let has_file = metadata.get("quantize_config.bits").is_some();
    Ok(named.map_or(has_file, |name| name == METHOD))
}

/// Joins all quantized matrices.
pub(super) fn join(metadata: &Metadata, tensors: &mut Tensors<'_>) -> Result<()> {
    let bits = quantized::integer(metadata, "bits")?.and_then(|bits| usize::try_from(bits).ok());
    let stride = quantized::integer(metadata, "group_size")?;
    let version = quantized::text(metadata, "checkpoint_format")?;
    let is_second = version == Some("gptq_v2");
    for (matrix, parts) in tensors.groups(&ENDINGS, |_| true)? {
        let [Some(levels), Some(zeros), Some(scales), order] = parts else { continue };
        if let Some(other) = version.filter(|name| *name != METHOD && !is_second) {
            return Err(tensors.unsupported(&levels, format!("GPTQ in its format {}", quoted(other))));
        }
        let Some(bits) = bits.filter(|bits| BITS.contains(bits)) else {
            let what = bits.map_or("without a number of bits".to_owned(), |bits| format!("with {bits} bits"));
            return Err(tensors.unsupported(&levels, format!("GPTQ {what} (2, 3, 4 and 8 are known)")));
        };
        check_dtypes(tensors, [&levels, &zeros, &scales])?;
        let [n_words, n_out] = *levels.shape.dims() else {
            return Err(tensors.damaged(&levels, format!("its shape is {}, which is no matrix", levels.shape)));
        };
        let n_bits = n_words.checked_mul(WORD).filter(|n| n.is_multiple_of(bits));
        let n_in = n_bits.map(|n| n / bits).filter(|n| *n > 0);
        let Some(n_in) = n_in else {
            let problem = format!("its shape {} holds no whole number of levels of {bits} bits", levels.shape);
            return Err(tensors.damaged(&levels, problem));
        };
        let (blocks, dtype) = Blocks::new(tensors, "GPTQ", (&levels, &scales), bits, stride, n_in)?;
        let (stride, n_groups) = (blocks.stride, blocks.n_groups());
        let reason = format!("{n_in} inputs in groups of {stride}, {n_out} outputs, {bits} bits");
        tensors.check_shape(&scales, &[n_groups, n_out], &reason)?;
        let zero_words = n_out.checked_mul(bits).filter(|n| n.is_multiple_of(WORD)).map(|n| n / WORD);
        let Some(zero_words) = zero_words else {
            return Err(tensors.damaged(&zeros, format!("{reason}: its rows would not be whole")));
        };
        tensors.check_shape(&zeros, &[n_groups, zero_words], &reason)?;
        let mut is_scattered = false;
        if let Some(order) = &order {
            tensors.check_dtype(order, &[DType::I32])?;
            tensors.check_shape(order, &[n_in], &reason)?;
            let groups =
                groups_of(&tensors.read(order)?, n_groups).map_err(|problem| tensors.damaged(order, problem))?;
            is_scattered = groups.iter().enumerate().any(|(i, group)| *group != i / stride);
        }
        let columns = Columns { blocks, n_out, less_one: !is_second };
        let plain = if scales.dtype == DType::F16 { DType::F16 } else { DType::F32 };
        let inputs = [Some(levels), Some(zeros), Some(scales), order].into_iter().flatten().collect();
        let (dtype, recipe): (DType, Arc<dyn Recipe>) = match is_scattered {
            false => (dtype, Arc::new(columns)),
            true => (plain, Arc::new(Scattered { columns, dtype: plain })),
        };
        tensors.replace(format!("{matrix}.weight"), dtype, &[n_out, n_in], inputs, recipe)?;
    }
    Ok(())
}

/// The group of each input. Error: one that there is not.
fn groups_of(order: &[u8], n_groups: usize) -> std::result::Result<Vec<usize>, String> {
    let groups = order.as_chunks::<4>().0.iter().enumerate().map(|(i, bytes)| {
        let group = u32::from_le_bytes(*bytes);
        let known = usize::try_from(group).ok().filter(|group| *group < n_groups);
        known.ok_or_else(|| format!("g_idx puts input {i} in group {group} of {n_groups}"))
    });
    groups.collect()
}

/// Rows out of columns of words.
#[derive(Debug)]
struct Columns {
    blocks: Blocks,
    n_out: usize,
    /// Whether zeros are stored less one.
    less_one: bool,
}

impl Recipe for Columns {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let mismatch = || Refusal::Damaged("levels, zeros and scales do not fit".to_owned());
        let [levels, zeros, scales, ..] = inputs else { return Err(mismatch()) };
        let (scale_row, zero_row) = self.row_bytes();
        let n_words = self.blocks.affine.level_bytes() / 4;
        let heads = |scales: &[u8], zeros: &[u8]| self.heads(scales, zeros);
        let made = self.blocks.each((scales, scale_row), (zeros, zero_row), heads, |block, heads| {
            let words = levels.get(block * n_words * self.n_out * 4..)?;
            let mut lanes = [[0; LEVEL_BYTES]; LANES];
            for (first, heads) in (0..self.n_out).step_by(LANES).zip(heads.chunks(LANES)) {
                for (k, row) in words.chunks_exact(self.n_out * 4).take(n_words).enumerate() {
                    let row = row.get(first * 4..)?.as_chunks::<4>().0;
                    for (lane, word) in lanes.iter_mut().zip(row) {
                        if let Some(place) = lane.as_chunks_mut::<4>().0.get_mut(k) {
                            *place = *word;
                        }
                    }
                }
                self.blocks.write(block, first, &lanes, heads, out)?;
            }
            Some(())
        });
        made.ok_or_else(mismatch)
    }
}

impl Columns {
    /// Bytes of a row of scales, and of one of zeros.
    fn row_bytes(&self) -> (usize, usize) {
        (self.n_out * self.blocks.scales.block_bytes(), self.n_out * self.blocks.affine.bits / 8)
    }

    /// Scale and bias of each output, in one group.
    fn heads(&self, scales: &[u8], zeros: &[u8]) -> Option<Vec<Head>> {
        let bits = self.blocks.affine.bits;
        let mask = u16::from(u8::MAX >> (8 - bits));
        let scales = floats(self.blocks.scales, scales)?;
        let head = |(o, scale): (usize, f32)| {
            let (byte, shift) = (o * bits / 8, o * bits % 8);
            let two = [*zeros.get(byte)?, zeros.get(byte + 1).copied().unwrap_or(0)];
            let stored = u16::from_le_bytes(two) >> shift;
            let zero = stored.wrapping_add(u16::from(self.less_one)) & mask;
            Some((scale, -(scale * f32::from(zero))))
        };
        scales.into_iter().enumerate().map(head).collect()
    }
}

/// Rows of plain numbers out of columns of words whose inputs are in groups of any order.
#[derive(Debug)]
struct Scattered {
    columns: Columns,
    /// The type of the numbers.
    dtype: DType,
}

impl Recipe for Scattered {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let mismatch = || Refusal::Damaged("levels, zeros, scales and g_idx do not fit".to_owned());
        let [levels, zeros, scales, order] = inputs else { return Err(mismatch()) };
        let Columns { blocks, n_out, .. } = &self.columns;
        let (bits, n_in) = (blocks.affine.bits, blocks.n_in);
        let mask = u16::from(u8::MAX >> (8 - bits));
        let groups = groups_of(order, blocks.n_groups()).map_err(Refusal::Damaged)?;
        let (scale_row, zero_row) = self.columns.row_bytes();
        let rows = scales.chunks_exact(scale_row.max(1)).zip(zeros.chunks_exact(zero_row.max(1)));
        let heads = rows.map(|(scales, zeros)| self.columns.heads(scales, zeros)).collect::<Option<Vec<_>>>();
        let heads = heads.ok_or_else(mismatch)?;
        let mut values = vec![0f32; n_in];
        // A byte more than the levels have, so that the last one can be read in two.
        let mut column = vec![[0u8; 4]; n_in * bits / WORD + 1];
        for (o, row) in out.chunks_exact_mut(self.dtype.block_bytes() * n_in).enumerate() {
            let words = levels.chunks_exact(n_out * 4).map(|row| row.as_chunks::<4>().0.get(o));
            for (word, place) in words.zip(&mut column) {
                *place = *word.ok_or_else(mismatch)?;
            }
            let bytes = column.as_flattened();
            for ((i, value), group) in values.iter_mut().enumerate().zip(&groups) {
                let (byte, shift) = (i * bits / 8, i * bits % 8);
                let two = bytes.get(byte..byte + 2).and_then(|two| two.first_chunk::<2>()).ok_or_else(mismatch)?;
                let level = f32::from(u16::from_le_bytes(*two) >> shift & mask);
                let (scale, bias) = heads.get(*group).and_then(|heads| heads.get(o)).ok_or_else(mismatch)?;
                *value = scale * level + bias;
            }
            self.dtype.encode(&values, row).map_err(|error| Refusal::Damaged(error.to_string()))?;
        }
        Ok(())
    }
}
