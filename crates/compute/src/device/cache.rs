//! The cache of keys and values and of states, and the rows of a pass with their places in it.
//!
//! What belongs here: shapes and places. What does not: who owns which block and which slot (the engine), how a device keeps
//! them (`cpu/kv.rs`, `cpu/states.rs`).

use std::{any::Any, ops::Range};

/// Positions in one block of the KV cache. A sequence owns a list of blocks; position `p` lives in block `p / KV_BLOCK`
/// of its list, at row `p % KV_BLOCK`.
pub const KV_BLOCK: usize = 64;

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvType {
    /// Single precision.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// 8-bit blocks of 32.
    Q8_0,
}

/// What one layer keeps in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayer {
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a key head.
    pub k_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
}

/// The states of recurrent layers, which keep one of fixed size where others keep a key and a value for each position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSpec {
    /// Elements (`f32`) of each layer's state; 0 for a layer that has none. Empty when none has.
    pub layers: Vec<usize>,
    /// Slots. Each holds the states of all layers after one position of one sequence.
    pub n_slots: usize,
}

impl StateSpec {
    /// Whether no layer has a state.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|&len| len == 0)
    }
}

/// The shape of a KV cache: `n_blocks` blocks of [`KV_BLOCK`] positions in every layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// One entry per layer.
    pub layers: Vec<KvLayer>,
    /// Blocks in all, shared by all sequences.
    pub n_blocks: usize,
    /// Element type.
    pub dtype: KvType,
    /// States of the layers that have no keys and values.
    pub states: StateSpec,
}

/// Keys and values of all layers on the device. The engine hands out its blocks.
pub struct KvCache {
    pub(crate) inner: Box<dyn Any + Send + Sync>,
    pub(crate) spec: KvSpec,
    pub(crate) bytes: usize,
}

impl KvCache {
    /// What it was made for.
    pub fn spec(&self) -> &KvSpec {
        &self.spec
    }

    /// Bytes when full.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The rows of one pass and where they belong: flat arrays, so that one pass may carry several sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Which rows belong to which sequence; together they cover all rows in order.
    pub sequences: Vec<SequenceRows>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// The rows of one sequence in a pass: consecutive positions, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceRows {
    /// Its rows in the flat arrays.
    pub rows: Range<usize>,
    /// Its KV blocks; enough of them for its last position.
    pub blocks: Vec<u32>,
    /// Its states, in a cache that has any.
    pub states: Option<StateRows>,
}

/// Where the states of one sequence come from in a pass, and where they go. A slot that is written is no other sequence's
/// in the pass. What is read stays as it is, unless `to` is the same: so a pass that failed can be run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRows {
    /// The slot with the states before the first of its rows; none at position 0, where all are zero.
    pub from: Option<u32>,
    /// The slot that gets the states after its last row.
    pub to: u32,
    /// Further slots: each gets the states after so many of its rows.
    pub saves: Vec<(usize, u32)>,
}
