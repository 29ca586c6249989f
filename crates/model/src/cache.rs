//! What a model keeps in the KV cache, keys and values or states: shape and size. Its memory is the device's, its blocks are the engine's.

use crate::{Error, HyperParams, Result};
use compute::{KV_BLOCK, KvLayer, KvSpec, KvType, StateSpec};
use tensor::DType;

/// The cache that holds `n_positions` positions, rounded up to whole blocks.
pub fn kv_spec(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> KvSpec {
    let layers =
        hyper.layers.iter().map(|l| KvLayer { n_kv_heads: l.n_cached_heads(), k_dim: l.head_dim, v_dim: l.v_head_dim });
    let states: Vec<usize> = hyper.layers.iter().map(|l| l.mixer.state_len(hyper.width)).collect();
    let n_slots = n_states(hyper, n_positions, dtype);
    let states = if n_slots == 0 { StateSpec::default() } else { StateSpec { layers: states, n_slots } };
    KvSpec { layers: layers.collect(), n_blocks: n_positions.div_ceil(KV_BLOCK), dtype, states }
}

/// Slots for states at least, in a model that has any: a running sequence takes two, a branch that may be gone back to one.
const LEAST_STATES: usize = 8;
/// And at most.
const MOST_STATES: usize = 64;
/// Beyond the least, states take up to this part of what keys and values take.
const STATES_SHARE: u64 = 4;

/// Slots for the states of recurrent layers in such a cache; 0 for models without.
pub fn n_states(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> usize {
    let Some(each) = slot_bytes(hyper).filter(|&bytes| bytes > 0) else { return 0 };
    let beside = positions_bytes(hyper, n_positions, dtype).unwrap_or(0) / STATES_SHARE / each;
    LEAST_STATES + usize::try_from(beside).unwrap_or(usize::MAX).min(MOST_STATES - LEAST_STATES)
}

/// Bytes of the states of all layers after one position. None: more than the address space.
fn slot_bytes(hyper: &HyperParams) -> Option<u64> {
    let lens = hyper.layers.iter().map(|l| l.mixer.state_len(hyper.width));
    lens.map(u64::try_from).try_fold(0u64, |sum, len| sum.checked_add(len.ok()?.checked_mul(4)?))
}

/// Bytes of the states in such a cache. Error: more than the address space.
pub fn states_bytes(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> Result<u64> {
    let n = u64::try_from(n_states(hyper, n_positions, dtype)).ok();
    n.zip(slot_bytes(hyper))
        .and_then(|(n, bytes)| n.checked_mul(bytes))
        .ok_or_else(|| Error::Overflow { what: "the states of recurrent layers".to_owned() })
}

/// Bytes that a cache grows by for a further block, with its part of the states. Error: more than the address space.
pub fn kv_block_bytes(hyper: &HyperParams, dtype: KvType) -> Result<u64> {
    let bytes = positions_bytes(hyper, KV_BLOCK, dtype)?;
    let states = if n_states(hyper, 0, dtype) > 0 { bytes.div_ceil(STATES_SHARE) } else { 0 };
    Ok(bytes.saturating_add(states))
}

/// Bytes of that cache when full, states included. Error: more than the address space.
pub fn kv_bytes(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> Result<u64> {
    let states = states_bytes(hyper, n_positions, dtype)?;
    let sum = positions_bytes(hyper, n_positions, dtype)?.checked_add(states);
    sum.ok_or_else(|| Error::Overflow { what: format!("a KV cache of {n_positions} positions") })
}

/// Bytes of keys and values.
fn positions_bytes(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> Result<u64> {
    let positions = n_positions.div_ceil(KV_BLOCK).checked_mul(KV_BLOCK).and_then(|n| u64::try_from(n).ok());
    let per_position = hyper.layers.iter().try_fold(0u64, |sum, l| {
        let heads = u64::try_from(l.n_cached_heads()).ok()?;
        let head = head_bytes(l.head_dim, dtype)?.checked_add(head_bytes(l.v_head_dim, dtype)?)?;
        sum.checked_add(heads.checked_mul(head)?)
    });
    positions
        .zip(per_position)
        .and_then(|(positions, bytes)| positions.checked_mul(bytes))
        .ok_or_else(|| Error::Overflow { what: format!("a KV cache of {n_positions} positions") })
}

/// Bytes of one head's key or value: whole blocks.
fn head_bytes(dim: usize, dtype: KvType) -> Option<u64> {
    let dtype = match dtype {
        KvType::F32 => DType::F32,
        KvType::F16 => DType::F16,
        KvType::Q8_0 => DType::Q8_0,
    };
    let bytes = dim.div_ceil(dtype.block_len()).checked_mul(dtype.block_bytes())?;
    u64::try_from(bytes).ok()
}
