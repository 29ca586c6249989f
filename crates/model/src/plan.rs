//! How much memory a model needs, from the directory of its file alone: nothing is loaded to know it.

use crate::cache::{kv_bytes, n_states, states_bytes};
use crate::export::{self, ExportTensor};
use crate::scratch::ScratchSizes;
use crate::{Error, HyperParams, Result};
use checkpoint::Checkpoint;
use compute::{KvType, WeightUse};
use std::collections::BTreeMap;
use std::fmt;
use tensor::{DType, Mixture, Place, Shape};

/// What weights are for, as far as a plan tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightGroup {
    /// The embedding, and the output matrix.
    Vocabulary,
    /// Attention.
    Attention,
    /// Feed-forward blocks.
    FeedForward,
    /// Experts.
    Experts,
    /// Norms and other small things.
    Other,
}

impl WeightGroup {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            WeightGroup::Vocabulary => "vocabulary",
            WeightGroup::Attention => "attention",
            WeightGroup::FeedForward => "feed-forward",
            WeightGroup::Experts => "experts",
            WeightGroup::Other => "other",
        }
    }

    /// That of the house's tensor `name`.
    fn of(name: &str, place: Option<Place>) -> WeightGroup {
        let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or("", |(_, part)| part);
        match place {
            None => WeightGroup::Other,
            Some(Place::Embedding | Place::Output) => WeightGroup::Vocabulary,
            Some(_) if part.contains("_exps") || part.contains("_shexp") => WeightGroup::Experts,
            Some(_) if part.starts_with("attn") => WeightGroup::Attention,
            Some(_) if part.starts_with("ffn") => WeightGroup::FeedForward,
            Some(_) => WeightGroup::Other,
        }
    }
}

/// Bytes that a device keeps of a tensor of this type and shape; none: those of the tensor, as they are.
pub type KeptBytes<'a> = dyn Fn(DType, &Shape, WeightUse) -> Option<u64> + 'a;

/// What a device is told that the house's tensor is for.
fn usage(tensor: &ExportTensor) -> WeightUse {
    let is_table = tensor.site.is_some_and(|site| site.place == Place::Embedding)
        || ["position_embd", "per_layer_token_embd"].iter().any(|name| tensor.name.starts_with(name));
    match tensor.shape.dims().len() {
        2 if is_table => WeightUse::Table,
        2 => WeightUse::Matrix,
        3 => WeightUse::Experts,
        _ => WeightUse::Vector,
    }
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanRow {
    /// Tensors of one group and type.
    Weights {
        /// What they are for.
        group: WeightGroup,
        /// The type.
        dtype: DType,
        /// How many tensors.
        n_tensors: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// Keys and values.
    Cache {
        /// Positions that it holds.
        n_positions: usize,
        /// Element type.
        dtype: KvType,
        /// Bytes when full.
        bytes: u64,
    },
    /// States of recurrent layers.
    States {
        /// How many of each layer: of running sequences, and to go back to.
        n_slots: usize,
        /// Bytes of all.
        bytes: u64,
    },
    /// Adapters.
    Adapters {
        /// How many.
        n_adapters: usize,
        /// Bytes of their matrices.
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
            PlanRow::Weights { bytes, .. }
            | PlanRow::Adapters { bytes, .. }
            | PlanRow::Cache { bytes, .. }
            | PlanRow::States { bytes, .. }
            | PlanRow::Scratch { bytes, .. } => bytes,
        }
    }
}

impl fmt::Display for PlanRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanRow::Weights { group, dtype, n_tensors, bytes } => {
                write!(f, "{} {dtype}: {n_tensors} tensors, {bytes} bytes", group.name())
            }
            PlanRow::Cache { n_positions, dtype, bytes } => {
                write!(f, "KV cache {dtype:?}: {n_positions} positions, {bytes} bytes")
            }
            PlanRow::States { n_slots, bytes } => write!(f, "states: {n_slots} slots, {bytes} bytes"),
            PlanRow::Adapters { n_adapters, bytes } => write!(f, "adapters: {n_adapters}, {bytes} bytes"),
            PlanRow::Scratch { n_rows, bytes } => write!(f, "scratch: {n_rows} rows, {bytes} bytes"),
        }
    }
}

/// The memory that a model, its cache and its scratch will take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Its lines: weights (largest first), adapters, cache, states where there are any, scratch.
    pub rows: Vec<PlanRow>,
    /// Bytes of all weights.
    pub weights_bytes: u64,
    /// Bytes of all adapters.
    pub adapters_bytes: u64,
    /// Bytes of the KV cache, states included.
    pub kv_bytes: u64,
    /// Bytes of one pass's activations.
    pub scratch_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

impl MemoryPlan {
    /// The plan for a cache of `n_positions` and passes of `max_rows`, the weights as they are in the file. Error: a size
    /// beyond the address space.
    pub fn new(
        checkpoint: &Checkpoint,
        hyper: &HyperParams,
        n_positions: usize,
        kv_type: KvType,
        max_rows: usize,
    ) -> Result<MemoryPlan> {
        MemoryPlan::quantized(checkpoint, hyper, None, &|_, _, _| None, n_positions, kv_type, max_rows)
    }

    /// The same with the weights as `mixture` makes them, and as a device keeps them then.
    pub fn quantized(
        checkpoint: &Checkpoint,
        hyper: &HyperParams,
        mixture: Option<&Mixture>,
        kept: &KeptBytes<'_>,
        n_positions: usize,
        kv_type: KvType,
        max_rows: usize,
    ) -> Result<MemoryPlan> {
        let overflow = |what: &str| Error::Overflow { what: what.to_owned() };
        let mut by_kind: BTreeMap<(WeightGroup, DType), (usize, u64)> = BTreeMap::new();
        let mut weights_bytes = 0u64;
        for tensor in export::listing(checkpoint, hyper) {
            let (dtype, tensor_bytes) = match (mixture, &tensor.site) {
                (Some(mixture), Some(site)) => {
                    let dtype = mixture.dtype(site, &tensor.shape);
                    let bytes = dtype.tensor_bytes(&tensor.shape).map_err(|_| overflow(&tensor.name))?;
                    (dtype, u64::try_from(bytes).map_err(|_| overflow(&tensor.name))?)
                }
                _ => (tensor.dtype, tensor.source_bytes),
            };
            let tensor_bytes = kept(dtype, &tensor.shape, usage(&tensor)).unwrap_or(tensor_bytes);
            let group = WeightGroup::of(&tensor.name, tensor.site.map(|site| site.place));
            let (n, bytes) = by_kind.entry((group, dtype)).or_default();
            *n += 1;
            *bytes = bytes.saturating_add(tensor_bytes);
            weights_bytes = weights_bytes.checked_add(tensor_bytes).ok_or_else(|| overflow("the weights"))?;
        }
        let mut rows: Vec<PlanRow> = by_kind
            .into_iter()
            .map(|((group, dtype), (n_tensors, bytes))| PlanRow::Weights { group, dtype, n_tensors, bytes })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
        let weights = MemoryPlan {
            rows,
            weights_bytes,
            adapters_bytes: 0,
            kv_bytes: 0,
            scratch_bytes: 0,
            total_bytes: weights_bytes,
        };
        weights.resized(hyper, n_positions, kv_type, max_rows)
    }

    /// The same with these adapters, whose tensors' bytes count as they are in their files.
    pub fn with_adapters<'a>(mut self, adapters: impl Iterator<Item = &'a Checkpoint>) -> MemoryPlan {
        let (mut n_adapters, mut bytes) = (0, 0u64);
        for adapter in adapters {
            n_adapters += 1;
            bytes = adapter.tensors().iter().fold(bytes, |sum, tensor| sum.saturating_add(tensor.bytes));
        }
        if n_adapters > 0 {
            self.rows.push(PlanRow::Adapters { n_adapters, bytes });
        }
        self.adapters_bytes = self.adapters_bytes.saturating_add(bytes);
        self.total_bytes = self.total_bytes.saturating_add(bytes);
        self
    }

    /// The same weights and adapters with another cache and other passes.
    pub fn resized(
        &self,
        hyper: &HyperParams,
        n_positions: usize,
        kv_type: KvType,
        max_rows: usize,
    ) -> Result<MemoryPlan> {
        let (weights_bytes, adapters_bytes) = (self.weights_bytes, self.adapters_bytes);
        let is_kept = |row: &&PlanRow| matches!(row, PlanRow::Weights { .. } | PlanRow::Adapters { .. });
        let mut rows: Vec<PlanRow> = self.rows.iter().filter(is_kept).cloned().collect();
        let kv_bytes = kv_bytes(hyper, n_positions, kv_type)?;
        let scratch_bytes = ScratchSizes::new(hyper, max_rows)?.bytes;
        let (n_slots, states) = (n_states(hyper, n_positions, kv_type), states_bytes(hyper, n_positions, kv_type)?);
        rows.push(PlanRow::Cache { n_positions, dtype: kv_type, bytes: kv_bytes.saturating_sub(states) });
        if n_slots > 0 {
            rows.push(PlanRow::States { n_slots, bytes: states });
        }
        rows.push(PlanRow::Scratch { n_rows: max_rows, bytes: scratch_bytes });
        let parts = [weights_bytes, adapters_bytes, kv_bytes, scratch_bytes];
        let total_bytes = parts.into_iter().try_fold(0u64, u64::checked_add);
        let total_bytes = total_bytes.ok_or_else(|| Error::Overflow { what: "the whole plan".to_owned() })?;
        Ok(MemoryPlan { rows, weights_bytes, adapters_bytes, kv_bytes, scratch_bytes, total_bytes })
    }

    /// The lines of the weights.
    pub fn weights(&self) -> impl Iterator<Item = &PlanRow> {
        self.rows.iter().filter(|row| matches!(row, PlanRow::Weights { .. }))
    }

    /// Whether some of the matrices are in a block type.
    pub fn is_quantized(&self) -> bool {
        self.rows.iter().any(|row| match row {
            PlanRow::Weights { group, dtype, .. } => *group != WeightGroup::Other && dtype.is_quantized(),
            PlanRow::Adapters { .. } | PlanRow::Cache { .. } | PlanRow::States { .. } | PlanRow::Scratch { .. } => {
                false
            }
        })
    }
}
