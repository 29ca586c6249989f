//! The weights of a graph as tensors of a checkpoint: where their elements are, and how they are turned.

use super::{
    data::Constant,
    graph::{Graph, Kind},
    matrix::Matrix,
    names::Named,
};
use crate::{
    Error, Result, TensorInfo,
    error::quoted,
    levels::{Data, Made},
    limits,
    view::{Piece, Strided, View},
};
use std::{path::Path, sync::Arc};
use tensor::{DType, Shape};

/// The tensors of a graph.
pub(super) struct Weights {
    pub(super) tensors: Vec<TensorInfo>,
    /// Whether the table of tokens is the output matrix as well.
    pub(super) is_tied: bool,
    /// Matrices of levels whose rows are no whole number of groups.
    pub(super) n_ragged: usize,
}

/// Makes the tensors of the graph, whose file is at `path`.
pub(super) fn read(graph: &Graph<'_, '_>, named: &[Named], path: &Path) -> Result<Weights> {
    let tied = tied_table(graph);
    let mut weights = Weights { tensors: Vec::new(), is_tied: tied.is_some(), n_ragged: 0 };
    for Named { element: index, path: name } in named {
        let Some(element) = graph.elements.get(*index) else { continue };
        let weight = || format!("{name}.weight");
        match &element.kind {
            Kind::Projection(_) if *index == graph.head && tied.is_some() => {}
            Kind::Lookup(matrix) | Kind::Projection(matrix) => {
                let tensor = matrix_tensor(graph, weight(), matrix, path)?;
                weights.n_ragged += usize::from(tensor.made.is_some() && !tensor.dtype.is_quantized());
                weights.tensors.push(tensor);
            }
            Kind::Scale { constant, .. } => weights.tensors.push(vector_tensor(graph, weight(), *constant, path)?),
            Kind::Sum => {}
        }
        if let Some(bias) = element.bias {
            weights.tensors.push(vector_tensor(graph, format!("{name}.bias"), bias, path)?);
        }
    }
    let longest = weights.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    if longest as u64 > limits::TENSOR_NAME_BYTES {
        return Err(Error::Graph { path: path.to_owned(), detail: format!("a name of {longest} bytes is too long") });
    }
    Ok(weights)
}

/// The table of tokens that the head multiplies with.
fn tied_table(graph: &Graph<'_, '_>) -> Option<usize> {
    let Kind::Projection(head) = &graph.elements.get(graph.head)?.kind else { return None };
    graph.elements.iter().position(|element| match &element.kind {
        Kind::Lookup(table) => {
            element.is_taken && table.is_same(head) && table.dims(&graph.constants) == head.dims(&graph.constants)
        }
        _ => false,
    })
}

fn malformed(path: &Path, name: &str, problem: String) -> Error {
    Error::Malformed { path: path.to_owned(), field: format!("tensor {}", quoted(name)), problem }
}

/// Type, shape and bytes of a tensor.
fn sized(path: &Path, name: &str, dtype: DType, dims: &[usize]) -> Result<(Shape, u64)> {
    let shape = Shape::new(dims).filter(|_| !dims.contains(&0));
    let shape = shape.ok_or_else(|| malformed(path, name, format!("the shape {dims:?} is empty or too large")))?;
    let bytes = dtype.tensor_bytes(&shape).map_err(|e| malformed(path, name, e.to_string()))?;
    Ok((shape, bytes as u64))
}

fn matrix_tensor(graph: &Graph<'_, '_>, name: String, matrix: &Matrix, path: &Path) -> Result<TensorInfo> {
    let dims = matrix.dims(&graph.constants);
    match matrix {
        Matrix::Levels(levels) => {
            let dtype = levels.dtype();
            let (shape, bytes) = sized(path, &name, dtype, &dims)?;
            let made = Some(Arc::new(Made::Levels(Box::new((**levels).clone()))));
            Ok(TensorInfo { name, dtype, shape, bytes, part: 0, offset: 0, view: None, made })
        }
        Matrix::Plain { constant, transposed } => plain(graph, name, *constant, &dims, *transposed, path),
    }
}

fn vector_tensor(graph: &Graph<'_, '_>, name: String, constant: usize, path: &Path) -> Result<TensorInfo> {
    let len = graph.constants.get(constant).map_or(0, Constant::len);
    plain(graph, name, constant, &[len], false, path)
}

/// A tensor of a constant's floats.
fn plain(
    graph: &Graph<'_, '_>,
    name: String,
    constant: usize,
    dims: &[usize],
    transposed: bool,
    path: &Path,
) -> Result<TensorInfo> {
    let missing = || malformed(path, &name, "it holds no floats".to_owned());
    let constant = graph.constants.get(constant).ok_or_else(missing)?;
    let dtype = constant.element.dtype.ok_or_else(missing)?;
    let (shape, bytes) = sized(path, &name, dtype, dims)?;
    let stored = TensorInfo { name, dtype, shape, bytes, part: 0, offset: 0, view: None, made: None };
    match (&constant.data, dims) {
        (Data::File { part, offset, .. }, [_, columns]) if transposed => {
            let rows = dims.first().copied().unwrap_or(0);
            // Stored by columns: the next column is a row's length away.
            let piece = Piece { strides: vec![1, rows], ..Piece::in_order(*part, *offset, &[rows, *columns]) };
            let view = Some(Arc::new(View::Strided(Strided { axis: 0, pieces: vec![piece] })));
            Ok(TensorInfo { part: *part, offset: *offset, view, ..stored })
        }
        (Data::File { part, offset, .. }, _) => Ok(TensorInfo { part: *part, offset: *offset, ..stored }),
        (Data::Owned(bytes), _) if !transposed => {
            Ok(TensorInfo { made: Some(Arc::new(Made::Owned(Arc::clone(bytes)))), ..stored })
        }
        (Data::Owned(_), _) => {
            Err(malformed(path, &stored.name, "a matrix stored number by number is not supported".to_owned()))
        }
    }
}
