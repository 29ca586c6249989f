//! What a model keeps in the KV cache: shape and size. Its memory is the device's, its blocks are the engine's.

use crate::{Error, HyperParams, Result};
use compute::{KV_BLOCK, KvLayer, KvSpec, KvType};
use tensor::DType;

/// The cache that holds `n_positions` positions, rounded up to whole blocks.
pub fn kv_spec(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> KvSpec {
    let layers =
        hyper.layers.iter().map(|l| KvLayer { n_kv_heads: l.n_kv_heads, k_dim: l.head_dim, v_dim: l.v_head_dim });
    KvSpec { layers: layers.collect(), n_blocks: n_positions.div_ceil(KV_BLOCK), dtype }
}

/// Bytes of that cache when full. Error: more than the address space.
pub fn kv_bytes(hyper: &HyperParams, n_positions: usize, dtype: KvType) -> Result<u64> {
    let positions = n_positions.div_ceil(KV_BLOCK).checked_mul(KV_BLOCK).and_then(|n| u64::try_from(n).ok());
    let per_position = hyper.layers.iter().try_fold(0u64, |sum, l| {
        let heads = u64::try_from(l.n_kv_heads).ok()?;
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
