//! What mixes the positions of a layer: attention, or a recurrence that keeps a state.
//!
//! What belongs here: the numbers of recurrent layers and the size of their states. What does not: heads of attention
//! (`layers.rs`).

use super::{MAX_HEADS, MAX_WIDTH};
use crate::architecture::Recurrence;
use crate::convention::{Convention, Names};
use crate::keys::Keys;
use crate::{Error, Result};

/// Elements of all layers' states at most.
const MAX_STATE: usize = 1 << 30;
/// Positions that a short convolution sees at most.
const MAX_TAPS: usize = 256;

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

/// What mixes the positions of each layer: those that have the tensors of recurrent ones are recurrent.
pub(super) fn mixers(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize, width: usize) -> Result<Vec<Mixer>> {
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
