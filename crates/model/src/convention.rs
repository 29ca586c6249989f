//! The conventions by which files name numbers and tensors: that of the house, which is GGUF's, Hugging Face's and Meta's.
//!
//! What belongs here: which one a file follows, told by its metadata and by nothing else, and the lookups that translate.
//! What does not: the tables of names (`hugging_face.rs`, `meta.rs`), the meaning of numbers (`hyper/`).

use crate::adapter::is_adapter;
use crate::arch::META;
use crate::{Architecture, Error, ExpertOrder, Result};
use crate::{hugging_face, meta};
use checkpoint::{Checkpoint, Metadata, TensorInfo, Value};
use compute::RopePairing;

/// The key that a file of the house's convention has.
const ARCHITECTURE_KEY: &str = "general.architecture";
/// Where a reader says that norm weights are those that are multiplied with.
const WHOLE_NORMS_KEY: &str = "weights.whole_norms";
/// Where a reader says that the rows of every matrix belong to its outputs.
const ROWS_KEY: &str = "weights.rows_are_outputs";

/// How a file names things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convention {
    /// `llama.block_count`, `blk.0.attn_q.weight`: names are as they are in the code.
    House,
    /// `config.num_hidden_layers`, `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
    /// `params.n_layers`, `layers.0.attention.wq.weight`.
    Meta,
}

impl Convention {
    /// The convention and the family of a file. Error: neither is to be seen, or a family that is not supported.
    pub(crate) fn of(metadata: &Metadata) -> Result<(Convention, &'static Architecture)> {
        if is_adapter(metadata) && !hugging_face::is_followed(metadata) {
            return Err(Error::IsAnAdapter);
        }
        if let Some(name) = metadata.str(ARCHITECTURE_KEY)? {
            return Ok((Convention::House, Architecture::find(name)?));
        }
        match hugging_face::architecture(metadata)? {
            Some(architecture) => Ok((Convention::HuggingFace, architecture)),
            None if meta::is_followed(metadata) => Ok((Convention::Meta, META)),
            None => {
                let key = format!("{ARCHITECTURE_KEY} or {}", hugging_face::MODEL_TYPE_KEY);
                Err(Error::MissingKey { key })
            }
        }
    }

    /// The file's spelling of `key`: where it is, or where it would be.
    pub(crate) fn key(self, metadata: &Metadata, architecture: &Architecture, key: &str) -> String {
        match self {
            Convention::House => format!("{}.{key}", architecture.name),
            Convention::HuggingFace => hugging_face::key(metadata, key),
            Convention::Meta => meta::key(key),
        }
    }

    /// The number that the family has for `key` where the file does not say.
    pub(crate) fn default(self, metadata: &Metadata, architecture: &Architecture, key: &str) -> Option<f64> {
        let defaults = match self {
            Convention::House => &[],
            Convention::HuggingFace => architecture.config_defaults,
            Convention::Meta => meta::defaults(metadata),
        };
        defaults.iter().find(|(k, _)| *k == key).map(|&(_, value)| value)
    }

    /// Which elements of a head RoPE pairs, given the order in which the file stores the rows of Q and K.
    pub(crate) fn pairing(self, architecture: &Architecture) -> RopePairing {
        match self {
            Convention::House => architecture.pairing,
            Convention::HuggingFace => architecture.config_pairing,
            Convention::Meta => RopePairing::Interleaved,
        }
    }
}

/// Finds tensors by the house's names.
pub(crate) struct Names<'a> {
    checkpoint: &'a Checkpoint,
    convention: Convention,
    architecture: &'static Architecture,
    root: hugging_face::Root,
}

impl<'a> Names<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, convention: Convention, architecture: &'static Architecture) -> Self {
        Names { checkpoint, convention, architecture, root: hugging_face::Root::of(checkpoint, architecture) }
    }

    /// What the file may call the tensor, likeliest first.
    fn spellings(&self, name: &str) -> Vec<String> {
        match self.convention {
            Convention::House => {
                let plain = self.house_spelling(name);
                // Gate and up of experts may be one tensor.
                let fused = plain.contains(".ffn_up_exps.").then(|| plain.replace("ffn_up_exps", "ffn_gate_up_exps"));
                std::iter::once(plain).chain(fused).collect()
            }
            Convention::HuggingFace => hugging_face::tensor(self.root, self.architecture, name),
            Convention::Meta => meta::tensor(name),
        }
    }

    /// The name in GGUF files, which differs from the house's in a few families.
    pub(crate) fn house_spelling(&self, name: &str) -> String {
        let renamed = |&(house, own): &(&str, &str)| {
            let (head, kind) = name.rsplit_once('.')?;
            if head == house {
                return Some(format!("{own}.{kind}"));
            }
            Some(format!("{}.{own}.{kind}", head.strip_suffix(house)?.strip_suffix('.')?))
        };
        self.architecture.house_renamed.iter().find_map(renamed).unwrap_or_else(|| name.to_owned())
    }

    /// The tensor; of one that is stored in pieces, the first.
    pub(crate) fn find(&self, name: &str) -> Option<&'a TensorInfo> {
        self.spellings(name).iter().find_map(|spelling| self.checkpoint.tensor(&hugging_face::piece(spelling, 0)))
    }

    /// The file's name of the tensor, whether it is there or missing.
    pub(crate) fn spelled(&self, name: &str) -> String {
        let found = self.find(name).map(|info| info.name.clone());
        found.or_else(|| self.spellings(name).into_iter().next()).unwrap_or_else(|| name.to_owned())
    }

    /// The file's name of the tensor; of one that is stored in pieces, that of all of them, with `{}`.
    pub(crate) fn spelling(&self, name: &str) -> String {
        let spellings = self.spellings(name);
        let in_file = |s: &&String| self.checkpoint.tensor(&hugging_face::piece(s, 0)).is_some();
        spellings.iter().find(in_file).or(spellings.first()).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Names of the pieces of a tensor that the file stores as `n` along its first dimension. `None`: it is in one.
    pub(crate) fn pieces(&self, name: &str, n: usize) -> Option<Vec<String>> {
        let spelling = self.spelling(name);
        let split = hugging_face::piece(&spelling, 0) != spelling;
        split.then(|| (0..n).map(|i| hugging_face::piece(&spelling, i)).collect())
    }

    /// What the file's norm weights lack.
    pub(crate) fn norm_offset(&self) -> f32 {
        match self.convention {
            Convention::HuggingFace if self.architecture.norms_less_one && !self.says(WHOLE_NORMS_KEY) => 1.0,
            _ => 0.0,
        }
    }

    /// Whether fused Q, K and V lie by K/V head.
    pub(crate) fn are_fused_by_head(&self) -> bool {
        self.convention == Convention::HuggingFace && self.architecture.fused_by_head
    }

    /// Whether the file stores the matrix `name` of a layer as `[n_in, n_out]`.
    pub(crate) fn is_transposed(&self, name: &str) -> bool {
        let stored = self.convention == Convention::HuggingFace && self.architecture.transposed;
        stored && name.starts_with("blk.") && !self.says(ROWS_KEY)
    }

    /// Whether the rows of the output matrix of a vocabulary of `n_vocab` must still be brought to the length 1.
    pub(crate) fn lacks_unit_rows(&self, n_vocab: usize) -> bool {
        self.convention == Convention::HuggingFace && self.architecture.unit_output_rows_at == Some(n_vocab)
    }

    /// How the experts of a layer lie in one tensor; transposed ones have their input before their output.
    pub(crate) fn expert_order(&self) -> ExpertOrder {
        match self.convention {
            Convention::HuggingFace => self.architecture.expert_order,
            Convention::House | Convention::Meta => ExpertOrder::Halves,
        }
    }

    /// Whether the reader says so of its tensors, whatever the family has elsewhere.
    fn says(&self, key: &str) -> bool {
        self.checkpoint.metadata().get(key).and_then(Value::as_bool) == Some(true)
    }

    /// The layer that a tensor of the file belongs to.
    pub(crate) fn layer_of(&self, name: &str) -> Option<usize> {
        let below = match self.convention {
            Convention::House => name.strip_prefix("blk.")?,
            Convention::HuggingFace => name.strip_prefix(&self.root.layers(self.architecture))?,
            Convention::Meta => name.strip_prefix("layers.")?,
        };
        below.split_once('.')?.0.parse().ok()
    }

    /// Whether a tensor that nothing uses changes nothing: a copy of RoPE's numbers, or another modality.
    pub(crate) fn is_harmless(&self, name: &str) -> bool {
        let (prefixes, suffixes): (&[&str], &[&str]) = match self.convention {
            Convention::House => (&["v.", "a.", "mm."], &[".rope_freqs.weight", ".attn_rot_embd.weight"]),
            Convention::HuggingFace => (hugging_face::OTHER_MODALITIES, hugging_face::BUFFERS),
            Convention::Meta => (&[], &["rope.freqs"]),
        };
        prefixes.iter().any(|p| name.starts_with(p)) || suffixes.iter().any(|s| name.ends_with(s))
    }
}
