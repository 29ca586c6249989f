//! Which tensors a written model has, and which way each is made: renamed, its pieces joined, rows of heads put in the order in
//! which they pair, norms completed.
//!
//! What belongs here: the list, part by part, and tensors that the source has one by one. What does not: those of which it
//! has several in one (`divided.rs`), the making (`source.rs`).

use super::factors::factors;
use super::site::site;
use super::source::{ExportTensor, Source};
use crate::convention::{Convention, Names};
use crate::hugging_face;
use crate::row_order::{self, Heads, source_row};
use crate::{Architecture, Error, HyperParams, Mixer, Result};
use checkpoint::{Checkpoint, TensorInfo};
use std::collections::HashSet;
use std::ops::Range;
use tensor::{DType, Shape};

/// Tensors beside the usual embedding that are no layer's.
const LAYER_WIDE: &[&str] =
    &["per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm", "altup_proj", "altup_unembd_proj"];

/// Parts that are vectors, whatever their shape in the source.
const VECTORS: &[&str] = &["ffn_gate_inp_shexp", "exp_probs_b", "attn_sinks"];

/// Factors of convolutions: single precision, and no third dimension of one.
const TAPS: &[&str] = &["ssm_conv1d", "shortconv.conv"];

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

/// The list in the making.
pub(super) struct Maker<'a> {
    checkpoint: &'a Checkpoint,
    pub(super) names: Names<'a>,
    pub(super) hyper: &'a HyperParams,
    is_tied: bool,
    /// Tensors of the source that have a place.
    pub(super) used: HashSet<String>,
    tensors: Vec<ExportTensor>,
}

impl Maker<'_> {
    /// Adds what the house calls `name`.
    pub(super) fn push(&mut self, name: &str, shape: Shape, dtype: DType, source_bytes: u64, source: Source) {
        let site = site(name, &shape, self.hyper, self.is_tied);
        self.tensors.push(ExportTensor {
            name: self.names.house_spelling(name),
            shape,
            dtype,
            source_bytes,
            site,
            source,
        });
    }

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
                self.stack(&name, &info, pieces)?;
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
                self.single(&name, &info, layer)?;
            }
        }
        Ok(())
    }

    /// The decay of a layer with the delta rule, which the source has as its negative's logarithm.
    fn decay(&mut self, layer: usize) {
        let Some(info) = self.names.find(&format!("blk.{layer}.ssm_a.log")).cloned() else { return };
        self.used.insert(info.name.clone());
        let source = Source::NegativePower(info.name, self.in_turns(Some(layer), "ssm_a"));
        self.push(&format!("blk.{layer}.ssm_a"), info.shape, DType::F32, info.bytes, source);
    }

    /// A tensor that the source has by itself.
    fn single(&mut self, name: &str, info: &TensorInfo, layer: Option<usize>) -> Result<()> {
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
        let dtype = if matches!(source, Source::Vector { .. }) { DType::F32 } else { info.dtype };
        self.push(name, shape, dtype, info.bytes, source);
        Ok(())
    }

    /// Where queries, keys and values lie that the source has by head: all of each in turn. Empty: it has them in order.
    pub(super) fn runs_by_head(&self, layer: usize) -> Vec<Range<usize>> {
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
    pub(super) fn check_shape(&self, name: &str, info: &TensorInfo, shape: &Shape, layer: Option<usize>) -> Result<()> {
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
    fn stack(&mut self, name: &str, first: &TensorInfo, pieces: Vec<String>) -> Result<()> {
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
        self.push(name, shape, first.dtype, source_bytes, Source::Tensors(pieces, Vec::new()));
        Ok(())
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
pub(super) fn in_order(runs: Vec<Range<usize>>, heads: &[Heads]) -> Vec<Range<usize>> {
    if heads.is_empty() {
        return runs;
    }
    let rows: Vec<usize> = runs.into_iter().flatten().collect();
    (0..rows.len()).filter_map(|row| rows.get(source_row(heads, row))).map(|&row| row..row + 1).collect()
}
