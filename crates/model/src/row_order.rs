//! Where a row of the house's tensor is in Hugging Face's tensor of the same name, in the families where that differs: pairs
//! of RoPE that are neighbours here and in halves there, and Q, K and V that lie by head there.

use crate::{Architecture, HyperParams, LayerParams, Mixer};
use compute::RopePairing;
use std::ops::Range;

/// Rows of query or key heads, whose elements pair otherwise in the other order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// The rows of the tensor that are heads.
    pub(crate) rows: Range<usize>,
    /// Rows of one head.
    pub(crate) head_dim: usize,
    /// Leading rows of a head that rotate; even.
    pub(crate) n_dims: usize,
}

impl Heads {
    /// The row of the source that becomes row `row`: halves side by side become neighbours.
    fn source(&self, row: usize) -> usize {
        if !self.rows.contains(&row) || self.head_dim == 0 {
            return row;
        }
        let element = (row - self.rows.start) % self.head_dim;
        if element >= self.n_dims {
            return row;
        }
        row - element + element % 2 * (self.n_dims / 2) + element / 2
    }
}

/// The row of the source that becomes row `row`.
pub(crate) fn source_row(heads: &[Heads], row: usize) -> usize {
    heads.iter().find(|heads| heads.rows.contains(&row)).map_or(row, |heads| heads.source(row))
}

/// The rows of a layer's part (elements of a vector) of `n` rows that are heads whose pairs lie in halves there.
pub(crate) fn heads(
    architecture: &Architecture,
    hyper: &HyperParams,
    layer: usize,
    part: &str,
    n: usize,
) -> Vec<Heads> {
    let Some(params) = hyper.layers.get(layer) else { return Vec::new() };
    let pairings = (architecture.config_pairing, architecture.pairing);
    if pairings != (RopePairing::Halves, RopePairing::Interleaved) {
        return Vec::new();
    }
    let heads = |rows| Heads { rows, head_dim: params.head_dim, n_dims: hyper.rope.n_dims };
    match part {
        "attn_q" | "attn_k" | "attn_q_norm" | "attn_k_norm" => vec![heads(0..n)],
        "attn_qkv" => vec![heads(0..(params.q_dim() + params.k_dim()).min(n))],
        _ => Vec::new(),
    }
}

/// Where Q, K and V of a matrix that has them by K/V head lie there: all rows of each in turn.
pub(crate) fn by_head(params: &LayerParams) -> [Vec<Range<usize>>; 3] {
    let group = params.n_heads / params.n_kv_heads.max(1) * params.head_dim;
    let step = group + params.head_dim + params.v_head_dim;
    let rows = |from: usize, len: usize| {
        (0..params.n_kv_heads).map(|head| head * step + from..head * step + from + len).collect()
    };
    [rows(0, group), rows(group, params.head_dim), rows(group + params.head_dim, params.v_head_dim)]
}

/// Where the rows of a part of a layer with the delta rule (for `ssm_out`, its columns) lie there, in a family whose V heads
/// take the K heads in turns here. Empty: all lie alike.
pub(crate) fn in_turns(architecture: &Architecture, params: &LayerParams, part: &str) -> Vec<Range<usize>> {
    let Mixer::DeltaRule(delta) = params.mixer else { return Vec::new() };
    let share = delta.n_v_heads / delta.n_k_heads.max(1);
    let (before, len) = match part {
        _ if !architecture.house_heads_in_turns || share == 1 => return Vec::new(),
        "attn_qkv" | "ssm_conv1d" => (2 * delta.k_width(), delta.v_dim),
        "attn_gate" | "ssm_out" => (0, delta.v_dim),
        "ssm_beta" | "ssm_alpha" | "ssm_a" | "ssm_dt" => (0, 1),
        _ => return Vec::new(),
    };
    let there = (0..delta.n_v_heads).map(|head| head % delta.n_k_heads * share + head / delta.n_k_heads);
    let heads = there.map(|head| before + head * len..before + (head + 1) * len);
    std::iter::once(0..before).filter(|run| !run.is_empty()).chain(heads).collect()
}

/// Whether the columns of the house's tensor `name` lie otherwise there.
pub(crate) fn turns_columns(architecture: &Architecture, hyper: &HyperParams, name: &str) -> bool {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.strip_suffix(".ssm_out.weight"));
    let params = layer.and_then(|layer| hyper.layers.get(layer.parse::<usize>().ok()?));
    params.is_some_and(|params| !in_turns(architecture, params, "ssm_out").is_empty())
}

/// For each of the `n` rows of the house's tensor `name`, the row there. `None`: all lie alike.
pub(crate) fn theirs(architecture: &Architecture, hyper: &HyperParams, name: &str, n: usize) -> Option<Vec<usize>> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (layer, part) = (layer.parse().ok()?, part.rsplit_once('.')?.0);
    if part == "attn_qkv" && architecture.fused_by_head {
        return Some(by_head(hyper.layers.get(layer)?).into_iter().flatten().flatten().collect());
    }
    let turned = in_turns(architecture, hyper.layers.get(layer)?, part);
    if !turned.is_empty() && part != "ssm_out" {
        return Some(turned.into_iter().flatten().collect());
    }
    let heads = heads(architecture, hyper, layer, part, n);
    if heads.is_empty() { None } else { Some((0..n).map(|row| source_row(&heads, row)).collect()) }
}
