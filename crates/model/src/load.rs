//! Tensors by the house's names, checked against the numbers, brought to the device.
//!
//! What belongs here: expected shapes, optional parts (told by presence), fused tensors split by rows, pieces joined,
//! progress. What does not: how a file spells a name (`convention.rs`), what the tensors are used for (`decoder.rs`), their
//! bytes (`checkpoint`), their layout (`compute`).

use crate::convention::{Convention, Names};
use crate::hyper::{HyperParams, LayerParams};
use crate::keys::Keys;
use crate::rope::RopeScaling;
use crate::weights::{Block, FeedForwardWeights, Weights};
use crate::{Error, Result};
use checkpoint::Checkpoint;
use compute::{Device, Norm, NormKind, Projection, Rope, Weight, WeightUse};
use std::collections::HashSet;
use std::ops::ControlFlow;
use tensor::{HostTensor, Shape, SharedBytes};

/// How to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Rows computed at once at most; longer batches are cut. More need more scratch memory and prefill faster.
    pub max_rows: usize,
    /// Positions that the cache will hold; none: as many as the model was trained for. LongRoPE chooses by it.
    pub context_length: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_rows: 512, context_length: None }
    }
}

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of the file's tensors that are done.
    pub done_bytes: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
}

/// What loading yields besides the weights.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Bytes of the weights as the device keeps them.
    pub(crate) resident_bytes: u64,
    /// How many of them lie in the file's memory.
    pub(crate) mapped_bytes: u64,
    /// Tensors of the file that nothing needs.
    pub(crate) unused: Vec<String>,
}

/// Fetches, checks and uploads all weights.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    device: &dyn Device,
    hyper: &HyperParams,
    options: &LoadOptions,
    progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
) -> Result<Loaded> {
    let total_bytes = checkpoint.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes));
    let (convention, architecture) = Convention::of(checkpoint.metadata())?;
    let mut loader = Loader {
        checkpoint,
        names: Names::new(checkpoint, convention, architecture),
        device,
        hyper,
        progress,
        at: LoadProgress { done_bytes: 0, total_bytes },
        used: HashSet::new(),
        resident_bytes: 0,
        mapped_bytes: 0,
    };
    loader.report(0)?;
    let weights = loader.weights(options)?;
    let unused = loader.unused()?;
    loader.report(total_bytes)?;
    Ok(Loaded { weights, resident_bytes: loader.resident_bytes, mapped_bytes: loader.mapped_bytes, unused })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    names: Names<'a>,
    device: &'a dyn Device,
    hyper: &'a HyperParams,
    progress: &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    at: LoadProgress,
    used: HashSet<String>,
    resident_bytes: u64,
    mapped_bytes: u64,
}

impl Loader<'_> {
    fn weights(&mut self, options: &LoadOptions) -> Result<Weights> {
        let (width, n_vocab) = (self.hyper.width, self.hyper.n_vocab);
        let tied = self.hyper.tied_embeddings.unwrap_or(!self.has("output.weight"));
        if tied {
            // A copy of the embedding, where there is one.
            self.used.insert(self.names.spelled("output.weight"));
        }
        let usage = if tied { WeightUse::Matrix } else { WeightUse::Table };
        let embedding = self.weight("token_embd.weight", &[n_vocab, width], usage)?;
        let rope = self.rope(options)?;
        let local_rope = self.local_rope()?;
        let layers = self.hyper.layers.iter().enumerate();
        let blocks = layers
            .map(|(i, layer)| {
                let rope = match (layer.rotates, layer.local) {
                    (false, _) => None,
                    (true, false) => Some(rope.clone()),
                    (true, true) => Some(local_rope.clone()),
                };
                self.block(i, layer, rope)
            })
            .collect::<Result<_>>()?;
        let output_norm = self.norm("output_norm", width)?;
        let head = match tied {
            true => Projection { weight: embedding.clone(), bias: self.bias("output.bias", n_vocab)? },
            false => self.projection("output", &[n_vocab, width])?,
        };
        Ok(Weights { embedding, blocks, output_norm, head })
    }

    fn block(&mut self, i: usize, layer: &LayerParams, rope: Option<Rope>) -> Result<Block> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (pre, post) = (self.hyper.has_pre_norms(), self.hyper.has_post_norms());
        let attn_norm = if pre { Some(self.norm(&name("attn_norm"), width)?) } else { None };
        let (q_dim, k_dim, v_dim) = (layer.q_dim(), layer.k_dim(), layer.v_dim());
        let [q, k, v] = if self.has(&name("attn_qkv.weight")) {
            self.fused(&name("attn_qkv"), [q_dim, k_dim, v_dim], width)?
        } else {
            [
                self.projection(&name("attn_q"), &[q_dim, width])?,
                self.projection(&name("attn_k"), &[k_dim, width])?,
                self.projection(&name("attn_v"), &[v_dim, width])?,
            ]
        };
        Ok(Block {
            attn_norm,
            q,
            k,
            v,
            q_norm: self.head_norm(&name("attn_q_norm"), layer.head_dim, layer.n_heads)?,
            k_norm: self.head_norm(&name("attn_k_norm"), layer.head_dim, layer.n_kv_heads)?,
            rope,
            o: self.projection(&name("attn_output"), &[width, layer.attention_dim()])?,
            attn_post_norm: if post { Some(self.norm(&name("post_attention_norm"), width)?) } else { None },
            ffn_norm: if pre { Some(self.norm(&name("ffn_norm"), width)?) } else { None },
            feed_forward: self.feed_forward(i, layer.n_ff)?,
            ffn_post_norm: if post { Some(self.norm(&name("post_ffw_norm"), width)?) } else { None },
        })
    }

    fn feed_forward(&mut self, i: usize, n_ff: usize) -> Result<FeedForwardWeights> {
        let width = self.hyper.width;
        let name = |part: &str| format!("blk.{i}.{part}");
        if let Some(experts) = self.hyper.experts.as_ref().filter(|_| self.has(&name("ffn_gate_inp.weight"))) {
            let (n, n_ff) = (experts.n_experts, experts.n_ff);
            return Ok(FeedForwardWeights::Experts {
                rule: experts.rule,
                router: self.projection(&name("ffn_gate_inp"), &[n, width])?,
                choice_bias: self.bias(&name("exp_probs_b.bias"), n)?,
                gate: self.expert_stack(&name("ffn_gate_exps"), &[n, n_ff, width])?,
                up: self.expert_stack(&name("ffn_up_exps"), &[n, n_ff, width])?,
                down: self.expert_stack(&name("ffn_down_exps"), &[n, width, n_ff])?,
            });
        }
        if n_ff == 0 {
            let keys = Keys::new(self.checkpoint.metadata())?;
            return Err(keys.bad("feed_forward_length", 0, &format!("layer {i} is dense")));
        }
        let [gate, up] = if self.has(&name("ffn_gate.weight")) {
            [self.projection(&name("ffn_gate"), &[n_ff, width])?, self.projection(&name("ffn_up"), &[n_ff, width])?]
        } else {
            self.fused(&name("ffn_up"), [n_ff, n_ff], width)?
        };
        let down = self.projection(&name("ffn_down"), &[width, n_ff])?;
        Ok(FeedForwardWeights::Dense { gate, up, down })
    }

    /// RoPE with whatever scaling the numbers and tensors of the file ask for.
    fn rope(&mut self, options: &LoadOptions) -> Result<Rope> {
        let params = &self.hyper.rope;
        let context_length = options.context_length.unwrap_or(self.hyper.context_length);
        let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
        let is_long = context_length > params.original_context;
        let divisors = if let Some([short, long]) = &params.divisors {
            Some(if is_long { long.clone() } else { short.clone() })
        } else if self.has("rope_freqs.weight") {
            Some(self.rope_divisors("rope_freqs.weight")?)
        } else if params.scaling == RopeScaling::LongRope || self.has(short) || self.has(long) {
            self.used.extend([short, long].map(str::to_owned));
            Some(self.rope_divisors(if is_long { long } else { short })?)
        } else {
            None
        };
        let frequencies = params.frequencies(divisors.as_deref(), context_length);
        self.rope_of(&frequencies, params.magnitude())
    }

    /// What the frequencies of each pair are divided by.
    fn rope_divisors(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.fetch(name, &[self.hyper.rope.n_dims / 2])?;
        let values = tensor.to_f32().map_err(|e| in_tensor(name, e))?;
        if values.iter().any(|d| !d.is_finite() || *d <= 0.0) {
            return Err(Error::Unsupported { what: format!("{name} with a factor that is not above 0") });
        }
        Ok(values)
    }

    fn local_rope(&mut self) -> Result<Rope> {
        let frequencies = self.hyper.rope.local_frequencies();
        self.rope_of(&frequencies, 1.0)
    }

    fn rope_of(&mut self, frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        if !magnitude.is_finite() || frequencies.iter().any(|f| !f.is_finite()) {
            return Err(Error::Unsupported { what: "RoPE scaling with numbers this extreme".to_owned() });
        }
        let (pairing, n_dims) = (self.hyper.rope.pairing, self.hyper.rope.n_dims);
        Ok(Rope { pairing, n_dims, frequencies: self.made_vector("rope frequencies", frequencies)?, magnitude })
    }

    /// A norm over the whole width; its shift where the file has one.
    fn norm(&mut self, base: &str, width: usize) -> Result<Norm> {
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
        Ok(Norm { kind: NormKind::Rms, weight: Some(weight), bias, eps: self.hyper.norm_eps })
    }

    /// A norm of query or key heads, if there is one: each by itself or all at once, as its shape tells.
    fn head_norm(&mut self, base: &str, head_dim: usize, n_heads: usize) -> Result<Option<Norm>> {
        let Some(info) = self.names.find(&format!("{base}.weight")) else { return Ok(None) };
        let width = if info.shape.elements() == head_dim { head_dim } else { n_heads * head_dim };
        self.norm(base, width).map(Some)
    }

    fn projection(&mut self, base: &str, shape: &[usize; 2]) -> Result<Projection> {
        let weight = self.weight(&format!("{base}.weight"), shape, WeightUse::Matrix)?;
        Ok(Projection { weight, bias: self.bias(&format!("{base}.bias"), shape[0])? })
    }

    fn expert_stack(&mut self, base: &str, shape: &[usize; 3]) -> Result<Projection> {
        let name = format!("{base}.weight");
        let weight = match self.names.pieces(&name, shape[0]) {
            Some(pieces) => {
                let whole = self.joined(&name, &pieces, shape)?;
                self.upload(&whole, WeightUse::Experts, false)?
            }
            None => self.weight(&name, shape, WeightUse::Experts)?,
        };
        let bias_name = format!("{base}.bias");
        let bias = match self.has(&bias_name) {
            true => Some(self.weight(&bias_name, &shape[..2], WeightUse::Vector)?),
            false => None,
        };
        Ok(Projection { weight, bias })
    }

    /// One tensor made of those that the file calls `pieces`, one after another along the first dimension of `shape`.
    fn joined(&mut self, name: &str, pieces: &[String], shape: &[usize; 3]) -> Result<HostTensor> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let sizes = pieces.iter().map(|piece| self.checkpoint.tensor(piece).map_or(0, |info| info.bytes));
        let n_bytes = sizes.fold(0u64, u64::saturating_add);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(n_bytes).map_err(|_| overflow())?).map_err(|_| overflow())?;
        let mut dtype = None;
        for piece in pieces {
            let tensor = self.fetch_spelled(piece, &shape[1..])?;
            let first = *dtype.get_or_insert(tensor.dtype());
            if first != tensor.dtype() {
                let what = format!("{piece} in another type ({}) than its siblings ({first})", tensor.dtype());
                return Err(Error::Unsupported { what });
            }
            bytes.extend_from_slice(tensor.bytes());
            self.checkpoint.release(&tensor);
        }
        let (dtype, shape) = (dtype.ok_or_else(overflow)?, Shape::new(shape).ok_or_else(overflow)?);
        HostTensor::new(name, dtype, shape, SharedBytes::from_vec(bytes)).map_err(|e| in_tensor(name, e))
    }

    /// Several matrices stored as one, and their biases.
    fn fused<const N: usize>(&mut self, base: &str, n_out: [usize; N], n_in: usize) -> Result<[Projection; N]> {
        let (weight_name, bias_name) = (format!("{base}.weight"), format!("{base}.bias"));
        let n_all = n_out.iter().sum();
        let whole = self.fetch(&weight_name, &[n_all, n_in])?;
        let bias = match self.has(&bias_name) {
            true => Some(self.fetch(&bias_name, &[n_all])?.to_f32().map_err(|e| in_tensor(&bias_name, e))?),
            false => None,
        };
        let mut parts = Vec::with_capacity(N);
        let mut start = 0;
        let mut mapped = false;
        for n in n_out {
            let name = format!("{weight_name}[{start}..{}]", start + n);
            let part = whole.rows(name, start..start + n).map_err(|e| in_tensor(&weight_name, e))?;
            let weight = self.upload(&part, WeightUse::Matrix, true)?;
            mapped |= weight.is_mapped();
            let bias = match bias.as_ref().and_then(|b| b.get(start..start + n)) {
                Some(values) => Some(self.made_vector(&bias_name, values)?),
                None => None,
            };
            parts.push(Projection { weight, bias });
            start += n;
        }
        if !mapped {
            self.checkpoint.release(&whole);
        }
        parts.try_into().map_err(|_| Error::Overflow { what: weight_name })
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<Option<Weight>> {
        if self.has(name) { self.weight(name, &[len], WeightUse::Vector).map(Some) } else { Ok(None) }
    }

    fn weight(&mut self, name: &str, shape: &[usize], usage: WeightUse) -> Result<Weight> {
        let tensor = self.fetch(name, shape)?;
        let weight = self.upload(&tensor, usage, true)?;
        if !weight.is_mapped() {
            self.checkpoint.release(&tensor);
        }
        Ok(weight)
    }

    /// Values that are in no file in this form.
    fn made_vector(&mut self, name: &str, values: &[f32]) -> Result<Weight> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let shape = Shape::new(&[values.len()]).ok_or_else(overflow)?;
        let tensor = HostTensor::from_f32(name, shape, values).map_err(|e| in_tensor(name, e))?;
        let weight = self.device.upload(&tensor, WeightUse::Vector)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        Ok(weight)
    }

    /// Brings a tensor to the device; `in_file` says whether its bytes are the file's.
    fn upload(&mut self, tensor: &HostTensor, usage: WeightUse, in_file: bool) -> Result<Weight> {
        let weight = self.device.upload(tensor, usage)?;
        self.resident_bytes += weight.resident_bytes() as u64;
        if in_file && weight.is_mapped() {
            self.mapped_bytes += weight.resident_bytes() as u64;
        }
        self.report(self.at.done_bytes.saturating_add(tensor.bytes().len() as u64))?;
        Ok(weight)
    }

    fn report(&mut self, done_bytes: u64) -> Result<()> {
        self.at.done_bytes = done_bytes.min(self.at.total_bytes);
        match (self.progress)(self.at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.find(name).is_some()
    }

    fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        self.fetch_spelled(&self.names.spelled(name), shape)
    }

    /// The tensor that the file calls `name`.
    fn fetch_spelled(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let missing = || Error::MissingTensor { name: name.to_owned(), hint: "" };
        let info = self.checkpoint.tensor(name).ok_or_else(missing)?;
        if info.shape.dims() != shape {
            let (found, expected) = (info.shape.to_string(), format!("{shape:?}"));
            return Err(Error::TensorShape { name: name.to_owned(), found, expected });
        }
        self.used.insert(name.to_owned());
        Ok(self.checkpoint.load(name)?)
    }

    /// Tensors that nothing used. Error: one that must mean something.
    fn unused(&self) -> Result<Vec<String>> {
        let names = self.checkpoint.tensors().iter().map(|t| t.name.as_str()).filter(|n| !self.used.contains(*n));
        let (unused, unplaced): (Vec<&str>, Vec<&str>) = names.partition(|name| {
            self.names.is_harmless(name) || self.names.layer_of(name).is_some_and(|layer| layer >= self.hyper.n_layers)
        });
        match unplaced.first() {
            Some(first) => Err(Error::UnplacedTensors {
                architecture: self.hyper.architecture.name,
                n: unplaced.len(),
                first: first.chars().take(64).flat_map(char::escape_debug).collect(),
            }),
            None => Ok(unused.into_iter().map(str::to_owned).collect()),
        }
    }
}

fn in_tensor(name: &str, source: tensor::Error) -> Error {
    Error::Tensor { name: name.to_owned(), source }
}
