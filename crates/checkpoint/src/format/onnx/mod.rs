//! ONNX: a graph of operators with the weights among its constants, read as a container of weights for a known model.
//!
//! Nothing of the graph is run. It is walked once (`graph.rs`) to find which constant is which weight; a graph that is not
//! recognised is refused, with the node that is in the way. What belongs here: files and folders, as Optimum, the Hub's
//! `onnx/` folders and ONNX Runtime's model builder have them. The description of the format is ONNX's `onnx.proto` and
//! `IR.md`; weights beyond two gigabytes lie in files beside it.

mod config;
mod data;
mod graph;
mod matrix;
mod names;
mod operators;
mod proto;
mod weights;

use super::{
    Directory, Format,
    hugging_face::{self, Beside, CONFIG, GENAI},
    names_in,
};
use crate::{Error, OpenOptions, Result, checkpoint::Contents, error::quoted, file::ModelFile, limits, value::Value};
use data::Parts;
use std::path::{Path, PathBuf};

/// The format's name.
pub(super) const NAME: &str = "onnx";
/// How its files end.
const SUFFIX: &str = ".onnx";
/// The usual one.
const USUAL: &str = "model.onnx";
/// The folder of a repository that holds graphs; what describes the model is above it.
const FOLDER: &str = "onnx";

/// The format's row.
pub(super) struct Onnx;

impl Format for Onnx {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sniff(&self, head: &[u8]) -> bool {
        // ModelProto: field 1 (the version of the representation), then one of the fields that files have.
        matches!(head, [0x08, 3..=30, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
    }

    fn open(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents> {
        let path = file.path().to_owned();
        let directory = hugging_face::directory_of(&path);
        let (described, names) = description(&directory)?;
        let Beside { mut metadata, sidecars, mut notes } = Beside::read(&described, &names, options)?;
        let damaged = |field: String, problem: String| Error::Malformed { path: path.clone(), field, problem };
        if file.len() > limits::ONNX_BYTES {
            let problem = format!("{} bytes are too large (at most {})", file.len(), limits::ONNX_BYTES);
            return Err(damaged("size".to_owned(), problem));
        }
        let bytes = file.bytes(0, file.len(), || "the graph".to_owned())?;
        let model =
            proto::read(&bytes).map_err(|fault| damaged(format!("protobuf at byte {}", fault.at), fault.problem))?;
        let mut parts = Parts::new(directory, file, options);
        let graph = graph::read(&model, &mut parts, &path)?;
        let named = names::name(&graph).map_err(|detail| Error::Graph { path: path.clone(), detail })?;
        let weights = weights::read(&graph, &named, &path)?;
        config::complete(&mut metadata, &graph, &weights.tensors, weights.is_tied, &parts, &path)?;
        if weights.n_ragged > 0 {
            let n = weights.n_ragged;
            notes.push(format!("{n} matrices have rows that are no whole number of groups: they are loaded as f32"));
        }
        Ok(Contents { sidecars, notes, ..Contents::new(parts.files, metadata, weights.tensors) })
    }

    fn is_in(&self, directory: &Directory<'_>, _is_wanted: bool) -> bool {
        graphs_in(directory).is_some()
    }

    fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
        let file = ModelFile::open(&choose(directory, options)?, options.mmap)?;
        let head = file.bytes(0, file.len().min(super::SNIFF_BYTES), || "the file's head".to_owned())?;
        if !self.sniff(&head) {
            let detail = format!("it begins with {}, as no ONNX file does", quoted(head.get(..8).unwrap_or(&head)));
            return Err(Error::NotAModel { path: file.path().to_owned(), detail });
        }
        self.open(file, options)
    }
}

/// The directory with the files that describe the graph in `directory`, and what it holds.
fn description(directory: &Path) -> Result<(PathBuf, Vec<String>)> {
    let names = names_in(directory)?;
    let describes = |names: &[String]| names.iter().any(|name| name == CONFIG || name == GENAI);
    let is_folder = || {
        let whole = directory.canonicalize().ok();
        whole.as_deref().and_then(Path::file_name).is_some_and(|name| name == FOLDER)
    };
    if !describes(&names) && is_folder() {
        let above = directory.join("..");
        let names = names_in(&above)?;
        if describes(&names) {
            return Ok((above, names));
        }
    }
    Ok((directory.to_owned(), names))
}

/// Where the graphs of `directory` are, and what that holds: there, or in its folder for graphs. `None`: there are none.
fn graphs_in(directory: &Directory<'_>) -> Option<(PathBuf, Vec<String>)> {
    let has_graph = |names: &[String]| names.iter().any(|name| name.ends_with(SUFFIX));
    if has_graph(directory.names) {
        return Some((directory.path.to_owned(), directory.names.to_vec()));
    }
    let below = directory.path.join(FOLDER);
    let names = if directory.has(FOLDER) && below.is_dir() { names_in(&below).ok()? } else { return None };
    has_graph(&names).then_some((below, names))
}

/// The graph in `directory` to open, and the directory that it is in.
fn choose(directory: &Directory<'_>, options: &OpenOptions) -> Result<PathBuf> {
    let (path, names) = graphs_in(directory).unwrap_or_default();
    let graphs: Vec<&String> = names.iter().filter(|name| name.ends_with(SUFFIX)).collect();
    let named = builders_choice(&path, &names, options)?;
    match graphs.as_slice() {
        [one] => Ok(path.join(one)),
        _ if graphs.iter().any(|name| *name == USUAL) => Ok(path.join(USUAL)),
        several => match named.filter(|named| several.contains(&named)) {
            Some(named) => Ok(path.join(named)),
            None => {
                let list: Vec<String> = several.iter().take(20).map(quoted).collect();
                let detail = format!("several graphs, {}: name the one to open", list.join(", "));
                Err(Error::Directory { path, detail })
            }
        },
    }
}

/// The graph that the model builder's file names.
fn builders_choice(directory: &Path, names: &[String], options: &OpenOptions) -> Result<Option<String>> {
    if !names.iter().any(|name| name == GENAI) {
        return Ok(None);
    }
    let only = [GENAI.to_owned()];
    let beside = Beside::read(directory, &only, options)?;
    Ok(beside.metadata.get("genai_config.model.decoder.filename").and_then(Value::as_str).map(str::to_owned))
}
