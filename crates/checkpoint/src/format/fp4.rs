//! MXFP4 in Hugging Face's directories: stacks of experts as the models of OpenAI's gpt-oss have them.
//!
//! A stack `M` is `M_blocks` `[…, rows, n_groups, 16]`, two codes of 4 bits in a byte, the first in its low nibble, and
//! `M_scales` `[…, rows, n_groups]`, exponents of two plus 127. It keeps its name and gets the block type that GGUF has for
//! it; rows are those of the product, not transposed as in the same models without quantization.

use super::quantized::{self, Ending, Tensors};
use crate::{
    Metadata, Result,
    joined::{Outcome, Recipe, Refusal},
};
use std::sync::Arc;
use tensor::{DType, SharedBytes};

/// The convention's name in configurations.
const METHOD: &str = "mxfp4";
const ENDINGS: [Ending; 2] = [Ending::needed("_blocks"), Ending::needed("_scales")];
/// Bytes of codes that share an exponent.
const GROUP_BYTES: usize = 16;

/// Whether the configuration names this convention.
pub(super) fn applies(metadata: &Metadata) -> Result<bool> {
    Ok(quantized::text(metadata, "quant_method")? == Some(METHOD))
}

/// Joins all quantized stacks.
pub(super) fn join(_: &Metadata, tensors: &mut Tensors<'_>) -> Result<()> {
    for (name, parts) in tensors.groups(&ENDINGS, |_| true)? {
        let [Some(blocks), Some(scales)] = parts else { continue };
        tensors.check_dtype(&blocks, &[DType::U8])?;
        tensors.check_dtype(&scales, &[DType::U8])?;
        let [rows @ .., n_groups, GROUP_BYTES] = blocks.shape.dims() else {
            let problem = format!("its shape is {}, and the last dimension of blocks is {GROUP_BYTES}", blocks.shape);
            return Err(tensors.damaged(&blocks, problem));
        };
        let groups: Vec<usize> = rows.iter().chain([n_groups]).copied().collect();
        tensors.check_shape(&scales, &groups, "one for each group of the blocks")?;
        let Some(row_len) = n_groups.checked_mul(2 * GROUP_BYTES) else {
            return Err(tensors.damaged(&blocks, format!("its shape {} overflows", blocks.shape)));
        };
        let dims: Vec<usize> = rows.iter().copied().chain([row_len]).collect();
        tensors.replace(name, DType::MXFP4, &dims, vec![blocks, scales], Arc::new(Fp4))?;
    }
    Ok(())
}

/// Puts the exponent before the codes of each group, and the codes in the order of GGUF's block: a byte holds codes `i` and
/// `i + 16` there, two neighbours here.
#[derive(Debug)]
pub(super) struct Fp4;

impl Recipe for Fp4 {
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome {
        let [weight, scales] = inputs else {
            return Err(Refusal::Damaged("scales and weights do not fit".to_owned()));
        };
        let groups = weight.as_chunks::<16>().0.iter().zip(scales.iter());
        for ((codes, exponent), [e, qs @ ..]) in groups.zip(out.as_chunks_mut::<17>().0) {
            *e = *exponent;
            let (first, last) = codes.split_at(8);
            let pairs = first.iter().zip(last).flat_map(|(a, b)| [a & 15 | b << 4, a >> 4 | b & 0xf0]);
            qs.iter_mut().zip(pairs).for_each(|(q, pair)| *q = pair);
        }
        Ok(())
    }
}
