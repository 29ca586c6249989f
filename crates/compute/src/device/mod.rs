//! The interface of a device: memory and the *fused* operations of a language model.
//!
//! The operations are fat on purpose, so that each device can fuse inside them. Activations are `f32`, row-major
//! `[rows, width]`; what precision the arithmetic inside uses is the device's [`Precision`]. Results never alias inputs:
//! an operation that adds to the residual stream takes it as an input and writes a new buffer. Shapes and dtypes are
//! checked at this boundary; below it code trusts its inputs.
//!
//! What belongs here: the trait, and facts about a device. What does not: the arguments of the operations, which lie in the
//! files of this folder, one for each kind of layer.

mod attention;
mod cache;
mod feed_forward;
mod memory;
mod product;
mod recurrence;
mod streams;

pub use attention::{Attend, LatentQkv, Qkv, QueryGrowth, Rope, RopePairing};
pub use cache::{KV_BLOCK, KvCache, KvLayer, KvSpec, KvType, Rows, SequenceRows, StateRows, StateSpec};
pub use feed_forward::{Activation, Experts, FeedForward, RouterGroups, RouterRule};
pub use memory::{Buffer, Weight, WeightUse};
pub use product::{Epilogue, Logits, Norm, NormKind, Projection};
pub use recurrence::{DeltaRule, ShortConv};
pub use streams::{LayerInput, StreamFactors, Streams};

use crate::Result;
use tensor::HostTensor;

/// How exact the arithmetic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Integer dot products on quantized weights, activations rounded to 8 bits where that pays.
    #[default]
    Fast,
    /// Weights dequantized exactly, activations and accumulation in `f32`: the reference mode.
    F32,
}

/// Facts about a device, for `/stats`, `doctor` and the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Backend name as the user writes it: `cpu`, `cuda`, …
    pub backend: &'static str,
    /// The processor as it calls itself, or its family.
    pub name: String,
    /// Instruction set or compute capability in use, e.g. `avx512-vnni`.
    pub isa: &'static str,
    /// Worker threads (1 for devices without).
    pub threads: usize,
    /// The arithmetic in use.
    pub precision: Precision,
}

/// A device: memory and fused operations. Object safe, so that one binary carries all backends and different layers may
/// live on different devices. Operations on one device run in the order of the calls; a device may run them later,
/// [`Device::read`] waits.
///
/// `x` is `[rows.len(), width]` where an operation takes [`Rows`], else `[n_rows, width]`.
pub trait Device: Send + Sync {
    /// Facts for people.
    fn info(&self) -> DeviceInfo;

    /// A buffer of `len` zeros.
    fn alloc(&self, len: usize) -> Result<Buffer>;

    /// Brings a tensor to the device, in whatever layout suits `usage`.
    fn upload(&self, tensor: &HostTensor, usage: WeightUse) -> Result<Weight>;

    /// A KV cache. Memory that is never written need not become resident.
    fn kv_cache(&self, spec: &KvSpec) -> Result<KvCache>;

    /// Copies the keys and values of all positions of a block, in every layer: a sequence that leaves another in the
    /// middle of a block goes on in a copy. (States need none: a pass reads one slot and writes another.)
    fn copy_kv_block(&self, cache: &mut KvCache, from: u32, to: u32) -> Result<()>;

    /// Copies host values to the start of `to`.
    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()>;

    /// Waits for all work and copies the first `to.len()` values of `from`.
    fn read(&self, from: &Buffer, to: &mut [f32]) -> Result<()>;

    /// `out[i] = residual[i] + scale · table[tokens[i]]`. Ids outside the table are an error.
    fn embed(
        &self,
        table: &Weight,
        tokens: &[u32],
        scale: f32,
        residual: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<()>;

    /// `out = epilogue(x)` for rows of `width`.
    fn norm(&self, x: &Buffer, n_rows: usize, width: usize, epilogue: Epilogue<'_>, out: &mut Buffer) -> Result<()>;

    /// `out = epilogue(projection(norm(x)))`.
    fn linear(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        projection: &Projection,
        epilogue: Epilogue<'_>,
        out: &mut Buffer,
    ) -> Result<()>;

    /// Writes K and V of all rows, where it makes any, to `cache[layer]` and the rotated queries to `q`, `[rows, n_heads · head_dim]`.
    fn qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &Qkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()>;

    /// The same for latent attention; `q` is `[rows, n_heads · (rope.n_dims + rank)]`.
    fn latent_qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &LatentQkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()>;

    /// `out[row, head] = stack[head] · x[row, head]`: a matrix for each head, `[n_heads, n_out, n_in]`, uploaded as
    /// experts are.
    fn heads(&self, x: &Buffer, n_rows: usize, stack: &Projection, out: &mut Buffer) -> Result<()>;

    /// Every row attends to its own sequence's positions `0..=position` in `cache[layer]`;
    /// `out` is `[rows, n_heads · v_head_dim]`.
    fn attend(
        &self,
        q: &Buffer,
        rows: &Rows,
        args: &Attend<'_>,
        cache: &KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// `out = values ⊙ sigmoid(gate(norm(x)))` (the gate on attention's result in Qwen3-Next); `values` and `out` are as wide
    /// as `gate`.
    fn output_gate(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        gate: &Projection,
        values: &Buffer,
        out: &mut Buffer,
    ) -> Result<()>;

    /// A gated short convolution; `out` is `[rows, width]`. States as [`SequenceRows::states`] says.
    fn short_conv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &ShortConv<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// The gated delta rule; `out` is `[rows, n_v_heads · v_dim]`. States as [`SequenceRows::states`] says.
    fn delta_rule(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &DeltaRule<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()>;

    /// A feed-forward block.
    fn feed_forward(&self, x: &Buffer, n_rows: usize, args: &FeedForward<'_>, out: &mut Buffer) -> Result<()>;

    /// A mixture of experts.
    fn experts(&self, x: &Buffer, n_rows: usize, args: &Experts<'_>, out: &mut Buffer) -> Result<()>;

    /// What a layer adds by its own embedding of the token.
    fn layer_input(&self, x: &Buffer, n_rows: usize, args: &LayerInput<'_>, out: &mut Buffer) -> Result<()>;

    /// A step from residual streams to residual streams.
    fn streams(&self, x: &Buffer, n_rows: usize, width: usize, step: &Streams<'_>, out: &mut Buffer) -> Result<()>;

    /// Logits of the rows `wanted` of `x`: `[wanted.len(), n_vocab]`.
    fn logits(&self, x: &Buffer, wanted: &[u32], args: &Logits<'_>, out: &mut Buffer) -> Result<()>;
}
