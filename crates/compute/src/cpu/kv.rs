//! The KV cache of the CPU device: paged blocks of [`KV_BLOCK`] positions.
//!
//! In each layer a block holds, head after head, K as `[k_dim, KV_BLOCK]` (positions innermost) and V as
//! `[KV_BLOCK, v_dim]`: that is the layout in which attention's two products read them without transposing. An 8-bit
//! cache (Q8_0: groups of 32 values of one position, one `f16` scale each) keeps K as `[k_dim / 4, KV_BLOCK, 4]`, four
//! values of a position for one dot instruction and 128 too large because those want one side without a sign, V as
//! `[KV_BLOCK, v_dim]`, and the scales of both apart, as `[dim / 32, KV_BLOCK]`.
//!
//! What belongs here: layout, writing one head's rows, the products of queries and weights with one head's block. What does
//! not: the softmax between them.

use super::{
    argument,
    columns::{Rounding, Slot},
    memory::{Memory, SharedMut},
    simd::{HalfTile, Kernels, LANES, LEVEL_GROUP as GROUP, LEVEL_OFFSET, LevelMix, LevelScores, QUERY_RECORD, Tile},
    states,
};
use crate::{KV_BLOCK, KvCache, KvLayer, KvSpec, KvType, Precision, Result};
use half::{f16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// Up to this many queries are multiplied with the cache as it is; for more a block is widened to `f32` first.
const FEW_QUERIES: usize = 16;

/// What is behind [`KvCache`].
pub(crate) struct CpuKv {
    layers: Vec<LayerKv>,
    /// States of each layer, slot after slot.
    pub(crate) states: Vec<Memory<f32>>,
}

/// One layer's keys and values.
pub(crate) struct LayerKv {
    pub(crate) shape: KvLayer,
    k: Store,
    v: Store,
}

enum Store {
    F32(Memory<f32>),
    F16(Memory<u16>),
    /// The levels of K are those bytes without a sign.
    Q8_0 {
        levels: Memory<i8>,
        scales: Memory<u16>,
    },
}

/// Queries that share a K/V head.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// `[n, k_dim]`.
    pub(crate) values: &'a [f32],
    pub(crate) n: usize,
    /// The same by [`LayerKv::round_queries`]; empty if there is none.
    pub(crate) rounded: &'a [u8],
}

impl Store {
    fn new(dtype: KvType, len: usize) -> Result<Self> {
        let what = "the KV cache";
        Ok(match dtype {
            KvType::F32 => Self::F32(Memory::zeroed(len, what)?),
            KvType::F16 => Self::F16(Memory::zeroed(len, what)?),
            KvType::Q8_0 => {
                Self::Q8_0 { levels: Memory::zeroed(len, what)?, scales: Memory::zeroed(len / GROUP, what)? }
            }
        })
    }

    fn writer(&mut self) -> Writer<'_> {
        match self {
            Self::F32(m) => Writer::F32(SharedMut::new(m)),
            Self::F16(m) => Writer::F16(SharedMut::new(m)),
            Self::Q8_0 { levels, scales } => {
                Writer::Q8_0 { levels: SharedMut::new(levels), scales: SharedMut::new(scales) }
            }
        }
    }

    /// Elements in half precision; none if they are others.
    fn halves(&self, range: Range<usize>) -> &[u16] {
        if let Self::F16(m) = self { &m[range] } else { &[] }
    }

    /// Levels; none if the elements are others.
    fn levels(&self, range: Range<usize>) -> &[i8] {
        if let Self::Q8_0 { levels, .. } = self { &levels[range] } else { &[] }
    }

    /// Copies one of `n_blocks` blocks: in every layout a block lies in one piece.
    fn copy_block(&mut self, n_blocks: usize, from: usize, to: usize) {
        fn within<T: Copy>(all: &mut [T], n_blocks: usize, from: usize, to: usize) {
            let len = all.len() / n_blocks;
            all.copy_within(from * len..(from + 1) * len, to * len);
        }
        match self {
            Self::F32(m) => within(m, n_blocks, from, to),
            Self::F16(m) => within(m, n_blocks, from, to),
            Self::Q8_0 { levels, scales } => {
                within(levels, n_blocks, from, to);
                within(scales, n_blocks, from, to);
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(m) => m.len() * 4,
            Self::F16(m) => m.len() * 2,
            Self::Q8_0 { levels, scales } => levels.len() + scales.len() * 2,
        }
    }
}

/// Makes a cache. Memory is not touched.
pub(crate) fn kv_cache(spec: &KvSpec) -> Result<KvCache> {
    let op = "kv_cache";
    let mut layers = Vec::with_capacity(spec.layers.len());
    let mut bytes = 0usize;
    for shape in &spec.layers {
        let store = |dim: usize| {
            if spec.dtype == KvType::Q8_0 && !dim.is_multiple_of(GROUP) {
                let what = format_args!("heads of {dim} values cannot be cached in 8 bits: no multiple of {GROUP}");
                return Err(argument(op, what));
            }
            let len = [dim, shape.n_kv_heads, KV_BLOCK, spec.n_blocks]
                .into_iter()
                .try_fold(1usize, usize::checked_mul)
                .ok_or_else(|| argument(op, "the cache's size overflows"))?;
            Store::new(spec.dtype, len)
        };
        let layer = LayerKv { shape: *shape, k: store(shape.k_dim)?, v: store(shape.v_dim)? };
        bytes = bytes.saturating_add(layer.k.bytes()).saturating_add(layer.v.bytes());
        layers.push(layer);
    }
    let states = states::memory(&spec.states)?;
    bytes = states.iter().fold(bytes, |bytes, memory| bytes.saturating_add(memory.len().saturating_mul(4)));
    Ok(KvCache { inner: Box::new(CpuKv { layers, states }), spec: spec.clone(), bytes })
}

/// Copies the keys and values of a block, in every layer.
pub(crate) fn copy_block(cache: &mut KvCache, from: u32, to: u32) -> Result<()> {
    let (op, n_blocks) = ("copy_kv_block", cache.spec.n_blocks);
    let (from, to) = (from as usize, to as usize);
    if from.max(to) >= n_blocks {
        return Err(argument(op, format_args!("block {} of a cache of {n_blocks}", from.max(to))));
    }
    let kv = cache.inner.downcast_mut::<CpuKv>().ok_or_else(|| argument(op, "a KV cache of another device"))?;
    for layer in &mut kv.layers {
        layer.k.copy_block(n_blocks, from, to);
        layer.v.copy_block(n_blocks, from, to);
    }
    Ok(())
}

/// One layer of a cache, to read.
pub(crate) fn layer<'a>(op: &'static str, cache: &'a KvCache, layer: usize) -> Result<&'a LayerKv> {
    let kv = cache.inner.downcast_ref::<CpuKv>().ok_or_else(|| argument(op, "a KV cache of another device"))?;
    kv.layers.get(layer).ok_or_else(|| argument(op, format_args!("the KV cache has no layer {layer}")))
}

/// One layer of a cache, to write.
pub(crate) fn layer_mut<'a>(op: &'static str, cache: &'a mut KvCache, layer: usize) -> Result<&'a mut LayerKv> {
    let kv = cache.inner.downcast_mut::<CpuKv>().ok_or_else(|| argument(op, "a KV cache of another device"))?;
    kv.layers.get_mut(layer).ok_or_else(|| argument(op, format_args!("the KV cache has no layer {layer}")))
}

/// K and V of a layer, writable by several threads, each its own heads.
#[derive(Clone, Copy)]
pub(crate) struct LayerWriter<'a> {
    shape: KvLayer,
    k: Writer<'a>,
    v: Writer<'a>,
}

#[derive(Clone, Copy)]
enum Writer<'a> {
    F32(SharedMut<'a, f32>),
    F16(SharedMut<'a, u16>),
    Q8_0 { levels: SharedMut<'a, i8>, scales: SharedMut<'a, u16> },
}

impl LayerKv {
    /// For [`LayerWriter::write`].
    pub(crate) fn writer(&mut self) -> LayerWriter<'_> {
        LayerWriter { shape: self.shape, k: self.k.writer(), v: self.v.writer() }
    }

    /// Floats that [`LayerKv::scores`] and [`LayerKv::mix`] want as spare memory.
    pub(crate) fn spare_len(&self) -> usize {
        KV_BLOCK * self.shape.k_dim.max(self.shape.v_dim.next_multiple_of(LANES))
    }

    /// Where a head's part of a block lies in the elements of K or V.
    fn range(&self, (block, head): (usize, usize), dim: usize) -> Range<usize> {
        let first = (block * self.shape.n_kv_heads + head) * dim * KV_BLOCK;
        first..first + dim * KV_BLOCK
    }

    /// Bytes of `n` rounded queries; 0 if they are not to be rounded.
    pub(crate) fn rounded_len(&self, kernels: &Kernels, precision: Precision, n: usize) -> usize {
        let is_levels = matches!(self.k, Store::Q8_0 { .. });
        let use_them = is_levels && n <= FEW_QUERIES && precision == Precision::Fast && kernels.has_level_scores();
        if use_them { n * (self.shape.k_dim / GROUP) * QUERY_RECORD } else { 0 }
    }

    /// Rounds queries to two planes of levels, about 15 bits; nothing if there is no room for them.
    pub(crate) fn round_queries(&self, kernels: &Kernels, queries: &[f32], rounded: &mut [u8]) {
        let dim = self.shape.k_dim;
        if rounded.is_empty() {
            return;
        }
        for (q, rounded) in queries.chunks(dim).zip(rounded.chunks_mut(dim / GROUP * QUERY_RECORD)) {
            kernels.quantize(q, &Slot { column: 0, width: 2 }, Rounding::TwoPlanes, rounded);
        }
    }

    /// `scores[i][p] = q[i] · k[p]` for the first `seen` positions `p` of a block at least; `scores` is `[n, KV_BLOCK]`.
    #[allow(clippy::too_many_arguments, reason = "a place in the cache, two operands and a result")]
    pub(crate) fn scores(
        &self,
        kernels: &Kernels,
        place: (usize, usize),
        queries: Queries<'_>,
        seen: usize,
        spare: &mut [f32],
        scores: &mut [f32],
    ) {
        let dim = self.shape.k_dim;
        let range = self.range(place, dim);
        let v_range = self.range(place, self.shape.v_dim);
        let Queries { values, n, rounded } = queries;
        let k: &[f32] = match &self.k {
            Store::F32(m) => &m[range],
            Store::F16(m) => {
                let (a_stride, n_cols, b) = (dim, KV_BLOCK, &m[range]);
                let tile = HalfTile {
                    a: values,
                    a_stride,
                    n_rows: n,
                    n_inner: dim,
                    b,
                    n_cols,
                    c: scores,
                    accumulate: false,
                    next: self.v.halves(v_range),
                };
                if n <= FEW_QUERIES && kernels.half_tile(tile) {
                    return;
                }
                let spare = &mut spare[..dim * KV_BLOCK];
                kernels.f16_to_f32(b, spare);
                spare
            }
            Store::Q8_0 { levels, scales } => {
                let (levels, scales) =
                    (unsigned(&levels[range.clone()]), &scales[range.start / GROUP..range.end / GROUP]);
                if !rounded.is_empty()
                    && kernels.level_scores(LevelScores {
                        levels,
                        scales,
                        queries: rounded,
                        n,
                        scores,
                        next: self.v.levels(v_range),
                    })
                {
                    return;
                }
                let spare = &mut spare[..dim * KV_BLOCK];
                let mut wide = [0.0f32; KV_BLOCK];
                let groups = levels.chunks(GROUP * KV_BLOCK).zip(scales.chunks(KV_BLOCK));
                for ((levels, scales), spare) in groups.zip(spare.chunks_mut(GROUP * KV_BLOCK)) {
                    kernels.f16_to_f32(scales, &mut wide);
                    kernels.widen_keys(levels, &wide, spare);
                }
                spare
            }
        };
        kernels.multiply(Tile {
            a: values,
            a_stride: dim,
            n_rows: n,
            n_inner: dim,
            b: k,
            b_stride: KV_BLOCK,
            n_cols: seen.next_multiple_of(LANES),
            c: scores,
            c_stride: KV_BLOCK,
            accumulate: false,
        });
    }

    /// `sums[i] += Σ_p weights[i][p] · v[p]` over the first `seen` positions of a block; `weights` is `[n, KV_BLOCK]`, `sums`
    /// `[n, v_dim]` with rows padded to whole vectors, whose padding becomes anything. `next` is the
    /// place that will be read next.
    #[allow(clippy::too_many_arguments, reason = "a place in the cache, two operands and a result")]
    pub(crate) fn mix(
        &self,
        kernels: &Kernels,
        place: (usize, usize),
        next: (usize, usize),
        (weights, n): (&[f32], usize),
        seen: usize,
        precision: Precision,
        spare: &mut [f32],
        sums: &mut [f32],
    ) {
        let dim = self.shape.v_dim;
        let stride = dim.next_multiple_of(LANES);
        let range = self.range(place, dim);
        let k_range = self.range(next, self.shape.k_dim);
        // Rows of a block lie one after another, here and, unless they are padded, there.
        let row_len = if stride == dim { dim * KV_BLOCK } else { dim };
        let spare_rows = |spare: &mut [f32], copy: &dyn Fn(usize, &mut [f32])| {
            let rows = spare[..stride * KV_BLOCK].chunks_mut(row_len.next_multiple_of(LANES));
            rows.enumerate().for_each(|(row, to)| copy(row * row_len, &mut to[..row_len]));
        };
        let v: &[f32] = match &self.v {
            Store::F32(m) if stride == dim => &m[range],
            Store::F32(m) => {
                let v = &m[range];
                spare_rows(spare, &|at, to| to.copy_from_slice(&v[at..at + row_len]));
                spare
            }
            Store::F16(m) => {
                let v = &m[range];
                let (a, a_stride) = (weights, KV_BLOCK);
                let tile = HalfTile {
                    a,
                    a_stride,
                    n_rows: n,
                    n_inner: seen,
                    b: v,
                    n_cols: dim,
                    c: sums,
                    accumulate: true,
                    next: self.k.halves(k_range),
                };
                if n <= FEW_QUERIES && stride == dim && kernels.half_tile(tile) {
                    return;
                }
                spare_rows(spare, &|at, to| kernels.f16_to_f32(&v[at..at + row_len], to));
                spare
            }
            Store::Q8_0 { levels, scales } => {
                let (levels, scales) = (&levels[range.clone()], &scales[range.start / GROUP..range.end / GROUP]);
                let few = n <= FEW_QUERIES && precision == Precision::Fast;
                if few
                    && kernels.level_mix(LevelMix {
                        levels,
                        scales,
                        weights,
                        seen,
                        n,
                        sums,
                        next: self.k.levels(k_range),
                    })
                {
                    return;
                }
                let mut wide = [0.0f32; KV_BLOCK];
                for (group, scales) in scales.chunks(KV_BLOCK).enumerate() {
                    kernels.f16_to_f32(scales, &mut wide);
                    for (p, scale) in wide.iter().enumerate() {
                        let at = p * dim + group * GROUP;
                        kernels.scale_groups(&levels[at..at + GROUP], &[*scale], &mut spare[at..at + GROUP]);
                    }
                }
                spare
            }
        };
        kernels.multiply(Tile {
            a: weights,
            a_stride: KV_BLOCK,
            n_rows: n,
            n_inner: seen, // beyond it lies what an earlier owner of the block left
            b: v,
            b_stride: stride,
            n_cols: stride,
            c: sums,
            c_stride: stride,
            accumulate: true,
        });
    }
}

/// The same bytes.
fn unsigned(levels: &[i8]) -> &[u8] {
    // SAFETY: both types are one byte without invariants.
    unsafe { std::slice::from_raw_parts(levels.as_ptr().cast(), levels.len()) }
}

impl LayerWriter<'_> {
    /// Writes K (`[k_dim]`) and V (`[v_dim]`) of one head at row `row` of `block`.
    ///
    /// # Safety
    /// No other thread writes this head of this layer at the same time.
    pub(crate) unsafe fn write(&self, block: usize, head: usize, row: usize, k: &[f32], v: &[f32]) {
        let (k_dim, v_dim) = (self.shape.k_dim, self.shape.v_dim);
        let base = block * self.shape.n_kv_heads + head;
        // SAFETY: all ranges lie in this head's part of the block, which is the caller's alone.
        unsafe {
            put(&self.k, base * k_dim * KV_BLOCK, &Place::Key { row }, &k[..k_dim]);
            put(&self.v, base * v_dim * KV_BLOCK, &Place::Value { row }, &v[..v_dim]);
        }
    }
}

/// Which row of a block, and of which half of it.
enum Place {
    Key { row: usize },
    Value { row: usize },
}

/// Writes a row into the head that starts at `first`.
///
/// # Safety
/// The head's elements are the caller's alone.
unsafe fn put(writer: &Writer<'_>, first: usize, place: &Place, values: &[f32]) {
    let range = first..first + values.len() * KV_BLOCK;
    // K: elements of a row lie KV_BLOCK apart.
    let (row, start, step) = match *place {
        Place::Key { row } => (row, row, KV_BLOCK),
        Place::Value { row } => (row, row * values.len(), 1),
    };
    match *writer {
        Writer::F32(to) => {
            // SAFETY: by this function's contract.
            let to = unsafe { to.range(range) };
            to[start..].iter_mut().step_by(step).zip(values).for_each(|(t, v)| *t = *v);
        }
        Writer::F16(to) => {
            // SAFETY: by this function's contract.
            let to = unsafe { to.range(range) };
            // Many at a time: for one alone the instruction is not used.
            let mut halves = [f16::ZERO; KV_BLOCK];
            for (i, values) in values.chunks(KV_BLOCK).enumerate() {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                let to = to[start + i * KV_BLOCK * step..].iter_mut().step_by(step);
                to.zip(&*halves).for_each(|(to, half)| *to = half.to_bits());
            }
        }
        Writer::Q8_0 { levels, scales } => {
            // SAFETY: by this function's contract; the head's scales lie as its levels do, 32 times denser.
            let (levels, scales) =
                unsafe { (levels.range(range.clone()), scales.range(range.start / GROUP..range.end / GROUP)) };
            for (group, values) in values.chunks(GROUP).enumerate() {
                let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let scale = f16::from_f32(largest / 127.0);
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                scales[group * KV_BLOCK + row] = scale.to_bits();
                let level = |v: &f32| (v * inverse).round_ties_even() as i8;
                match place {
                    Place::Key { .. } => {
                        for (quad, values) in values.chunks(4).enumerate() {
                            let at = ((group * GROUP / 4 + quad) * KV_BLOCK + row) * 4;
                            let to = levels[at..at + 4].iter_mut();
                            to.zip(values).for_each(|(l, v)| *l = (i32::from(level(v)) + LEVEL_OFFSET) as u8 as i8);
                        }
                    }
                    Place::Value { .. } => {
                        let to = levels[start + group * GROUP..].iter_mut();
                        to.zip(values).for_each(|(l, v)| *l = level(v));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StateSpec;

    /// Everything a block holds, as bits.
    fn bits(store: &Store, n_blocks: usize, block: usize) -> Vec<u32> {
        fn part<T: Copy>(all: &[T], n_blocks: usize, block: usize) -> &[T] {
            let len = all.len() / n_blocks;
            &all[block * len..(block + 1) * len]
        }
        match store {
            Store::F32(m) => part(m, n_blocks, block).iter().map(|x| x.to_bits()).collect(),
            Store::F16(m) => part(m, n_blocks, block).iter().map(|x| u32::from(*x)).collect(),
            Store::Q8_0 { levels, scales } => {
                let levels = part(levels, n_blocks, block).iter().map(|x| i32::from(*x) as u32);
                levels.chain(part(scales, n_blocks, block).iter().map(|x| u32::from(*x))).collect()
            }
        }
    }

    #[test]
    fn a_copied_block_is_the_same_and_the_others_stay() {
        let shape = KvLayer { n_kv_heads: 2, k_dim: 32, v_dim: 64 };
        for dtype in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let mut cache =
                kv_cache(&KvSpec { layers: vec![shape; 2], n_blocks: 3, dtype, states: StateSpec::default() }).unwrap();
            for (index, block) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let writer = layer_mut("test", &mut cache, index).unwrap().writer();
                for (head, row) in (0..2).flat_map(|head| (0..KV_BLOCK).map(move |row| (head, row))) {
                    let value =
                        |i: usize| ((i + row * 7 + head * 13 + block * 29 + index * 31) % 97) as f32 * 0.25 - 9.0;
                    let (k, v): (Vec<f32>, Vec<f32>) = ((0..32).map(value).collect(), (0..64).map(value).collect());
                    // SAFETY: this thread alone writes.
                    unsafe { writer.write(block, head, row, &k, &v) };
                }
            }
            let all = |cache: &KvCache, block: usize| -> Vec<Vec<u32>> {
                let layers = (0..2).map(|index| layer("test", cache, index).unwrap());
                layers.flat_map(|layer| [bits(&layer.k, 3, block), bits(&layer.v, 3, block)]).collect()
            };
            let (first, second) = (all(&cache, 0), all(&cache, 1));
            assert!(first != second && all(&cache, 2) != second);
            copy_block(&mut cache, 1, 2).unwrap();
            assert!(all(&cache, 0) == first && all(&cache, 1) == second && all(&cache, 2) == second, "{dtype:?}");
            assert!(copy_block(&mut cache, 0, 3).is_err() && copy_block(&mut cache, 3, 0).is_err());
        }
    }
}
