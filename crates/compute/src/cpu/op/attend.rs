//! Softmax attention over the paged cache: flash style (Dao et al. 2022), with the online softmax of Milakov &
//! Gimelshein (2018).
//!
//! A task is one tile of rows of a sequence for one K/V head: all query heads that share it go together, so that K and
//! V are converted and read once. With few rows the range of positions is cut into pieces of fixed length (never by the
//! number of threads), whose partial results are merged afterwards.
//!
//! What belongs here: tasks, masks, the softmax over blocks. What does not: the layout of the cache (`kv`).

use super::{Work, check_rows, require};
use crate::{
    Attend, Buffer, KV_BLOCK, KvCache, Result, Rows, SequenceRows,
    cpu::{
        argument, floats, floats_mut, kv,
        kv::LayerKv,
        memory::{Scratch, SharedMut},
        simd::{Kernels, LANES, Tile},
        weight,
    },
};
use std::ops::Range;

/// Query vectors (rows times query heads of a group) of one tile: amortizes the conversion of K and V.
const QUERIES: usize = 64;
/// Blocks of one piece when the positions of a single tile are cut up.
const PIECE: usize = 8;

/// What attention keeps between calls.
#[derive(Default)]
pub(crate) struct AttendScratch {
    tasks: Vec<Task>,
    partials: Scratch<f32>,
}

/// One tile of rows, one K/V head, one range of blocks.
#[derive(Clone, Copy)]
struct Task {
    sequence: usize,
    first_row: usize,
    n_rows: usize,
    kv_head: usize,
    first_block: usize,
    end_block: usize,
    /// Pieces that this tile is cut into, and which one this is.
    n_pieces: usize,
    piece: usize,
    /// Where its partial result lies, counted in queries; unused when there is one piece only.
    partial: usize,
}

/// Sizes and rules, checked.
struct Plan<'a> {
    n_heads: usize,
    group: usize,
    head_dim: usize,
    v_dim: usize,
    /// `v_dim` in whole vectors.
    v_pad: usize,
    scale: f32,
    softcap: Option<f32>,
    window: usize,
    chunked: bool,
    sinks: Option<&'a [f32]>,
    slopes: Option<&'a [f32]>,
    kernels: &'static Kernels,
}

impl Plan<'_> {
    /// Floats of a partial result of one query: maximum, sum, unscaled output.
    fn partial_len(&self) -> usize {
        2 + self.v_dim
    }

    fn scratch_len(&self, queries: usize) -> usize {
        KV_BLOCK * (self.head_dim + self.v_pad) + queries * (self.head_dim + KV_BLOCK + self.v_pad + 2)
    }

    /// First position that a row at `position` sees.
    fn start(&self, position: usize) -> usize {
        if self.chunked { position - position % self.window } else { (position + 1).saturating_sub(self.window) }
    }
}

/// Attention of all rows.
pub(crate) fn attend(
    work: &mut Work,
    q: &Buffer,
    rows: &Rows,
    args: &Attend<'_>,
    cache: &KvCache,
    layer: usize,
    out: &mut Buffer,
) -> Result<()> {
    let op = "attend";
    let Work { team, scratch } = work;
    check_rows(op, rows, cache.spec.n_blocks)?;
    let store = kv::layer(op, cache, layer)?;
    let shape = store.shape;
    let same = (shape.n_kv_heads, shape.k_dim, shape.v_dim) == (args.n_kv_heads, args.head_dim, args.v_head_dim);
    require(op, same, "the cache was made for other heads")?;
    require(
        op,
        args.n_kv_heads > 0 && args.n_heads > 0 && args.n_heads.is_multiple_of(args.n_kv_heads),
        "query heads are no multiple of K/V heads",
    )?;
    require(op, args.window != Some(0), "a window of no positions")?;
    let plan = Plan {
        n_heads: args.n_heads,
        group: args.n_heads / args.n_kv_heads,
        head_dim: args.head_dim,
        v_dim: args.v_head_dim,
        v_pad: args.v_head_dim.next_multiple_of(LANES),
        scale: args.scale,
        softcap: args.softcap,
        window: args.window.unwrap_or(usize::MAX),
        chunked: args.chunked,
        sinks: weight::optional_vector(op, args.sinks, args.n_heads)?,
        slopes: weight::optional_vector(op, args.slopes, args.n_heads)?,
        kernels: team.kernels,
    };
    let size = |dim: usize| rows.len().checked_mul(plan.n_heads).and_then(|n| n.checked_mul(dim));
    let q = floats(op, q, size(plan.head_dim))?;
    let out = floats_mut(op, out, size(plan.v_dim))?;

    let AttendScratch { tasks, partials } = &mut scratch.attend;
    let n_partials = list_tasks(&plan, rows, args.n_kv_heads, tasks);
    let len = n_partials.checked_mul(plan.partial_len()).ok_or_else(|| argument(op, "a size that overflows"))?;
    let partials = partials.take(len)?;
    let queries = tasks.iter().map(|t| t.n_rows * plan.group).max().unwrap_or(0);
    let scratch_len = plan.scratch_len(queries);
    team.reserve(scratch_len)?;
    let tasks = &*tasks;
    {
        let (out, partials) = (SharedMut::new(out), SharedMut::new(partials));
        // The last tiles of a sequence see the most positions: they go first, so that no thread starts one at the end.
        team.run(tasks.len(), |chunk, mut local| {
            let task = &tasks[tasks.len() - 1 - chunk];
            run_task(&plan, task, rows, store, q, local.floats(scratch_len), out, partials);
        });
    }
    if n_partials > 0 {
        let out = SharedMut::new(out);
        let partials = &*partials;
        team.run(tasks.len(), |chunk, mut local| {
            let task = &tasks[chunk];
            if task.n_pieces > 1 && task.piece == 0 {
                merge(&plan, task, partials, local.floats(plan.v_dim), out);
            }
        });
    }
    Ok(())
}

/// Lists the tasks; returns how many queries' partial results they leave.
fn list_tasks(plan: &Plan<'_>, rows: &Rows, n_kv_heads: usize, tasks: &mut Vec<Task>) -> usize {
    tasks.clear();
    let mut n_partials = 0;
    let tile_rows = (QUERIES / plan.group).max(1);
    for (sequence, SequenceRows { rows: range, .. }) in rows.sequences.iter().enumerate() {
        for first_row in range.clone().step_by(tile_rows) {
            let n_rows = tile_rows.min(range.end - first_row);
            let position = |row: usize| rows.positions[row] as usize;
            let first_block = plan.start(position(first_row)) / KV_BLOCK;
            let end_block = position(first_row + n_rows - 1) / KV_BLOCK + 1;
            let n_pieces = if range.len() <= tile_rows { (end_block - first_block).div_ceil(PIECE) } else { 1 };
            for kv_head in 0..n_kv_heads {
                for piece in 0..n_pieces {
                    let partial = n_partials;
                    let (first_block, end_block) = if n_pieces > 1 {
                        n_partials += n_rows * plan.group;
                        let first = first_block + piece * PIECE;
                        (first, end_block.min(first + PIECE))
                    } else {
                        (first_block, end_block)
                    };
                    tasks.push(Task {
                        sequence,
                        first_row,
                        n_rows,
                        kv_head,
                        first_block,
                        end_block,
                        n_pieces,
                        piece,
                        partial,
                    });
                }
            }
        }
    }
    n_partials
}

#[allow(clippy::too_many_arguments, reason = "one task and all it touches")]
fn run_task(
    plan: &Plan<'_>,
    task: &Task,
    rows: &Rows,
    store: &LayerKv,
    q: &[f32],
    local: &mut [f32],
    out: SharedMut<'_, f32>,
    partials: SharedMut<'_, f32>,
) {
    let &Plan { group, head_dim, v_dim, v_pad, kernels, .. } = plan;
    let queries = task.n_rows * group;
    let (k, local) = local.split_at_mut(KV_BLOCK * head_dim);
    let (v, local) = local.split_at_mut(KV_BLOCK * v_pad);
    let (queries_in, local) = local.split_at_mut(queries * head_dim);
    let (scores, local) = local.split_at_mut(queries * KV_BLOCK);
    let (sums, local) = local.split_at_mut(queries * v_pad);
    let (largest, local) = local.split_at_mut(queries);
    let total = &mut local[..queries];
    v.fill(0.0); // the padding is read
    sums.fill(0.0);
    largest.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    gather(plan, task, q, queries_in);

    let blocks = &rows.sequences[task.sequence].blocks;
    let positions = &rows.positions[task.first_row..task.first_row + task.n_rows];
    let last = positions[task.n_rows - 1] as usize;
    for (index, block) in (task.first_block..task.end_block).zip(&blocks[task.first_block..task.end_block]) {
        let base = index * KV_BLOCK;
        let seen = KV_BLOCK.min(last + 1 - base);
        store.read_k(kernels, *block as usize, task.kv_head, k);
        kernels.multiply(Tile {
            a: queries_in,
            a_stride: head_dim,
            n_rows: queries,
            n_inner: head_dim,
            b: k,
            b_stride: KV_BLOCK,
            n_cols: KV_BLOCK,
            c: scores,
            c_stride: KV_BLOCK,
            accumulate: false,
        });
        for (i, scores) in scores.chunks_mut(KV_BLOCK).enumerate() {
            let sums = &mut sums[i * v_pad..(i + 1) * v_pad];
            let position = positions[i / group] as usize;
            if let Some(slopes) = plan.slopes {
                bias_by_distance(scores, slopes[task.kv_head * group + i % group], position, base);
            }
            let visible = visible(plan, position, base);
            softmax_step(plan, scores, visible, &mut largest[i], &mut total[i], sums);
        }
        store.read_v(kernels, *block as usize, task.kv_head, v, v_pad);
        kernels.multiply(Tile {
            a: scores,
            a_stride: KV_BLOCK,
            n_rows: queries,
            n_inner: seen, // beyond it lies what an earlier owner of the block left
            b: v,
            b_stride: v_pad,
            n_cols: v_pad,
            c: sums,
            c_stride: v_pad,
            accumulate: true,
        });
    }
    for i in 0..queries {
        let sums = &sums[i * v_pad..i * v_pad + v_dim];
        if task.n_pieces > 1 {
            let at = (task.partial + i) * plan.partial_len();
            // SAFETY: `list_tasks` gave this range to this task alone.
            let partial = unsafe { partials.range(at..at + plan.partial_len()) };
            partial[0] = largest[i];
            partial[1] = total[i];
            partial[2..].copy_from_slice(sums);
        } else {
            finish(plan, task, i, sums, largest[i], total[i], out);
        }
    }
}

/// The scaled queries of a tile: `[rows · group, head_dim]`.
fn gather(plan: &Plan<'_>, task: &Task, q: &[f32], to: &mut [f32]) {
    let (group, dim) = (plan.group, plan.head_dim);
    for (r, to) in to.chunks_mut(group * dim).enumerate() {
        let at = ((task.first_row + r) * plan.n_heads + task.kv_head * group) * dim;
        to.iter_mut().zip(&q[at..at + group * dim]).for_each(|(t, q)| *t = q * plan.scale);
    }
}

/// Takes `slope` off a row's scores for every position between it and theirs, the first of which is `base`.
fn bias_by_distance(scores: &mut [f32], slope: f32, position: usize, base: usize) {
    let distance = position as f32 - base as f32;
    scores.iter_mut().enumerate().for_each(|(i, score)| *score -= slope * (distance - i as f32));
}

/// Which of a block's positions, the first of which is `base`, a row at `position` sees.
fn visible(plan: &Plan<'_>, position: usize, base: usize) -> Range<usize> {
    let end = (position + 1).saturating_sub(base).min(KV_BLOCK);
    plan.start(position).saturating_sub(base).min(end)..end
}

/// Turns the scores of one query in one block into weights relative to the largest score so far.
fn softmax_step(
    plan: &Plan<'_>,
    scores: &mut [f32],
    visible: Range<usize>,
    largest: &mut f32,
    total: &mut f32,
    sums: &mut [f32],
) {
    scores[..visible.start].fill(0.0);
    scores[visible.end..].fill(0.0);
    let scores = &mut scores[visible];
    if let Some(cap) = plan.softcap {
        plan.kernels.softcap(scores, cap);
    }
    let best = plan.kernels.max(scores).max(*largest);
    if scores.is_empty() || (best == f32::NEG_INFINITY && scores.iter().all(|s| *s == best)) {
        scores.fill(0.0);
        return;
    }
    if best > *largest {
        let shrink = (*largest - best).exp();
        *total *= shrink;
        sums.iter_mut().for_each(|s| *s *= shrink);
        *largest = best;
    }
    *total += plan.kernels.exp_sum(scores, best);
}

/// Divides and writes one query's output; the sink takes its share first.
fn finish(plan: &Plan<'_>, task: &Task, query: usize, sums: &[f32], largest: f32, total: f32, out: SharedMut<'_, f32>) {
    let (row, head) = (task.first_row + query / plan.group, task.kv_head * plan.group + query % plan.group);
    let (mut factor, mut total) = (1.0, total);
    if let Some(sinks) = plan.sinks {
        let best = largest.max(sinks[head]);
        factor = (largest - best).exp();
        total = total * factor + (sinks[head] - best).exp();
    }
    let factor = factor / total;
    let at = (row * plan.n_heads + head) * plan.v_dim;
    // SAFETY: this row of this head is written by this tile's task only (or by the merging of its pieces).
    let out = unsafe { out.range(at..at + plan.v_dim) };
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s * factor);
}

/// Adds up the pieces of a tile, in their order.
fn merge(plan: &Plan<'_>, task: &Task, partials: &[f32], sums: &mut [f32], out: SharedMut<'_, f32>) {
    let queries = task.n_rows * plan.group;
    let len = plan.partial_len();
    for query in 0..queries {
        let piece = |p: usize| &partials[(task.partial + p * queries + query) * len..][..len];
        let best = (0..task.n_pieces).fold(f32::NEG_INFINITY, |best, p| best.max(piece(p)[0]));
        sums.fill(0.0);
        let mut total = 0.0;
        for p in 0..task.n_pieces {
            let [largest, part, values @ ..] = piece(p) else { continue };
            let factor = if *largest == best { 1.0 } else { (largest - best).exp() };
            total += part * factor;
            sums.iter_mut().zip(values).for_each(|(s, v)| *s += v * factor);
        }
        finish(plan, task, query, sums, best, total, out);
    }
}
