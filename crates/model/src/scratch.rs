//! Memory for one pass: its sizes, known before anything is loaded, and the buffers.

use crate::{Error, HyperParams, LayerParams, Mixer, Result};
use compute::{Buffer, Device, Rows};

/// Elements of the device's logits buffer at most, unless one row has more.
const MAX_LOGITS: usize = 4 << 20;

/// Elements of each scratch buffer, and the bytes of all memory for one pass.
pub(crate) struct ScratchSizes {
    residual: usize,
    spare: usize,
    q: usize,
    attention: usize,
    n_logit_rows: usize,
    logits: usize,
    /// Also what a device needs within an operation, of which the feed-forward block's is the most.
    pub(crate) bytes: u64,
}

impl ScratchSizes {
    /// For passes of `max_rows` rows. Error: more than the address space.
    pub(crate) fn new(hyper: &HyperParams, max_rows: usize) -> Result<Self> {
        let overflow = || Error::Overflow { what: format!("scratch memory for {max_rows} rows") };
        let max_rows = max_rows.max(1);
        let rows_of = |dim: usize| dim.checked_mul(max_rows).ok_or_else(overflow);
        let widest = |dim: fn(&LayerParams) -> usize| hyper.layers.iter().map(dim).max().unwrap_or(0);
        let residual = rows_of(hyper.width)?;
        // Results of latent attention take the place of its queries, once these are used up.
        let v_dim = hyper.latent.as_ref().map_or(0, |latent| latent.v_dim);
        let n_heads = widest(|layer| layer.n_heads);
        let mixed = hyper.layers.iter().map(|layer| layer.mixed_dim(hyper.width)).max().unwrap_or(0);
        // Results that pass a gate take that place as well.
        let gated = if hyper.architecture.gated_attention { widest(LayerParams::attention_dim) } else { 0 };
        let q = rows_of(widest(LayerParams::q_dim).max(n_heads * v_dim).max(gated))?;
        let attention = rows_of(mixed)?;
        let n_logit_rows = (MAX_LOGITS / hyper.n_vocab).clamp(1, max_rows);
        let logits = n_logit_rows.checked_mul(hyper.n_vocab).ok_or_else(overflow)?;
        let shared_n_ff = hyper.experts.as_ref().and_then(|e| e.shared_n_ff);
        let spare = if hyper.parallel || shared_n_ff.is_some() { residual } else { 0 };
        let dense = rows_of(widest(|layer| layer.n_ff).max(shared_n_ff.unwrap_or(0)))?;
        let slots = hyper.experts.as_ref().map_or((0, 0), |e| (e.rule.n_used, e.n_ff));
        let chosen = rows_of(slots.0)?;
        let hidden = chosen.checked_mul(slots.1).ok_or_else(overflow)?.max(dense);
        let outputs = chosen.checked_mul(hyper.width).ok_or_else(overflow)?;
        let recurrence = hyper.layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention => 0,
            Mixer::ShortConv { .. } => 3 * hyper.width,
            Mixer::DeltaRule(delta) => 2 * delta.qkv_width() + delta.v_width() + 2 * delta.n_v_heads,
        });
        let recurrence = rows_of(recurrence.max().unwrap_or(0))?;
        let parts = [residual, residual, spare, q, attention, logits, residual, hidden, hidden, outputs, recurrence];
        let bytes = parts.iter().try_fold(0u64, |sum, &n| sum.checked_add(u64::try_from(n).ok()?.checked_mul(4)?));
        Ok(ScratchSizes { residual, spare, q, attention, n_logit_rows, logits, bytes: bytes.ok_or_else(overflow)? })
    }

    /// Takes that memory from the device.
    pub(crate) fn alloc(&self, device: &dyn Device) -> Result<Scratch> {
        Ok(Scratch {
            x: device.alloc(self.residual)?,
            y: device.alloc(self.residual)?,
            spare: device.alloc(self.spare)?,
            q: device.alloc(self.q)?,
            attention: device.alloc(self.attention)?,
            narrow: device.alloc(0)?,
            logits: device.alloc(self.logits)?,
            n_logit_rows: self.n_logit_rows,
            host_logits: Vec::new(),
            chunk: Rows::default(),
            wanted: Vec::with_capacity(self.n_logit_rows),
        })
    }
}

/// Memory for one pass, made once.
pub(crate) struct Scratch {
    /// The residual stream before a block, `[max_rows, width]`.
    pub(crate) x: Buffer,
    /// The residual stream within a block, between attention and feed-forward.
    pub(crate) y: Buffer,
    /// A third of their size, for models whose layers have two branches; else empty.
    pub(crate) spare: Buffer,
    /// Queries, `[max_rows, n_heads · head_dim]`.
    pub(crate) q: Buffer,
    /// Attention's result, `[max_rows, n_heads · v_head_dim]`, or that of a recurrence.
    pub(crate) attention: Buffer,
    /// What an addition to the embedding makes of tokens, `[max_rows, rank]`; as wide as the widest one needs.
    pub(crate) narrow: Buffer,
    /// Logits on the device, `[n_logit_rows, n_vocab]`.
    pub(crate) logits: Buffer,
    pub(crate) n_logit_rows: usize,
    /// Logits of the last call, `[batch.logits.len(), n_vocab]`.
    pub(crate) host_logits: Vec<f32>,
    /// The rows of a chunk.
    pub(crate) chunk: Rows,
    /// The rows of a chunk whose logits are wanted, counted from its first.
    pub(crate) wanted: Vec<u32>,
}
