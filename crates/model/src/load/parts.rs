//! The parts that operations are made of: norms, projections, several matrices stored as one, vectors.

use super::{
    Loader,
    fetch::{in_tensor, rows_of, unit_rows},
};
use crate::{Error, Result};
use compute::{Norm, Projection, Weight, WeightUse};
use std::ops::Range;
use tensor::{HostTensor, Shape};

impl Loader<'_> {
    /// A norm of the model's kind, without a shift.
    pub(super) fn norm_of(&self, weight: Option<Weight>) -> Norm {
        Norm { kind: self.hyper.architecture.norm, weight, bias: None, eps: self.hyper.norm_eps }
    }

    /// A norm over the whole width; its shift where the file has one.
    pub(super) fn norm(&mut self, base: &str, width: usize) -> Result<Norm> {
        if self.hyper.architecture.bare_norms {
            return Ok(self.norm_of(None));
        }
        let name = format!("{base}.weight");
        let offset = self.names.norm_offset();
        let weight = if offset == 0.0 {
            self.weight(&name, &[width], WeightUse::Vector)?
        } else {
            let tensor = self.fetch(&name, &[width])?;
            let mut values = tensor.to_f32().map_err(|e| in_tensor(&name, e))?;
            values.iter_mut().for_each(|v| *v += offset);
            self.made_vector(&name, &values)?
        };
        let bias = self.bias(&format!("{base}.bias"), width)?;
        Ok(Norm { bias, ..self.norm_of(Some(weight)) })
    }

    /// A norm that may be there.
    pub(super) fn optional_norm(&mut self, base: &str, width: usize) -> Result<Option<Norm>> {
        if self.has(&format!("{base}.weight")) { self.norm(base, width).map(Some) } else { Ok(None) }
    }

    /// The output matrix, whose rows are still to be brought to the length 1.
    pub(super) fn unit_output(&mut self, shape: &[usize; 2]) -> Result<Projection> {
        let name = "output.weight";
        let stored = self.fetch_spelled(&self.names.spelled(name), shape)?;
        let unit = unit_rows(&stored).map_err(|e| in_tensor(name, e))?;
        self.checkpoint.release(&stored);
        let unit = self.retyped(name, unit)?;
        let weight = self.upload(&unit, WeightUse::Matrix, false)?;
        Ok(Projection { weight, bias: self.bias("output.bias", shape[0])? })
    }

    /// A norm of query or key heads, if there is one: each by itself, with its own weights or those of all, or all at
    /// once, as its shape tells.
    pub(super) fn head_norm(&mut self, base: &str, head_dim: usize, n_heads: usize) -> Result<Option<Norm>> {
        let name = format!("{base}.weight");
        let Some(info) = self.names.find(&name) else { return Ok(None) };
        let (pieces, dims) = (self.names.pieces(&name, n_heads), info.shape.dims());
        if pieces.is_none() && dims.len() == 1 {
            let width = if dims == [head_dim] { head_dim } else { n_heads * head_dim };
            return self.norm(base, width).map(Some);
        }
        let shape = [n_heads, head_dim];
        let weight = match pieces {
            Some(pieces) => {
                let whole = self.joined(&name, &pieces, &shape)?;
                self.upload(&whole, WeightUse::Vector, false)?
            }
            None => self.weight(&name, &shape, WeightUse::Vector)?,
        };
        Ok(Some(self.norm_of(Some(weight))))
    }

    pub(super) fn projection(&mut self, base: &str, shape: &[usize; 2]) -> Result<Projection> {
        let name = format!("{base}.weight");
        let weight = self.weight(&name, shape, WeightUse::Matrix)?;
        self.place(&name, &weight, &[], shape[0]);
        Ok(Projection { weight, bias: self.bias(&format!("{base}.bias"), shape[0])? })
    }

    /// Several matrices stored as one, and their biases: the rows of each, which together are all rows.
    pub(super) fn fused<const N: usize>(
        &mut self,
        base: &str,
        parts: [Vec<Range<usize>>; N],
        n_in: usize,
    ) -> Result<[Projection; N]> {
        let (weight_name, bias_name) = (format!("{base}.weight"), format!("{base}.bias"));
        let n_all = parts.iter().flatten().map(Range::len).sum();
        let whole = self.fetch(&weight_name, &[n_all, n_in])?;
        let in_file = !self.names.is_transposed(&weight_name);
        let bias = match self.has(&bias_name) {
            true => Some(self.fetch(&bias_name, &[n_all])?.to_f32().map_err(|e| in_tensor(&bias_name, e))?),
            false => None,
        };
        let mut projections = Vec::with_capacity(N);
        let mut mapped = false;
        for rows in parts {
            let part = rows_of(&whole, &weight_name, &rows).map_err(|e| in_tensor(&weight_name, e))?;
            let weight = self.upload(&part, WeightUse::Matrix, in_file && rows.len() == 1)?;
            mapped |= weight.is_mapped();
            self.place(&weight_name, &weight, &rows, n_all);
            let bias = match &bias {
                Some(all) => {
                    let values: Vec<f32> =
                        rows.iter().flat_map(|range| all.get(range.clone()).unwrap_or_default()).copied().collect();
                    Some(self.made_vector(&bias_name, &values)?)
                }
                None => None,
            };
            projections.push(Projection { weight, bias });
        }
        if !mapped {
            self.checkpoint.release(&whole);
        }
        projections.try_into().map_err(|_| Error::Overflow { what: weight_name })
    }

    pub(super) fn bias(&mut self, name: &str, len: usize) -> Result<Option<Weight>> {
        if self.has(name) { self.weight(name, &[len], WeightUse::Vector).map(Some) } else { Ok(None) }
    }

    /// A vector that may be there, which some files store as a matrix of one row.
    pub(super) fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Weight>> {
        let Some(info) = self.names.find(name) else { return Ok(None) };
        let shape: &[usize] = if info.shape.dims().len() == 2 { &[1, len] } else { &[len] };
        self.weight(name, shape, WeightUse::Vector).map(Some)
    }

    pub(super) fn weight(&mut self, name: &str, shape: &[usize], usage: WeightUse) -> Result<Weight> {
        let tensor = self.fetch(name, shape)?;
        let in_file = usage == WeightUse::Vector || !self.names.is_transposed(name);
        let weight = self.upload(&tensor, usage, in_file)?;
        if !weight.is_mapped() {
            self.checkpoint.release(&tensor);
        }
        Ok(weight)
    }

    /// Values that are in no file in this form.
    pub(super) fn made_vector(&mut self, name: &str, values: &[f32]) -> Result<Weight> {
        self.made(name, values, &[values.len()])
    }

    /// The same for a small table.
    pub(super) fn made(&mut self, name: &str, values: &[f32], dims: &[usize]) -> Result<Weight> {
        self.made_as(name, values, dims, WeightUse::Vector)
    }

    /// The same for a small matrix.
    pub(super) fn made_matrix(&mut self, name: &str, values: &[f32], dims: &[usize]) -> Result<Weight> {
        self.made_as(name, values, dims, WeightUse::Matrix)
    }

    fn made_as(&mut self, name: &str, values: &[f32], dims: &[usize], usage: WeightUse) -> Result<Weight> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let shape = Shape::new(dims).ok_or_else(overflow)?;
        let tensor = HostTensor::from_f32(name, shape, values).map_err(|e| in_tensor(name, e))?;
        let weight = self.device.upload(&tensor, usage)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        Ok(weight)
    }

    /// Brings a tensor to the device; `in_file` says whether its bytes are the file's.
    pub(super) fn upload(&mut self, tensor: &HostTensor, usage: WeightUse, in_file: bool) -> Result<Weight> {
        let weight = self.device.upload(tensor, usage)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        if in_file && weight.is_mapped() && self.retype.is_none() {
            self.mapped_bytes += weight.resident_bytes() as u64;
        }
        self.report(self.at.done_bytes.saturating_add(tensor.bytes().len() as u64))?;
        Ok(weight)
    }
}
