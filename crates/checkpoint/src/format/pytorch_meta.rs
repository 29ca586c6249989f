//! Weights as Meta publishes them: `consolidated.00.pth`, `consolidated.01.pth` … beside a `params.json`.
//!
//! Several parts are the same model cut for as many devices: each matrix lies in all of them, cut along an axis that its
//! name tells (rows for layers that split their outputs, columns for those that split their inputs; `fairscale`'s
//! parallel layers). They are put together when they are loaded. `params.json` becomes metadata under `params.…`.

use super::{Directory, hugging_face::PYTORCH};
use crate::{
    Error, OpenOptions, Result, TensorInfo,
    checkpoint::Contents,
    error::quoted,
    view::{Piece, Strided, View},
};
use std::{collections::HashMap, path::Path, sync::Arc};
use tensor::Shape;

const PARAMS: &str = "params.json";
const WIDTH: &str = "params.dim";

/// What the parts of a tensor have to do with the whole.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// Pieces along an axis.
    Along(usize),
    /// Pieces along the axis that makes rows as wide as the model.
    ToWidth,
    /// The same in every part.
    None,
}

/// How tensors are cut, by the end of their names.
static CUTS: &[(&str, Cut)] = &[
    ("tok_embeddings.weight", Cut::ToWidth),
    ("wq.weight", Cut::Along(0)),
    ("wk.weight", Cut::Along(0)),
    ("wv.weight", Cut::Along(0)),
    ("wo.weight", Cut::Along(1)),
    ("w1.weight", Cut::Along(0)),
    ("w2.weight", Cut::Along(1)),
    ("w3.weight", Cut::Along(0)),
    ("output.weight", Cut::Along(0)),
    ("norm.weight", Cut::None),
    ("freqs", Cut::None),
];

/// The name of part `number`.
fn part_name(number: usize) -> String {
    format!("consolidated.{number:02}.pth")
}

/// Whether `name` is that of a part.
pub(super) fn is_part(name: &str) -> bool {
    let number = name.strip_prefix("consolidated.").and_then(|rest| rest.strip_suffix(".pth"));
    number.is_some_and(|number| number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether `directory` holds such weights.
pub(super) fn are_in(directory: &Directory<'_>) -> bool {
    directory.has(PARAMS) && directory.names.iter().any(|name| is_part(name))
}

/// Opens all parts in `directory`.
pub(super) fn open_in(directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
    let Directory { path, names } = *directory;
    let n_parts = names.iter().filter(|name| is_part(name)).count();
    if let Some(missing) = (0..n_parts).map(part_name).find(|part| !names.contains(part)) {
        let problem = format!("the part {} is missing", quoted(missing));
        return Err(Error::Split { path: path.to_owned(), problem });
    }
    let parts = (0..n_parts).map(|number| PYTORCH.open(&path.join(part_name(number)), options));
    let contents = PYTORCH.assemble(path, names, parts.collect::<Result<Vec<_>>>()?, options)?;
    let width = contents.metadata.usize(WIDTH)?;
    let tensors = join(path, contents.tensors, n_parts, width)?;
    Ok(Contents { tensors, ..contents })
}

/// The whole tensors of the pieces `tensors` that `n_parts` parts hold.
fn join(path: &Path, tensors: Vec<TensorInfo>, n_parts: usize, width: Option<usize>) -> Result<Vec<TensorInfo>> {
    let mut order = Vec::new();
    let mut pieces: HashMap<String, Vec<TensorInfo>> = HashMap::new();
    for tensor in tensors {
        let known = pieces.entry(tensor.name.clone()).or_default();
        if known.is_empty() {
            order.push(tensor.name.clone());
        }
        known.push(tensor);
    }
    let whole = |name: &String| {
        let pieces = pieces.remove(name).unwrap_or_default();
        join_tensor(pieces, n_parts, width).map_err(|problem| {
            let problem = format!("tensor {}: {problem}", quoted(name));
            Error::Split { path: path.to_owned(), problem }
        })
    };
    order.iter().map(whole).collect()
}

/// One tensor of its pieces, which are in the order of the parts.
fn join_tensor(
    pieces: Vec<TensorInfo>,
    n_parts: usize,
    width: Option<usize>,
) -> std::result::Result<TensorInfo, String> {
    let in_order = pieces.iter().enumerate().all(|(i, piece)| piece.part == i);
    let Some(first) = pieces.first().filter(|_| in_order && pieces.len() == n_parts).cloned() else {
        return Err(format!("it is in {} of {n_parts} parts", pieces.len()));
    };
    let cut = CUTS.iter().find(|(end, _)| first.name.ends_with(end)).map(|(_, cut)| *cut);
    let cut = match (cut, n_parts) {
        (Some(Cut::ToWidth), _) => match (first.shape.row_len(), width) {
            (len, Some(width)) if len == width => Cut::Along(0),
            (len, Some(width)) if len.checked_mul(n_parts) == Some(width) => Cut::Along(1),
            (len, Some(width)) => {
                let problem = "do not make rows as wide as the model";
                return Err(format!(
                    "{n_parts} parts of {len} columns {problem} ({width}, {WIDTH}): are parts missing?"
                ));
            }
            (_, None) => return Err(format!("{WIDTH} is missing in {PARAMS}")),
        },
        (_, 1) => Cut::None,
        (Some(cut), _) => cut,
        (None, _) => return Err("along which axis its parts are cut is not known".to_owned()),
    };
    let same = |piece: &TensorInfo| piece.dtype == first.dtype && piece.shape == first.shape;
    if !pieces.iter().all(same) {
        return Err("its parts differ in type or shape".to_owned());
    }
    let axis = match cut {
        Cut::Along(axis) if n_parts > 1 => axis,
        _ => return Ok(first),
    };
    let mut dims = first.shape.dims().to_vec();
    let overflow = || "the size of all parts together overflows".to_owned();
    let dim = dims.get_mut(axis).ok_or_else(|| format!("its shape {} has no axis {axis}", first.shape))?;
    *dim = dim.checked_mul(n_parts).ok_or_else(overflow)?;
    let shape = Shape::new(&dims).ok_or_else(overflow)?;
    let bytes = first.dtype.tensor_bytes(&shape).map_err(|e| e.to_string())? as u64;
    let pieces: Vec<Piece> = pieces.iter().flat_map(TensorInfo::pieces).collect();
    let is_empty = bytes == 0;
    let view = (!is_empty).then(|| Arc::new(View::Strided(Strided { axis, pieces })));
    Ok(TensorInfo { shape, bytes, view, ..first })
}
