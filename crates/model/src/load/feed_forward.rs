//! The tensors of a layer's second half: dense blocks, and experts however a file stacks them.

use super::{
    Loader,
    fetch::{chosen_rows, in_tensor, only, transposed},
};
use crate::hyper::LayerParams;
use crate::keys::Keys;
use crate::weights::{BranchNorms, DenseWeights, FeedForwardWeights};
use crate::{Error, ExpertOrder, Result};
use compute::{Norm, Projection, WeightUse};
use tensor::HostTensor;

impl Loader<'_> {
    pub(super) fn feed_forward(&mut self, i: usize, layer: &LayerParams) -> Result<FeedForwardWeights> {
        let (width, dense_n_ff) = (self.hyper.width, layer.n_ff);
        let name = |part: &str| format!("blk.{i}.{part}");
        if let Some(experts) = self.hyper.experts.as_ref().filter(|_| self.has(&name("ffn_gate_inp.weight"))) {
            let (n, n_ff, rule) = (experts.n_experts, experts.n_ff, experts.rule);
            let [gate, up] = match self.has(&name("ffn_gate_exps.weight")) {
                true => [
                    self.expert_stack(&name("ffn_gate_exps"), &[n, n_ff, width])?,
                    self.expert_stack(&name("ffn_up_exps"), &[n, n_ff, width])?,
                ],
                false => self.fused_experts(&name("ffn_up_exps"), n, n_ff, width)?,
            };
            let branches = self.branch_norms(i)?;
            let shared = match &branches {
                Some(_) => Some(self.dense(&["ffn_gate", "ffn_up", "ffn_down"].map(name), dense_n_ff)?),
                None => self.shared_expert(i)?,
            };
            return Ok(FeedForwardWeights::Experts {
                shared,
                branches,
                router_norm: self.router_norm(&name("ffn_gate_inp.scale"))?,
                expert_scale: self.optional_vector(&name("ffn_down_exps.scale"), n)?,
                rule,
                router: self.projection(&name("ffn_gate_inp"), &[n, width])?,
                choice_bias: self.optional_vector(&name("exp_probs_b.bias"), n)?,
                gate,
                up,
                down: self.expert_stack(&name("ffn_down_exps"), &[n, width, n_ff])?,
            });
        }
        if dense_n_ff == 0 {
            let keys = Keys::new(self.checkpoint.metadata())?;
            return Err(keys.bad("feed_forward_length", 0, &format!("layer {i} is dense")));
        }
        let dense = self.dense(&["ffn_gate", "ffn_up", "ffn_down"].map(name), dense_n_ff)?;
        let inner_norm = self.optional_norm(&name("ffn_sub_norm"), dense_n_ff)?;
        Ok(FeedForwardWeights::Dense(DenseWeights { inner_norm, sparsity: layer.sparsity, ..dense }))
    }

    /// The norms of a dense block beside experts, in layers that have both.
    fn branch_norms(&mut self, i: usize) -> Result<Option<BranchNorms>> {
        let (width, name) = (self.hyper.width, |part: &str| format!("blk.{i}.{part}"));
        if !self.has(&name("post_ffw_norm_1.weight")) {
            return Ok(None);
        }
        Ok(Some(BranchNorms {
            dense_post: self.norm(&name("post_ffw_norm_1"), width)?,
            experts: self.norm(&name("pre_ffw_norm_2"), width)?,
            experts_post: self.norm(&name("post_ffw_norm_2"), width)?,
        }))
    }

    /// The norm of what a router reads that has a scale of its own, over the root of the width.
    fn router_norm(&mut self, name: &str) -> Result<Option<Norm>> {
        if !self.has(name) {
            return Ok(None);
        }
        let width = self.hyper.width;
        let values = self.fetch(name, &[width])?.to_f32().map_err(|e| in_tensor(name, e))?;
        let scaled: Vec<f32> = values.iter().map(|v| v / (width as f32).sqrt()).collect();
        let weight = Some(self.made_vector(name, &scaled)?);
        Ok(Some(self.norm_of(weight)))
    }

    /// The expert of layer `i` that every token passes.
    pub(super) fn shared_expert(&mut self, i: usize) -> Result<Option<DenseWeights>> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let n_ff = self.hyper.experts.as_ref().and_then(|e| e.shared_n_ff);
        let Some(n_ff) = n_ff.filter(|_| self.has(&name("ffn_down_shexp.weight"))) else { return Ok(None) };
        if self.hyper.parallel || self.hyper.has_post_norms() {
            return Err(Error::Unsupported { what: "a shared expert in layers of this kind".to_owned() });
        }
        let dense = self.dense(&["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(name), n_ff)?;
        let output_gate = self.optional_vector(&name("ffn_gate_inp_shexp.weight"), self.hyper.width)?;
        Ok(Some(DenseWeights { output_gate, ..dense }))
    }

    /// A dense block of `n_ff`, by the names of gate, up and down.
    pub(super) fn dense(&mut self, [gate, up, down]: &[String; 3], n_ff: usize) -> Result<DenseWeights> {
        let width = self.hyper.width;
        let (gate, up) = if !self.hyper.architecture.gated {
            (None, self.projection(up, &[n_ff, width])?)
        } else if self.has(&format!("{gate}.weight")) {
            (Some(self.projection(gate, &[n_ff, width])?), self.projection(up, &[n_ff, width])?)
        } else {
            let [gate, up] = self.fused(up, [only(0..n_ff), only(n_ff..2 * n_ff)], width)?;
            (Some(gate), up)
        };
        let down = self.projection(down, &[width, n_ff])?;
        Ok(DenseWeights { gate, up, sparsity: None, inner_norm: None, down, output_gate: None })
    }

    pub(super) fn expert_stack(&mut self, base: &str, shape: &[usize; 3]) -> Result<Projection> {
        let name = format!("{base}.weight");
        let weight = match self.names.pieces(&name, shape[0]) {
            Some(pieces) => {
                let whole = self.joined(&name, &pieces, shape)?;
                self.upload(&whole, WeightUse::Experts, false)?
            }
            None if self.names.expert_order() == ExpertOrder::Halves => {
                self.weight(&name, shape, WeightUse::Experts)?
            }
            None => {
                let whole = self.fetch_experts(&name, *shape)?;
                self.upload(&whole, WeightUse::Experts, false)?
            }
        };
        self.place(&name, &weight, &[], shape[1]);
        let bias_name = format!("{base}.bias");
        let bias = match self.has(&bias_name) {
            true => Some(self.weight(&bias_name, &shape[..2], WeightUse::Vector)?),
            false => None,
        };
        Ok(Projection { weight, bias })
    }

    /// Gate and up of all experts of a layer from one tensor.
    pub(super) fn fused_experts(&mut self, base: &str, n: usize, n_ff: usize, width: usize) -> Result<[Projection; 2]> {
        let (name, bias_name) = (format!("{base}.weight"), format!("{base}.bias"));
        let whole = self.fetch_experts(&name, [n, 2 * n_ff, width])?;
        let bias = match self.has(&bias_name) {
            true => Some(self.fetch(&bias_name, &[n, 2 * n_ff])?.to_f32().map_err(|e| in_tensor(&bias_name, e))?),
            false => None,
        };
        let in_pairs = self.names.expert_order() == ExpertOrder::TransposedPairs;
        let mut part = |which: usize| -> Result<Projection> {
            let rows = |expert: usize| {
                let (first, step) = if in_pairs { (which, 2) } else { (which * n_ff, 1) };
                (0..n_ff).map(move |i| expert * 2 * n_ff + first + i * step)
            };
            let rows: Vec<usize> = (0..n).flat_map(rows).collect();
            let part = chosen_rows(&whole, &name, &rows, &[n, n_ff, width]).map_err(|e| in_tensor(&name, e))?;
            let weight = self.upload(&part, WeightUse::Experts, false)?;
            let bias = match &bias {
                Some(all) => {
                    let values: Vec<f32> = rows.iter().filter_map(|&row| all.get(row)).copied().collect();
                    Some(self.made_vector(&bias_name, &values)?)
                }
                None => None,
            };
            Ok(Projection { weight, bias })
        };
        let both = [part(0)?, part(1)?];
        self.checkpoint.release(&whole);
        Ok(both)
    }

    /// All experts of a layer, `[n, n_out, n_in]`, however the file has them.
    pub(super) fn fetch_experts(&mut self, name: &str, [n, n_out, n_in]: [usize; 3]) -> Result<HostTensor> {
        // Modules of their own, and quantized rows, are never transposed.
        let spelled = self.names.spelled(name);
        let in_rows = spelled.ends_with(".weight") || self.is_quantized(&spelled);
        if in_rows || self.names.expert_order() == ExpertOrder::Halves {
            return self.fetch(name, &[n, n_out, n_in]);
        }
        let stored = self.fetch_spelled(&self.names.spelled(name), &[n, n_in, n_out])?;
        let turned = transposed(&stored, n_in, n_out).map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&stored);
        self.retyped(name, turned)
    }
}
