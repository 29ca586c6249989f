//! What layers have of their own: widths and numbers of heads, windows, whose keys and values they read, the width of their
//! dense blocks.
//!
//! What belongs here: those numbers, read and validated for the model's (`mod.rs`). What does not: recurrent layers
//! (`recurrence.rs`), latent attention (`latent.rs`), experts (`experts.rs`).

use super::recurrence::{Mixer, mixers};
use super::sparsity::sparsity;
use super::{MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_WIDTH};
use crate::architecture::{WindowPattern, WindowedRope};
use crate::convention::{Convention, Names};
use crate::hugging_face::{self, LayerKind};
use crate::keys::Keys;
use crate::{Architecture, Error, Result};

/// The window of a layer, and whether it is local.
type Window = (Option<usize>, bool);

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

/// What every layer has of its own, `has_rope` being whether any may rotate.
pub(super) fn layers(
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

/// Window of each layer, and whether it is local. Only families whose windowed layers are among others have local ones.
fn windows(keys: &Keys<'_>, architecture: &Architecture, n_layers: usize) -> Result<Vec<Window>> {
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

fn unknown_layer(keys: &Keys<'_>, name: &str) -> Error {
    let (name, key): (String, _) = (name.chars().take(64).collect(), keys.full("attention.layer_types"));
    Error::Unsupported { what: format!("a layer of the type {name:?} ({key})") }
}

/// Widths of the query and key heads and of the value heads of each layer. Windowed layers may have their own.
fn head_dims(keys: &Keys<'_>, windows: &[Window], usual: usize) -> Result<Vec<(usize, usize)>> {
    let count = |key: &str| keys.count(key, MAX_WIDTH);
    let global = count("attention.key_length_global")?;
    let (k_usual, v_usual) = (count("attention.key_length")?, count("attention.value_length")?);
    let wide = (global.or(k_usual).unwrap_or(usual), global.or(v_usual).unwrap_or(usual));
    let (k_narrow, v_narrow) = (count("attention.key_length_swa")?, count("attention.value_length_swa")?);
    let narrow = (k_narrow.or(k_usual).unwrap_or(usual), v_narrow.or(v_usual).unwrap_or(usual));
    let of = |(i, (window, _)): (usize, &Window)| {
        let (k_dim, v_dim) = if window.is_some() { narrow } else { wide };
        let k_own = keys.own_count("attention.key_length", i, MAX_WIDTH)?;
        let v_own = keys.own_count("attention.value_length", i, MAX_WIDTH)?;
        Ok((k_own.unwrap_or(k_dim), v_own.unwrap_or(v_dim)))
    };
    windows.iter().enumerate().map(of).collect()
}

/// Key and value heads of each layer, some of which have their own number.
fn own_kv_heads(keys: &Keys<'_>, usual: Vec<usize>, windows: &[Window]) -> Result<Vec<usize>> {
    let key = "attention.head_count_kv";
    let are_keys = keys.flag("attention.values_are_keys")? == Some(true);
    let global = keys.count("attention.head_count_kv_global", MAX_HEADS)?.filter(|_| are_keys);
    let of = |(i, (usual, (window, _))): (usize, (usize, &Window))| {
        let own = keys.own_count(key, i, MAX_HEADS)?;
        Ok(own.or(global.filter(|_| window.is_none())).unwrap_or(usual))
    };
    usual.into_iter().zip(windows).enumerate().map(of).collect()
}

/// The layer whose keys and values each layer reads: the last layers read those of the last of their kind before them.
fn shares(keys: &Keys<'_>, windows: &[Window]) -> Result<Vec<Option<usize>>> {
    let (key, n_layers) = ("attention.shared_kv_layers", windows.len());
    let n_shared = keys.count_or_zero(key, usize::MAX)?.unwrap_or(0);
    let why = || format!("it must be below {n_layers}, with a layer of each kind before the rest");
    let first =
        n_layers.checked_sub(n_shared).filter(|&first| first > 0).ok_or_else(|| keys.bad(key, n_shared, &why()))?;
    let (own, others) = windows.split_at(first.min(n_layers));
    let source = |(window, _): &Window| {
        let last = own.iter().rposition(|(own, _)| own.is_some() == window.is_some());
        last.map(Some).ok_or_else(|| keys.bad(key, n_shared, &why()))
    };
    own.iter().map(|_| Ok(None)).chain(others.iter().map(source)).collect()
}

/// Widths of dense blocks as their tensors have them; 0 where there is none.
fn n_ff_of_tensors(names: &Names<'_>, n_layers: usize, width: usize) -> Vec<usize> {
    let down = |i: usize| names.find(&format!("blk.{i}.ffn_down.weight"));
    (0..n_layers).map(|i| down(i).map_or(0, |info| info.shape.elements() / width).min(MAX_WIDTH)).collect()
}
