//! Tensors made of several tensors of the files: integers, scales and zero points that lie apart and belong together.
//!
//! What belongs here: fetching the inputs and handing them to a recipe. What does not: the recipes, which are the business
//! of the formats that need them (`format`). Nothing goes through `f32`: a recipe reorders integers.

use crate::{Error, Result, TensorInfo, error::quoted, file::ModelFile};
use std::{fmt, path::Path, sync::Arc};
use tensor::SharedBytes;

/// Why a recipe cannot do it.
pub(crate) enum Refusal {
    /// The inputs contradict each other.
    Damaged(String),
}

/// What a recipe comes to.
pub(crate) type Outcome = std::result::Result<(), Refusal>;

/// How a tensor is made.
pub(crate) trait Recipe: fmt::Debug + Send + Sync {
    /// Fills `out`, which has the bytes of the whole tensor, all zero, from those of the inputs. Their number and sizes were
    /// proven when the tensor was listed.
    fn make(&self, inputs: &[SharedBytes], out: &mut [u8]) -> Outcome;
}

/// A tensor that is made when it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) inputs: Vec<TensorInfo>,
    pub(crate) recipe: Arc<dyn Recipe>,
}

impl PartialEq for Joined {
    /// In one model the same inputs make the same tensor.
    fn eq(&self, other: &Self) -> bool {
        self.inputs == other.inputs
    }
}

impl Eq for Joined {}

impl Joined {
    /// The bytes of the tensor `info` of the model at `path`.
    pub(crate) fn load(&self, path: &Path, parts: &[ModelFile], info: &TensorInfo) -> Result<SharedBytes> {
        let what = || format!("tensor {}", quoted(&info.name));
        let no_memory = || Error::Memory { path: path.to_owned(), bytes: info.bytes, what: what() };
        let inputs = self.inputs.iter().map(|input| input.read(path, parts)).collect::<Result<Vec<_>>>()?;
        let len = usize::try_from(info.bytes).map_err(|_| no_memory())?;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| no_memory())?;
        out.resize(len, 0);
        let file = || parts.get(info.part).map_or(path, ModelFile::path).to_owned();
        self.recipe.make(&inputs, &mut out).map_err(|Refusal::Damaged(problem)| Error::Malformed {
            path: file(),
            field: what(),
            problem,
        })?;
        for input in &inputs {
            let _ = parts.iter().any(|part| part.release(input));
        }
        Ok(SharedBytes::from_vec(out))
    }
}
