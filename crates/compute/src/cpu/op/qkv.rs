//! The projections before attention: Q, K, V, their norms, RoPE, and the writing of K and V to the cache.

use super::{
    Work, check_rows,
    norm::{NormView, normed},
    product::{Product, View, products},
    require,
    rope::RopeView,
};
use crate::{
    Buffer, KV_BLOCK, KvCache, Norm, Qkv, QueryGrowth, Result, Rows,
    cpu::{argument, floats, floats_mut, kv, memory::SharedMut, simd::Kernels},
};

/// A Q or K norm: over each head, with its own weights or those of all, or over all heads at once (OLMo2).
struct HeadNorm<'a> {
    norm: NormView<'a>,
    width: usize,
    own_weights: bool,
}

impl<'a> HeadNorm<'a> {
    fn of(op: &'static str, norm: &'a Norm, n_heads: usize, head_dim: usize) -> Result<Self> {
        let all = n_heads * head_dim;
        let own_weights = norm.weight.as_ref().is_some_and(|w| w.shape().dims() == [n_heads, head_dim]);
        let over_all = !own_weights && norm.weight.as_ref().is_some_and(|w| w.shape().elements() == all);
        let width = if over_all { all } else { head_dim };
        Ok(Self { norm: NormView::of(op, norm, if own_weights { all } else { width })?, width, own_weights })
    }

    fn apply(&self, kernels: &Kernels, row: &mut [f32], spare: &mut [f32]) {
        let width = self.width;
        for (i, part) in row.chunks_mut(width).enumerate() {
            let norm = if self.own_weights { self.norm.part(i * width..(i + 1) * width) } else { self.norm };
            norm.in_place(kernels, part, &mut spare[..width]);
        }
    }
}

/// What happens to the heads of one row between the product and the cache.
struct Finish<'a> {
    head_dim: usize,
    clamp: Option<f32>,
    norm: Option<HeadNorm<'a>>,
    rope: Option<RopeView<'a>>,
    norm_after_rope: bool,
}

impl Finish<'_> {
    fn row(&self, kernels: &Kernels, row: &mut [f32], angles: &[f32], spare: &mut [f32]) {
        if let Some(limit) = self.clamp {
            clamp(row, limit);
        }
        let (before, after) =
            if self.norm_after_rope { (None, self.norm.as_ref()) } else { (self.norm.as_ref(), None) };
        if let Some(norm) = before {
            norm.apply(kernels, row, spare);
        }
        if let Some(rope) = &self.rope {
            row.chunks_mut(self.head_dim).for_each(|head| rope.rotate(head, angles));
        }
        if let Some(norm) = after {
            norm.apply(kernels, row, spare);
        }
    }
}

/// What a query at `position` is multiplied with.
fn grown(growth: QueryGrowth, position: u32) -> f32 {
    let steps = ((position as f32 + 1.0) / growth.span).floor();
    1.0 + growth.weight * steps.ln_1p()
}

/// To ±`limit`; NaN stays.
fn clamp(values: &mut [f32], limit: f32) {
    for v in values {
        *v = if *v > limit { limit } else { *v };
        *v = if *v < -limit { -limit } else { *v };
    }
}

/// Q to its buffer, K and V to the cache.
pub(crate) fn qkv(
    work: &mut Work,
    x: &Buffer,
    rows: &Rows,
    args: &Qkv<'_>,
    cache: &mut KvCache,
    layer: usize,
    q: &mut Buffer,
) -> Result<()> {
    let op = "qkv";
    let Work { team, scratch } = work;
    let n_rows = rows.len();
    check_rows(op, rows, cache.spec.n_blocks)?;
    let store = kv::layer_mut(op, cache, layer)?;
    let (n_heads, n_kv_heads) = (args.n_heads, args.n_kv_heads);
    let (head_dim, v_dim) = (args.head_dim, args.v_head_dim);
    let shape = store.shape;
    let same = (shape.n_kv_heads, shape.k_dim, shape.v_dim) == (n_kv_heads, head_dim, v_dim);
    require(op, same || args.k.is_none(), "the cache was made for other heads")?;
    require(op, args.k.is_some() || args.v.is_none(), "values without keys")?;
    require(op, args.v.is_some() || args.k.is_none() || head_dim == v_dim, "values that are keys of another width")?;
    require(op, args.growth.is_none_or(|growth| growth.span > 0.0), "queries that grow over no positions")?;
    require(op, head_dim > 0 && v_dim > 0 && n_kv_heads > 0 && n_heads > 0, "heads without elements")?;
    let size = |heads: usize, dim: usize| heads.checked_mul(dim).ok_or_else(|| argument(op, "a size that overflows"));
    let (q_width, k_width, v_width) = (size(n_heads, head_dim)?, size(n_kv_heads, head_dim)?, size(n_kv_heads, v_dim)?);

    let view_q = View::of(op, "Q", args.q, None, Some(q_width))?;
    let width = view_q.matrix.row_len;
    let view_k = args.k.map(|k| View::of(op, "K", k, Some(width), Some(k_width))).transpose()?;
    let view_v = args.v.map(|v| View::of(op, "V", v, Some(width), Some(v_width))).transpose()?;
    let rope = args.rope.map(|rope| RopeView::of(op, rope, head_dim)).transpose()?;
    let q_norm = args.q_norm.map(|norm| HeadNorm::of(op, norm, n_heads, head_dim)).transpose()?;
    let k_norm = args.k_norm.map(|norm| HeadNorm::of(op, norm, n_kv_heads, head_dim)).transpose()?;
    let v_norm = args.v_norm.map(|norm| HeadNorm::of(op, norm, n_kv_heads, v_dim)).transpose()?;
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let q = floats_mut(op, q, n_rows.checked_mul(q_width))?;
    // Without keys of its own a layer has rows of no elements here.
    let (k_width, v_width) = if view_k.is_some() { (k_width, v_width) } else { (0, 0) };
    let k = scratch.first.take(size(n_rows, k_width)?)?;
    let v = scratch.second.take(size(n_rows, v_width)?)?;

    let x = normed(op, team, &mut scratch.normed, args.norm, x, width)?;
    {
        let mut list = [Product::plain(view_q, x, n_rows, SharedMut::new(q)); 3];
        let mut n = 1;
        for (view, out) in [(view_k, SharedMut::new(k)), (view_v, SharedMut::new(v))] {
            if let Some(view) = view {
                list[n] = Product::plain(view, x, n_rows, out);
                n += 1;
            }
        }
        products(team, &mut scratch.products, n, |i| list[i])?;
    }
    if view_k.is_some() && view_v.is_none() {
        v.copy_from_slice(k);
    }

    let n_dims = rope.map_or(0, |rope| rope.n_dims());
    let spare_len = q_width.max(k_width).max(v_width);
    team.reserve(n_dims + spare_len)?;
    let (clamp_to, norm_after_rope) = (args.clamp, args.norm_after_rope);
    let finish_q = Finish { head_dim, clamp: clamp_to, norm: q_norm, rope, norm_after_rope };
    let finish_k = Finish { head_dim, clamp: clamp_to, norm: k_norm, rope, norm_after_rope };
    let kernels = team.kernels;
    let shared_k = SharedMut::new(k);
    let shared_v = SharedMut::new(v);
    team.rows(q, q_width, |row, q, local| {
        let (angles, spare) = local.floats(n_dims + spare_len).split_at_mut(n_dims);
        if let Some(rope) = &rope {
            rope.angles(rows.positions[row], angles);
        }
        // SAFETY: each row belongs to one chunk.
        let (k, v) = unsafe {
            (shared_k.range(row * k_width..(row + 1) * k_width), shared_v.range(row * v_width..(row + 1) * v_width))
        };
        finish_q.row(kernels, q, angles, spare);
        if let Some(growth) = args.growth {
            let factor = grown(growth, rows.positions[row]);
            q.iter_mut().for_each(|q| *q *= factor);
        }
        finish_k.row(kernels, k, angles, spare);
        if let Some(limit) = args.clamp {
            clamp(v, limit);
        }
        if let Some(norm) = &v_norm {
            norm.apply(kernels, v, spare);
        }
    });
    if view_k.is_none() {
        return Ok(());
    }

    let (k, v) = (&*k, &*v);
    let writer = store.writer();
    // By head, so that blocks which two sequences of a pass share are still written by one thread. A few rows are not
    // worth a parallel region.
    const FEW_ROWS: usize = 16;
    let heads_per_chunk = if n_rows < FEW_ROWS { n_kv_heads } else { 1 };
    team.ranges(n_kv_heads, heads_per_chunk, |heads, _| {
        for head in heads {
            for sequence in &rows.sequences {
                for row in sequence.rows.clone() {
                    let position = rows.positions[row] as usize;
                    let block = sequence.blocks[position / KV_BLOCK] as usize;
                    let k = &k[row * k_width + head * head_dim..][..head_dim];
                    let v = &v[row * v_width + head * v_dim..][..v_dim];
                    // SAFETY: each head belongs to one chunk.
                    unsafe { writer.write(block, head, position % KV_BLOCK, k, v) };
                }
            }
        }
    });
    Ok(())
}
