//! One file per block type: layout, reference decode and reference encode.
//!
//! Layouts are those of the GGUF format (ggml's `block_*` structures, which its specification names), and for affine
//! groups, which other formats have, our own; each file says how its bits are packed. These functions define what the
//! bytes mean; kernels elsewhere may only be faster.

pub(crate) mod affine;
pub mod grid;
mod levels;
pub(crate) mod mixture;
pub(crate) mod plain;
mod search;

pub(crate) mod iq1_m;
pub(crate) mod iq1_s;
pub(crate) mod iq2_s;
pub(crate) mod iq2_xs;
pub(crate) mod iq2_xxs;
pub(crate) mod iq3_s;
pub(crate) mod iq3_xxs;
pub(crate) mod iq4_nl;
pub(crate) mod iq4_xs;
pub(crate) mod mxfp4;
pub(crate) mod nvfp4;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
pub(crate) mod q8_k;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;

use half::f16;

/// Decodes block by block: `B` bytes to `L` elements.
fn decode_blocks<const B: usize, const L: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; L]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

/// Encodes block by block: `L` elements to `B` bytes.
fn encode_blocks<const B: usize, const L: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; L], &mut [u8; B]),
) {
    for (block, out) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        encode(block, out);
    }
}

/// The same where each element's error counts as much as is given for it, if anything is.
fn encode_weighted_blocks<const B: usize, const L: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    encode: impl Fn(&[f32; L], Option<&[f32; L]>, &mut [u8; B]),
) {
    let blocks = values.as_chunks().0.iter().zip(out.as_chunks_mut().0);
    match importance {
        None => blocks.for_each(|(block, out)| encode(block, None, out)),
        Some(given) => {
            blocks.zip(given.as_chunks().0).for_each(|((block, out), given)| encode(block, Some(given), out));
        }
    }
}

/// A half-precision number of a block.
fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}
