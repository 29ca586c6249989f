//! What Gemma 3n's layers share: residual streams side by side, and an embedding of the token for each of them.
//!
//! What belongs here: the keys of both. What does not: what layers have of their own (`layers.rs`).

use super::MAX_WIDTH;
use crate::convention::Names;
use crate::keys::Keys;
use crate::{Error, Result};

/// Residual streams at most.
const MAX_STREAMS: usize = 64;
/// What their factors are cut to in the published models.
pub(crate) const USUAL_LIMIT: f32 = 120.0;

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

/// Width of the embedding that each layer has of a token.
pub(super) fn layer_input_dim(keys: &Keys<'_>, n_layers: usize) -> Result<Option<usize>> {
    let key = "embedding_length_per_layer_input";
    let Some(dim) = keys.count_or_zero(key, MAX_WIDTH)?.filter(|&dim| dim > 0) else { return Ok(None) };
    match dim.checked_mul(n_layers) {
        Some(all) if all <= MAX_WIDTH => Ok(Some(dim)),
        _ => Err(keys.bad(key, dim, &format!("that much for {n_layers} layers is too wide"))),
    }
}

/// The residual streams of a model that has several.
pub(super) fn streams(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize) -> Result<Option<StreamParams>> {
    let Some(n) = keys.count_or_zero("altup.num_inputs", MAX_STREAMS)?.filter(|&n| n > 1) else { return Ok(None) };
    let active = keys.count_or_zero("altup.active_idx", MAX_STREAMS)?.unwrap_or(0);
    if active != 0 {
        let what =
            format!("residual streams of which layers compute number {active} ({})", keys.full("altup.active_idx"));
        return Err(Error::Unsupported { what });
    }
    let left = (0..n_layers).find_map(|i| names.find(&format!("blk.{i}.laurel_l.weight")));
    let rank = left.map_or(0, |info| info.shape.rows()).min(MAX_WIDTH);
    let limit = keys.factor("altup.limit")?.unwrap_or(USUAL_LIMIT);
    Ok(Some(StreamParams { n, rank, limit }))
}
