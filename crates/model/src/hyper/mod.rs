//! The numbers of a model: read from the metadata, completed by the family's record, validated here and nowhere else.
//!
//! What belongs here: every key the model needs, its limits and its defaults; what all layers have alike lies in this file. What
//! does not: RoPE's keys (`rope.rs`, called from here), how a file spells a key (`convention.rs`), and the shapes of tensors
//! (`load/`, derived from these numbers). Keys are those of the GGUF specification, and beside them those that only
//! `hugging_face.rs` has names for.

mod experts;
mod latent;
mod layers;
mod recurrence;
mod sparsity;
mod streams;

pub use experts::ExpertParams;
pub use latent::LatentParams;
pub use layers::LayerParams;
pub use recurrence::{DeltaParams, Mixer};
pub use streams::StreamParams;
pub(crate) use streams::USUAL_LIMIT;

use crate::architecture::NormPlaces;
use crate::convention::{Convention, Names};
use crate::hugging_face;
use crate::keys::Keys;
use crate::rope::RopeParams;
use crate::{Architecture, Error, Result};
use checkpoint::Checkpoint;
use compute::{Activation, NormKind, QueryGrowth};
use experts::experts;
use latent::latent;
use layers::layers;
use streams::{layer_input_dim, streams};

/// Layers at most.
const MAX_LAYERS: usize = 4096;
/// Heads of a layer at most, and experts.
const MAX_HEADS: usize = 65_536;
/// Tokens in a vocabulary at most.
const MAX_VOCAB: usize = 16 << 20;
/// Elements in one head, in the residual stream or in a feed-forward block at most.
const MAX_WIDTH: usize = 1 << 24;
/// ALiBi's number in its paper (Press et al. 2021).
const USUAL_ALIBI: f32 = 8.0;
/// Positions at most: device interfaces count them in 32 bits.
const MAX_CONTEXT: usize = 1 << 31;

/// All numbers of a model, valid together.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperParams {
    /// The family.
    pub architecture: &'static Architecture,
    /// Tokens in the vocabulary: rows of the embedding.
    pub n_vocab: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub n_layers: usize,
    /// One entry per layer.
    pub layers: Vec<LayerParams>,
    /// Latent attention, in models that have it.
    pub latent: Option<LatentParams>,
    /// Experts, for the layers that have their tensors.
    pub experts: Option<ExpertParams>,
    /// Width of the embedding of a token that each layer has, in models that have it.
    pub layer_input_dim: Option<usize>,
    /// Residual streams, in models that have several.
    pub streams: Option<StreamParams>,
    /// What layers apply between their products.
    pub activation: Activation,
    /// Whether attention and feed-forward of a layer read the same input.
    pub parallel: bool,
    /// Added under the root of every norm.
    pub norm_eps: f32,
    /// Queries, keys and values are cut to ± this.
    pub clamp: Option<f32>,
    /// Whether the order of tokens is in RoPE, as far as layers rotate.
    pub has_rope: bool,
    /// The steepest of ALiBi's slopes is 2 to minus this by the number of heads.
    pub alibi: Option<f32>,
    /// Rotary position embedding.
    pub rope: RopeParams,
    /// Multiplied into the embeddings.
    pub embedding_scale: f32,
    /// Multiplied into attention scores.
    pub attention_scale: f32,
    /// Soft-cap of attention scores.
    pub attention_softcap: Option<f32>,
    /// How queries grow in layers that do not rotate.
    pub query_growth: Option<QueryGrowth>,
    /// Whether heads of Q and K that rotate have a norm without weights.
    pub bare_head_norms: bool,
    /// Multiplied into what a block adds to the residual stream.
    pub residual_scale: f32,
    /// Multiplied into the logits.
    pub logit_scale: f32,
    /// Soft-cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Whether the embedding is the output matrix too, whatever else the file holds; none: it is when there is no other.
    pub tied_embeddings: Option<bool>,
}

impl HyperParams {
    /// Reads and validates them. Errors name the key, or the tensor that a vocabulary-only file lacks.
    pub fn read(checkpoint: &Checkpoint) -> Result<HyperParams> {
        let keys = Keys::new(checkpoint.metadata())?;
        let architecture = keys.architecture();
        refuse_what_is_not_built(&keys)?;
        let names = Names::new(checkpoint, keys.convention, architecture);
        let width = keys.required("embedding_length", MAX_WIDTH)?;
        let n_layers = n_layers(&keys)?;
        let n_vocab = n_vocab(checkpoint, &keys, &names, width)?;
        let context_length = keys.required("context_length", MAX_CONTEXT)?;
        let latent = latent(&keys)?;
        let has_rope = architecture.has_rope && architecture.alibi_at != Some(n_layers);
        let mut layers = layers(&keys, &names, (n_layers, has_rope), width)?;
        if let Some(latent) = &latent {
            latent.take_heads(&keys, &mut layers)?;
        }
        let first = layers.first().ok_or_else(|| keys.bad("block_count", "0", "a model has layers"))?;
        let scale_width = match keys.factor("attention.scale_divisor_squared")? {
            Some(given) => given,
            None if architecture.width_scaled_queries_at == Some(n_layers) => width as f32 / first.n_heads as f32,
            None => latent.as_ref().map_or(first.head_dim, |l| l.rope_dim + l.nope_dim) as f32,
        };
        let head_dim_of = |local: bool| layers.iter().find(|l| l.local == local).unwrap_or(first).head_dim;
        let rotating = latent.as_ref().map_or(head_dim_of(false), |l| l.rope_dim);
        let rope = match has_rope {
            true => RopeParams::read(&keys, rotating, head_dim_of(true).min(MAX_WIDTH), context_length)?,
            false => RopeParams::none(context_length),
        };
        let sharpness = if latent.is_some() { rope.score_factor } else { 1.0 };
        let by_width = keys.factor("logit_base_width")?.map(|base| width as f32 / base);
        let logit_scale = keys.factor("logit_scale")?.or(by_width).unwrap_or(1.0);
        let by_depth = keys.factor("residual_scale_of_depth")?.map(|scale| scale / (n_layers as f32).sqrt());
        let experts = experts(&keys, &names, n_layers)?;
        Ok(HyperParams {
            architecture,
            n_vocab,
            context_length,
            width,
            n_layers,
            bare_head_norms: bare_head_norms(&keys, experts.as_ref())?,
            experts,
            layer_input_dim: layer_input_dim(&keys, n_layers)?,
            streams: streams(&keys, &names, n_layers)?,
            activation: activation(&keys)?,
            parallel: keys.flag("use_parallel_residual")?.unwrap_or(architecture.parallel),
            norm_eps: norm_eps(&keys)?,
            clamp: keys.factor("attention.clamp_kqv")?,
            has_rope,
            alibi: alibi(&keys, has_rope)?,
            rope,
            embedding_scale: match keys.factor("embedding_scale")? {
                Some(scale) => scale,
                None if architecture.root_width_embedding => (width as f32).sqrt(),
                None => 1.0,
            },
            attention_scale: match keys.factor("attention.scale")?.or(architecture.default_attention_scale) {
                Some(scale) => scale,
                None => sharpness / scale_width.sqrt(),
            },
            attention_softcap: keys.factor_or("attn_logit_softcapping", architecture.default_attention_softcap)?,
            query_growth: query_growth(&keys)?,
            residual_scale: keys.factor("residual_scale")?.or(by_depth).unwrap_or(1.0),
            logit_scale: if architecture.logit_scale_divides { 1.0 / logit_scale } else { logit_scale },
            logit_softcap: keys.factor_or("final_logit_softcapping", architecture.default_logit_softcap)?,
            tied_embeddings: keys.flag("tied_embeddings")?,
            layers,
            latent,
        })
    }

    /// The last layer that leaves something in the cache: what those after it make is only for the rows at hand.
    pub(crate) fn last_kept(&self) -> usize {
        self.layers.iter().rposition(|layer| layer.shares.is_none()).unwrap_or(0)
    }

    /// Whether layers normalize their input.
    pub(crate) fn has_pre_norms(&self) -> bool {
        self.architecture.norms != NormPlaces::After
    }

    /// Whether layers normalize what they add.
    pub(crate) fn has_post_norms(&self) -> bool {
        self.architecture.norms != NormPlaces::Before
    }
}

/// What a file may ask for and would silently get wrong.
fn refuse_what_is_not_built(keys: &Keys<'_>) -> Result<()> {
    if keys.has("quantization") {
        let how = keys.word("quantization").ok().flatten().map(|how| format!(" by {how:?}")).unwrap_or_default();
        let how: String = how.chars().take(64).collect();
        return Err(Error::Unsupported { what: format!("a model quantized{how} ({})", keys.full("quantization")) });
    }
    Ok(())
}

/// The activation that the file names; one that has no name is the family's.
fn activation(keys: &Keys<'_>) -> Result<Activation> {
    let own = keys.architecture().activation;
    let Some(name) = keys.word("activation")?.filter(|_| hugging_face::has_name(own)) else { return Ok(own) };
    hugging_face::activation(name).ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        Error::Unsupported { what: format!("the activation {name:?} ({})", keys.full("activation")) }
    })
}

/// ALiBi's number, where positions come by it.
fn alibi(keys: &Keys<'_>, has_rope: bool) -> Result<Option<f32>> {
    let key = "attention.alibi";
    match (keys.flag(key)?, has_rope) {
        (Some(true), true) => Err(Error::Unsupported { what: format!("ALiBi in this family ({})", keys.full(key)) }),
        (Some(false), _) | (_, true) => Ok(None),
        (_, false) => {
            // A family of which one size has it leaves the number to its readers.
            let by_size = keys.architecture().has_rope.then_some(USUAL_ALIBI);
            Ok(keys.factor("attention.max_alibi_bias")?.or(by_size))
        }
    }
}

/// How queries grow, in a family whose queries do.
fn query_growth(keys: &Keys<'_>) -> Result<Option<QueryGrowth>> {
    let Some(default) = keys.architecture().query_growth else { return Ok(None) };
    let (span_key, weight_key) = ("attention.temperature_length", "attention.temperature_scale");
    let weight = keys.factor(weight_key)?;
    let is_off = keys.flag("attention.temperature_on")? == Some(false) || weight.is_none() && keys.has(weight_key);
    let span = keys.count(span_key, MAX_CONTEXT)?.map_or(default.span, |n| n as f32);
    let growth = QueryGrowth { span, weight: weight.unwrap_or(default.weight) };
    Ok(Some(growth).filter(|_| !is_off))
}

/// Whether heads that rotate have a norm without weights.
fn bare_head_norms(keys: &Keys<'_>, experts: Option<&ExpertParams>) -> Result<bool> {
    let architecture = keys.architecture();
    if !architecture.bare_head_norms {
        return Ok(false);
    }
    let by_size = experts.is_none_or(|experts| architecture.no_head_norms_at != Some(experts.n_experts));
    Ok(keys.flag("attention.head_norms")?.unwrap_or(by_size))
}

/// Layers of the model. GGUF files count those that guess further tokens as well, which come last.
fn n_layers(keys: &Keys<'_>) -> Result<usize> {
    let (key, all) = ("nextn_predict_layers", keys.required("block_count", MAX_LAYERS)?);
    let guessing = keys.count_or_zero(key, MAX_LAYERS)?.unwrap_or(0);
    let own = all.checked_sub(guessing).filter(|&own| own > 0);
    own.ok_or_else(|| keys.bad(key, guessing, &format!("there are {all} layers in all")))
}

/// Rows of the embedding, whose other dimension must be the width.
fn n_vocab(checkpoint: &Checkpoint, keys: &Keys<'_>, names: &Names<'_>, width: usize) -> Result<usize> {
    let name = "token_embd.weight";
    let hint = if checkpoint.tensors().is_empty() { "the file holds a vocabulary and no model" } else { "" };
    let info = names.find(name).ok_or_else(|| Error::MissingTensor { name: names.spelled(name), hint })?;
    let wanted = match keys.convention {
        Convention::House | Convention::Meta => None,
        Convention::HuggingFace => keys.count("vocab_rows", MAX_VOCAB)?,
    };
    match *info.shape.dims() {
        [n, w] if w == width && (1..=MAX_VOCAB).contains(&n) && wanted.is_none_or(|wanted| wanted == n) => Ok(n),
        _ => Err(Error::TensorShape {
            name: info.name.clone(),
            found: info.shape.to_string(),
            expected: match wanted {
                Some(wanted) => format!("[{wanted}, {width}]"),
                None => format!("[1 to {MAX_VOCAB}, {width}]"),
            },
        }),
    }
}

fn norm_eps(keys: &Keys<'_>) -> Result<f32> {
    let key = match keys.architecture().norm {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    let eps = keys.float(key)?.ok_or_else(|| keys.missing(key))?;
    if (0.0..1.0).contains(&eps) { Ok(eps) } else { Err(keys.bad(key, eps, "it must be at least 0 and below 1")) }
}
