//! Directories whose matrices are stored as integers beside their scales and zero points: the tensors that belong together
//! become one of a block type, under the name of the matrix.
//!
//! What belongs here: which convention a directory follows, told by its configuration, and what the conventions share. What
//! does not: how each arranges its integers (`mlx`, `gptq`, `awq`, `fp4`, `bitnet`). A convention that is not known stays in
//! the metadata, for the crates above to refuse by its name.

use super::{awq, bitnet, fp4, gptq, mlx};
use crate::{
    Error, Metadata, Result, TensorInfo,
    error::quoted,
    file::ModelFile,
    joined::{Joined, Recipe},
    view::View,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};
use tensor::{DType, Shape, SharedBytes};

/// Where a configuration says how the weights are quantized. The last one is a file of its own.
pub(super) const PLACES: &[&str] = &["config.quantization", "config.quantization_config", "quantize_config"];

/// The names of a matrix's tensors end in these; what is before them is the matrix's name.
pub(super) struct Ending {
    pub(super) text: &'static str,
    /// Whether there may be a matrix without it.
    pub(super) optional: bool,
}

impl Ending {
    pub(super) const fn needed(text: &'static str) -> Self {
        Self { text, optional: false }
    }
}

/// A convention.
struct Convention {
    /// Whether the configuration names it.
    applies: fn(&Metadata) -> Result<bool>,
    /// Its quantized matrices, of all tensors.
    join: fn(&Metadata, &mut Tensors<'_>) -> Result<()>,
}

static CONVENTIONS: &[Convention] = &[
    Convention { applies: gptq::applies, join: gptq::join },
    Convention { applies: awq::applies, join: awq::join },
    Convention { applies: mlx::applies, join: mlx::join },
    Convention { applies: fp4::applies, join: fp4::join },
    Convention { applies: bitnet::applies, join: bitnet::join },
];

/// Joins what belongs together. The configuration's entry then leaves the metadata: the types of the tensors say it now.
/// Where it has nothing to speak of it stays, as one that is not known.
pub(super) fn join(metadata: &mut Metadata, files: &[ModelFile], tensors: Vec<TensorInfo>) -> Result<Vec<TensorInfo>> {
    let mut tensors = Tensors::new(files, tensors);
    for convention in CONVENTIONS {
        if (convention.applies)(metadata)? {
            (convention.join)(metadata, &mut tensors)?;
            if tensors.n_joined > 0 {
                PLACES.iter().for_each(|place| metadata.remove_below(place));
            }
            return Ok(tensors.into_list());
        }
    }
    let packed = tensors.all().find(|t| t.dtype == DType::U32 && tensors.partner(t, ".weight", ".scales").is_some());
    if let Some(weight) = packed {
        let problem = "it is quantized (U32 with scales), and config.json has no `quantization` that says how";
        return Err(tensors.damaged(weight, problem.to_owned()));
    }
    Ok(tensors.into_list())
}

/// The text of `key` below any of [`PLACES`].
pub(super) fn text<'m>(metadata: &'m Metadata, key: &str) -> Result<Option<&'m str>> {
    for place in PLACES {
        if let Some(found) = metadata.str(&format!("{place}.{key}"))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The integer of `key` below any of [`PLACES`].
pub(super) fn integer(metadata: &Metadata, key: &str) -> Result<Option<i32>> {
    for place in PLACES {
        if let Some(found) = metadata.i32(&format!("{place}.{key}"))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// All tensors of a directory, by name.
pub(super) struct Tensors<'a> {
    files: &'a [ModelFile],
    list: Vec<Option<TensorInfo>>,
    places: HashMap<String, usize>,
    /// Matrices made so far.
    n_joined: usize,
}

impl<'a> Tensors<'a> {
    /// Of tensors with the same name only the last is found here; the checkpoint refuses them later.
    fn new(files: &'a [ModelFile], tensors: Vec<TensorInfo>) -> Self {
        let places = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Self { files, list: tensors.into_iter().map(Some).collect(), places, n_joined: 0 }
    }

    fn into_list(self) -> Vec<TensorInfo> {
        self.list.into_iter().flatten().collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &TensorInfo> {
        self.list.iter().flatten()
    }

    pub(super) fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.list.get(*self.places.get(name)?)?.as_ref()
    }

    /// The tensor whose name has another ending than that of `tensor`.
    fn partner(&self, tensor: &TensorInfo, ending: &str, other: &str) -> Option<&TensorInfo> {
        self.get(&format!("{}{other}", tensor.name.strip_suffix(ending)?))
    }

    /// The names of matrices that have any of these tensors, and those tensors in the order of `endings`. Error: one is
    /// missing that must be there.
    pub(super) fn groups<const N: usize>(
        &self,
        endings: &[Ending; N],
        is_one: impl Fn(&TensorInfo) -> bool,
    ) -> Result<BTreeMap<String, [Option<TensorInfo>; N]>> {
        let mut found: BTreeMap<String, [Option<TensorInfo>; N]> = BTreeMap::new();
        for tensor in self.all() {
            let matrix = endings.iter().find_map(|ending| tensor.name.strip_suffix(ending.text));
            let Some(matrix) = matrix.filter(|_| is_one(tensor)) else { continue };
            if found.contains_key(matrix) {
                continue;
            }
            let named = |ending: &Ending| self.get(&format!("{matrix}{}", ending.text)).cloned();
            let tensors: [Option<TensorInfo>; N] = std::array::from_fn(|i| endings.get(i).and_then(named));
            let missing = endings.iter().zip(&tensors).find(|(ending, t)| !ending.optional && t.is_none());
            if let Some((ending, _)) = missing {
                let problem = format!("the tensor {} is missing", quoted(format!("{matrix}{}", ending.text)));
                return Err(self.damaged(tensor, format!("it is a part of a quantized matrix, and {problem}")));
            }
            found.insert(matrix.to_owned(), tensors);
        }
        Ok(found)
    }

    /// An error about a tensor.
    pub(super) fn damaged(&self, tensor: &TensorInfo, problem: String) -> Error {
        let path = self.path(tensor).to_owned();
        Error::Malformed { path, field: format!("tensor {}", quoted(&tensor.name)), problem }
    }

    /// A refusal of what a tensor means.
    pub(super) fn unsupported(&self, tensor: &TensorInfo, type_name: String) -> Error {
        Error::UnsupportedType { path: self.path(tensor).to_owned(), tensor: quoted(&tensor.name), type_name }
    }

    fn path(&self, tensor: &TensorInfo) -> &Path {
        self.files.get(tensor.part).map_or(Path::new(""), ModelFile::path)
    }

    /// The bytes of a tensor of the files.
    pub(super) fn read(&self, tensor: &TensorInfo) -> Result<SharedBytes> {
        tensor.read(self.path(tensor), self.files)
    }

    /// Error unless `tensor` has one of `dtypes`.
    pub(super) fn check_dtype(&self, tensor: &TensorInfo, dtypes: &[DType]) -> Result<()> {
        if dtypes.contains(&tensor.dtype) {
            return Ok(());
        }
        let expected: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
        let problem =
            format!("its type is {}, and in a quantized matrix it is {}", tensor.dtype, expected.join(" or "));
        Err(self.damaged(tensor, problem))
    }

    /// Error unless `tensor` has the shape `expected`, which `reason` explains.
    pub(super) fn check_shape(&self, tensor: &TensorInfo, expected: &[usize], reason: &str) -> Result<()> {
        if tensor.shape.dims() == expected {
            return Ok(());
        }
        Err(self.damaged(tensor, format!("its shape is {}, and {expected:?} is needed: {reason}", tensor.shape)))
    }

    /// Puts the tensor `name` in the place of `inputs`, the first of which stands for it in messages.
    pub(super) fn replace(
        &mut self,
        name: String,
        dtype: DType,
        dims: &[usize],
        inputs: Vec<TensorInfo>,
        recipe: Arc<dyn Recipe>,
    ) -> Result<()> {
        let Some(first) = inputs.first() else { return Ok(()) };
        if self.get(&name).is_some_and(|other| inputs.iter().all(|input| input.name != other.name)) {
            let problem = format!("it is a part of {}, which the file holds as well", quoted(&name));
            return Err(self.damaged(first, problem));
        }
        let overflow = || self.damaged(first, format!("the size of the matrix {dims:?} overflows"));
        let shape = Shape::new(dims).ok_or_else(overflow)?;
        let bytes = dtype.tensor_bytes(&shape).map_err(|e| self.damaged(first, e.to_string()))? as u64;
        let (part, offset) = (first.part, first.offset);
        let place = self.places.get(&first.name).copied();
        for input in &inputs {
            if let Some(slot) = self.places.get(&input.name).and_then(|place| self.list.get_mut(*place)) {
                *slot = None;
            }
        }
        let view = Some(Arc::new(View::Joined(Joined { inputs, recipe })));
        if let Some(place) = place
            && let Some(slot) = self.list.get_mut(place)
        {
            self.n_joined += 1;
            self.places.insert(name.clone(), place);
            *slot = Some(TensorInfo { name, dtype, shape, bytes, part, offset, view, made: None });
        }
        Ok(())
    }
}

/// Types of scales.
pub(super) const FLOATS: &[DType] = &[DType::F16, DType::BF16, DType::F32];

/// The numbers that `bytes` of the type `dtype` are. `None`: no whole ones, or no numbers.
pub(super) fn floats(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    let mut values = vec![0.0; bytes.len().checked_div(dtype.block_bytes())?];
    dtype.decode(bytes, &mut values).ok()?;
    Some(values)
}
