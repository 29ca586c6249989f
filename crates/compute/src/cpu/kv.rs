//! The KV cache of the CPU device: paged blocks of [`KV_BLOCK`] positions.
//!
//! In each layer a block holds, head after head, K as `[k_dim, KV_BLOCK]` (positions innermost) and V as
//! `[KV_BLOCK, v_dim]`: that is the layout in which attention's two products read them without transposing. An 8-bit
//! cache (Q8_0: groups of 32 values of one position, one `f16` scale each) keeps scales apart from levels, in the same
//! order.
//!
//! What belongs here: layout, writing one head's rows, reading one head's block as `f32`. What does not: the softmax.

use super::{
    argument,
    memory::{Memory, SharedMut},
    simd::Kernels,
    states,
};
use crate::{KV_BLOCK, KvCache, KvLayer, KvSpec, KvType, Result};
use half::f16;

/// Values that share a scale in an 8-bit cache.
const GROUP: usize = 32;

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
    Q8_0 { levels: Memory<i8>, scales: Memory<u16> },
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

    /// K of one head in one block as `f32 [k_dim, KV_BLOCK]`.
    pub(crate) fn read_k(&self, kernels: &Kernels, block: usize, head: usize, out: &mut [f32]) {
        let dim = self.shape.k_dim;
        let first = (block * self.shape.n_kv_heads + head) * dim * KV_BLOCK;
        let range = first..first + dim * KV_BLOCK;
        match &self.k {
            Store::F32(m) => out.copy_from_slice(&m[range]),
            Store::F16(m) => kernels.f16_to_f32(&m[range], out),
            Store::Q8_0 { levels, scales } => {
                let mut wide = [0.0f32; KV_BLOCK];
                for (group, out) in out.chunks_mut(GROUP * KV_BLOCK).enumerate() {
                    let at = first / GROUP + group * KV_BLOCK;
                    kernels.f16_to_f32(&scales[at..at + KV_BLOCK], &mut wide);
                    let levels = &levels[first + group * GROUP * KV_BLOCK..][..GROUP * KV_BLOCK];
                    kernels.scale_lanes(levels, &wide, out);
                }
            }
        }
    }

    /// V of one head in one block as `f32 [KV_BLOCK, stride]`, `stride >= v_dim`; elements beyond `v_dim` stay.
    pub(crate) fn read_v(&self, kernels: &Kernels, block: usize, head: usize, out: &mut [f32], stride: usize) {
        let dim = self.shape.v_dim;
        let first = (block * self.shape.n_kv_heads + head) * dim * KV_BLOCK;
        // The rows of a block lie one after another, here and, unless they are padded, there.
        let (n_rows, len) = if stride == dim { (1, dim * KV_BLOCK) } else { (KV_BLOCK, dim) };
        for (row, out) in out.chunks_mut(stride * KV_BLOCK / n_rows).take(n_rows).enumerate() {
            let out = &mut out[..len];
            let at = first + row * len;
            match &self.v {
                Store::F32(m) => out.copy_from_slice(&m[at..at + len]),
                Store::F16(m) => kernels.f16_to_f32(&m[at..at + len], out),
                Store::Q8_0 { levels, scales } => {
                    let mut wide = [0.0f32; KV_BLOCK];
                    let levels = levels[at..at + len].chunks(GROUP * KV_BLOCK);
                    let scales = scales[at / GROUP..(at + len) / GROUP].chunks(KV_BLOCK);
                    for ((out, levels), scales) in out.chunks_mut(GROUP * KV_BLOCK).zip(levels).zip(scales) {
                        kernels.f16_to_f32(scales, &mut wide);
                        kernels.scale_groups(levels, &wide, out);
                    }
                }
            }
        }
    }
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
            put(&self.k, base * k_dim * KV_BLOCK, row, KV_BLOCK, KV_BLOCK, &k[..k_dim]);
            put(&self.v, base * v_dim * KV_BLOCK, row, 1, v_dim, &v[..v_dim]);
        }
    }
}

/// Writes `values` of row `row` into the head that starts at `first`: elements `step` apart. With a step of 1 the row
/// starts at `row · v_dim` (`row_len`), else at `row`.
///
/// # Safety
/// The head's elements are the caller's alone.
unsafe fn put(writer: &Writer<'_>, first: usize, row: usize, step: usize, row_len: usize, values: &[f32]) {
    let start = if step == 1 { row * row_len } else { row };
    let range = first..first + values.len() * KV_BLOCK;
    let group_start = if step == 1 { row * (row_len / GROUP) } else { row };
    match *writer {
        Writer::F32(to) => {
            // SAFETY: by this function's contract.
            let to = unsafe { to.range(range) };
            to[start..].iter_mut().step_by(step).zip(values).for_each(|(t, v)| *t = *v);
        }
        Writer::F16(to) => {
            // SAFETY: by this function's contract.
            let to = unsafe { to.range(range) };
            to[start..].iter_mut().step_by(step).zip(values).for_each(|(t, v)| *t = f16::from_f32(*v).to_bits());
        }
        Writer::Q8_0 { levels, scales } => {
            // SAFETY: by this function's contract; the head's scales lie as its levels do, 32 times denser.
            let (levels, scales) =
                unsafe { (levels.range(range.clone()), scales.range(range.start / GROUP..range.end / GROUP)) };
            for (group, values) in values.chunks(GROUP).enumerate() {
                let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let scale = f16::from_f32(largest / 127.0);
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                scales[group_start + group * step] = scale.to_bits();
                let levels = levels[start + group * GROUP * step..].iter_mut().step_by(step);
                levels.zip(values).for_each(|(l, v)| *l = (v * inverse).round_ties_even() as i8);
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
