//! AWQ: matrices as the package AutoAWQ stores them in its version `gemm`.
//!
//! A matrix `M` of `[n_out, n_in]` with levels of 4 bits is `M.qweight` `[n_in, n_out / 8]`, `M.qzeros` `[n_groups,
//! n_out / 8]` and `M.scales` `[n_groups, n_out]`. A word holds eight neighbouring outputs of one input, in the order of
//! [`ORDER`]. A weight is `scale * (level - zero)`. Groups become our affine blocks: `bias = -scale * zero` is exact, because
//! scales are halves.

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
use tensor::SharedBytes;

/// The convention's name in configurations.
const METHOD: &str = "awq";
const VERSION: &str = "gemm";
const BITS: usize = 4;
/// Outputs of a word.
const EIGHT: usize = 8;
/// Which output of its eight the nibbles of a word belong to, the lowest first.
const ORDER: [usize; EIGHT] = [0, 2, 4, 6, 1, 3, 5, 7];
const ENDINGS: [Ending; 3] = [Ending::needed(".qweight"), Ending::needed(".qzeros"), Ending::needed(".scales")];
/// Words whose outputs are gathered together: a cache line.
const LANES: usize = 16;
/// Bytes of levels of the largest block.
const LEVEL_BYTES: usize = 64;

/// Whether the configuration names this convention.
pub(super) fn applies(metadata: &Metadata) -> Result<bool> {
    Ok(quantized::text(metadata, "quant_method")? == Some(METHOD))
}

/// Joins all quantized matrices.
pub(super) fn join(metadata: &Metadata, tensors: &mut Tensors<'_>) -> Result<()> {
    let bits = quantized::integer(metadata, "bits")?;
    let stride = quantized::integer(metadata, "group_size")?;
    let version = quantized::text(metadata, "version")?;
    for (matrix, parts) in tensors.groups(&ENDINGS, |_| true)? {
        let [Some(levels), Some(zeros), Some(scales)] = parts else { continue };
        if let Some(other) = version.filter(|name| !name.eq_ignore_ascii_case(VERSION)) {
            return Err(tensors.unsupported(&levels, format!("AWQ in its version {}", quoted(other))));
        }
        if let Some(bits) = bits.filter(|bits| usize::try_from(*bits) != Ok(BITS)) {
            return Err(tensors.unsupported(&levels, format!("AWQ with {bits} bits (4 are known)")));
        }
        check_dtypes(tensors, [&levels, &zeros, &scales])?;
        let [n_in, n_words] = *levels.shape.dims() else {
            return Err(tensors.damaged(&levels, format!("its shape is {}, which is no matrix", levels.shape)));
        };
        let Some(n_out) = n_words.checked_mul(EIGHT) else {
            return Err(tensors.damaged(&levels, format!("its shape {} overflows", levels.shape)));
        };
        let (blocks, dtype) = Blocks::new(tensors, "AWQ", (&levels, &scales), BITS, stride, n_in)?;
        let reason = format!("{n_in} inputs in groups of {}, {n_out} outputs", blocks.stride);
        tensors.check_shape(&scales, &[blocks.n_groups(), n_out], &reason)?;
        tensors.check_shape(&zeros, &[blocks.n_groups(), n_words], &reason)?;
        let recipe = Words { blocks, n_words };
        let inputs = vec![levels, zeros, scales];
        tensors.replace(format!("{matrix}.weight"), dtype, &[n_out, n_in], inputs, Arc::new(recipe))?;
    }
    Ok(())
}

/// Rows out of words that hold a level of eight of them.
#[derive(Debug)]
struct Words {
    blocks: Blocks,
    /// Words of an input.
    n_words: usize,
}

impl Recipe for Words {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let mismatch = || Refusal::Damaged("levels, zeros and scales do not fit".to_owned());
        let [levels, zeros, scales] = inputs else { return Err(mismatch()) };
        let word_row = self.n_words * 4;
        let scale_row = self.n_words * EIGHT * self.blocks.scales.block_bytes();
        let group = self.blocks.affine.group;
        let heads = |scales: &[u8], zeros: &[u8]| self.heads(scales, zeros);
        let made = self.blocks.each((scales, scale_row), (zeros, word_row), heads, |block, heads| {
            let rows = levels.get(block * group * word_row..)?;
            let mut lanes = [[0; LEVEL_BYTES]; LANES * EIGHT];
            for (first, heads) in (0..self.n_words).step_by(LANES).zip(heads.chunks(LANES * EIGHT)) {
                for (k, two) in rows.chunks_exact(2 * word_row).take(group / 2).enumerate() {
                    let (even, odd) = two.split_at(word_row);
                    let [even, odd] =
                        [even, odd].map(|row| row.get(first * 4..).unwrap_or_default().as_chunks::<4>().0);
                    for ((eight, even), odd) in lanes.as_chunks_mut::<EIGHT>().0.iter_mut().zip(even).zip(odd) {
                        for (even, odd, lane) in nibbles(*even, *odd) {
                            if let Some(byte) = eight.get_mut(lane).and_then(|lane| lane.get_mut(k)) {
                                *byte = even | odd << 4;
                            }
                        }
                    }
                }
                self.blocks.write(block, first * EIGHT, &lanes, heads, out)?;
            }
            Some(())
        });
        made.ok_or_else(mismatch)
    }
}

/// The levels of two words, and the output of the eight that each pair belongs to.
fn nibbles(even: [u8; 4], odd: [u8; 4]) -> impl Iterator<Item = (u8, u8, usize)> {
    let nibble = |word: u32, i: usize| (word >> (4 * i)) as u8 & 15;
    let (even, odd) = (u32::from_le_bytes(even), u32::from_le_bytes(odd));
    ORDER.into_iter().enumerate().map(move |(i, lane)| (nibble(even, i), nibble(odd, i), lane))
}

impl Words {
    /// Scale and bias of each output, in one group.
    fn heads(&self, scales: &[u8], zeros: &[u8]) -> Option<Vec<Head>> {
        let mut heads: Vec<Head> = floats(self.blocks.scales, scales)?.into_iter().map(|scale| (scale, 0.0)).collect();
        for (eight, word) in heads.as_chunks_mut::<EIGHT>().0.iter_mut().zip(zeros.as_chunks::<4>().0) {
            for (zero, _, lane) in nibbles(*word, [0; 4]) {
                let (scale, bias) = eight.get_mut(lane)?;
                *bias = -(*scale * f32::from(zero));
            }
        }
        Some(heads)
    }
}
