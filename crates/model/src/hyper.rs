//! The numbers of a model: read from the metadata, completed by the family's record, validated here and nowhere else.
//!
//! What belongs here: every key the model needs, its limits and its defaults. What does not: RoPE's keys (`rope.rs`, called
//! from here), how a file spells a key (`convention.rs`), and the shapes of tensors (`load/`, derived from these
//! numbers). Keys are those of the GGUF specification, and beside them those that only `hugging_face.rs` has names for.

use crate::architecture::{NormPlaces, Recurrence, WindowPattern, WindowedRope};
use crate::convention::{Convention, Names};
use crate::hugging_face::{self, LayerKind};
use crate::keys::Keys;
use crate::layers::{head_dims, layer_input_dim, own_kv_heads, shares, sparsity, streams};
use crate::rope::RopeParams;
use crate::{Architecture, Error, Result};
use checkpoint::Checkpoint;
use compute::{Activation, NormKind, QueryGrowth, RouterGroups, RouterRule};

/// Layers at most.
const MAX_LAYERS: usize = 4096;
/// Heads of a layer at most, and experts.
pub(crate) const MAX_HEADS: usize = 65_536;
/// Tokens in a vocabulary at most.
const MAX_VOCAB: usize = 16 << 20;
/// Elements in one head, in the residual stream or in a feed-forward block at most.
pub(crate) const MAX_WIDTH: usize = 1 << 24;
/// Elements of all layers' states at most.
const MAX_STATE: usize = 1 << 30;
/// Positions that a short convolution sees at most.
const MAX_TAPS: usize = 256;
/// ALiBi's number in its paper (Press et al. 2021).
const USUAL_ALIBI: f32 = 8.0;
/// Positions at most: device interfaces count them in 32 bits.
const MAX_CONTEXT: usize = 1 << 31;

/// What mixes the positions of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// Attention, over keys and values of all positions.
    Attention,
    /// A gated short convolution over the whole width.
    ShortConv {
        /// Positions that it sees.
        n_taps: usize,
    },
    /// The gated delta rule.
    DeltaRule(DeltaParams),
}

/// The numbers of a layer with the gated delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaParams {
    /// Positions that its convolution sees.
    pub n_taps: usize,
    /// Heads of Q and K.
    pub n_k_heads: usize,
    /// Heads of V; a multiple of those of K.
    pub n_v_heads: usize,
    /// V heads take the K heads in turns; otherwise consecutive ones share a K head.
    pub in_turns: bool,
    /// Width of a Q or K head.
    pub k_dim: usize,
    /// Width of a V head.
    pub v_dim: usize,
}

impl DeltaParams {
    /// Width of all of Q, and of all of K.
    pub fn k_width(&self) -> usize {
        self.n_k_heads * self.k_dim
    }

    /// Width of all of V.
    pub fn v_width(&self) -> usize {
        self.n_v_heads * self.v_dim
    }

    /// Width of Q, K and V together.
    pub fn qkv_width(&self) -> usize {
        2 * self.k_width() + self.v_width()
    }
}

impl Mixer {
    /// Elements of the state that such a layer keeps for a sequence; 0 for attention, which keeps keys and values.
    pub fn state_len(&self, width: usize) -> usize {
        match self {
            Mixer::Attention => 0,
            Mixer::ShortConv { n_taps } => (n_taps - 1) * width,
            Mixer::DeltaRule(delta) => {
                (delta.n_taps - 1) * delta.qkv_width() + delta.n_v_heads * delta.k_dim * delta.v_dim
            }
        }
    }
}

/// What a layer has in its own number.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerParams {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`. A recurrent layer has none.
    pub n_kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
    /// The layer whose keys and values it reads; none: its own.
    pub shares: Option<usize>,
    /// What mixes its positions.
    pub mixer: Mixer,
    /// Of the activations in its dense block only what is so many standard deviations above their mean counts.
    pub sparsity: Option<f32>,
    /// Width of a dense feed-forward block.
    pub n_ff: usize,
    /// Positions that a query sees, itself among them; none: all before it.
    pub window: Option<usize>,
    /// Whether this is a windowed layer among others that see everything: its RoPE has its own base and no scaling.
    pub local: bool,
    /// Whether it has RoPE.
    pub rotates: bool,
}

impl LayerParams {
    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key heads together.
    pub fn k_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Width of all value heads together.
    pub fn v_dim(&self) -> usize {
        self.n_kv_heads * self.v_head_dim
    }

    /// Key and value heads that it has in the cache.
    pub fn n_cached_heads(&self) -> usize {
        if self.shares.is_some() { 0 } else { self.n_kv_heads }
    }

    /// Width of the attention result before its output projection.
    pub fn attention_dim(&self) -> usize {
        self.n_heads * self.v_head_dim
    }

    /// Width of what its output projection takes, `width` being the model's.
    pub fn mixed_dim(&self, width: usize) -> usize {
        match &self.mixer {
            Mixer::Attention => self.attention_dim(),
            Mixer::ShortConv { .. } => width,
            Mixer::DeltaRule(delta) => delta.v_width(),
        }
    }
}

/// Latent attention (DeepSeek-V2): the widths of its parts. Its layers have one K/V head: the part of a key that rotates
/// and the latent as key, the latent as value.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentParams {
    /// Width of Q between its two matrices; none: it has one.
    pub q_rank: Option<usize>,
    /// Width of the latent.
    pub rank: usize,
    /// Elements of a query head that rotate.
    pub rope_dim: usize,
    /// The other elements.
    pub nope_dim: usize,
    /// Width of a head's result.
    pub v_dim: usize,
}

/// Residual streams side by side (Gemma 3n), of which layers compute the first and predict the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamParams {
    /// How many.
    pub n: usize,
    /// Width of the low-rank addition to the first one.
    pub rank: usize,
    /// What factors of corrections are cut to.
    pub limit: f32,
}

/// The mixture of experts, if the model has one.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertParams {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Width of one expert.
    pub n_ff: usize,
    /// Width of the expert that every token passes, if there is one.
    pub shared_n_ff: Option<usize>,
    /// How they are chosen and weighted.
    pub rule: RouterRule,
}

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
            for layer in &mut layers {
                (layer.n_kv_heads, layer.head_dim, layer.v_head_dim) = (1, latent.rope_dim + latent.rank, latent.rank);
                let widest = layer.head_dim.max(latent.rope_dim + latent.nope_dim).max(latent.v_dim);
                if layer.n_heads.checked_mul(widest).is_none_or(|dim| dim > MAX_WIDTH) {
                    let why = format!("that many heads of {widest} are too wide");
                    return Err(keys.bad("attention.head_count", layer.n_heads, &why));
                }
            }
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

fn layers(
    keys: &Keys<'_>,
    names: &Names<'_>,
    (n_layers, has_rope): (usize, bool),
    width: usize,
) -> Result<Vec<LayerParams>> {
    let architecture = keys.architecture();
    let heads = keys.per_layer("attention.head_count", n_layers, 1, MAX_HEADS)?;
    let n_heads = heads.ok_or_else(|| keys.missing("attention.head_count"))?;
    let kv_key = "attention.head_count_kv";
    let one_for_all =
        keys.flag("attention.multi_query")? == Some(true) && keys.flag("attention.grouped")? != Some(true);
    let least = usize::from(architecture.recurrence.is_none());
    let n_kv_heads = match keys.per_layer(kv_key, n_layers, least, MAX_HEADS)? {
        _ if one_for_all => vec![1; n_layers],
        given => given.unwrap_or_else(|| n_heads.clone()),
    };
    let mixers = mixers(keys, names, n_layers, width)?;
    let windows = windows(keys, architecture, n_layers)?;
    let by_division = n_heads.first().map_or(0, |n| width / n);
    let dims = head_dims(keys, &windows, by_division)?;
    if dims.iter().any(|&(k_dim, v_dim)| k_dim == 0 || v_dim == 0) {
        return Err(keys.bad("attention.head_count", n_heads.first().copied().unwrap_or(0), "more heads than width"));
    }
    let n_kv_heads = own_kv_heads(keys, n_kv_heads, &windows)?;
    let shares = shares(keys, &windows)?;
    let sparsity = sparsity(keys, n_layers)?;
    let of_tensors = architecture.adjusts_feed_forward && keys.convention == Convention::HuggingFace;
    let given = keys.per_layer("feed_forward_length", n_layers, 0, MAX_WIDTH)?;
    let n_ff = match given.filter(|_| !of_tensors) {
        Some(n_ff) => n_ff,
        None if keys.convention != Convention::House => n_ff_of_tensors(names, n_layers, width),
        None if keys.count("expert_count", MAX_HEADS)?.is_some() => vec![0; n_layers],
        None => return Err(keys.missing("feed_forward_length")),
    };
    let rotating = keys.list("rope.layers", n_layers)?;
    let has_windows = windows.iter().any(|(window, _)| window.is_some());
    let only_windowed = has_windows && architecture.windowed_rope == WindowedRope::Only;
    let none_every = keys.count("rope.none_every", MAX_LAYERS)?.or(architecture.no_rope_every);
    let mut layers = Vec::with_capacity(n_layers);
    let of_layers = n_heads.into_iter().zip(n_kv_heads).zip(mixers).zip(n_ff).zip(windows).zip(dims).zip(sparsity);
    for (i, ((((((n_heads, n_kv_heads), mixer), n_ff), (window, local)), dims), sparsity)) in of_layers.enumerate() {
        let (head_dim, v_head_dim) = dims;
        let shares = shares.get(i).copied().flatten();
        let n_kv_heads = if mixer == Mixer::Attention { n_kv_heads } else { 0 };
        if mixer == Mixer::Attention && n_heads.checked_rem(n_kv_heads) != Some(0) {
            return Err(keys.bad(kv_key, n_kv_heads, &format!("it must divide the {n_heads} query heads")));
        }
        if n_heads.checked_mul(head_dim.max(v_head_dim)).is_none_or(|dim| dim > MAX_WIDTH) {
            return Err(keys.bad(
                "attention.head_count",
                n_heads,
                &format!("that many heads of {head_dim} are too wide"),
            ));
        }
        let rotates = match &rotating {
            _ if !has_rope => false,
            Some(flags) => flags.get(i).is_none_or(|&flag| flag != 0),
            None if only_windowed => window.is_some(),
            None => none_every.is_none_or(|every| (i + 1) % every != 0),
        };
        let layer = LayerParams {
            n_heads,
            n_kv_heads,
            head_dim,
            v_head_dim,
            shares,
            mixer,
            sparsity,
            n_ff,
            window,
            local,
            rotates,
        };
        let of = |l: &LayerParams| (l.n_kv_heads, l.head_dim, l.v_head_dim, l.mixer);
        if shares.and_then(|j| layers.get(j)).is_some_and(|source| of(source) != of(&layer)) {
            let what = format!("layer {i} that reads keys and values of other heads than its own");
            return Err(Error::Unsupported { what });
        }
        layers.push(layer);
    }
    Ok(layers)
}

/// What mixes the positions of each layer: those that have the tensors of recurrent ones are recurrent.
fn mixers(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize, width: usize) -> Result<Vec<Mixer>> {
    let Some(recurrence) = keys.architecture().recurrence else { return Ok(vec![Mixer::Attention; n_layers]) };
    let part = match recurrence {
        Recurrence::ShortConv => "shortconv.out_proj",
        Recurrence::DeltaRule => "ssm_out",
    };
    let recurrent: Vec<bool> = (0..n_layers).map(|i| names.find(&format!("blk.{i}.{part}.weight")).is_some()).collect();
    let mixer = match recurrence {
        _ if !recurrent.contains(&true) => Mixer::Attention,
        Recurrence::ShortConv => Mixer::ShortConv { n_taps: taps(keys, "shortconv.l_cache")? },
        Recurrence::DeltaRule => Mixer::DeltaRule(delta(keys)?),
    };
    let state_len = mixer.state_len(width);
    if state_len.checked_mul(n_layers).is_none_or(|all| all > MAX_STATE) {
        return Err(Error::Overflow { what: format!("states of {state_len} elements in a layer") });
    }
    Ok(recurrent.into_iter().map(|is| if is { mixer } else { Mixer::Attention }).collect())
}

fn unknown_layer(keys: &Keys<'_>, name: &str) -> Error {
    let (name, key): (String, _) = (name.chars().take(64).collect(), keys.full("attention.layer_types"));
    Error::Unsupported { what: format!("a layer of the type {name:?} ({key})") }
}

/// Positions that a convolution sees.
fn taps(keys: &Keys<'_>, key: &str) -> Result<usize> {
    match keys.required(key, MAX_TAPS)? {
        1 => Err(keys.bad(key, 1, "it must be at least 2")),
        n => Ok(n),
    }
}

/// The numbers of the delta rule. GGUF files say how wide all V heads are together, others how wide one is.
fn delta(keys: &Keys<'_>) -> Result<DeltaParams> {
    let n_v_heads = keys.required("ssm.time_step_rank", MAX_HEADS)?;
    let n_k_heads = keys.required("ssm.group_count", MAX_HEADS)?;
    if n_v_heads % n_k_heads != 0 {
        return Err(keys.bad("ssm.group_count", n_k_heads, &format!("it must divide the {n_v_heads} heads of V")));
    }
    let k_dim = keys.required("ssm.state_size", MAX_WIDTH)?;
    let v_dim = match keys.count("ssm.value_length", MAX_WIDTH)? {
        Some(v_dim) => v_dim,
        None => {
            let all = keys.required("ssm.inner_size", MAX_WIDTH)?;
            if all % n_v_heads != 0 {
                return Err(keys.bad("ssm.inner_size", all, &format!("it must be shared by {n_v_heads} heads")));
            }
            all / n_v_heads
        }
    };
    let widest = k_dim.max(v_dim);
    if n_v_heads.checked_mul(widest).is_none_or(|dim| dim > MAX_WIDTH / 4) {
        return Err(keys.bad("ssm.time_step_rank", n_v_heads, &format!("that many heads of {widest} are too wide")));
    }
    if k_dim.checked_mul(v_dim).and_then(|n| n.checked_mul(n_v_heads)).is_none_or(|n| n > MAX_STATE) {
        return Err(keys.bad("ssm.state_size", k_dim, "the state of its heads is too large"));
    }
    let in_turns = keys.convention == Convention::House && keys.architecture().house_heads_in_turns;
    Ok(DeltaParams { n_taps: taps(keys, "ssm.conv_kernel")?, n_k_heads, n_v_heads, in_turns, k_dim, v_dim })
}

/// The parts of latent attention, where the file has them.
fn latent(keys: &Keys<'_>) -> Result<Option<LatentParams>> {
    let Some(rank) = keys.count("attention.kv_lora_rank", MAX_WIDTH)? else { return Ok(None) };
    let rope_dim = keys.required("rope.dimension_count", MAX_WIDTH)?;
    let in_either = |one: &str, other: &str| -> Result<usize> {
        match keys.count(one, MAX_WIDTH)? {
            Some(n) => Ok(n),
            None => keys.required(other, MAX_WIDTH),
        }
    };
    let nope_dim = match keys.count("attention.key_length_nope", MAX_WIDTH)? {
        Some(n) => n,
        None => {
            let (key, whole) = ("attention.key_length", in_either("attention.key_length_mla", "attention.key_length")?);
            let why = format!("it must be above the {rope_dim} elements that rotate");
            whole.checked_sub(rope_dim).filter(|&n| n > 0).ok_or_else(|| keys.bad(key, whole, &why))?
        }
    };
    let v_dim = in_either("attention.value_length_mla", "attention.value_length")?;
    Ok(Some(LatentParams { q_rank: keys.count("attention.q_lora_rank", MAX_WIDTH)?, rank, rope_dim, nope_dim, v_dim }))
}

/// Widths of dense blocks as their tensors have them; 0 where there is none.
fn n_ff_of_tensors(names: &Names<'_>, n_layers: usize, width: usize) -> Vec<usize> {
    let down = |i: usize| names.find(&format!("blk.{i}.ffn_down.weight"));
    (0..n_layers).map(|i| down(i).map_or(0, |info| info.shape.elements() / width).min(MAX_WIDTH)).collect()
}

/// Window of each layer, and whether it is local. Only families whose windowed layers are among others have local ones.
fn windows(keys: &Keys<'_>, architecture: &Architecture, n_layers: usize) -> Result<Vec<(Option<usize>, bool)>> {
    let window = match keys.count_or_zero("attention.sliding_window", MAX_CONTEXT)? {
        Some(0) => None,
        given => given.or(architecture.default_window),
    };
    let is_on = keys.flag("attention.sliding_window_on")?.unwrap_or(true);
    let Some(window) = window.filter(|_| is_on) else { return Ok(vec![(None, false); n_layers]) };
    let local =
        architecture.window_pattern != WindowPattern::Every && architecture.windowed_rope == WindowedRope::Apart;
    let of = |windowed: bool| if windowed { (Some(window), local) } else { (None, false) };
    if let Some(types) = keys.words("attention.layer_types", n_layers)? {
        let windowed = types.iter().map(|name| match hugging_face::layer_kind(name) {
            Some(LayerKind::Recurrent) if architecture.recurrence.is_none() => Err(unknown_layer(keys, name)),
            Some(kind) => Ok(of(kind == LayerKind::Windowed)),
            None => Err(unknown_layer(keys, name)),
        });
        return windowed.collect();
    }
    let pattern_key = "attention.sliding_window_pattern";
    let pattern = match keys.list(pattern_key, n_layers)? {
        Some(flags) => return Ok(flags.iter().map(|&flag| of(flag != 0)).collect()),
        None => match keys.count(pattern_key, MAX_LAYERS)? {
            Some(period) => WindowPattern::AllButLastOf(period),
            None => architecture.window_pattern,
        },
    };
    let first = keys.count_or_zero("attention.sliding_window_from", usize::MAX)?.unwrap_or(0);
    let windowed = (0..n_layers).map(|i| match pattern {
        WindowPattern::Every => i >= first,
        WindowPattern::AllButLastOf(period) => (i + 1) % period != 0,
    });
    Ok(windowed.map(of).collect())
}

fn experts(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize) -> Result<Option<ExpertParams>> {
    let Some(n_experts) = keys.count_or_zero("expert_count", MAX_HEADS)?.filter(|&n| n > 0) else { return Ok(None) };
    let used_key = "expert_used_count";
    let n_used = keys.required(used_key, MAX_HEADS)?;
    if n_used > n_experts {
        return Err(keys.bad(used_key, n_used, &format!("there are {n_experts} experts")));
    }
    let n_ff = match keys.count("expert_feed_forward_length", MAX_WIDTH)? {
        Some(n) => n,
        None => keys.required("feed_forward_length", MAX_WIDTH)?,
    };
    let gating_key = "expert_gating_func";
    let architecture = keys.architecture();
    let named = keys.word("expert_scoring")?.map(|name| name == "sigmoid");
    let (sigmoid, softmax_after_choice) = match keys.count_or_zero(gating_key, usize::MAX)? {
        None => (named.unwrap_or(architecture.sigmoid_experts), false),
        Some(0 | 1) => (false, false),
        Some(2) => (true, false),
        Some(3) => (false, true),
        Some(other) => return Err(keys.bad(gating_key, other, "known are 1, 2 and 3")),
    };
    // The matrix back to the width has the same rows in every family, fused or not.
    let shared = (0..n_layers).find_map(|i| names.find(&format!("blk.{i}.ffn_down_shexp.weight")));
    let shared_n_ff = shared.map(|info| info.shape.row_len());
    let normalize = keys.flag("expert_weights_norm")?.unwrap_or(architecture.normalizes_experts);
    let peers = match architecture.expert_peers {
        Some(default) => Some(keys.factor("expert_jitter")?.map_or(default, |half| 2.0 * half)),
        None => None,
    };
    let scale = keys.factor("expert_weights_scale")?.unwrap_or(1.0);
    Ok(Some(ExpertParams {
        n_experts,
        n_ff,
        shared_n_ff,
        rule: RouterRule {
            n_used,
            sigmoid,
            softmax_after_choice,
            normalize,
            scale,
            groups: groups(keys, n_experts, n_used, sigmoid)?,
            peers,
            weighs_input: architecture.weighs_expert_input,
        },
    }))
}

/// Groups of which only the best take part in the choice of `n_used` experts.
fn groups(keys: &Keys<'_>, n_experts: usize, n_used: usize, sigmoid: bool) -> Result<Option<RouterGroups>> {
    let (key, used_key) = ("expert_group_count", "expert_group_used_count");
    let Some(n_groups) = keys.count_or_zero(key, MAX_HEADS)?.filter(|&n| n > 1) else { return Ok(None) };
    if keys.word("expert_choice")? == Some("greedy") {
        return Ok(None);
    }
    if !n_experts.is_multiple_of(n_groups) {
        return Err(keys.bad(key, n_groups, &format!("it must divide the {n_experts} experts")));
    }
    // DeepSeek V3's groups count by their two best, V2's by their best.
    let (each, n_best) = (n_experts / n_groups, if sigmoid { 2 } else { 1 });
    let used = keys.required(used_key, n_groups)?;
    if n_best > each || n_used > used * each {
        return Err(keys.bad(used_key, used, &format!("groups of {each} experts are too small to choose {n_used}")));
    }
    Ok(Some(RouterGroups { n_groups, n_used: used, n_best }))
}
