//! The tensors of recurrent layers: short convolutions and the gated delta rule, and how their rows lie.

use super::{Loader, fetch::in_tensor};
use crate::Result;
use crate::hyper::DeltaParams;
use crate::weights::AttentionWeights;
use compute::{Weight, WeightUse};

impl Loader<'_> {
    /// A gated short convolution.
    pub(super) fn short_conv(&mut self, i: usize, n_taps: usize) -> Result<AttentionWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.shortconv.{part}");
        Ok(AttentionWeights::ShortConv {
            input: self.projection(&name("in_proj"), &[3 * width, width])?,
            taps: self.taps(&name("conv.weight"), width, n_taps)?,
            bias: self.bias(&name("conv.bias"), width)?,
        })
    }

    /// The gated delta rule. Files have Q, K, V and the gate in one matrix, by K head, or Q, K and V in one and the gate
    /// in another, and their rates likewise; the decay as it is, or its negative's logarithm.
    pub(super) fn delta_rule(&mut self, i: usize, params: &DeltaParams) -> Result<AttentionWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let &DeltaParams { n_taps, n_k_heads, n_v_heads, k_dim, v_dim, .. } = params;
        let [qkv, z] = if self.has(&name("attn_qkv.weight")) {
            [
                self.projection(&name("attn_qkv"), &[params.qkv_width(), width])?,
                self.projection(&name("attn_gate"), &[params.v_width(), width])?,
            ]
        } else {
            let group = n_v_heads / n_k_heads * v_dim;
            let rows = |from: usize, len: usize| {
                let step = 2 * k_dim + 2 * group;
                (0..n_k_heads).map(move |head| head * step + from..head * step + from + len)
            };
            let (q, k, v) = (rows(0, k_dim), rows(k_dim, k_dim), rows(2 * k_dim, group));
            self.fused(
                &name("ssm_in"),
                [q.chain(k).chain(v).collect(), rows(2 * k_dim + group, group).collect()],
                width,
            )?
        };
        let share = n_v_heads / n_k_heads;
        let rates = |from: usize| {
            (0..n_k_heads).map(|head| 2 * head * share + from..2 * head * share + from + share).collect::<Vec<_>>()
        };
        let [b, a] = if self.has(&name("ssm_beta.weight")) {
            [
                self.projection(&name("ssm_beta"), &[n_v_heads, width])?,
                self.projection(&name("ssm_alpha"), &[n_v_heads, width])?,
            ]
        } else {
            self.fused(&name("ssm_ba"), [rates(0), rates(share)], width)?
        };
        let decay = if self.has(&name("ssm_a")) {
            self.weight(&name("ssm_a"), &[n_v_heads], WeightUse::Vector)?
        } else {
            let log = name("ssm_a.log");
            let values = self.fetch(&log, &[n_v_heads])?.to_f32().map_err(|e| in_tensor(&log, e))?;
            self.made_vector(&log, &values.iter().map(|v| -v.exp()).collect::<Vec<f32>>())?
        };
        let weight = Some(self.weight(&name("ssm_norm.weight"), &[v_dim], WeightUse::Vector)?);
        let head_norm = self.norm_of(weight);
        Ok(AttentionWeights::DeltaRule {
            qkv,
            z,
            b,
            a,
            taps: self.taps(&name("ssm_conv1d.weight"), params.qkv_width(), n_taps)?,
            decay,
            shift: self.weight(&name("ssm_dt.bias"), &[n_v_heads], WeightUse::Vector)?,
            head_norm,
            params: *params,
        })
    }

    /// Factors of a convolution, `[n_taps, width]`. Files have them by channel, some with a third dimension of one.
    fn taps(&mut self, name: &str, width: usize, n_taps: usize) -> Result<Weight> {
        let dims = self.names.find(name).map(|info| info.shape.dims().to_vec()).unwrap_or_default();
        let shape: &[usize] = match dims.as_slice() {
            [_, 1, _] => &[width, 1, n_taps],
            [_, _, 1] => &[width, n_taps, 1],
            _ => &[width, n_taps],
        };
        let tensor = self.fetch(name, shape)?;
        let stored = tensor.to_f32().map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&tensor);
        let by_tap = (0..n_taps).flat_map(|tap| stored.iter().skip(tap).step_by(n_taps)).copied();
        self.made(name, &by_tap.collect::<Vec<f32>>(), &[n_taps, width])
    }
}
