//! The numbers of a model: read from the metadata, completed by the family's record, validated here and nowhere else.
//!
//! What belongs here: every key the model needs, its limits and its defaults. What does not: RoPE's keys (`rope.rs`, called
//! from here), how a file spells a key (`convention.rs`), and the shapes of tensors (`load.rs`, derived from these
//! numbers). Keys are those of the GGUF specification, and beside them those that only `hugging_face.rs` has names for.

use crate::architecture::{NormPlaces, WindowPattern};
use crate::convention::{Convention, Names};
use crate::hugging_face;
use crate::keys::Keys;
use crate::rope::RopeParams;
use crate::{Architecture, Error, Result};
use checkpoint::Checkpoint;
use compute::RouterRule;

/// Layers at most.
const MAX_LAYERS: usize = 4096;
/// Heads of a layer at most, and experts.
const MAX_HEADS: usize = 65_536;
/// Tokens in a vocabulary at most.
const MAX_VOCAB: usize = 16 << 20;
/// Elements in one head, in the residual stream or in a feed-forward block at most.
const MAX_WIDTH: usize = 1 << 24;
/// Positions at most: device interfaces count them in 32 bits.
const MAX_CONTEXT: usize = 1 << 31;

/// What a layer has in its own number.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerParams {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
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

    /// Width of the attention result before its output projection.
    pub fn attention_dim(&self) -> usize {
        self.n_heads * self.v_head_dim
    }
}

/// The mixture of experts, if the model has one.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertParams {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Width of one expert.
    pub n_ff: usize,
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
    /// Experts, for the layers that have their tensors.
    pub experts: Option<ExpertParams>,
    /// Added under the root of every norm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeParams,
    /// Multiplied into the embeddings.
    pub embedding_scale: f32,
    /// Multiplied into attention scores.
    pub attention_scale: f32,
    /// Soft-cap of attention scores.
    pub attention_softcap: Option<f32>,
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
        let width = keys.required("embedding_length", MAX_WIDTH)?;
        let n_layers = keys.required("block_count", MAX_LAYERS)?;
        let n_vocab = n_vocab(checkpoint, &keys, width)?;
        let context_length = keys.required("context_length", MAX_CONTEXT)?;
        let layers = layers(&keys, architecture, n_layers, width)?;
        let first = layers.first().ok_or_else(|| keys.bad("block_count", "0", "a model has layers"))?;
        let scale_width = match keys.factor("attention.scale_divisor_squared")? {
            Some(given) => given,
            None if architecture.width_scaled_queries_at == Some(n_layers) => width as f32 / first.n_heads as f32,
            None => first.head_dim as f32,
        };
        let logit_scale = keys.factor("logit_scale")?.unwrap_or(1.0);
        Ok(HyperParams {
            architecture,
            n_vocab,
            context_length,
            width,
            n_layers,
            experts: experts(&keys)?,
            norm_eps: norm_eps(&keys)?,
            rope: RopeParams::read(&keys, first.head_dim, context_length)?,
            embedding_scale: match keys.factor("embedding_scale")? {
                Some(scale) => scale,
                None if architecture.root_width_embedding => (width as f32).sqrt(),
                None => 1.0,
            },
            attention_scale: keys.factor("attention.scale")?.unwrap_or(1.0 / scale_width.sqrt()),
            attention_softcap: keys.factor_or("attn_logit_softcapping", architecture.default_attention_softcap)?,
            residual_scale: keys.factor("residual_scale")?.unwrap_or(1.0),
            logit_scale: if architecture.logit_scale_divides { 1.0 / logit_scale } else { logit_scale },
            logit_softcap: keys.factor_or("final_logit_softcapping", architecture.default_logit_softcap)?,
            tied_embeddings: keys.flag("tied_embeddings")?,
            layers,
        })
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
    let Some(name) = keys.word("activation")? else { return Ok(()) };
    if hugging_face::activation(name) == Some(keys.architecture().activation) {
        return Ok(());
    }
    let name: String = name.chars().take(64).collect();
    Err(Error::Unsupported { what: format!("the activation {name:?} ({}) in this family", keys.full("activation")) })
}

/// Rows of the embedding, whose other dimension must be the width.
fn n_vocab(checkpoint: &Checkpoint, keys: &Keys<'_>, width: usize) -> Result<usize> {
    let names = Names::new(checkpoint, keys.convention, keys.architecture());
    let name = "token_embd.weight";
    let hint = if checkpoint.tensors().is_empty() { "the file holds a vocabulary and no model" } else { "" };
    let info = names.find(name).ok_or_else(|| Error::MissingTensor { name: names.spelled(name), hint })?;
    let wanted = match keys.convention {
        Convention::House => None,
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
    let key = "attention.layer_norm_rms_epsilon";
    let eps = keys.float(key)?.ok_or_else(|| keys.missing(key))?;
    if (0.0..1.0).contains(&eps) { Ok(eps) } else { Err(keys.bad(key, eps, "it must be at least 0 and below 1")) }
}

fn layers(keys: &Keys<'_>, architecture: &Architecture, n_layers: usize, width: usize) -> Result<Vec<LayerParams>> {
    let heads = keys.per_layer("attention.head_count", n_layers, 1, MAX_HEADS)?;
    let n_heads = heads.ok_or_else(|| keys.missing("attention.head_count"))?;
    let kv_key = "attention.head_count_kv";
    let n_kv_heads = keys.per_layer(kv_key, n_layers, 1, MAX_HEADS)?.unwrap_or_else(|| n_heads.clone());
    let by_division = n_heads.first().map_or(0, |n| width / n);
    let head_dim = keys.count("attention.key_length", MAX_WIDTH)?.unwrap_or(by_division);
    let v_head_dim = keys.count("attention.value_length", MAX_WIDTH)?.unwrap_or(by_division);
    if head_dim == 0 || v_head_dim == 0 {
        return Err(keys.bad("attention.head_count", n_heads.first().copied().unwrap_or(0), "more heads than width"));
    }
    let n_ff = match keys.per_layer("feed_forward_length", n_layers, 0, MAX_WIDTH)? {
        Some(n_ff) => n_ff,
        None if keys.count("expert_count", MAX_HEADS)?.is_some() => vec![0; n_layers],
        None => return Err(keys.missing("feed_forward_length")),
    };
    let windows = windows(keys, architecture, n_layers)?;
    let rotating = keys.list("rope.layers", n_layers)?;
    let none_every = keys.count("rope.none_every", MAX_LAYERS)?.or(architecture.no_rope_every);
    let mut layers = Vec::with_capacity(n_layers);
    for (i, (((n_heads, n_kv_heads), n_ff), (window, local))) in
        n_heads.into_iter().zip(n_kv_heads).zip(n_ff).zip(windows).enumerate()
    {
        if n_heads % n_kv_heads != 0 {
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
            Some(flags) => flags.get(i).is_none_or(|&flag| flag != 0),
            None => none_every.is_none_or(|every| (i + 1) % every != 0),
        };
        layers.push(LayerParams { n_heads, n_kv_heads, head_dim, v_head_dim, n_ff, window, local, rotates });
    }
    Ok(layers)
}

/// Window of each layer, and whether it is local. Only families whose windowed layers are among others have local ones.
fn windows(keys: &Keys<'_>, architecture: &Architecture, n_layers: usize) -> Result<Vec<(Option<usize>, bool)>> {
    let window = match keys.count_or_zero("attention.sliding_window", MAX_CONTEXT)? {
        Some(0) => None,
        given => given.or(architecture.default_window),
    };
    let is_on = keys.flag("attention.sliding_window_on")?.unwrap_or(true);
    let Some(window) = window.filter(|_| is_on) else { return Ok(vec![(None, false); n_layers]) };
    let local = architecture.window_pattern != WindowPattern::Every;
    let of = |windowed: bool| if windowed { (Some(window), local) } else { (None, false) };
    if let Some(types) = keys.words("attention.layer_types", n_layers)? {
        let windowed = types.iter().map(|name| {
            hugging_face::is_windowed(name).map(of).ok_or_else(|| {
                let (name, key): (String, _) = (name.chars().take(64).collect(), keys.full("attention.layer_types"));
                Error::Unsupported { what: format!("a layer of the type {name:?} ({key})") }
            })
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

fn experts(keys: &Keys<'_>) -> Result<Option<ExpertParams>> {
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
    let (sigmoid, softmax_after_choice) = match keys.count_or_zero(gating_key, usize::MAX)? {
        None | Some(0 | 1) => (false, false),
        Some(2) => (true, false),
        Some(3) => (false, true),
        Some(other) => return Err(keys.bad(gating_key, other, "known are 1, 2 and 3")),
    };
    for (key, what) in [
        ("expert_shared_count", "a mixture with shared experts"),
        ("expert_group_count", "a mixture with groups of experts"),
    ] {
        if keys.count_or_zero(key, usize::MAX)?.is_some_and(|n| n > usize::from(key == "expert_group_count")) {
            return Err(Error::Unsupported { what: format!("{what} ({})", keys.full(key)) });
        }
    }
    let normalize = keys.flag("expert_weights_norm")?.unwrap_or(true);
    let scale = keys.factor("expert_weights_scale")?.unwrap_or(1.0);
    Ok(Some(ExpertParams {
        n_experts,
        n_ff,
        rule: RouterRule { n_used, sigmoid, softmax_after_choice, normalize, scale },
    }))
}
