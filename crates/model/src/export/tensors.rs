//! Which tensors a written model has, and how each is made: renamed, its pieces joined, rows of heads put in the order in
//! which they pair, norms completed, factors of RoPE computed.

use super::rows::Rows;
use crate::convention::{Convention, Names};
use crate::hugging_face;
use crate::load::{transposed, unit_rows};
use crate::rope::RopeScaling;
use crate::row_order::{self, Heads, source_row};
use crate::{Architecture, Error, ExpertOrder, HyperParams, Mixer, Result};
use checkpoint::{Checkpoint, TensorInfo};
use std::collections::HashSet;
use std::ops::Range;
use tensor::{DType, HostTensor, Place, Shape, SharedBytes, Site};

/// A tensor of the new file.
#[derive(Clone, Debug)]
pub struct ExportTensor {
    /// Its name there.
    pub name: String,
    /// Its shape there.
    pub shape: Shape,
    /// Its type in the source.
    pub dtype: DType,
    /// Bytes it takes there.
    pub source_bytes: u64,
    /// Where it is in the model; none: it is kept exact, as a vector or a small table.
    pub site: Option<Site>,
    source: Source,
}

/// What a tensor is made of.
#[derive(Clone, Debug)]
enum Source {
    /// Tensors of the source one after another, rows of heads in another order.
    Tensors(Vec<String>, Vec<Heads>),
    /// Rows of one tensor, one run after another.
    Runs(String, Vec<Range<usize>>),
    /// A matrix `[n_in, n_out]`, or a stack of them, that becomes `[n_out, n_in]`; then the same runs of its rows.
    Transposed(String, [usize; 2], Vec<Range<usize>>),
    /// Runs of rows that become as many matrices `[n_in, n_out]`, each of which becomes `[n_out, n_in]`.
    TransposedRuns(String, [usize; 2], Vec<Range<usize>>),
    /// A matrix whose columns are put in another order, one run after another: whole blocks.
    Columns(String, Vec<Range<usize>>),
    /// A matrix whose rows are brought to the length 1.
    UnitRows(String),
    /// A vector of the source with `offset` added and its elements in another order.
    Vector { name: String, offset: f32, heads: Vec<Heads>, runs: Vec<Range<usize>> },
    /// The negative of the power of a vector of the source, its elements in another order.
    NegativePower(String, Vec<Range<usize>>),
    /// Numbers.
    Made(Vec<f32>),
}

impl ExportTensor {
    /// Opens it for reading.
    ///
    /// Error: the source cannot be read.
    pub fn open(&self, checkpoint: &Checkpoint) -> Result<Rows> {
        let made = |values: &[f32]| -> Result<Rows> {
            let tensor = HostTensor::from_f32(&self.name, self.shape, values).map_err(|e| self.failed(e))?;
            Ok(Rows::new(vec![tensor], Vec::new()))
        };
        match &self.source {
            Source::Tensors(names, heads) => {
                let pieces = names.iter().map(|name| checkpoint.load(name)).collect::<checkpoint::Result<Vec<_>>>()?;
                Ok(Rows::new(pieces, heads.clone()))
            }
            Source::Runs(name, runs) => Ok(Rows::of_runs(checkpoint.load(name)?, runs.clone())),
            Source::Transposed(name, [n_in, n_out], runs) => {
                let stored = checkpoint.load(name)?;
                let turned = transposed(&stored, *n_in, *n_out).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::of_runs(turned, runs.clone()))
            }
            Source::TransposedRuns(name, dims, runs) => {
                let stored = checkpoint.load(name)?;
                let turned = self.turned_runs(&stored, *dims, runs)?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![turned], Vec::new()))
            }
            Source::Columns(name, runs) => {
                let stored = checkpoint.load(name)?;
                let turned = self.columns(&stored, runs).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![turned], Vec::new()))
            }
            Source::UnitRows(name) => {
                let stored = checkpoint.load(name)?;
                let unit = unit_rows(&stored).map_err(|e| self.failed(e))?;
                checkpoint.release(&stored);
                Ok(Rows::new(vec![unit], Vec::new()))
            }
            Source::Vector { name, offset, heads, runs } => {
                let values = checkpoint.load(name)?.to_f32().map_err(|e| self.failed(e))?;
                let at = |i: usize| values.get(source_row(heads, i)).copied().unwrap_or_default() + offset;
                made(&order(runs, values.len()).into_iter().map(at).collect::<Vec<f32>>())
            }
            Source::NegativePower(name, runs) => {
                let values = checkpoint.load(name)?.to_f32().map_err(|e| self.failed(e))?;
                let at = |i: usize| values.get(i).copied().unwrap_or_default();
                made(&order(runs, values.len()).into_iter().map(|i| -at(i).exp()).collect::<Vec<f32>>())
            }
            Source::Made(values) => made(values),
        }
    }

    fn turned_runs(&self, stored: &HostTensor, [n_in, n_out]: [usize; 2], runs: &[Range<usize>]) -> Result<HostTensor> {
        let mut bytes = Vec::new();
        let n_rows = runs.iter().map(Range::len).sum();
        Rows::of_runs(stored.clone(), runs.to_vec()).read(0..n_rows, &mut bytes)?;
        let overflow = || Error::Overflow { what: self.name.clone() };
        let shape = Shape::new(&[runs.len(), n_in, n_out]).ok_or_else(overflow)?;
        let gathered = HostTensor::new(&self.name, stored.dtype(), shape, SharedBytes::from_vec(bytes));
        // Elements of blocks have no place of their own.
        let plain = |gathered: HostTensor| match gathered.dtype().is_quantized() {
            true => HostTensor::from_f32(&self.name, shape, &gathered.to_f32()?),
            false => Ok(gathered),
        };
        gathered.and_then(plain).and_then(|plain| transposed(&plain, n_in, n_out)).map_err(|e| self.failed(e))
    }

    /// Columns in another order; those of blocks that the runs would cut become single numbers.
    fn columns(&self, stored: &HostTensor, runs: &[Range<usize>]) -> tensor::Result<HostTensor> {
        let block = stored.dtype().block_len();
        let is_whole = runs.iter().all(|run| run.start.is_multiple_of(block) && run.end.is_multiple_of(block));
        let plain = match is_whole {
            true => stored.clone(),
            false => HostTensor::from_f32(stored.name(), *stored.shape(), &stored.to_f32()?)?,
        };
        let (block, size) = (plain.dtype().block_len(), plain.dtype().block_bytes());
        let bytes = plain.bytes().chunks_exact(plain.row_bytes().max(1)).flat_map(|row| {
            let part = |run: &Range<usize>| row.get(run.start / block * size..run.end / block * size);
            runs.iter().filter_map(part).flatten().copied()
        });
        let bytes = SharedBytes::from_vec(bytes.collect());
        HostTensor::new(&self.name, plain.dtype(), self.shape, bytes)
    }

    fn failed(&self, source: tensor::Error) -> Error {
        Error::Tensor { name: self.name.clone(), source }
    }

    fn made(name: &str, values: Vec<f32>) -> Option<ExportTensor> {
        let shape = Shape::new(&[values.len()])?;
        Some(ExportTensor {
            name: name.to_owned(),
            shape,
            dtype: DType::F32,
            source_bytes: 0,
            site: None,
            source: Source::Made(values),
        })
    }
}

/// The numbers of `runs`; all of `n` where there are none.
fn order(runs: &[Range<usize>], n: usize) -> Vec<usize> {
    if runs.is_empty() { (0..n).collect() } else { runs.iter().cloned().flatten().collect() }
}

/// Parts of a layer that are quantized, and what they are. Other matrices count as [`Place::Other`].
const PLACES: &[(&str, Place)] = &[
    ("token_embd", Place::Embedding),
    ("output", Place::Output),
    ("attn_k", Place::Keys),
    ("attn_v", Place::Values),
    ("attn_qkv", Place::Attention),
    ("attn_output", Place::AttentionOutput),
    ("ffn_down", Place::Down),
    ("ffn_down_exps", Place::Down),
];

/// Matrices that decide rather than compute, or are too small to matter: they stay exact.
const EXACT: &[&str] = &[
    "ffn_gate_inp",
    "ffn_gate_inp_shexp",
    "position_embd",
    "ssm_conv1d",
    "shortconv.conv",
    "per_layer_model_proj",
    "altup_proj",
    "altup_unembd_proj",
    "altup_correct_coef",
    "altup_predict_coef",
    "altup_router",
    "laurel_l",
    "laurel_r",
];

/// Tensors beside the usual embedding that are no layer's.
const LAYER_WIDE: &[&str] =
    &["per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm", "altup_proj", "altup_unembd_proj"];

/// Parts that are vectors, whatever their shape in the source.
const VECTORS: &[&str] = &["ffn_gate_inp_shexp", "exp_probs_b", "attn_sinks"];

/// Factors of convolutions: single precision, and no third dimension of one.
const TAPS: &[&str] = &["ssm_conv1d", "shortconv.conv"];

/// Where the tensor called `name` is in the model; none: it is no matrix that may be quantized.
pub(crate) fn site(name: &str, shape: &Shape, hyper: &HyperParams, is_tied: bool) -> Option<Site> {
    let base = name.strip_suffix(".weight")?;
    let below = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let (layer, part) = below.map_or((0, base), |(layer, part)| (layer.parse().unwrap_or(0), part));
    if shape.dims().len() < 2 || part.ends_with("norm") || part.starts_with("rope_f") || EXACT.contains(&part) {
        return None;
    }
    let place = PLACES.iter().find(|(known, _)| *known == part).map_or(Place::Other, |&(_, place)| place);
    let place = if place == Place::Embedding && is_tied { Place::Output } else { place };
    let layers = hyper.layers.get(layer).or(hyper.layers.first());
    let n_shared = layers.map_or(1, |l| l.n_heads.checked_div(l.n_kv_heads).unwrap_or(1));
    let n_experts = hyper.experts.as_ref().map_or(0, |experts| experts.n_experts);
    Some(Site { place, layer, n_layers: hyper.n_layers, n_shared, n_experts })
}

/// The tensors, and the names of those that are left out.
pub(super) fn all(
    checkpoint: &Checkpoint,
    convention: Convention,
    architecture: &'static Architecture,
    hyper: &HyperParams,
) -> Result<(Vec<ExportTensor>, Vec<String>)> {
    match convention {
        Convention::House => Ok((as_they_are(checkpoint, hyper), Vec::new())),
        _ => renamed(checkpoint, convention, architecture, hyper),
    }
}

/// The tensors of a file that is in the house's convention already.
pub(super) fn as_they_are(checkpoint: &Checkpoint, hyper: &HyperParams) -> Vec<ExportTensor> {
    let is_tied = checkpoint.tensor("output.weight").is_none();
    let tensor = |info: &TensorInfo| ExportTensor {
        name: info.name.clone(),
        shape: info.shape,
        dtype: info.dtype,
        source_bytes: info.bytes,
        site: site(&info.name, &info.shape, hyper, is_tied),
        source: Source::Tensors(vec![info.name.clone()], Vec::new()),
    };
    checkpoint.tensors().iter().map(tensor).collect()
}

/// The tensors of a file in another convention.
fn renamed(
    checkpoint: &Checkpoint,
    convention: Convention,
    architecture: &'static Architecture,
    hyper: &HyperParams,
) -> Result<(Vec<ExportTensor>, Vec<String>)> {
    let names = Names::new(checkpoint, convention, architecture);
    let is_tied = hyper.tied_embeddings.unwrap_or(names.find("output.weight").is_none());
    let mut maker = Maker { checkpoint, names, hyper, is_tied, used: HashSet::new(), tensors: Vec::new() };
    for base in ["token_embd", "position_embd"].iter().chain(LAYER_WIDE) {
        maker.add(base, None)?;
    }
    maker.tensors.extend(factors(hyper));
    for layer in 0..hyper.n_layers {
        let absent = |part: &str| {
            let (before, after) = (["attn_norm", "ffn_norm"], ["post_attention_norm", "post_ffw_norm"]);
            before.contains(&part) && !hyper.has_pre_norms() || after.contains(&part) && !hyper.has_post_norms()
        };
        for part in hugging_face::layer_parts(architecture).into_iter().filter(|part| !absent(part)) {
            maker.add(&format!("blk.{layer}.{part}"), Some(layer))?;
        }
        maker.decay(layer);
    }
    maker.add("output_norm", None)?;
    if is_tied {
        // A copy of the embedding, where there is one.
        let copy = maker.names.spelled("output.weight");
        maker.used.insert(copy);
    } else {
        maker.add("output", None)?;
    }
    maker.finish(architecture)
}

struct Maker<'a> {
    checkpoint: &'a Checkpoint,
    names: Names<'a>,
    hyper: &'a HyperParams,
    is_tied: bool,
    used: HashSet<String>,
    tensors: Vec<ExportTensor>,
}

impl Maker<'_> {
    /// Adds the weight, bias and scale called `base`, where the source has them.
    fn add(&mut self, base: &str, layer: Option<usize>) -> Result<()> {
        for kind in ["weight", "bias", "scale"] {
            let name = format!("{base}.{kind}");
            let Some(info) = self.names.find(&name).cloned() else { continue };
            let params = layer.and_then(|layer| self.hyper.layers.get(layer));
            let part = base.rsplit('.').next().unwrap_or(base);
            let shared_n_ff = self.hyper.experts.as_ref().and_then(|experts| experts.shared_n_ff);
            let n_pieces = match (part, params) {
                ("attn_q_norm", Some(params)) => params.n_heads,
                ("attn_k_norm", Some(params)) => params.n_kv_heads,
                ("altup_proj" | "altup_unembd_proj", _) => self.hyper.streams.map_or(0, |streams| streams.n - 1),
                _ => self.hyper.experts.as_ref().map_or(0, |experts| experts.n_experts),
            };
            if let Some(pieces) = self.names.pieces(&name, n_pieces) {
                let tensor = self.stack(&name, &info, pieces)?;
                self.tensors.push(tensor);
            } else if part == "attn_kv_b" && kind == "weight" {
                self.keys_and_values(&info, layer.unwrap_or(0))?;
            } else if part == "ffn_up_exps"
                && !self.names.house_spelling(&name).contains("gate_up")
                && self.names.find(&format!("blk.{}.ffn_gate_exps.{kind}", layer.unwrap_or(0))).is_none()
            {
                self.divided_experts(&info, layer.unwrap_or(0), kind)?;
            } else if part.ends_with("_exps") && self.are_turned(&info, kind) {
                self.turned_experts(&name, &info)?;
            } else if let (Some(layer), "ffn_up_shexp", "weight", Some(n_ff)) = (layer, part, kind, shared_n_ff)
                && info.shape.dims() == [2 * n_ff, self.hyper.width]
            {
                self.divided_shared(&info, layer, n_ff)?;
            } else if let (Some(layer), "attn_qkv", true) = (layer, part, self.hyper.architecture.splits_qkv) {
                self.divided_heads(&name, &info, layer)?;
            } else {
                let tensor = self.single(&name, &info, layer)?;
                self.tensors.push(tensor);
            }
        }
        Ok(())
    }

    /// The decay of a layer with the delta rule, which the source has as its negative's logarithm.
    fn decay(&mut self, layer: usize) {
        let Some(info) = self.names.find(&format!("blk.{layer}.ssm_a.log")).cloned() else { return };
        self.used.insert(info.name.clone());
        self.tensors.push(ExportTensor {
            name: self.names.house_spelling(&format!("blk.{layer}.ssm_a")),
            shape: info.shape,
            dtype: DType::F32,
            source_bytes: info.bytes,
            site: None,
            source: Source::NegativePower(info.name, self.in_turns(Some(layer), "ssm_a")),
        });
    }

    /// Gate and up of the expert that every token passes, which the source has in one tensor.
    fn divided_shared(&mut self, info: &TensorInfo, layer: usize, n_ff: usize) -> Result<()> {
        self.used.insert(info.name.clone());
        for (which, part) in ["ffn_gate_shexp", "ffn_up_shexp"].into_iter().enumerate() {
            let name = format!("blk.{layer}.{part}.weight");
            let shape = Shape::new(&[n_ff, self.hyper.width]);
            let shape = shape.ok_or_else(|| Error::Overflow { what: name.clone() })?;
            self.tensors.push(ExportTensor {
                site: site(&name, &shape, self.hyper, self.is_tied),
                name: self.names.house_spelling(&name),
                shape,
                dtype: info.dtype,
                source_bytes: info.bytes / 2,
                source: Source::Runs(info.name.clone(), std::iter::once(which * n_ff..(which + 1) * n_ff).collect()),
            });
        }
        Ok(())
    }

    /// Gate and up of all experts, which the source has in one tensor: the rows of the gate of each, then those of up.
    fn divided_experts(&mut self, info: &TensorInfo, layer: usize, kind: &str) -> Result<()> {
        let unexpected = || Error::TensorShape {
            name: info.name.clone(),
            found: info.shape.to_string(),
            expected: "twice as many rows as an expert has".to_owned(),
        };
        let are_turned = self.are_turned(info, kind);
        let (n, both, width) = match *info.shape.dims() {
            [n, both] if kind == "bias" => (n, both, None),
            [n, width, both] if are_turned => (n, both, Some(width)),
            [n, both, width] => (n, both, Some(width)),
            _ => return Err(unexpected()),
        };
        if both % 2 != 0 {
            return Err(unexpected());
        }
        self.used.insert(info.name.clone());
        let n_ff = both / 2;
        let in_pairs = self.names.expert_order() == ExpertOrder::TransposedPairs;
        for (which, part) in ["ffn_gate_exps", "ffn_up_exps"].into_iter().enumerate() {
            let runs_of = |expert: usize| -> Vec<Range<usize>> {
                let first = expert * both;
                match in_pairs {
                    true => (0..n_ff).map(|i| first + 2 * i + which).map(|row| row..row + 1).collect(),
                    false => std::iter::once(first + which * n_ff..first + (which + 1) * n_ff).collect(),
                }
            };
            let runs: Vec<Range<usize>> = (0..n).flat_map(runs_of).collect();
            let name = format!("blk.{layer}.{part}.{kind}");
            let dims: Vec<usize> = [n, n_ff].into_iter().chain(width).collect();
            let shape = Shape::new(&dims).ok_or_else(unexpected)?;
            let source = match width {
                None => Source::Vector { name: info.name.clone(), offset: 0.0, heads: Vec::new(), runs },
                Some(width) if are_turned => Source::Transposed(info.name.clone(), [width, both], runs),
                Some(_) => Source::Runs(info.name.clone(), runs),
            };
            self.tensors.push(ExportTensor {
                site: site(&name, &shape, self.hyper, self.is_tied),
                name: self.names.house_spelling(&name),
                shape,
                dtype: if width.is_none() { DType::F32 } else { info.dtype },
                source_bytes: info.bytes / 2,
                source,
            });
        }
        Ok(())
    }

    /// Whether the source has a matrix of experts with its input before its output. Modules of their own, and quantized
    /// rows, are never transposed.
    fn are_turned(&self, info: &TensorInfo, kind: &str) -> bool {
        let in_rows = info.name.ends_with(".weight") || info.dtype.is_quantized();
        kind == "weight" && !in_rows && self.names.expert_order() != ExpertOrder::Halves
    }

    /// All experts' matrices in one tensor, transposed.
    fn turned_experts(&mut self, name: &str, info: &TensorInfo) -> Result<()> {
        let overflow = || Error::Overflow { what: name.to_owned() };
        let &[n, n_in, n_out] = info.shape.dims() else { return Err(overflow()) };
        let shape = Shape::new(&[n, n_out, n_in]).ok_or_else(overflow)?;
        self.used.insert(info.name.clone());
        self.tensors.push(ExportTensor {
            site: site(name, &shape, self.hyper, self.is_tied),
            name: self.names.house_spelling(name),
            shape,
            dtype: info.dtype,
            source_bytes: info.bytes,
            source: Source::Transposed(info.name.clone(), [n_in, n_out], Vec::new()),
        });
        Ok(())
    }

    /// The matrices that make keys and values of latents, which the source has in one, head by head: those of keys
    /// transposed, as queries need them.
    fn keys_and_values(&mut self, info: &TensorInfo, layer: usize) -> Result<()> {
        let n_heads = self.hyper.layers.get(layer).map_or(0, |params| params.n_heads);
        let expected = self.hyper.latent.as_ref().map(|latent| (latent, latent.nope_dim + latent.v_dim));
        let found =
            |expected: String| Error::TensorShape { name: info.name.clone(), found: info.shape.to_string(), expected };
        let Some((latent, step)) = expected else { return Err(found("no such tensor".to_owned())) };
        if *info.shape.dims() != [n_heads.saturating_mul(step), latent.rank] {
            return Err(found(format!("[{}, {}]", n_heads.saturating_mul(step), latent.rank)));
        }
        self.used.insert(info.name.clone());
        let (nope_dim, v_dim, rank) = (latent.nope_dim, latent.v_dim, latent.rank);
        let runs = |from: usize, len: usize| (0..n_heads).map(|h| h * step + from..h * step + from + len).collect();
        let keys = Source::TransposedRuns(info.name.clone(), [nope_dim, rank], runs(0, nope_dim));
        let values = Source::Runs(info.name.clone(), runs(nope_dim, v_dim));
        let of_keys = if info.dtype.is_quantized() { DType::F32 } else { info.dtype };
        for (part, dims, dtype, source) in [
            ("attn_k_b", [n_heads, rank, nope_dim], of_keys, keys),
            ("attn_v_b", [n_heads, v_dim, rank], info.dtype, values),
        ] {
            let name = format!("blk.{layer}.{part}.weight");
            let shape = Shape::new(&dims).ok_or_else(|| Error::Overflow { what: name.clone() })?;
            self.tensors.push(ExportTensor {
                site: site(&name, &shape, self.hyper, self.is_tied),
                name,
                shape,
                dtype,
                source_bytes: dtype.tensor_bytes(&shape).map_or(info.bytes, |bytes| bytes as u64),
                source,
            });
        }
        Ok(())
    }

    /// Queries, keys and values, which the source has in the tensor `name`: the rows of each.
    fn divided_heads(&mut self, name: &str, info: &TensorInfo, layer: usize) -> Result<()> {
        self.used.insert(info.name.clone());
        self.check_shape(name, info, &info.shape, Some(layer))?;
        let Some(params) = self.hyper.layers.get(layer) else { return Ok(()) };
        let kind = name.rsplit_once('.').map_or("weight", |(_, kind)| kind);
        let n = info.shape.dims().first().copied().unwrap_or(0);
        let runs = match self.runs_by_head(layer) {
            runs if runs.is_empty() => std::iter::once(0..n).collect(),
            runs => runs,
        };
        let heads = row_order::heads(self.hyper.architecture, self.hyper, layer, "attn_qkv", n);
        let rows: Vec<usize> = in_order(runs, &heads).into_iter().flatten().collect();
        let mut first = 0;
        for (part, len) in [("attn_q", params.q_dim()), ("attn_k", params.k_dim()), ("attn_v", params.v_dim())] {
            let expected = || format!("{} rows or more", first + len);
            let wrong = || {
                let (name, found) = (info.name.clone(), info.shape.to_string());
                Error::TensorShape { name, found, expected: expected() }
            };
            let rows = rows.get(first..first + len).ok_or_else(wrong)?;
            let runs: Vec<Range<usize>> = rows.iter().map(|&row| row..row + 1).collect();
            let dims = [&[len], info.shape.dims().get(1..).unwrap_or_default()].concat();
            let shape = Shape::new(&dims).ok_or_else(wrong)?;
            let made = format!("blk.{layer}.{part}.{kind}");
            let is_vector = dims.len() == 1;
            let source_name = info.name.clone();
            self.tensors.push(ExportTensor {
                site: site(&made, &shape, self.hyper, self.is_tied),
                name: self.names.house_spelling(&made),
                shape,
                dtype: if is_vector { DType::F32 } else { info.dtype },
                source_bytes: info.bytes.checked_mul(len as u64).map_or(0, |bytes| bytes / (n as u64).max(1)),
                source: match is_vector {
                    true => Source::Vector { name: source_name, offset: 0.0, heads: Vec::new(), runs },
                    false => Source::Runs(source_name, runs),
                },
            });
            first += len;
        }
        Ok(())
    }

    fn single(&mut self, name: &str, info: &TensorInfo, layer: Option<usize>) -> Result<ExportTensor> {
        self.used.insert(info.name.clone());
        let part = name.rsplit_once('.').map_or(name, |(base, _)| base.rsplit('.').next().unwrap_or(base));
        let is_taps = TAPS.iter().any(|taps| name.strip_suffix(".weight").is_some_and(|base| base.ends_with(taps)));
        let turned = match info.shape.dims() {
            &[n_in, n_out] if self.names.is_transposed(name) => Some([n_in, n_out]),
            _ => None,
        };
        let shape = match (turned, info.shape.dims()) {
            (Some([n_in, n_out]), _) => Shape::new(&[n_out, n_in]),
            // Vectors that some files store as a matrix of one row.
            (None, &[1, len]) if VECTORS.contains(&part) => Shape::new(&[len]),
            (None, &[width, 1, n] | &[width, n, 1]) if is_taps => Shape::new(&[width, n]),
            _ => Some(info.shape),
        };
        let shape = shape.ok_or_else(|| Error::Overflow { what: name.to_owned() })?;
        self.check_shape(name, info, &shape, layer)?;
        let n = shape.dims().first().copied().unwrap_or(0);
        let heads =
            layer.map_or_else(Vec::new, |layer| row_order::heads(self.hyper.architecture, self.hyper, layer, part, n));
        let is_norm = part.ends_with("norm") && part != "ssm_norm" && name.ends_with(".weight");
        let offset = if is_norm { self.names.norm_offset() } else { 0.0 };
        let is_vector = shape.dims().len() == 1;
        let runs = layer.filter(|_| part == "attn_qkv").map_or_else(Vec::new, |layer| self.runs_by_head(layer));
        let (runs, heads) = if runs.is_empty() { (runs, heads) } else { (in_order(runs, &heads), Vec::new()) };
        let columns = if part == "ssm_out" { self.in_turns(layer, part) } else { Vec::new() };
        let runs = if runs.is_empty() && columns.is_empty() { self.in_turns(layer, part) } else { runs };
        let per_row = if is_taps { shape.row_len() } else { 1 };
        let runs: Vec<_> = runs.into_iter().map(|run| run.start * per_row..run.end * per_row).collect();
        let source = if let Some(dims) = turned {
            Source::Transposed(info.name.clone(), dims, Vec::new())
        } else if !columns.is_empty() {
            Source::Columns(info.name.clone(), columns)
        } else if name == "output.weight" && self.names.lacks_unit_rows(self.hyper.n_vocab) {
            Source::UnitRows(info.name.clone())
        } else if is_taps || is_vector && (offset != 0.0 || !heads.is_empty() || !runs.is_empty()) {
            Source::Vector { name: info.name.clone(), offset, heads, runs }
        } else if !runs.is_empty() {
            Source::Runs(info.name.clone(), runs)
        } else {
            Source::Tensors(vec![info.name.clone()], heads)
        };
        Ok(ExportTensor {
            name: self.names.house_spelling(name),
            shape,
            dtype: if matches!(source, Source::Vector { .. }) { DType::F32 } else { info.dtype },
            source_bytes: info.bytes,
            site: site(name, &shape, self.hyper, self.is_tied),
            source,
        })
    }

    /// Where queries, keys and values lie that the source has by head: all of each in turn. Empty: it has them in order.
    fn runs_by_head(&self, layer: usize) -> Vec<Range<usize>> {
        let Some(params) = self.hyper.layers.get(layer).filter(|_| self.names.are_fused_by_head()) else {
            return Vec::new();
        };
        row_order::by_head(params).into_iter().flatten().collect()
    }

    /// Where a part of a layer lies whose V heads take turns in the new file. Empty: it lies alike.
    fn in_turns(&self, layer: Option<usize>, part: &str) -> Vec<Range<usize>> {
        let params = layer.and_then(|layer| self.hyper.layers.get(layer));
        params.map_or_else(Vec::new, |params| row_order::in_turns(self.hyper.architecture, params, part))
    }

    /// Error: a matrix of a layer whose shape is not what the numbers say, in the order that the house has them.
    fn check_shape(&self, name: &str, info: &TensorInfo, shape: &Shape, layer: Option<usize>) -> Result<()> {
        let Some(params) = layer.and_then(|layer| self.hyper.layers.get(layer)) else { return Ok(()) };
        let Some((base, "weight")) = name.rsplit_once('.') else { return Ok(()) };
        let (width, ff) = (self.hyper.width, params.n_ff);
        let latent = self.hyper.latent.as_ref();
        let q_dim = latent.map_or(params.q_dim(), |latent| params.n_heads * (latent.rope_dim + latent.nope_dim));
        let attention_dim = latent.map_or(params.attention_dim(), |latent| params.n_heads * latent.v_dim);
        let delta_width = match &params.mixer {
            Mixer::DeltaRule(delta) => Some(delta.qkv_width()),
            Mixer::Attention | Mixer::ShortConv { .. } => None,
        };
        let shapes: &[[usize; 2]] = match base.rsplit('.').next().unwrap_or_default() {
            "attn_q" if self.hyper.architecture.gated_attention => &[[params.q_dim().saturating_mul(2), width]],
            "attn_q" => &[[q_dim, width]],
            "attn_k" => &[[params.k_dim(), width]],
            "attn_v" => &[[params.v_dim(), width]],
            "attn_qkv" => &[[delta_width.unwrap_or(params.q_dim() + params.k_dim() + params.v_dim()), width]],
            "attn_output" => &[[width, attention_dim]],
            "ffn_gate" => &[[ff, width]],
            "ffn_up" => &[[ff, width], [ff.saturating_mul(2), width]],
            "ffn_down" => &[[width, ff]],
            _ => return Ok(()),
        };
        if shapes.iter().any(|expected| shape.dims() == expected) {
            return Ok(());
        }
        let expected = shapes.first().map(|shape| format!("{shape:?}")).unwrap_or_default();
        Err(Error::TensorShape { name: info.name.clone(), found: info.shape.to_string(), expected })
    }

    /// One tensor of those of all experts.
    fn stack(&mut self, name: &str, first: &TensorInfo, pieces: Vec<String>) -> Result<ExportTensor> {
        let mut source_bytes = 0u64;
        for piece in &pieces {
            let missing = || Error::MissingTensor { name: piece.clone(), hint: "" };
            let info = self.checkpoint.tensor(piece).ok_or_else(missing)?;
            if info.shape != first.shape || info.dtype != first.dtype {
                let found = format!("{} {}", info.dtype, info.shape);
                let expected = format!("{} {}, as its siblings have", first.dtype, first.shape);
                return Err(Error::TensorShape { name: piece.clone(), found, expected });
            }
            source_bytes = source_bytes.saturating_add(info.bytes);
            self.used.insert(piece.clone());
        }
        let dims = [&[pieces.len()], first.shape.dims()].concat();
        let shape = Shape::new(&dims).ok_or_else(|| Error::Overflow { what: name.to_owned() })?;
        Ok(ExportTensor {
            name: self.names.house_spelling(name),
            shape,
            dtype: first.dtype,
            source_bytes,
            site: site(name, &shape, self.hyper, self.is_tied),
            source: Source::Tensors(pieces, Vec::new()),
        })
    }

    /// Everything made. Error: tensors that must mean something and have no place.
    fn finish(self, architecture: &'static Architecture) -> Result<(Vec<ExportTensor>, Vec<String>)> {
        let names = self.checkpoint.tensors().iter().map(|t| t.name.as_str()).filter(|n| !self.used.contains(*n));
        let (left_out, unplaced): (Vec<&str>, Vec<&str>) = names.partition(|name| {
            self.names.is_harmless(name) || self.names.layer_of(name).is_some_and(|layer| layer >= self.hyper.n_layers)
        });
        match unplaced.first() {
            Some(first) => Err(Error::UnplacedTensors {
                architecture: architecture.name,
                n: unplaced.len(),
                first: first.chars().take(64).flat_map(char::escape_debug).collect(),
            }),
            None => Ok((self.tensors, left_out.into_iter().map(str::to_owned).collect())),
        }
    }
}

/// The rows `runs`, of which those of `heads` change places as they do in the new tensor.
fn in_order(runs: Vec<Range<usize>>, heads: &[Heads]) -> Vec<Range<usize>> {
    if heads.is_empty() {
        return runs;
    }
    let rows: Vec<usize> = runs.into_iter().flatten().collect();
    (0..rows.len()).filter_map(|row| rows.get(source_row(heads, row))).map(|&row| row..row + 1).collect()
}

/// What frequencies are divided by that are to be 0 (llama.cpp's number).
const STANDSTILL: f32 = 1e30;

/// What divides the frequencies of RoPE, where the house's files have tensors for it and not numbers.
fn factors(hyper: &HyperParams) -> Vec<ExportTensor> {
    let rope = &hyper.rope;
    if let Some([short, long]) = &rope.divisors {
        let made = [("rope_factors_long.weight", long), ("rope_factors_short.weight", short)];
        return made.into_iter().filter_map(|(name, values)| ExportTensor::made(name, values.clone())).collect();
    }
    if let RopeScaling::Leading { factor, .. } = rope.scaling {
        // What does not turn is divided by a number that leaves nothing of it.
        let divisor = |frequency: &f32| if *frequency == 0.0 { STANDSTILL } else { factor as f32 };
        let divisors = rope.frequencies(None, hyper.context_length).iter().map(divisor).collect();
        return ExportTensor::made("rope_freqs.weight", divisors).into_iter().collect();
    }
    let RopeScaling::Bands { .. } = rope.scaling else { return Vec::new() };
    let scaled = rope.frequencies(None, hyper.context_length);
    let unscaled = crate::RopeParams { scaling: RopeScaling::None, ..rope.clone() };
    let unscaled = unscaled.frequencies(None, hyper.context_length);
    let divisors = unscaled.iter().zip(&scaled).map(|(plain, scaled)| (f64::from(*plain) / f64::from(*scaled)) as f32);
    ExportTensor::made("rope_freqs.weight", divisors.collect()).into_iter().collect()
}
