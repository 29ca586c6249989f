//! How much memory a model needs, from the directory of its file alone: nothing is loaded to know it.

use crate::cache::kv_bytes;
use crate::scratch::ScratchSizes;
use crate::{Error, HyperParams, Result};
use checkpoint::Checkpoint;
use compute::KvType;
use std::collections::BTreeMap;
use std::fmt;
use tensor::DType;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanRow {
    /// Tensors of one stored type.
    Weights {
        /// The type.
        dtype: DType,
        /// How many tensors.
        n_tensors: usize,
        /// Their bytes in the file.
        bytes: u64,
    },
    /// Keys and values.
    KvCache {
        /// Positions that it holds.
        n_positions: usize,
        /// Element type.
        dtype: KvType,
        /// Bytes when full.
        bytes: u64,
    },
    /// Activations of one pass.
    Scratch {
        /// Rows of a pass.
        n_rows: usize,
        /// Bytes.
        bytes: u64,
    },
}

impl PlanRow {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        match *self {
            PlanRow::Weights { bytes, .. } | PlanRow::KvCache { bytes, .. } | PlanRow::Scratch { bytes, .. } => bytes,
        }
    }
}

impl fmt::Display for PlanRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanRow::Weights { dtype, n_tensors, bytes } => {
                write!(f, "weights {dtype}: {n_tensors} tensors, {bytes} bytes")
            }
            PlanRow::KvCache { n_positions, dtype, bytes } => {
                write!(f, "KV cache {dtype:?}: {n_positions} positions, {bytes} bytes")
            }
            PlanRow::Scratch { n_rows, bytes } => write!(f, "scratch: {n_rows} rows, {bytes} bytes"),
        }
    }
}

/// The memory that a model, its cache and its scratch will take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Its lines: weights (largest first), cache, scratch.
    pub rows: Vec<PlanRow>,
    /// Bytes of all weights as stored.
    pub weights_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Bytes of one pass's activations.
    pub scratch_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

impl MemoryPlan {
    /// The plan for a cache of `n_positions` and passes of `max_rows`. Error: a size beyond the address space.
    pub fn new(
        checkpoint: &Checkpoint,
        hyper: &HyperParams,
        n_positions: usize,
        kv_type: KvType,
        max_rows: usize,
    ) -> Result<MemoryPlan> {
        let overflow = |what: &str| Error::Overflow { what: what.to_owned() };
        let mut by_type: BTreeMap<DType, (usize, u64)> = BTreeMap::new();
        let mut weights_bytes = 0u64;
        for info in checkpoint.tensors() {
            let (n, bytes) = by_type.entry(info.dtype).or_default();
            *n += 1;
            *bytes = bytes.saturating_add(info.bytes);
            weights_bytes = weights_bytes.checked_add(info.bytes).ok_or_else(|| overflow("the weights"))?;
        }
        let mut rows: Vec<PlanRow> = by_type
            .into_iter()
            .map(|(dtype, (n_tensors, bytes))| PlanRow::Weights { dtype, n_tensors, bytes })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
        let kv_bytes = kv_bytes(hyper, n_positions, kv_type)?;
        let scratch_bytes = ScratchSizes::new(hyper, max_rows)?.bytes;
        rows.push(PlanRow::KvCache { n_positions, dtype: kv_type, bytes: kv_bytes });
        rows.push(PlanRow::Scratch { n_rows: max_rows, bytes: scratch_bytes });
        let total_bytes = weights_bytes.checked_add(kv_bytes).and_then(|sum| sum.checked_add(scratch_bytes));
        let total_bytes = total_bytes.ok_or_else(|| overflow("the whole plan"))?;
        Ok(MemoryPlan { rows, weights_bytes, kv_bytes, scratch_bytes, total_bytes })
    }
}
