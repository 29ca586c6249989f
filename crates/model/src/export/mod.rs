//! A model in the house's convention, whatever convention its file follows: names, numbers and the order of rows as other
//! programs that read such files expect them.
//!
//! What belongs here: which tensors and numbers a written model has, and how each is made of the source's. What does not:
//! the layout of files (`checkpoint`), types to quantize to (`tensor`), tokenizers (`text`). The order of rows and the
//! tensors of factors are those of llama.cpp's converter.

mod divided;
mod factors;
mod numbers;
mod rows;
mod site;
mod source;
mod tensors;

use crate::convention::Convention;
use crate::{HyperParams, Result};
use checkpoint::{Checkpoint, Value};

pub use rows::Rows;
pub(crate) use site::site;
pub use source::ExportTensor;

/// What to write.
#[derive(Debug)]
pub struct Export {
    /// The numbers of the model.
    pub hyper: HyperParams,
    /// The metadata that say what model it is; none: the source's own are in the house's convention and stay.
    pub numbers: Option<Vec<(String, Value)>>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<ExportTensor>,
    /// Tensors of the source that no language model needs.
    pub left_out: Vec<String>,
}

impl Export {
    /// What the model in `checkpoint` becomes. Reads no tensor.
    ///
    /// Errors: those of [`HyperParams::read`]; tensors that the family has no place for; a number that cannot be said.
    pub fn new(checkpoint: &Checkpoint) -> Result<Export> {
        let hyper = HyperParams::read(checkpoint)?;
        let (convention, architecture) = Convention::of(checkpoint.metadata())?;
        let (tensors, left_out) = tensors::all(checkpoint, convention, architecture, &hyper)?;
        let numbers = match convention {
            Convention::House => None,
            _ => {
                let router = |layer: &usize| format!("blk.{layer}.ffn_gate_inp.weight");
                let has_experts = |layer: usize| tensors.iter().any(|tensor| tensor.name == router(&layer));
                Some(numbers::numbers(&hyper, &(0..hyper.n_layers).map(has_experts).collect::<Vec<bool>>())?)
            }
        };
        Ok(Export { hyper, numbers, tensors, left_out })
    }

    /// Checks that `written`, read back from what was made of this, says the same model.
    ///
    /// Error: something that the new file does not say, or says otherwise.
    pub fn check(&self, written: &HyperParams) -> Result<()> {
        match self.numbers {
            None => Ok(()),
            Some(_) => numbers::check(&self.hyper, written),
        }
    }
}

/// The model's tensors by the house's names; those of the file where they are no model that could be written.
pub(crate) fn listing(checkpoint: &Checkpoint, hyper: &HyperParams) -> Vec<ExportTensor> {
    let named = Convention::of(checkpoint.metadata())
        .and_then(|(convention, architecture)| tensors::all(checkpoint, convention, architecture, hyper));
    named.map_or_else(|_| tensors::as_they_are(checkpoint, hyper), |(tensors, _)| tensors)
}
