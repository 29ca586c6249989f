//! The tensors of attention: Q, K and V apart or in one, latent attention, and how their rows lie.

use super::{
    Loader,
    fetch::{in_tensor, only, rows_of, transposed},
};
use crate::Result;
use crate::hyper::{LatentParams, LayerParams};
use crate::row_order;
use crate::weights::AttentionWeights;
use compute::{Projection, Rope, WeightUse};
use std::ops::Range;
use tensor::{HostTensor, Shape};

impl Loader<'_> {
    pub(super) fn plain_attention(
        &mut self,
        i: usize,
        layer: &LayerParams,
        rope: Option<Rope>,
    ) -> Result<AttentionWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let mut gate = None;
        let (q, k, v) = if layer.shares.is_some() {
            // Files may have what nothing reads.
            for part in ["attn_k.weight", "attn_k.bias", "attn_v.weight", "attn_v.bias", "attn_k_norm.weight"] {
                self.used.insert(self.names.spelled(&name(part)));
            }
            (self.projection(&name("attn_q"), &[layer.q_dim(), width])?, None, None)
        } else if self.has(&name("attn_qkv.weight")) {
            let [q, k, v] = self.fused(&name("attn_qkv"), self.qkv_rows(layer), width)?;
            (q, Some(k), Some(v))
        } else {
            let q = if self.hyper.architecture.gated_attention {
                let [q, gate_of_q] = self.fused(&name("attn_q"), gated_rows(layer), width)?;
                gate = Some(gate_of_q);
                q
            } else {
                self.projection(&name("attn_q"), &[layer.q_dim(), width])?
            };
            let k = self.projection(&name("attn_k"), &[layer.k_dim(), width])?;
            let is_key = self.hyper.architecture.values_may_be_keys && !self.has(&name("attn_v.weight"));
            let v = if is_key { None } else { Some(self.projection(&name("attn_v"), &[layer.v_dim(), width])?) };
            (q, Some(k), v)
        };
        let has_bare = self.hyper.bare_head_norms && rope.is_some();
        let bare = has_bare.then(|| self.norm_of(None));
        let q_norm = self.head_norm(&name("attn_q_norm"), layer.head_dim, layer.n_heads)?.or(bare.clone());
        let k_norm = match k {
            Some(_) => self.head_norm(&name("attn_k_norm"), layer.head_dim, layer.n_kv_heads)?.or(bare),
            None => None,
        };
        let v_norm = (self.hyper.architecture.bare_value_norms && k.is_some()).then(|| self.norm_of(None));
        Ok(AttentionWeights::Plain { q, k, v, q_norm, k_norm, v_norm, rope, gate })
    }

    /// Latent attention. Files have what rotates of a head at its end, and the matrices of keys and values in one or apart.
    pub(super) fn latent_attention(
        &mut self,
        i: usize,
        layer: &LayerParams,
        latent: &LatentParams,
        rope: Rope,
    ) -> Result<AttentionWeights> {
        let (width, n_heads) = (self.hyper.width, layer.n_heads);
        let &LatentParams { q_rank, rank, rope_dim, nope_dim, v_dim } = latent;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (q_down, q_name, q_in) = match q_rank {
            Some(q_rank) => {
                let down = self.projection(&name("attn_q_a"), &[q_rank, width])?;
                (Some((down, self.norm(&name("attn_q_a_norm"), q_rank)?)), name("attn_q_b"), q_rank)
            }
            None => (None, name("attn_q"), width),
        };
        let rotating_first = |head: usize| {
            let first = head * (nope_dim + rope_dim);
            [first + nope_dim..first + nope_dim + rope_dim, first..first + nope_dim]
        };
        let [q] = self.fused(&q_name, [(0..n_heads).flat_map(rotating_first).collect()], q_in)?;
        let [kv_down] = self.fused(&name("attn_kv_a_mqa"), [vec![rank..rank + rope_dim, 0..rank]], width)?;
        let latent_norm = self.norm(&name("attn_kv_a_norm"), rank)?;
        let [k_up, v_up] = if self.has(&name("attn_k_b.weight")) {
            [
                self.expert_stack(&name("attn_k_b"), &[n_heads, rank, nope_dim])?,
                self.expert_stack(&name("attn_v_b"), &[n_heads, v_dim, rank])?,
            ]
        } else {
            self.keys_and_values(&name("attn_kv_b.weight"), n_heads, latent)?
        };
        Ok(AttentionWeights::Latent { q_down, q, kv_down, latent_norm, k_up, v_up, rope })
    }

    /// The matrices that make keys (transposed, as queries need it) and values of latents, from one that has both.
    pub(super) fn keys_and_values(
        &mut self,
        name: &str,
        n_heads: usize,
        latent: &LatentParams,
    ) -> Result<[Projection; 2]> {
        let &LatentParams { rank, nope_dim, v_dim, .. } = latent;
        let step = nope_dim + v_dim;
        let whole = self.fetch(name, &[n_heads * step, rank])?;
        let part = |from: usize, len: usize| {
            let rows: Vec<_> = (0..n_heads).map(|head| head * step + from..head * step + from + len).collect();
            let part = rows_of(&whole, name, &rows)?;
            let shape = Shape::new(&[n_heads, len, rank]).ok_or_else(|| tensor::Error::Shape(name.to_owned()))?;
            HostTensor::new(name, part.dtype(), shape, part.bytes().clone())
        };
        let keys = part(0, nope_dim).and_then(|keys| {
            let plain = HostTensor::from_f32(name, *keys.shape(), &keys.to_f32()?)?;
            transposed(&plain, nope_dim, rank)
        });
        let (keys, values) =
            (keys.map_err(|e| in_tensor(name, e))?, part(nope_dim, v_dim).map_err(|e| in_tensor(name, e))?);
        let [k_up, v_up] = [keys, values].map(|stack| self.upload(&stack, WeightUse::Experts, false));
        let (k_up, v_up) = (k_up?, v_up?);
        for (part, weight, len) in [(".attn_k_b.", &k_up, rank), (".attn_v_b.", &v_up, v_dim)] {
            self.place(&name.replace(".attn_kv_b.", part), weight, &[], len);
        }
        self.checkpoint.release(&whole);
        Ok([k_up, v_up].map(|weight| Projection { weight, bias: None }))
    }

    /// Where Q, K and V lie in a matrix of all three.
    pub(super) fn qkv_rows(&self, layer: &LayerParams) -> [Vec<Range<usize>>; 3] {
        let (q_dim, k_dim, v_dim) = (layer.q_dim(), layer.k_dim(), layer.v_dim());
        if !self.names.are_fused_by_head() {
            return [only(0..q_dim), only(q_dim..q_dim + k_dim), only(q_dim + k_dim..q_dim + k_dim + v_dim)];
        }
        row_order::by_head(layer)
    }
}

/// Where the queries of each head lie in a matrix that has a gate after those of each, and where the gate does.
fn gated_rows(layer: &LayerParams) -> [Vec<Range<usize>>; 2] {
    let dim = layer.head_dim;
    [0, 1].map(|part| (0..layer.n_heads).map(|head| (2 * head + part) * dim..(2 * head + part + 1) * dim).collect())
}
