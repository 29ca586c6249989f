//! The one decoder, described by data: which operations make a language model, and in which order.
//!
//! What belongs here: families as records, the numbers of a model and their validation, the memory plan, loading, the
//! forward pass. What does not: file formats, kernels, tokens and templates, scheduling and sampling.
//!
//! Floor 2: imports only `tensor`, `checkpoint` and `compute`. Knows the names and weight conventions of GGUF, of Hugging
//! Face and of Meta, told by the metadata, but no file format and no device by name.
#![forbid(unsafe_code)]

mod adapter;
mod arch;
mod architecture;
mod batch;
mod cache;
mod convention;
mod decoder;
mod description;
mod error;
mod export;
mod forward;
mod hugging_face;
mod hyper;
mod keys;
mod load;
mod meta;
mod observed;
mod plan;
mod rope;
mod row_order;
mod scratch;
mod weights;

pub use adapter::AdapterInfo;
pub use architecture::{Architecture, ExpertOrder, NormPlaces, Recurrence, WindowPattern, WindowedRope};
pub use batch::Batch;
pub use cache::{kv_block_bytes, kv_bytes, kv_spec, n_states, states_bytes};
pub use decoder::{Decoder, MemoryUse};
pub use error::{Error, Result};
pub use export::{Export, ExportTensor, Rows};
pub use hyper::{DeltaParams, ExpertParams, HyperParams, LatentParams, LayerParams, Mixer, StreamParams};
pub use load::{LoadOptions, LoadProgress, Retype};
pub use observed::ObservedTensor;
pub use plan::{KeptBytes, MemoryPlan, PlanRow, WeightGroup};
pub use rope::{RopeParams, RopeScaling};
