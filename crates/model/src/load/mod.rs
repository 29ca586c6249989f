//! Tensors by the house's names, checked against the numbers, brought to the device.
//!
//! What belongs here: expected shapes, optional parts (told by presence), fused tensors split by rows, pieces joined,
//! progress. What does not: how a file spells a name (`convention.rs`), what the tensors are used for (`forward.rs`), their
//! bytes (`checkpoint`), their layout (`compute`).

mod attention;
mod feed_forward;
mod fetch;
mod inputs;
mod parts;
mod positions;
mod recurrence;

pub(crate) use fetch::{chosen_rows, in_tensor, transposed, unit_rows};

use crate::convention::{Convention, Names};
use crate::hyper::{HyperParams, LayerParams, Mixer};
use crate::weights::{Block, Weights};
use crate::{Error, Result};
use checkpoint::Checkpoint;
use compute::{Device, Projection, Rope, Weight, WeightUse};
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use tensor::{DType, HostTensor, Mixture};

/// How to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Rows computed at once at most; longer batches are cut. More need more scratch memory and prefill faster.
    pub max_rows: usize,
    /// Positions that the cache will hold; none: as many as the model was trained for. LongRoPE chooses by it.
    pub context_length: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_rows: 512, context_length: None }
    }
}

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of the file's tensors that are done.
    pub done_bytes: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
}

/// Another type for the matrices of a model while it is loaded.
pub struct Retype<'a> {
    /// Which type each gets.
    pub mixture: &'static Mixture,
    /// The bytes of a tensor in another type.
    pub encode: &'a dyn Fn(&HostTensor, DType) -> tensor::Result<Vec<u8>>,
}

/// A matrix on the device, and what it was in the file.
pub(crate) struct Placed {
    /// The house's name of the tensor.
    pub(crate) name: String,
    /// What files of the house's convention call it.
    pub(crate) house: String,
    /// What the model's own file calls it; with `{}`, the name of each of its pieces.
    pub(crate) own: String,
    /// The matrix, or the stack of them.
    pub(crate) weight: Weight,
    /// Its rows in the file's tensor, one range after another; empty: all, in order.
    pub(crate) rows: Vec<Range<usize>>,
    /// Rows of the file's tensor.
    pub(crate) n_rows: usize,
}

/// What loading yields besides the weights.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Where the matrices of the file went.
    pub(crate) placed: Vec<Placed>,
    /// Bytes of the weights as the device keeps them.
    pub(crate) resident_bytes: u64,
    /// How many of them lie in the file's memory.
    pub(crate) mapped_bytes: u64,
    /// Tensors of the file that nothing needs.
    pub(crate) unused: Vec<String>,
}

/// Fetches, checks and uploads all weights.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    device: &dyn Device,
    hyper: &HyperParams,
    options: &LoadOptions,
    retype: Option<&Retype<'_>>,
    progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
) -> Result<Loaded> {
    let total_bytes = checkpoint.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes));
    let (convention, architecture) = Convention::of(checkpoint.metadata())?;
    let mut loader = Loader {
        checkpoint,
        names: Names::new(checkpoint, convention, architecture),
        device,
        hyper,
        retype,
        progress,
        at: LoadProgress { done_bytes: 0, total_bytes },
        used: HashSet::new(),
        placed: Vec::new(),
        resident_bytes: 0,
        mapped_bytes: 0,
    };
    loader.report(0)?;
    let weights = loader.weights(options)?;
    let unused = loader.unused()?;
    loader.report(total_bytes)?;
    let Loader { placed, resident_bytes, mapped_bytes, .. } = loader;
    Ok(Loaded { weights, placed, resident_bytes, mapped_bytes, unused })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    names: Names<'a>,
    device: &'a dyn Device,
    hyper: &'a HyperParams,
    retype: Option<&'a Retype<'a>>,
    progress: &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    at: LoadProgress,
    used: HashSet<String>,
    placed: Vec<Placed>,
    resident_bytes: u64,
    mapped_bytes: u64,
}

impl Loader<'_> {
    fn weights(&mut self, options: &LoadOptions) -> Result<Weights> {
        let (width, n_vocab) = (self.hyper.width, self.hyper.n_vocab);
        let tied = self.hyper.tied_embeddings.unwrap_or(!self.has("output.weight"));
        if tied {
            // A copy of the embedding, where there is one.
            self.used.insert(self.names.spelled("output.weight"));
        }
        let usage = if tied { WeightUse::Matrix } else { WeightUse::Table };
        let embedding = self.weight("token_embd.weight", &[n_vocab, width], usage)?;
        let positions = match self.hyper.has_rope || !self.has("position_embd.weight") {
            true => None,
            false => {
                let shape = [self.hyper.context_length, width];
                Some(self.weight("position_embd.weight", &shape, WeightUse::Table)?)
            }
        };
        let slopes = self.slopes()?;
        let rope = self.rope(options)?;
        let local_rope = self.local_rope()?;
        let layers = self.hyper.layers.iter().enumerate();
        let blocks = layers
            .map(|(i, layer)| {
                let rope = match (layer.rotates, layer.local) {
                    (false, _) => None,
                    (true, false) => Some(rope.clone()),
                    (true, true) => Some(local_rope.clone()),
                };
                self.block(i, layer, rope)
            })
            .collect::<Result<_>>()?;
        let output_norm = self.norm("output_norm", width)?;
        let head = match tied {
            true => {
                self.place("output.weight", &embedding, &[], n_vocab);
                Projection { weight: embedding.clone(), bias: self.bias("output.bias", n_vocab)? }
            }
            false if self.names.lacks_unit_rows(n_vocab) => self.unit_output(&[n_vocab, width])?,
            false => self.projection("output", &[n_vocab, width])?,
        };
        let (layer_inputs, streams) = (self.layer_inputs()?, self.stream_projections()?);
        Ok(Weights { embedding, positions, slopes, blocks, layer_inputs, streams, output_norm, head })
    }

    fn block(&mut self, i: usize, layer: &LayerParams, rope: Option<Rope>) -> Result<Block> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (pre, post) = (self.hyper.has_pre_norms(), self.hyper.has_post_norms());
        // Blocks that read the same input may share its norm, or attention has one of its own beside it.
        let is_bare = self.hyper.architecture.bare_norms;
        let shares_norm = self.hyper.parallel && !is_bare && !self.has(&name("ffn_norm.weight"));
        let has_own = shares_norm && self.has(&name("attn_norm_2.weight"));
        let attn_norm =
            if pre { Some(self.norm(&name(if has_own { "attn_norm_2" } else { "attn_norm" }), width)?) } else { None };
        let ffn_norm =
            if pre { Some(self.norm(&name(if shares_norm { "attn_norm" } else { "ffn_norm" }), width)?) } else { None };
        let latent = self.hyper.latent.clone();
        let (attention, output) = match (&layer.mixer, &latent, rope) {
            (Mixer::ShortConv { n_taps }, ..) => (self.short_conv(i, *n_taps)?, "shortconv.out_proj"),
            (Mixer::DeltaRule(params), ..) => (self.delta_rule(i, params)?, "ssm_out"),
            (Mixer::Attention, Some(latent), Some(rope)) => {
                (self.latent_attention(i, layer, latent, rope)?, "attn_output")
            }
            (Mixer::Attention, _, rope) => (self.plain_attention(i, layer, rope)?, "attn_output"),
        };
        let mixed_dim = latent.map_or(layer.mixed_dim(width), |latent| layer.n_heads * latent.v_dim);
        Ok(Block {
            attn_norm,
            attention,
            sinks: self.optional_vector(&name("attn_sinks.weight"), layer.n_heads)?,
            attn_sub_norm: self.optional_norm(&name("attn_sub_norm"), mixed_dim)?,
            o: self.projection(&name(output), &[width, mixed_dim])?,
            attn_post_norm: if post { Some(self.norm(&name("post_attention_norm"), width)?) } else { None },
            ffn_norm,
            feed_forward: self.feed_forward(i, layer)?,
            ffn_post_norm: if post { Some(self.norm(&name("post_ffw_norm"), width)?) } else { None },
            input: self.block_input(i)?,
            streams: self.block_streams(i)?,
            gain: self.gain(i)?,
        })
    }

    /// Remembers where the tensor `name` of `n_rows`, or these rows of it, went.
    fn place(&mut self, name: &str, weight: &Weight, rows: &[Range<usize>], n_rows: usize) {
        let (house, own) = (self.names.house_spelling(name), self.names.spelling(name));
        let (name, weight, rows) = (name.to_owned(), weight.clone(), rows.to_vec());
        self.placed.push(Placed { name, house, own, weight, rows, n_rows });
    }

    fn report(&mut self, done_bytes: u64) -> Result<()> {
        self.at.done_bytes = done_bytes.min(self.at.total_bytes);
        match (self.progress)(self.at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    /// Tensors that nothing used. Error: one that must mean something.
    fn unused(&self) -> Result<Vec<String>> {
        let names = self.checkpoint.tensors().iter().map(|t| t.name.as_str()).filter(|n| !self.used.contains(*n));
        let (unused, unplaced): (Vec<&str>, Vec<&str>) = names.partition(|name| {
            self.names.is_harmless(name) || self.names.layer_of(name).is_some_and(|layer| layer >= self.hyper.n_layers)
        });
        match unplaced.first() {
            Some(first) => Err(Error::UnplacedTensors {
                architecture: self.hyper.architecture.name,
                n: unplaced.len(),
                first: first.chars().take(64).flat_map(char::escape_debug).collect(),
            }),
            None => Ok(unused.into_iter().map(str::to_owned).collect()),
        }
    }
}
