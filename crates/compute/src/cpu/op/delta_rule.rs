//! The gated delta rule (Yang et al. 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule"), up to its output
//! projection: one position after another, each head by itself.
//!
//! With `d = e^g`, what the decayed state holds for a key is `d Sᵀk`, and the result for a query is
//! `d Sᵀq + (k·q) δ`: both need `S` as it was, so that each position reads the state once and writes it once.
//!
//! What belongs here: the projections, the recurrence, the gated norm. What does not: the convolution before it
//! (`causal_conv`).

use super::{
    Team, Work,
    causal_conv::{CausalConv, Seen},
    check_rows,
    norm::{NormView, normed},
    product::{Product, View, products},
    require,
};
use crate::{
    Activation, Buffer, DeltaRule, KvCache, Result, Rows, StateRows,
    cpu::{
        argument, floats, floats_mut,
        memory::{Scratch, SharedMut},
        simd::{Kernels, LANES, Tile},
        states::LayerStates,
        weight,
    },
};
use std::ops::Range;

/// Channels of the convolution that a thread takes at a time.
const CHANNELS: usize = 128;
/// Added to the squared length of a query or key (the constant of the published models).
const LENGTH_EPS: f32 = 1e-6;

/// What the operation keeps between calls.
#[derive(Default)]
pub(crate) struct DeltaScratch {
    /// Q, K and V before and after the convolution.
    before: Scratch<f32>,
    after: Scratch<f32>,
    z: Scratch<f32>,
    /// `b`, then `a`, of all rows.
    rates: Scratch<f32>,
}

/// Where heads lie.
#[derive(Clone, Copy)]
struct Heads {
    n_k: usize,
    n_v: usize,
    in_turns: bool,
    k_dim: usize,
    v_dim: usize,
}

impl Heads {
    /// Width of all of Q, and of all of K.
    fn k_width(&self) -> usize {
        self.n_k * self.k_dim
    }

    /// The K head of a V head.
    fn k_head(&self, head: usize) -> usize {
        if self.in_turns { head % self.n_k } else { head / (self.n_v / self.n_k) }
    }

    /// Elements of one V head's state.
    fn state_len(&self) -> usize {
        self.k_dim * self.v_dim
    }
}

/// `out = silu(z) ⊙ norm(delta rule)`.
pub(crate) fn delta_rule(
    work: &mut Work,
    x: &Buffer,
    rows: &Rows,
    args: &DeltaRule<'_>,
    cache: &mut KvCache,
    layer: usize,
    out: &mut Buffer,
) -> Result<()> {
    let op = "delta_rule";
    let Work { team, scratch } = work;
    let n_rows = rows.len();
    check_rows(op, rows, cache.spec.n_blocks)?;
    let size = |a: usize, b: usize| a.checked_mul(b).ok_or_else(|| argument(op, "a size that overflows"));
    let &DeltaRule { n_k_heads: n_k, n_v_heads: n_v, in_turns, k_dim, v_dim, .. } = args;
    let heads = Heads { n_k, n_v, in_turns, k_dim, v_dim };
    let even = heads.n_k > 0 && heads.n_v.is_multiple_of(heads.n_k) && heads.n_v > 0;
    require(op, even && heads.k_dim > 0 && heads.v_dim > 0, "heads that do not share evenly, or without elements")?;
    let v_width = size(heads.n_v, heads.v_dim)?;
    let width = size(heads.n_k, heads.k_dim)?
        .checked_mul(2)
        .and_then(|k| k.checked_add(v_width))
        .ok_or_else(|| argument(op, "a size that overflows"))?;
    let qkv = View::of(op, "Q, K and V", args.qkv, None, Some(width))?;
    let n_in = qkv.matrix.row_len;
    let z = View::of(op, "the gate", args.z, Some(n_in), Some(v_width))?;
    let b = View::of(op, "the rate", args.b, Some(n_in), Some(heads.n_v))?;
    let a = View::of(op, "the decay", args.a, Some(n_in), Some(heads.n_v))?;
    let conv = CausalConv::of(op, args.taps, None, width)?;
    let decay = weight::vector(op, args.decay, heads.n_v)?;
    let shift = weight::vector(op, args.shift, heads.n_v)?;
    let head_norm = NormView::of(op, args.head_norm, heads.v_dim)?;
    let x = floats(op, x, n_rows.checked_mul(n_in))?;
    let out = floats_mut(op, out, n_rows.checked_mul(v_width))?;
    let matrices = size(heads.n_v, size(heads.k_dim, heads.v_dim)?)?;
    let state_len = conv.state_len().checked_add(matrices).ok_or_else(|| argument(op, "a size that overflows"))?;
    let states = LayerStates::of(op, cache, layer, state_len, rows)?;

    let own = &mut scratch.delta_rule;
    let before = own.before.take(size(n_rows, width)?)?;
    let after = own.after.take(size(n_rows, width)?)?;
    let z_out = own.z.take(size(n_rows, v_width)?)?;
    let rates = own.rates.take(size(size(n_rows, heads.n_v)?, 2)?)?;
    let (rate, slowness) = rates.split_at_mut(n_rows * heads.n_v);
    let x = normed(op, team, &mut scratch.normed, args.norm, x, n_in)?;
    {
        let list = [
            Product::plain(qkv, x, n_rows, SharedMut::new(before)),
            Product::plain(z, x, n_rows, SharedMut::new(z_out)),
            Product::plain(b, x, n_rows, SharedMut::new(rate)),
            Product::plain(a, x, n_rows, SharedMut::new(slowness)),
        ];
        products(team, &mut scratch.products, 4, |i| list[i])?;
    }
    convolve(team, &conv, rows, states, before, after)?;
    team.rows(after, width, |_, row, _| {
        let (q_and_k, _) = row.split_at_mut(2 * heads.k_width());
        for (i, head) in q_and_k.chunks_mut(heads.k_dim).enumerate() {
            let length = head.iter().fold(LENGTH_EPS, |sum, v| sum + v * v).sqrt();
            let scale = if i < heads.n_k { 1.0 / (length * (heads.k_dim as f32).sqrt()) } else { 1.0 / length };
            head.iter_mut().for_each(|v| *v *= scale);
        }
    });
    team.kernels.sigmoid(rate);
    for row in slowness.chunks_mut(heads.n_v) {
        for ((v, shift), decay) in row.iter_mut().zip(shift).zip(decay) {
            *v = (decay * softplus(*v + shift)).exp();
        }
    }

    // The products of a position with the state; δ.
    team.reserve(3 * heads.v_dim + 2 * heads.k_dim)?;
    let (after, rate, keep, first) = (&*after, &*rate, &*slowness, conv.state_len());
    let (kernels, shared) = (team.kernels, SharedMut::new(out));
    team.ranges(heads.n_v, 1, |all, mut local| {
        for head in all {
            let place = first + head * heads.state_len()..first + (head + 1) * heads.state_len();
            for sequence in &rows.sequences {
                let Some(wanted) = sequence.states.as_ref().filter(|_| !sequence.rows.is_empty()) else { continue };
                // SAFETY: each head belongs to one chunk, and a chunk takes one sequence after another.
                let state = unsafe { begin(states, wanted, &place) };
                for (n, row) in sequence.rows.clone().enumerate() {
                    let at = row * v_width + head * heads.v_dim;
                    // SAFETY: as above.
                    let out = unsafe { shared.range(at..at + heads.v_dim) };
                    let row_in = &after[row * width..(row + 1) * width];
                    let (rate, keep) = (rate[row * heads.n_v + head], keep[row * heads.n_v + head]);
                    let scratch = local.floats(3 * heads.v_dim + 2 * heads.k_dim);
                    step(kernels, &heads, head, row_in, rate, keep, state, scratch, out);
                    for (_, slot) in wanted.saves.iter().filter(|(after, _)| *after == n + 1) {
                        // SAFETY: as above; it is another slot.
                        unsafe { states.part(*slot, place.clone()) }.copy_from_slice(state);
                    }
                }
            }
        }
    });
    let z = SharedMut::new(z_out);
    team.rows(out, v_width, |row, out, local| {
        // SAFETY: each row belongs to one chunk.
        let z = unsafe { z.range(row * v_width..(row + 1) * v_width) };
        for head in out.chunks_mut(heads.v_dim) {
            head_norm.in_place(kernels, head, local.floats(heads.v_dim));
        }
        kernels.activate(Activation::Silu, z, Some(out));
        out.copy_from_slice(z);
    });
    Ok(())
}

/// `after = silu(conv(before))`, and the convolution's states.
fn convolve(
    team: &mut Team,
    conv: &CausalConv<'_>,
    rows: &Rows,
    states: LayerStates<'_>,
    before: &[f32],
    after: &mut [f32],
) -> Result<()> {
    let width = conv.state_len() / conv.n_kept();
    team.reserve(conv.n_kept() * CHANNELS)?;
    let (kernels, shared) = (team.kernels, SharedMut::new(after));
    team.ranges(width, CHANNELS, |channels, mut local| {
        for sequence in &rows.sequences {
            let Some(wanted) = sequence.states.as_ref().filter(|_| !sequence.rows.is_empty()) else { continue };
            let kept = local.floats(conv.n_kept() * channels.len());
            // SAFETY: each channel belongs to one chunk, and a chunk takes one sequence after another.
            let kept = unsafe { conv.before(states, wanted.from, &channels, kept) };
            let first = sequence.rows.start;
            let seen = Seen { before: kept, rows: &before[first * width..], stride: width };
            for row in 0..sequence.rows.len() {
                let at = (first + row) * width;
                // SAFETY: as above.
                let out = unsafe { shared.range(at + channels.start..at + channels.end) };
                conv.row(&seen, row, &channels, out);
                kernels.activate(Activation::Silu, out, None);
            }
            // SAFETY: as above.
            unsafe { conv.save(states, wanted, sequence.rows.len(), &seen, &channels) };
        }
    });
    Ok(())
}

/// The elements `place` of the slot that a sequence writes, as they are before its first row.
///
/// # Safety
/// Nobody else uses these elements of its slots.
unsafe fn begin<'a>(states: LayerStates<'a>, wanted: &StateRows, place: &Range<usize>) -> &'a mut [f32] {
    // SAFETY: by this function's contract.
    let state = unsafe { states.part(wanted.to, place.clone()) };
    match wanted.from {
        Some(from) if from == wanted.to => {}
        // SAFETY: by this function's contract; another slot.
        Some(from) => state.copy_from_slice(unsafe { states.part(from, place.clone()) }),
        None => state.fill(0.0),
    }
    state
}

/// One position of one head.
#[allow(clippy::too_many_arguments, reason = "the variables of the recurrence")]
fn step(
    kernels: &Kernels,
    heads: &Heads,
    head: usize,
    row: &[f32],
    rate: f32,
    keep: f32,
    state: &mut [f32],
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let (k_dim, v_dim) = (heads.k_dim, heads.v_dim);
    let k_head = heads.k_head(head);
    let q = &row[k_head * k_dim..][..k_dim];
    let k = &row[heads.k_width() + k_head * k_dim..][..k_dim];
    let v = &row[2 * heads.k_width() + head * v_dim..][..v_dim];
    let (both, scratch) = scratch.split_at_mut(2 * k_dim);
    let (found, delta) = scratch.split_at_mut(2 * v_dim);
    both[..k_dim].copy_from_slice(k);
    both[k_dim..].copy_from_slice(q);
    for_both(kernels, both, state, v_dim, found);
    let (for_k, for_q) = found.split_at(v_dim);
    let overlap = kernels.dot(k, q);
    for ((((delta, out), v), for_k), for_q) in delta.iter_mut().zip(out).zip(v).zip(for_k).zip(for_q) {
        *delta = rate * (v - keep * for_k);
        *out = keep * for_q + overlap * *delta;
    }
    for (row, k) in state.chunks_exact_mut(v_dim).zip(k) {
        row.iter_mut().zip(&*delta).for_each(|(s, d)| *s = keep * *s + k * d);
    }
}

/// What the state holds for a key and for a query: `both [2, k_dim] · state [k_dim, v_dim]`.
fn for_both(kernels: &Kernels, both: &[f32], state: &[f32], v_dim: usize, out: &mut [f32]) {
    let k_dim = both.len() / 2;
    if v_dim.is_multiple_of(LANES) {
        return kernels.multiply(Tile {
            a: both,
            a_stride: k_dim,
            n_rows: 2,
            n_inner: k_dim,
            b: state,
            b_stride: v_dim,
            n_cols: v_dim,
            c: out,
            c_stride: v_dim,
            accumulate: false,
        });
    }
    for (factors, out) in both.chunks_exact(k_dim).zip(out.chunks_exact_mut(v_dim)) {
        out.fill(0.0);
        for (row, factor) in state.chunks_exact(v_dim).zip(factors) {
            out.iter_mut().zip(row).for_each(|(o, s)| *o += factor * s);
        }
    }
}

/// `ln(1 + e^x)`, which for large `x` is `x`.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}
