//! Low-rank adapters (Hu et al. 2021, "LoRA") of a loaded model: files of small matrices that change what it answers.
//!
//! The model's own weights stay as they are. Each adapter becomes additions to the weights it is for, which the device
//! applies next to them; several add up, each with a scale that may change at any time.
//!
//! What belongs here: the adapters of a decoder. What does not: how their files name things (`source.rs`), how a file's
//! matrices are brought into the order of the model's (`fit.rs`), the arithmetic (`compute`).

mod fit;
mod source;

use crate::convention::Convention;
use crate::load::Placed;
use crate::weights::Weights;
use crate::{Error, HyperParams, Result};
use checkpoint::Checkpoint;
use compute::{Device, LowRank, Projection, Weight};

pub(crate) use source::is_adapter;

/// An adapter of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterInfo {
    /// How much of it counts, on top of what its file says.
    pub scale: f32,
    /// Matrices of the model that it adds to.
    pub n_matrices: usize,
    /// The largest rank of an addition.
    pub rank: usize,
    /// Bytes that the device holds for it.
    pub bytes: u64,
}

/// An addition and where it belongs.
struct Addition {
    /// The matrix, among those that loading placed.
    place: usize,
    /// With the scale of the file.
    low_rank: LowRank,
}

/// An addition to the embedding.
pub(crate) struct EmbeddingAddition {
    /// `[n_vocab, rank]`.
    pub(crate) table: Weight,
    /// `[width, rank]`.
    pub(crate) up: Projection,
    /// Of the file.
    scale: f32,
}

/// An adapter on the device.
struct Adapter {
    additions: Vec<Addition>,
    embedding: Vec<EmbeddingAddition>,
    info: AdapterInfo,
}

/// The adapters of a model, and what it takes to add one.
pub(crate) struct Adapters {
    convention: Convention,
    placed: Vec<Placed>,
    list: Vec<Adapter>,
    info: Vec<AdapterInfo>,
}

impl Adapters {
    /// None yet.
    pub(crate) fn new(convention: Convention, placed: Vec<Placed>) -> Self {
        Self { convention, placed, list: Vec::new(), info: Vec::new() }
    }

    /// Facts about each, in the order in which they were added.
    pub(crate) fn info(&self) -> &[AdapterInfo] {
        &self.info
    }

    /// Bytes that the device holds for all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.info.iter().fold(0, |sum, info| sum.saturating_add(info.bytes))
    }

    /// The largest rank of an addition to the embedding; 0: there is none.
    pub(crate) fn embedding_rank(&self) -> usize {
        let all = self.list.iter().flat_map(|adapter| &adapter.embedding);
        all.map(|addition| addition.up.weight.shape().row_len()).max().unwrap_or(0)
    }

    /// Brings one to the device and adds it to the weights. After an error everything is as before.
    pub(crate) fn add(
        &mut self,
        checkpoint: &Checkpoint,
        scale: f32,
        hyper: &HyperParams,
        device: &dyn Device,
        weights: &mut Weights,
    ) -> Result<()> {
        check_scale(scale)?;
        let source = source::read(checkpoint, hyper.architecture)?;
        let fitted = fit::Fit { checkpoint, hyper, device, placed: &self.placed, own: self.convention }.all(&source)?;
        let (additions, embedding) = fitted;
        let all = additions.iter().flat_map(|a| [&a.low_rank.a, &a.low_rank.b]);
        let all: Vec<&Weight> = all.chain(embedding.iter().flat_map(|e| [&e.table, &e.up.weight])).collect();
        let is_first = |i: usize, weight: &Weight| !all.iter().take(i).any(|before| before.is_same(weight));
        let own = all.iter().enumerate().filter(|(i, weight)| is_first(*i, weight));
        let bytes = own.fold(0u64, |sum, (_, weight)| sum.saturating_add(weight.resident_bytes() as u64));
        let rank = additions.iter().map(|a| a.low_rank.b.shape().row_len());
        let rank = rank.chain(embedding.iter().map(|e| e.up.weight.shape().row_len())).max().unwrap_or(0);
        let info = AdapterInfo { scale, n_matrices: additions.len() + embedding.len(), rank, bytes };
        self.list.push(Adapter { additions, embedding, info });
        let applied = self.apply(weights);
        if applied.is_err() {
            self.list.pop();
            self.apply(weights)?;
        }
        applied
    }

    /// Gives one another scale.
    pub(crate) fn scale(&mut self, index: usize, scale: f32, weights: &mut Weights) -> Result<()> {
        check_scale(scale)?;
        let adapter = self.list.get_mut(index).ok_or(Error::NoAdapter { index })?;
        let before = std::mem::replace(&mut adapter.info.scale, scale);
        let applied = self.apply(weights);
        if applied.is_err() {
            self.list.get_mut(index).into_iter().for_each(|adapter| adapter.info.scale = before);
            self.apply(weights)?;
        }
        applied
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, index: usize, weights: &mut Weights) -> Result<()> {
        if index >= self.list.len() {
            return Err(Error::NoAdapter { index });
        }
        self.list.remove(index);
        self.apply(weights)
    }

    /// Additions to the embedding that count, with their scales.
    pub(crate) fn of_embedding(&self) -> impl Iterator<Item = (&EmbeddingAddition, f32)> {
        let counting = self.list.iter().filter(|adapter| adapter.info.scale != 0.0);
        counting.flat_map(|adapter| adapter.embedding.iter().map(|e| (e, e.scale * adapter.info.scale)))
    }

    /// Gives every weight the additions it has now.
    fn apply(&mut self, weights: &mut Weights) -> Result<()> {
        self.info = self.list.iter().map(|adapter| adapter.info).collect();
        self.of_embedding().try_for_each(|(_, scale)| check_scale(scale))?;
        for projection in weights.projections_mut() {
            let weight = &mut projection.weight;
            let mut additions = Vec::new();
            for adapter in self.list.iter().filter(|adapter| adapter.info.scale != 0.0) {
                for Addition { place, low_rank } in &adapter.additions {
                    if self.placed.get(*place).is_some_and(|placed| placed.weight.is_same(weight)) {
                        let scale = low_rank.scale * adapter.info.scale;
                        additions.push(LowRank { scale, ..low_rank.clone() });
                    }
                }
            }
            weight.set_low_rank(additions)?;
        }
        Ok(())
    }
}

fn check_scale(scale: f32) -> Result<()> {
    if scale.is_finite() { Ok(()) } else { Err(Error::AdapterScale { scale }) }
}
