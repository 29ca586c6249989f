//! Latent attention (DeepSeek-V2): the widths of its parts, and what they make of a layer's heads.
//!
//! What belongs here: its keys. What does not: the cut of its matrices (`load/attention.rs`).

use super::{LayerParams, MAX_WIDTH};
use crate::Result;
use crate::keys::Keys;

/// Latent attention (DeepSeek-V2): the widths of its parts. Its layers have one K/V head: the part of a key that rotates
/// and the latent as key, the latent as value.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentParams {
    /// Width of Q between its two matrices; none: it has one.
    pub q_rank: Option<usize>,
    /// Width of the latent.
    pub rank: usize,
    /// Elements of a query head that rotate.
    pub rope_dim: usize,
    /// The other elements.
    pub nope_dim: usize,
    /// Width of a head's result.
    pub v_dim: usize,
}

impl LatentParams {
    /// The heads of `layers` are those of latents. Error: too wide.
    pub(super) fn take_heads(&self, keys: &Keys<'_>, layers: &mut [LayerParams]) -> Result<()> {
        for layer in layers {
            (layer.n_kv_heads, layer.head_dim, layer.v_head_dim) = (1, self.rope_dim + self.rank, self.rank);
            let widest = layer.head_dim.max(self.rope_dim + self.nope_dim).max(self.v_dim);
            if layer.n_heads.checked_mul(widest).is_none_or(|dim| dim > MAX_WIDTH) {
                let why = format!("that many heads of {widest} are too wide");
                return Err(keys.bad("attention.head_count", layer.n_heads, &why));
            }
        }
        Ok(())
    }
}

/// The parts of latent attention, where the file has them.
pub(super) fn latent(keys: &Keys<'_>) -> Result<Option<LatentParams>> {
    let Some(rank) = keys.count("attention.kv_lora_rank", MAX_WIDTH)? else { return Ok(None) };
    let rope_dim = keys.required("rope.dimension_count", MAX_WIDTH)?;
    let in_either = |one: &str, other: &str| -> Result<usize> {
        match keys.count(one, MAX_WIDTH)? {
            Some(n) => Ok(n),
            None => keys.required(other, MAX_WIDTH),
        }
    };
    let nope_dim = match keys.count("attention.key_length_nope", MAX_WIDTH)? {
        Some(n) => n,
        None => {
            let (key, whole) = ("attention.key_length", in_either("attention.key_length_mla", "attention.key_length")?);
            let why = format!("it must be above the {rope_dim} elements that rotate");
            whole.checked_sub(rope_dim).filter(|&n| n > 0).ok_or_else(|| keys.bad(key, whole, &why))?
        }
    };
    let v_dim = in_either("attention.value_length_mla", "attention.value_length")?;
    Ok(Some(LatentParams { q_rank: keys.count("attention.q_lora_rank", MAX_WIDTH)?, rank, rope_dim, nope_dim, v_dim }))
}
