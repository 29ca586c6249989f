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
    Attend, Buffer, KV_BLOCK, KvCache, Precision, Result, Rows, SequenceRows,
    cpu::{
        argument, floats, floats_mut,
        kv::{self, LayerKv, Queries},
        memory::{Scratch, SharedMut},
        simd::{Kernels, LANES, Softmax},
        weight,
    },
};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::AcqRel},
};

/// Query vectors (rows times query heads of a group) of one tile: amortizes the conversion of K and V.
const QUERIES: usize = 64;
/// Blocks of one piece when the positions of a single tile are cut up.
const PIECE: usize = 8;

/// What attention keeps between calls.
#[derive(Default)]
pub(crate) struct AttendScratch {
    tasks: Vec<Task>,
    partials: Scratch<f32>,
    /// For each tile that is cut up, how many of its pieces are still to be computed.
    unfinished: Vec<AtomicUsize>,
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
    /// Where the partial results of the tile begin, counted in queries; unused when there is one piece only.
    partials: usize,
    /// The tile's place in `unfinished`; likewise.
    tile: usize,
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
    precision: Precision,
}

impl Plan<'_> {
    /// Floats of a partial result of one query: maximum, sum, unscaled output.
    fn partial_len(&self) -> usize {
        2 + self.v_dim
    }

    /// Floats for a task of so many queries, the cache's spare memory and its rounded queries apart.
    fn scratch_len(&self, queries: usize) -> usize {
        queries * (self.head_dim + KV_BLOCK + self.v_pad + 3)
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
        precision: team.precision,
    };
    let size = |dim: usize| rows.len().checked_mul(plan.n_heads).and_then(|n| n.checked_mul(dim));
    let q = floats(op, q, size(plan.head_dim))?;
    let out = floats_mut(op, out, size(plan.v_dim))?;

    let AttendScratch { tasks, partials, unfinished } = &mut scratch.attend;
    let n_partials = list_tasks(&plan, rows, args.n_kv_heads, tasks, unfinished);
    let len = n_partials.checked_mul(plan.partial_len()).ok_or_else(|| argument(op, "a size that overflows"))?;
    let partials = partials.take(len)?;
    let queries = tasks.iter().map(|t| t.n_rows * plan.group).max().unwrap_or(0);
    let rounded = store.rounded_len(plan.kernels, plan.precision, queries) / size_of::<f32>();
    let scratch_len = plan.scratch_len(queries) + store.spare_len() + rounded;
    team.reserve(scratch_len)?;
    let (tasks, unfinished) = (&*tasks, &*unfinished);
    let (out, partials) = (SharedMut::new(out), SharedMut::new(partials));
    // The last tiles of a sequence see the most positions: they go first, so that no thread starts one at the end.
    team.run(tasks.len(), |chunk, mut local| {
        let task = &tasks[tasks.len() - 1 - chunk];
        let local = local.floats(scratch_len);
        run_task(&plan, task, rows, store, q, local, out, partials);
        // Who computes the last piece of a tile adds them up, in their order.
        if task.n_pieces > 1 && unfinished[task.tile].fetch_sub(1, AcqRel) == 1 {
            let first = task.partials * plan.partial_len();
            let len = task.n_pieces * task.n_rows * plan.group * plan.partial_len();
            // SAFETY: the other pieces' tasks have written these partial results and do not touch them again.
            let partials = unsafe { partials.range(first..first + len) };
            merge(&plan, task, partials, &mut local[..plan.v_dim], out);
        }
    });
    Ok(())
}

/// Lists the tasks; returns how many queries' partial results they leave.
fn list_tasks(
    plan: &Plan<'_>,
    rows: &Rows,
    n_kv_heads: usize,
    tasks: &mut Vec<Task>,
    unfinished: &mut Vec<AtomicUsize>,
) -> usize {
    tasks.clear();
    unfinished.clear();
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
                let (partials, tile) = (n_partials, unfinished.len());
                if n_pieces > 1 {
                    n_partials += n_pieces * n_rows * plan.group;
                    unfinished.push(AtomicUsize::new(n_pieces));
                }
                for piece in 0..n_pieces {
                    let (first_block, end_block) = if n_pieces > 1 {
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
                        partials,
                        tile,
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
    let &Plan { group, head_dim, v_dim, v_pad, kernels, precision, .. } = plan;
    let n = task.n_rows * group;
    let (spare, local) = local.split_at_mut(store.spare_len());
    let (values, local) = local.split_at_mut(n * head_dim);
    let (scores, local) = local.split_at_mut(n * KV_BLOCK);
    let (sums, local) = local.split_at_mut(n * v_pad);
    let (largest, local) = local.split_at_mut(n);
    let (total, local) = local.split_at_mut(n);
    let (shrink, local) = local.split_at_mut(n);
    sums.fill(0.0);
    largest.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    gather(plan, task, q, values);
    let rounded = &mut bytes(local)[..store.rounded_len(kernels, precision, n)];
    store.round_queries(kernels, values, rounded);
    let queries = Queries { values, n, rounded };

    let blocks = &rows.sequences[task.sequence].blocks;
    let positions = &rows.positions[task.first_row..task.first_row + task.n_rows];
    let (first, last) = (positions[0] as usize, positions[task.n_rows - 1] as usize);
    let blocks = &blocks[task.first_block..task.end_block];
    for (i, block) in blocks.iter().enumerate() {
        let index = task.first_block + i;
        let base = index * KV_BLOCK;
        let seen = KV_BLOCK.min(last + 1 - base);
        let place = (*block as usize, task.kv_head);
        store.scores(kernels, place, queries, seen, spare, scores);
        let all_see_all = base + KV_BLOCK <= first + 1 && plan.start(last) <= base;
        if !all_see_all || plan.slopes.is_some() || plan.softcap.is_some() {
            for (i, scores) in scores.chunks_mut(KV_BLOCK).enumerate() {
                adjust(plan, scores, task.kv_head * group + i % group, positions[i / group] as usize, base);
            }
        }
        kernels.softmax(Softmax { scores, largest, total, shrink });
        for (sums, shrink) in sums.chunks_mut(v_pad).zip(&*shrink) {
            if *shrink != 1.0 {
                sums.iter_mut().for_each(|s| *s *= shrink);
            }
        }
        let next = (*blocks.get(i + 1).unwrap_or(block) as usize, task.kv_head);
        store.mix(kernels, place, next, (scores, n), seen, precision, spare, sums);
    }
    for i in 0..n {
        let sums = &sums[i * v_pad..i * v_pad + v_dim];
        if task.n_pieces > 1 {
            let at = (task.partials + task.piece * n + i) * plan.partial_len();
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

/// Floats as memory for bytes.
fn bytes(floats: &mut [f32]) -> &mut [u8] {
    // SAFETY: both types are plain numbers, for which every bit pattern is a value.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
}

/// The scaled queries of a tile: `[rows · group, head_dim]`.
fn gather(plan: &Plan<'_>, task: &Task, q: &[f32], to: &mut [f32]) {
    let (group, dim) = (plan.group, plan.head_dim);
    for (r, to) in to.chunks_mut(group * dim).enumerate() {
        let at = ((task.first_row + r) * plan.n_heads + task.kv_head * group) * dim;
        to.iter_mut().zip(&q[at..at + group * dim]).for_each(|(t, q)| *t = q * plan.scale);
    }
}

/// What comes between a query's scores in a block, whose first position is `base`, and the softmax: the bias by distance, the
/// cap, and the mask of a row at `position`.
fn adjust(plan: &Plan<'_>, scores: &mut [f32], head: usize, position: usize, base: usize) {
    if let Some(slopes) = plan.slopes {
        let distance = position as f32 - base as f32;
        scores.iter_mut().enumerate().for_each(|(i, score)| *score -= slopes[head] * (distance - i as f32));
    }
    if let Some(cap) = plan.softcap {
        plan.kernels.softcap(scores, cap);
    }
    let visible = visible(plan, position, base);
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
}

/// Which of a block's positions, the first of which is `base`, a row at `position` sees.
fn visible(plan: &Plan<'_>, position: usize, base: usize) -> Range<usize> {
    let end = (position + 1).saturating_sub(base).min(KV_BLOCK);
    plan.start(position).saturating_sub(base).min(end)..end
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
        let piece = |p: usize| &partials[(p * queries + query) * len..][..len];
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
