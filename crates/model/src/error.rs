//! What can go wrong between a checkpoint and its logits.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a model. It names the key, the tensor or the argument it is about; the file is known to the caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A family that has no record here.
    #[error(
        "the architecture {name:?} is not supported{}; {}supported are {}",
        lacking_words(lacking),
        nearest_words(nearest),
        supported.join(", ")
    )]
    UnknownArchitecture {
        /// What the file calls itself.
        name: String,
        /// What it needs that is not built, where the family is known; else empty.
        lacking: &'static str,
        /// Supported names spelled much like it, best first.
        nearest: Vec<&'static str>,
        /// All supported names.
        supported: Vec<&'static str>,
    },
    /// A `model_type` that no record here has.
    #[error(
        "the model_type {name:?} is not supported{}; {}supported are {}",
        lacking_words(lacking),
        nearest_words(nearest),
        supported.join(", ")
    )]
    UnknownModelType {
        /// What the file calls itself.
        name: String,
        /// What it needs that is not built, where the family is known; else empty.
        lacking: &'static str,
        /// Supported families spelled much like it, best first.
        nearest: Vec<&'static str>,
        /// All supported names.
        supported: Vec<&'static str>,
    },
    /// A description of a family that cannot be understood.
    #[error("the description of the architecture: {what}")]
    Description {
        /// What is wrong with it.
        what: String,
    },
    /// A number or name that the file does not have and the model cannot do without.
    #[error("the metadata key {key} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A number that makes no sense.
    #[error("the metadata key {key} is {value}: {why}")]
    BadKey {
        /// The key.
        key: String,
        /// Its value, printed.
        value: String,
        /// What a good one looks like.
        why: String,
    },
    /// Something a file asks for that is not built.
    #[error("{what} is not supported")]
    Unsupported {
        /// What the file asks for.
        what: String,
    },
    /// A tensor that the architecture needs.
    #[error("the tensor {name} is missing{}", hint_words(hint))]
    MissingTensor {
        /// Its name.
        name: String,
        /// What its absence says about the file; may be empty.
        hint: &'static str,
    },
    /// A tensor whose shape contradicts the numbers of the model.
    #[error("the tensor {name} has the shape {found}, expected {expected}")]
    TensorShape {
        /// Its name.
        name: String,
        /// The shape in the file, outermost dimension first.
        found: String,
        /// The shape that the numbers ask for.
        expected: String,
    },
    /// Tensors inside a layer that the architecture has no place for: the result would not be this model's.
    #[error("the file holds {n} tensors that the architecture {architecture} has no place for, among them {first}")]
    UnplacedTensors {
        /// The family.
        architecture: &'static str,
        /// How many.
        n: usize,
        /// The first of them.
        first: String,
    },
    /// A file that is to be an adapter and is none.
    #[error("this is no adapter: neither `general.type` nor an adapter_config.json beside it says so")]
    NotAnAdapter,
    /// An adapter that is to be a model.
    #[error("this is an adapter, not a model: it changes a model that is loaded without it")]
    IsAnAdapter,
    /// An adapter without a single addition.
    #[error("the adapter holds no pair of matrices")]
    EmptyAdapter,
    /// An adapter made for another family.
    #[error("the adapter is for the architecture {adapter:?}, the model is {model}")]
    AdapterFamily {
        /// What the adapter says.
        adapter: String,
        /// The model's.
        model: &'static str,
    },
    /// An adapter for a tensor that the model does not have.
    #[error("the adapter is for another model: it adds to {target}, which this model ({model}) has no matrix for")]
    AdapterTarget {
        /// The tensor it is for.
        target: String,
        /// The model's family.
        model: &'static str,
    },
    /// One of the two matrices of an addition is missing.
    #[error("the adapter has the tensor {tensor} but not {missing}")]
    AdapterHalf {
        /// The one that is there.
        tensor: String,
        /// The other.
        missing: String,
    },
    /// A scale that is no number.
    #[error("the scale {scale} of an adapter is not finite")]
    AdapterScale {
        /// What it is.
        scale: f32,
    },
    /// An adapter that there is not.
    #[error("there is no adapter number {}", .index + 1)]
    NoAdapter {
        /// Its index.
        index: usize,
    },
    /// A size that does not fit the address space.
    #[error("the size of {what} overflows")]
    Overflow {
        /// What was being measured.
        what: String,
    },
    /// A batch that contradicts itself or the model: a bug of the caller.
    #[error("batch: {0}")]
    Batch(String),
    /// The progress callback asked to stop.
    #[error("loading was cancelled")]
    Cancelled,
    /// The caller asked to break off a pass.
    #[error("the forward pass was broken off")]
    Interrupted,
    /// From the file.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// From the bytes of a tensor.
    #[error("the tensor {name}: {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why.
        source: tensor::Error,
    },
    /// From the device.
    #[error(transparent)]
    Compute(#[from] compute::Error),
}

fn lacking_words(lacking: &str) -> String {
    if lacking.is_empty() { String::new() } else { format!(": it is known, but its models need {lacking}") }
}

fn nearest_words(nearest: &[&'static str]) -> String {
    if nearest.is_empty() { String::new() } else { format!("close to it is {}; ", nearest.join(", ")) }
}

fn hint_words(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!(": {hint}") }
}
