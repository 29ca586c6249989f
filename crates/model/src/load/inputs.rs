//! The tensors of layers that have an embedding of the token of their own, a scale, and several residual streams.

use super::{Loader, fetch::in_tensor};
use crate::weights::{BlockInput, BlockStreams, LayerInputs, StreamProjections};
use crate::{Error, Result};
use compute::{Projection, WeightUse};
use std::f32::consts::FRAC_1_SQRT_2;

impl Loader<'_> {
    /// What makes the embeddings of all layers.
    pub(super) fn layer_inputs(&mut self) -> Result<Option<LayerInputs>> {
        let Some(dim) = self.hyper.layer_input_dim else { return Ok(None) };
        let all = self.hyper.n_layers * dim;
        let name = "per_layer_token_embd.weight";
        let n_rows = self.names.find(name).map_or(0, |info| info.shape.rows());
        if n_rows == 0 {
            return Err(Error::MissingTensor { name: self.names.spelled(name), hint: "" });
        }
        let norm_name = "per_layer_proj_norm.weight";
        let values = self.fetch(norm_name, &[dim])?.to_f32().map_err(|e| in_tensor(norm_name, e))?;
        let halved: Vec<f32> = values.iter().map(|v| v * FRAC_1_SQRT_2).collect();
        let weight = Some(self.made_vector(norm_name, &halved)?);
        Ok(Some(LayerInputs {
            table: self.weight(name, &[n_rows, all], WeightUse::Table)?,
            n_rows,
            projection: self.projection("per_layer_model_proj", &[all, self.hyper.width])?,
            norm: self.norm_of(weight),
        }))
    }

    /// What layer `i` adds by its own.
    pub(super) fn block_input(&mut self, i: usize) -> Result<Option<BlockInput>> {
        let Some(dim) = self.hyper.layer_input_dim else { return Ok(None) };
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        Ok(Some(BlockInput {
            scale: self.optional_vector(&name("altup_correct_scale.weight"), width)?,
            gate: self.projection(&name("inp_gate"), &[dim, width])?,
            output: self.projection(&name("proj"), &[width, dim])?,
            post_norm: self.norm(&name("post_norm"), width)?,
        }))
    }

    /// The scale of layer `i`; 1 where it has none.
    pub(super) fn gain(&mut self, i: usize) -> Result<f32> {
        let name = format!("blk.{i}.layer_output_scale.weight");
        if !self.has(&name) {
            return Ok(1.0);
        }
        let values = self.fetch(&name, &[1])?.to_f32().map_err(|e| in_tensor(&name, e))?;
        match values.first() {
            Some(gain) if gain.is_finite() => Ok(*gain),
            _ => Err(Error::Unsupported { what: format!("{name} that is no finite number") }),
        }
    }

    /// The matrices at the ends of several residual streams.
    pub(super) fn stream_projections(&mut self) -> Result<Option<StreamProjections>> {
        let Some(streams) = self.hyper.streams else { return Ok(None) };
        if self.hyper.layer_input_dim.is_none() || self.hyper.parallel || self.hyper.experts.is_some() {
            return Err(Error::Unsupported { what: "several residual streams in layers of this kind".to_owned() });
        }
        let shape = [streams.n - 1, self.hyper.width, self.hyper.width];
        let part = self.expert_stack("altup_proj", &shape)?;
        Ok(Some(StreamProjections { part, join: self.expert_stack("altup_unembd_proj", &shape)? }))
    }

    /// The part of layer `i` in them.
    pub(super) fn block_streams(&mut self, i: usize) -> Result<Option<BlockStreams>> {
        let Some(streams) = self.hyper.streams else { return Ok(None) };
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let correct_name = name("altup_correct_coef.weight");
        let values = self.fetch(&correct_name, &[streams.n; 2])?.to_f32().map_err(|e| in_tensor(&correct_name, e))?;
        let cut: Vec<f32> = values.iter().map(|v| v.clamp(-streams.limit, streams.limit)).collect();
        let correct = Projection { weight: self.made_matrix(&correct_name, &cut, &[streams.n; 2])?, bias: None };
        Ok(Some(BlockStreams {
            norm: self.norm(&name("altup_router_norm"), width)?,
            router: self.projection(&name("altup_router"), &[streams.n, width])?,
            predict: self.projection(&name("altup_predict_coef"), &[streams.n * streams.n, streams.n])?,
            correct,
            left: self.projection(&name("laurel_l"), &[streams.rank, width])?,
            right: self.projection(&name("laurel_r"), &[width, streams.rank])?,
            right_norm: self.norm(&name("laurel_post_norm"), width)?,
        }))
    }
}
