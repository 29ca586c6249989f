//! Where the tensors are in a model, which decides what types they may be quantized to.
//!
//! What belongs here: names of parts and what they are. What does not: the types (`tensor`'s mixtures).

use crate::HyperParams;
use tensor::{Place, Shape, Site};

/// Parts of a layer that are quantized, and what they are. Other matrices count as [`Place::Other`].
const PLACES: &[(&str, Place)] = &[
    ("token_embd", Place::Embedding),
    ("output", Place::Output),
    ("attn_k", Place::Keys),
    ("attn_v", Place::Values),
    ("attn_qkv", Place::Attention),
    ("attn_output", Place::AttentionOutput),
    ("ffn_down", Place::Down),
    ("ffn_down_exps", Place::Down),
];

/// Matrices that decide rather than compute, or are too small to matter: they stay exact.
const EXACT: &[&str] = &[
    "ffn_gate_inp",
    "ffn_gate_inp_shexp",
    "position_embd",
    "ssm_conv1d",
    "shortconv.conv",
    "per_layer_model_proj",
    "altup_proj",
    "altup_unembd_proj",
    "altup_correct_coef",
    "altup_predict_coef",
    "altup_router",
    "laurel_l",
    "laurel_r",
];

/// Where the tensor called `name` is in the model; none: it is no matrix that may be quantized.
pub(crate) fn site(name: &str, shape: &Shape, hyper: &HyperParams, is_tied: bool) -> Option<Site> {
    let base = name.strip_suffix(".weight")?;
    let below = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let (layer, part) = below.map_or((0, base), |(layer, part)| (layer.parse().unwrap_or(0), part));
    if shape.dims().len() < 2 || part.ends_with("norm") || part.starts_with("rope_f") || EXACT.contains(&part) {
        return None;
    }
    let place = PLACES.iter().find(|(known, _)| *known == part).map_or(Place::Other, |&(_, place)| place);
    let place = if place == Place::Embedding && is_tied { Place::Output } else { place };
    let layers = hyper.layers.get(layer).or(hyper.layers.first());
    let n_shared = layers.map_or(1, |l| l.n_heads.checked_div(l.n_kv_heads).unwrap_or(1));
    let n_experts = hyper.experts.as_ref().map_or(0, |experts| experts.n_experts);
    Some(Site { place, layer, n_layers: hyper.n_layers, n_shared, n_experts })
}
