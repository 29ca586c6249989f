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
    inputs: usize,
    streams: usize,
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
        let narrow = hyper.streams.map_or(0, |streams| streams.rank);
        let q = rows_of(widest(LayerParams::q_dim).max(n_heads * v_dim).max(gated).max(narrow))?;
        let attention = rows_of(mixed)?;
        let n_logit_rows = (MAX_LOGITS / hyper.n_vocab).clamp(1, max_rows);
        let logits = n_logit_rows.checked_mul(hyper.n_vocab).ok_or_else(overflow)?;
        let shared_n_ff = hyper.experts.as_ref().and_then(|e| e.shared_n_ff);
        let has_branches = shared_n_ff.is_some() || hyper.experts.is_some() && hyper.has_post_norms();
        let spare = if hyper.parallel || has_branches || hyper.streams.is_some() { residual } else { 0 };
        let inputs = hyper.layer_input_dim.unwrap_or(0).checked_mul(hyper.n_layers).ok_or_else(overflow)?;
        let inputs = rows_of(inputs)?;
        let streams = residual.checked_mul(hyper.streams.map_or(0, |streams| streams.n)).ok_or_else(overflow)?;
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
        let own = [residual, residual, spare, q, attention, logits, inputs, inputs, streams, streams];
        let mut parts = own.into_iter().chain([residual, hidden, hidden, outputs, recurrence]);
        let bytes = parts.try_fold(0u64, |sum, n| sum.checked_add(u64::try_from(n).ok()?.checked_mul(4)?));
        let bytes = bytes.ok_or_else(overflow)?;
        Ok(ScratchSizes { residual, spare, q, attention, inputs, streams, n_logit_rows, logits, bytes })
    }

    /// Takes that memory from the device.
    pub(crate) fn alloc(&self, device: &dyn Device) -> Result<Scratch> {
        Ok(Scratch {
            x: device.alloc(self.residual)?,
            y: device.alloc(self.residual)?,
            spare: device.alloc(self.spare)?,
            q: device.alloc(self.q)?,
            attention: device.alloc(self.attention)?,
            inputs: device.alloc(self.inputs)?,
            projected: device.alloc(self.inputs)?,
            streams: device.alloc(self.streams)?,
            predicted: device.alloc(self.streams)?,
            known: Vec::new(),
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
    /// A third of their size, for models whose layers have two branches or several streams; else empty.
    pub(crate) spare: Buffer,
    /// Queries, `[max_rows, n_heads · head_dim]`.
    pub(crate) q: Buffer,
    /// Attention's result, `[max_rows, n_heads · v_head_dim]`, or that of a recurrence.
    pub(crate) attention: Buffer,
    /// The embeddings that layers have of tokens, `[max_rows, n_layers · dim]`, and a part of them.
    pub(crate) inputs: Buffer,
    pub(crate) projected: Buffer,
    /// Residual streams before a layer and within it, `[n_streams, rows, width]`, in models that have several.
    pub(crate) streams: Buffer,
    pub(crate) predicted: Buffer,
    /// Tokens by their rows in the layers' table.
    pub(crate) known: Vec<u32>,
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
