//! Tensors of which the source has several in one, or has them the other way round: experts, keys and values of latents,
//! queries with keys and values.
//!
//! What belongs here: which rows of such a tensor each new one takes. What does not: tensors that the source has one by one
//! (`tensors.rs`).

use super::source::Source;
use super::tensors::{Maker, in_order};
use crate::row_order;
use crate::{Error, ExpertOrder, Result};
use checkpoint::TensorInfo;
use std::ops::Range;
use tensor::{DType, Shape};

impl Maker<'_> {
    /// Gate and up of the expert that every token passes, which the source has in one tensor.
    pub(super) fn divided_shared(&mut self, info: &TensorInfo, layer: usize, n_ff: usize) -> Result<()> {
        self.used.insert(info.name.clone());
        for (which, part) in ["ffn_gate_shexp", "ffn_up_shexp"].into_iter().enumerate() {
            let name = format!("blk.{layer}.{part}.weight");
            let shape = Shape::new(&[n_ff, self.hyper.width]);
            let shape = shape.ok_or_else(|| Error::Overflow { what: name.clone() })?;
            let runs = std::iter::once(which * n_ff..(which + 1) * n_ff).collect();
            self.push(&name, shape, info.dtype, info.bytes / 2, Source::Runs(info.name.clone(), runs));
        }
        Ok(())
    }

    /// Gate and up of all experts, which the source has in one tensor: the rows of the gate of each, then those of up.
    pub(super) fn divided_experts(&mut self, info: &TensorInfo, layer: usize, kind: &str) -> Result<()> {
        let unexpected = || Error::TensorShape {
            name: info.name.clone(),
            found: info.shape.to_string(),
            expected: "twice as many rows as an expert has".to_owned(),
        };
        let are_turned = self.are_turned(info, kind);
        let (n, both, width) = match *info.shape.dims() {
            [n, both] if kind == "bias" => (n, both, None),
            [n, width, both] if are_turned => (n, both, Some(width)),
            [n, both, width] => (n, both, Some(width)),
            _ => return Err(unexpected()),
        };
        if both % 2 != 0 {
            return Err(unexpected());
        }
        self.used.insert(info.name.clone());
        let n_ff = both / 2;
        let in_pairs = self.names.expert_order() == ExpertOrder::TransposedPairs;
        for (which, part) in ["ffn_gate_exps", "ffn_up_exps"].into_iter().enumerate() {
            let runs_of = |expert: usize| -> Vec<Range<usize>> {
                let first = expert * both;
                match in_pairs {
                    true => (0..n_ff).map(|i| first + 2 * i + which).map(|row| row..row + 1).collect(),
                    false => std::iter::once(first + which * n_ff..first + (which + 1) * n_ff).collect(),
                }
            };
            let runs: Vec<Range<usize>> = (0..n).flat_map(runs_of).collect();
            let name = format!("blk.{layer}.{part}.{kind}");
            let dims: Vec<usize> = [n, n_ff].into_iter().chain(width).collect();
            let shape = Shape::new(&dims).ok_or_else(unexpected)?;
            let source = match width {
                None => Source::Vector { name: info.name.clone(), offset: 0.0, heads: Vec::new(), runs },
                Some(width) if are_turned => Source::Transposed(info.name.clone(), [width, both], runs),
                Some(_) => Source::Runs(info.name.clone(), runs),
            };
            let dtype = if width.is_none() { DType::F32 } else { info.dtype };
            self.push(&name, shape, dtype, info.bytes / 2, source);
        }
        Ok(())
    }

    /// Whether the source has a matrix of experts with its input before its output. Modules of their own, and quantized
    /// rows, are never transposed.
    pub(super) fn are_turned(&self, info: &TensorInfo, kind: &str) -> bool {
        let in_rows = info.name.ends_with(".weight") || info.dtype.is_quantized();
        kind == "weight" && !in_rows && self.names.expert_order() != ExpertOrder::Halves
    }

    /// All experts' matrices in one tensor, transposed.
    pub(super) fn turned_experts(&mut self, name: &str, info: &TensorInfo) -> Result<()> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let &[n, n_in, n_out] = info.shape.dims() else { return Err(overflow()) };
        let shape = Shape::new(&[n, n_out, n_in]).ok_or_else(overflow)?;
        self.used.insert(info.name.clone());
        let source = Source::Transposed(info.name.clone(), [n_in, n_out], Vec::new());
        self.push(name, shape, info.dtype, info.bytes, source);
        Ok(())
    }

    /// The matrices that make keys and values of latents, which the source has in one, head by head: those of keys
    /// transposed, as queries need them.
    pub(super) fn keys_and_values(&mut self, info: &TensorInfo, layer: usize) -> Result<()> {
        let n_heads = self.hyper.layers.get(layer).map_or(0, |params| params.n_heads);
        let expected = self.hyper.latent.as_ref().map(|latent| (latent, latent.nope_dim + latent.v_dim));
        let found =
            |expected: String| Error::TensorShape { name: info.name.clone(), found: info.shape.to_string(), expected };
        let Some((latent, step)) = expected else { return Err(found("no such tensor".to_owned())) };
        if *info.shape.dims() != [n_heads.saturating_mul(step), latent.rank] {
            return Err(found(format!("[{}, {}]", n_heads.saturating_mul(step), latent.rank)));
        }
        self.used.insert(info.name.clone());
        let (nope_dim, v_dim, rank) = (latent.nope_dim, latent.v_dim, latent.rank);
        let runs = |from: usize, len: usize| (0..n_heads).map(|h| h * step + from..h * step + from + len).collect();
        let keys = Source::TransposedRuns(info.name.clone(), [nope_dim, rank], runs(0, nope_dim));
        let values = Source::Runs(info.name.clone(), runs(nope_dim, v_dim));
        let of_keys = if info.dtype.is_quantized() { DType::F32 } else { info.dtype };
        for (part, dims, dtype, source) in [
            ("attn_k_b", [n_heads, rank, nope_dim], of_keys, keys),
            ("attn_v_b", [n_heads, v_dim, rank], info.dtype, values),
        ] {
            let name = format!("blk.{layer}.{part}.weight");
            let shape = Shape::new(&dims).ok_or_else(|| Error::Overflow { what: name.clone() })?;
            let source_bytes = dtype.tensor_bytes(&shape).map_or(info.bytes, |bytes| bytes as u64);
            self.push(&name, shape, dtype, source_bytes, source);
        }
        Ok(())
    }

    /// Queries, keys and values, which the source has in the tensor `name`: the rows of each.
    pub(super) fn divided_heads(&mut self, name: &str, info: &TensorInfo, layer: usize) -> Result<()> {
        self.used.insert(info.name.clone());
        self.check_shape(name, info, &info.shape, Some(layer))?;
        let Some(params) = self.hyper.layers.get(layer) else { return Ok(()) };
        let kind = name.rsplit_once('.').map_or("weight", |(_, kind)| kind);
        let n = info.shape.dims().first().copied().unwrap_or(0);
        let runs = match self.runs_by_head(layer) {
            runs if runs.is_empty() => std::iter::once(0..n).collect(),
            runs => runs,
        };
        let heads = row_order::heads(self.hyper.architecture, self.hyper, layer, "attn_qkv", n);
        let rows: Vec<usize> = in_order(runs, &heads).into_iter().flatten().collect();
        let mut first = 0;
        for (part, len) in [("attn_q", params.q_dim()), ("attn_k", params.k_dim()), ("attn_v", params.v_dim())] {
            let expected = || format!("{} rows or more", first + len);
            let wrong = || {
                let (name, found) = (info.name.clone(), info.shape.to_string());
                Error::TensorShape { name, found, expected: expected() }
            };
            let rows = rows.get(first..first + len).ok_or_else(wrong)?;
            let runs: Vec<Range<usize>> = rows.iter().map(|&row| row..row + 1).collect();
            let dims = [&[len], info.shape.dims().get(1..).unwrap_or_default()].concat();
            let shape = Shape::new(&dims).ok_or_else(wrong)?;
            let made = format!("blk.{layer}.{part}.{kind}");
            let source_name = info.name.clone();
            let (dtype, source) = match dims.len() {
                1 => (DType::F32, Source::Vector { name: source_name, offset: 0.0, heads: Vec::new(), runs }),
                _ => (info.dtype, Source::Runs(source_name, runs)),
            };
            let source_bytes = info.bytes.checked_mul(len as u64).map_or(0, |bytes| bytes / (n as u64).max(1));
            self.push(&made, shape, dtype, source_bytes, source);
            first += len;
        }
        Ok(())
    }
}
