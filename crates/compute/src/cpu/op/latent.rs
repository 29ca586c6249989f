//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2"): keys and values of all heads are products of one narrow vector per
//! position, and that vector is all that the cache holds.
//!
//! The matrix that would make keys of it is applied to the queries instead (the paper's absorption), so that the heads share
//! one key, the latent beside a part that rotates, and one value, the latent itself.
//!
//! What belongs here: the projections before attention, and products that have a matrix for each head. What does not:
//! attention, which sees one K/V head (`attend`).

use super::{
    Team, Work, check_rows,
    experts::Stack,
    norm::{NormView, normed},
    product::{Product, ProductScratch, View, products},
    require,
    rope::RopeView,
};
use crate::{
    Buffer, KV_BLOCK, KvCache, LatentQkv, Projection, Result, Rows,
    cpu::{
        argument, floats, floats_mut, kv,
        memory::{Scratch, SharedMut},
    },
};

/// What products by head keep between calls.
#[derive(Default)]
pub(crate) struct HeadScratch {
    inputs: Scratch<f32>,
    outputs: Scratch<f32>,
}

/// Where the vectors of a head lie: in rows of `width`, `step` from one head to the next, the first at `first`.
#[derive(Clone, Copy)]
struct Place {
    width: usize,
    step: usize,
    first: usize,
}

impl Place {
    fn at(&self, row: usize, head: usize) -> usize {
        row * self.width + head * self.step + self.first
    }
}

/// Multiplies the vectors of each head with its own matrix.
#[allow(clippy::too_many_arguments, reason = "two matrices, where their parts lie, and scratch")]
fn by_head(
    team: &mut Team,
    scratch: &mut HeadScratch,
    product_scratch: &mut ProductScratch,
    stack: Stack<'_>,
    n_heads: usize,
    n_rows: usize,
    (x, from): (&[f32], Place),
    (out, to): (&mut [f32], Place),
) -> Result<()> {
    let (n_in, n_out) = (stack.n_in(), stack.n_out());
    let vectors = n_heads.checked_mul(n_rows).ok_or_else(|| argument("heads", "a size that overflows"))?;
    let size = |n: usize| vectors.checked_mul(n).ok_or_else(|| argument("heads", "a size that overflows"));
    let inputs = scratch.inputs.take(size(n_in)?)?;
    let outputs = scratch.outputs.take(size(n_out)?)?;
    team.rows(inputs, n_in, |i, input, _| {
        let at = from.at(i % n_rows, i / n_rows);
        input.copy_from_slice(&x[at..at + n_in]);
    });
    {
        let (inputs, shared) = (&*inputs, SharedMut::new(outputs));
        products(team, product_scratch, n_heads, |head| {
            let x = &inputs[head * n_rows * n_in..(head + 1) * n_rows * n_in];
            let out = shared.part(head * n_rows * n_out..(head + 1) * n_rows * n_out);
            Product::plain(stack.expert(head), x, n_rows, out)
        })?;
    }
    let outputs = &*outputs;
    team.rows(out, to.width, |row, out, _| {
        for head in 0..n_heads {
            let (at, from) = (to.at(0, head), (head * n_rows + row) * n_out);
            out[at..at + n_out].copy_from_slice(&outputs[from..from + n_out]);
        }
    });
    Ok(())
}

/// `out[row, head] = stack[head] · x[row, head]`.
pub(crate) fn heads(work: &mut Work, x: &Buffer, n_rows: usize, stack: &Projection, out: &mut Buffer) -> Result<()> {
    let op = "heads";
    let Work { team, scratch } = work;
    let n_heads = stack.weight.shape().dims().first().copied().unwrap_or(0);
    let stack = Stack::of(op, "the matrix of each head", stack, n_heads)?;
    let (x_width, out_width) = (n_heads.checked_mul(stack.n_in()), n_heads.checked_mul(stack.n_out()));
    let x = floats(op, x, x_width.and_then(|width| width.checked_mul(n_rows)))?;
    let out = floats_mut(op, out, out_width.and_then(|width| width.checked_mul(n_rows)))?;
    let from = Place { width: n_heads * stack.n_in(), step: stack.n_in(), first: 0 };
    let to = Place { width: n_heads * stack.n_out(), step: stack.n_out(), first: 0 };
    by_head(team, &mut scratch.heads, &mut scratch.products, stack, n_heads, n_rows, (x, from), (out, to))
}

/// Queries to their buffer, the latent and the shared key that rotates to the cache.
pub(crate) fn latent_qkv(
    work: &mut Work,
    x: &Buffer,
    rows: &Rows,
    args: &LatentQkv<'_>,
    cache: &mut KvCache,
    layer: usize,
    q: &mut Buffer,
) -> Result<()> {
    let op = "latent_qkv";
    let Work { team, scratch } = work;
    let (n_rows, n_heads) = (rows.len(), args.n_heads);
    check_rows(op, rows, cache.spec.n_blocks)?;
    let store = kv::layer_mut(op, cache, layer)?;
    require(op, n_heads > 0, "no heads")?;
    let k_up = Stack::of(op, "the matrix of keys", args.k_up, n_heads)?;
    let (nope_dim, rank) = (k_up.n_in(), k_up.n_out());
    let rope = RopeView::of(op, args.rope, args.rope.n_dims)?;
    let rope_dim = args.rope.n_dims;
    let k_dim = rope_dim.checked_add(rank).ok_or_else(|| argument(op, "a size that overflows"))?;
    let shape = store.shape;
    let same = (shape.n_kv_heads, shape.k_dim, shape.v_dim) == (1, k_dim, rank);
    require(op, same, "the cache was made for other heads")?;
    let size = |n: usize, dim: usize| n.checked_mul(dim).ok_or_else(|| argument(op, "a size that overflows"));
    let head_dim = rope_dim + nope_dim;
    let wide_width = size(n_heads, head_dim)?;
    let q_width = size(n_heads, k_dim)?;

    let kv_down = View::of(op, "the matrix of latents", args.kv_down, None, Some(k_dim))?;
    let width = kv_down.matrix.row_len;
    let q_down =
        args.q_down.map(|(down, _)| View::of(op, "the narrow matrix of Q", down, Some(width), None)).transpose()?;
    let q_in = q_down.map_or(width, |down| down.matrix.n_rows);
    let view_q = View::of(op, "Q", args.q, Some(q_in), Some(wide_width))?;
    let latent_norm = NormView::of(op, args.latent_norm, rank)?;
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let q = floats_mut(op, q, n_rows.checked_mul(q_width))?;

    let latents = scratch.first.take(size(n_rows, k_dim)?)?;
    let wide = scratch.second.take(size(n_rows, wide_width)?)?;
    let x = normed(op, team, &mut scratch.normed, args.norm, x, width)?;
    let to_latents = Product::plain(kv_down, x, n_rows, SharedMut::new(latents));
    match (q_down, args.q_down) {
        (Some(down), Some((_, norm))) => {
            let narrow = scratch.product.take(size(n_rows, q_in)?)?;
            let list = [to_latents, Product::plain(down, x, n_rows, SharedMut::new(narrow))];
            products(team, &mut scratch.products, 2, |i| list[i])?;
            let narrow = normed(op, team, &mut scratch.normed, Some(norm), narrow, q_in)?;
            let product = Product::plain(view_q, narrow, n_rows, SharedMut::new(wide));
            products(team, &mut scratch.products, 1, |_| product)?;
        }
        _ => {
            let list = [to_latents, Product::plain(view_q, x, n_rows, SharedMut::new(wide))];
            products(team, &mut scratch.products, 2, |i| list[i])?;
        }
    }

    let n_dims = rope.n_dims();
    team.reserve(n_dims + rank)?;
    let kernels = team.kernels;
    let shared = SharedMut::new(latents);
    team.rows(wide, wide_width, |row, wide, local| {
        let (angles, spare) = local.floats(n_dims + rank).split_at_mut(n_dims);
        rope.angles(rows.positions[row], angles);
        // SAFETY: each row belongs to one chunk.
        let latent = unsafe { shared.range(row * k_dim..(row + 1) * k_dim) };
        rope.rotate(&mut latent[..rope_dim], angles);
        latent_norm.in_place(kernels, &mut latent[rope_dim..], spare);
        wide.chunks_mut(head_dim).for_each(|head| rope.rotate(&mut head[..rope_dim], angles));
    });
    let from = Place { width: wide_width, step: head_dim, first: rope_dim };
    let to = Place { width: q_width, step: k_dim, first: rope_dim };
    by_head(team, &mut scratch.heads, &mut scratch.products, k_up, n_heads, n_rows, (wide, from), (&mut *q, to))?;
    let (wide, latents) = (&*wide, &*latents);
    team.rows(q, q_width, |row, q, _| {
        let heads = wide[row * wide_width..(row + 1) * wide_width].chunks(head_dim);
        q.chunks_mut(k_dim).zip(heads).for_each(|(q, head)| q[..rope_dim].copy_from_slice(&head[..rope_dim]));
    });

    let writer = store.writer();
    for sequence in &rows.sequences {
        for row in sequence.rows.clone() {
            let position = rows.positions[row] as usize;
            let block = sequence.blocks[position / KV_BLOCK] as usize;
            let k = &latents[row * k_dim..(row + 1) * k_dim];
            // SAFETY: no other thread is running.
            unsafe { writer.write(block, 0, position % KV_BLOCK, k, &k[rope_dim..]) };
        }
    }
    Ok(())
}
