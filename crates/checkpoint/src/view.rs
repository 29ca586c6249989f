//! Tensors whose bytes are not simply a range of the file: strided views, pieces to be joined, bytes with a checksum; and,
//! by `joined`, tensors made of others.
//!
//! What belongs here: how such a tensor is made when it is loaded. What does not: which file needs it (`format`).

use crate::{Error, Result, TensorInfo, crc32::crc32, error::quoted, file::ModelFile, joined::Joined};
use std::{
    path::Path,
    sync::{Arc, OnceLock},
};
use tensor::SharedBytes;

/// A range of a file that must have a certain checksum. It is verified once, by the first tensor in it that is loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// What it is, for messages.
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    verified: OnceLock<bool>,
}

impl Guard {
    pub(crate) fn new(name: String, offset: u64, bytes: u64, crc: u32) -> Self {
        Self { name, offset, bytes, crc, verified: OnceLock::new() }
    }

    /// Error: the bytes are not those that were written.
    pub(crate) fn verify(&self, file: &ModelFile) -> Result<()> {
        let intact = match self.verified.get() {
            Some(intact) => *intact,
            None => {
                let bytes = file.bytes(self.offset, self.bytes, || self.name.clone())?;
                let intact = crc32(&bytes) == self.crc;
                *self.verified.get_or_init(|| intact)
            }
        };
        if intact {
            return Ok(());
        }
        let problem =
            format!("its bytes do not have the checksum (CRC-32 {:08x}) they were written with: corrupt", self.crc);
        Err(Error::Malformed { path: file.path().to_owned(), field: self.name.clone(), problem })
    }
}

/// A strided view of bytes in one file, proven to lie inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which file of the model.
    pub(crate) part: usize,
    /// Where its first element is in that file.
    pub(crate) offset: u64,
    /// Dimensions, outermost first, none of them zero.
    pub(crate) dims: Vec<usize>,
    /// Steps of each dimension, in elements.
    pub(crate) strides: Vec<usize>,
    pub(crate) guard: Option<Arc<Guard>>,
}

impl Piece {
    /// Elements one after another, without a checksum.
    pub(crate) fn in_order(part: usize, offset: u64, dims: &[usize]) -> Self {
        let after = |i: usize| dims.get(i + 1..).unwrap_or_default().iter().product();
        Self { part, offset, dims: dims.to_vec(), strides: (0..dims.len()).map(after).collect(), guard: None }
    }

    /// Whether its elements lie one after another, in order.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        self.dims.iter().zip(&self.strides).rev().all(|(dim, stride)| {
            let fits = *dim == 1 || *stride == expected;
            // Cannot overflow: the product of the dimensions does not.
            expected = expected.saturating_mul(*dim);
            fits
        })
    }

    /// Elements from its first to its last, in the file.
    fn span(&self) -> Option<usize> {
        let mut steps = self.dims.iter().zip(&self.strides);
        steps.try_fold(1usize, |span, (dim, stride)| span.checked_add(dim.checked_sub(1)?.checked_mul(*stride)?))
    }
}

/// How a tensor comes out of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Element by element.
    Strided(Strided),
    /// Of other tensors.
    Joined(Joined),
}

impl View {
    /// The bytes of the tensor `info` of the model at `path`.
    pub(crate) fn load(&self, path: &Path, parts: &[ModelFile], info: &TensorInfo) -> Result<SharedBytes> {
        match self {
            View::Strided(view) => view.load(path, parts, info),
            View::Joined(view) => view.load(path, parts, info),
        }
    }

    /// The file that all of it is in turned out to be this part of the model.
    pub(crate) fn set_part(&mut self, part: usize) {
        match self {
            View::Strided(view) => view.pieces.iter_mut().for_each(|piece| piece.part = part),
            View::Joined(joined) => {
                let inputs = std::mem::take(&mut joined.inputs);
                joined.inputs = inputs.into_iter().map(|input| input.in_part(part)).collect();
            }
        }
    }
}

/// A tensor made of pieces that follow one another along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strided {
    pub(crate) axis: usize,
    pub(crate) pieces: Vec<Piece>,
}

impl Strided {
    /// The bytes of the tensor `info` of the model at `path`: a view of the map when they lie there in order, else a copy
    /// in order.
    pub(crate) fn load(&self, path: &Path, parts: &[ModelFile], info: &TensorInfo) -> Result<SharedBytes> {
        let what = || format!("tensor {}", quoted(&info.name));
        let missing = || Error::MissingTensor { path: path.to_owned(), tensor: quoted(&info.name) };
        for piece in &self.pieces {
            let file = parts.get(piece.part).ok_or_else(missing)?;
            file.check_unchanged()?;
            piece.guard.as_ref().map_or(Ok(()), |guard| guard.verify(file))?;
        }
        if let [piece] = self.pieces.as_slice()
            && piece.is_contiguous()
        {
            let file = parts.get(piece.part).ok_or_else(missing)?;
            return file.bytes(piece.offset, info.bytes, what);
        }
        let no_memory = || Error::Memory { path: path.to_owned(), bytes: info.bytes, what: what() };
        let len = usize::try_from(info.bytes).map_err(|_| no_memory())?;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| no_memory())?;
        out.resize(len, 0);
        let element_bytes = info.dtype.block_bytes();
        let mut at = 0;
        for piece in &self.pieces {
            let file = parts.get(piece.part).ok_or_else(missing)?;
            let span = piece.span().and_then(|span| span.checked_mul(element_bytes)).ok_or_else(no_memory)?;
            let source = file.bytes(piece.offset, span as u64, what)?;
            let rows = Rows { total: info.shape.dims(), axis: self.axis, at };
            copy(piece, &source, element_bytes, &rows, &mut out).ok_or_else(no_memory)?;
            at += piece.dims.get(self.axis).copied().unwrap_or(0);
            file.release(&source);
        }
        Ok(SharedBytes::from_vec(out))
    }
}

/// Where a piece goes: from `at` on along `axis` of the whole, whose dimensions are `total`.
struct Rows<'a> {
    total: &'a [usize],
    axis: usize,
    at: usize,
}

/// Copies a piece to its place. `None`: the places do not fit the bytes, which the readers of formats rule out.
fn copy(piece: &Piece, source: &[u8], element_bytes: usize, rows: &Rows<'_>, out: &mut [u8]) -> Option<()> {
    let n_dims = piece.dims.len();
    // Steps in the whole, in elements.
    let mut steps = vec![1usize; n_dims];
    for index in (1..n_dims).rev() {
        *steps.get_mut(index - 1)? = steps.get(index)?.checked_mul(*rows.total.get(index)?)?;
    }
    let start = rows.at.checked_mul(steps.get(rows.axis).copied().unwrap_or(1))?;
    let (inner_len, inner_stride) = match (piece.dims.last(), piece.strides.last()) {
        (Some(len), Some(stride)) => (*len, *stride),
        _ => (1, 1),
    };
    if let ([n_rows, _], [1, stride]) = (piece.dims.as_slice(), piece.strides.as_slice())
        && let Some(step) = steps.first()
    {
        let out = out.get_mut(start.checked_mul(element_bytes)?..)?;
        match element_bytes {
            2 => return turn::<2>(source, *stride, [*n_rows, inner_len], out, *step),
            4 => return turn::<4>(source, *stride, [*n_rows, inner_len], out, *step),
            _ => {}
        }
    }
    let outer = n_dims.saturating_sub(1);
    let mut index = vec![0usize; outer];
    loop {
        let place = |strides: &[usize]| index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>();
        let from = place(&piece.strides).checked_mul(element_bytes)?;
        let to = place(&steps).checked_add(start)?.checked_mul(element_bytes)?;
        let target = out.get_mut(to..)?.get_mut(..inner_len.checked_mul(element_bytes)?)?;
        let row = source.get(from..)?;
        if inner_stride == 1 {
            target.copy_from_slice(row.get(..target.len())?);
        } else {
            let step = inner_stride.checked_mul(element_bytes)?;
            for (i, element) in target.chunks_exact_mut(element_bytes).enumerate() {
                element.copy_from_slice(row.get(i * step..)?.get(..element_bytes)?);
            }
        }
        // The next row, as an odometer counts.
        let turned = (0..outer).rev().find(|dim| {
            let Some((i, len)) = index.get_mut(*dim).zip(piece.dims.get(*dim)) else { return false };
            *i += 1;
            if *i < *len {
                return true;
            }
            *i = 0;
            false
        });
        if turned.is_none() {
            return Some(());
        }
    }
}

/// Copies a matrix of `dims` that is stored by columns, `stride` elements from one to the next, to rows `step` apart: in
/// squares, so that neither side touches a new line of the cache for each element. `None`: it does not fit.
fn turn<const B: usize>(source: &[u8], stride: usize, dims: [usize; 2], out: &mut [u8], step: usize) -> Option<()> {
    const SIDE: usize = 32;
    let [n_rows, n_columns] = dims;
    let (source, out) = (source.as_chunks::<B>().0, out.as_chunks_mut::<B>().0);
    for first_row in (0..n_rows).step_by(SIDE) {
        for first_column in (0..n_columns).step_by(SIDE) {
            let columns = first_column..n_columns.min(first_column + SIDE);
            for row in first_row..n_rows.min(first_row + SIDE) {
                for column in columns.clone() {
                    let from = column.checked_mul(stride)?.checked_add(row)?;
                    *out.get_mut(row.checked_mul(step)?.checked_add(column)?)? = *source.get(from)?;
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(dims: &[usize], strides: &[usize]) -> Piece {
        Piece { part: 0, offset: 0, dims: dims.to_vec(), strides: strides.to_vec(), guard: None }
    }

    #[test]
    fn contiguous_views_are_recognised() {
        #[track_caller]
        fn check(dims: &[usize], strides: &[usize], expected: bool, span: usize) {
            let piece = piece(dims, strides);
            assert_eq!((piece.is_contiguous(), piece.span()), (expected, Some(span)));
        }
        check(&[], &[], true, 1);
        check(&[5], &[1], true, 5);
        check(&[5], &[2], false, 9);
        check(&[2, 3], &[3, 1], true, 6);
        check(&[3, 2], &[1, 3], false, 6);
        check(&[1, 3], &[99, 1], true, 3);
        check(&[3, 1], &[1, 7], true, 3);
        check(&[2, 3], &[0, 1], false, 3);
        assert_eq!(piece(&[usize::MAX, 2], &[2, 1]).span(), None);
    }

    #[test]
    fn pieces_are_copied_to_their_places() {
        #[track_caller]
        fn check(pieces: &[(&[usize], &[usize])], total: &[usize], axis: usize, expected: &[u8]) {
            let source: Vec<u8> = (0..24).collect();
            let mut out = vec![0xff; total.iter().product()];
            let mut at = 0;
            for (i, (dims, strides)) in pieces.iter().enumerate() {
                let piece = piece(dims, strides);
                copy(&piece, &source[i * 12..], 1, &Rows { total, axis, at }, &mut out).unwrap();
                at += dims.get(axis).unwrap_or(&1);
            }
            assert_eq!(out, expected);
        }
        check(&[(&[], &[])], &[1], 0, &[0]);
        check(&[(&[3], &[2])], &[3], 0, &[0, 2, 4]);
        check(&[(&[2, 3], &[1, 2])], &[2, 3], 0, &[0, 2, 4, 1, 3, 5]);
        check(&[(&[2, 2, 2], &[1, 2, 4])], &[2, 2, 2], 0, &[0, 4, 2, 6, 1, 5, 3, 7]);
        check(&[(&[2], &[1]), (&[3], &[1])], &[5], 0, &[0, 1, 12, 13, 14]);
        check(&[(&[2, 2], &[2, 1]), (&[2, 1], &[1, 1])], &[2, 3], 1, &[0, 1, 12, 2, 3, 13]);
        check(&[(&[1, 2], &[2, 1]), (&[2, 2], &[2, 1])], &[3, 2], 0, &[0, 1, 12, 13, 14, 15]);
    }

    #[test]
    fn matrices_stored_by_columns_are_turned() {
        for (n_rows, n_columns) in [(1, 1), (70, 33), (32, 64), (3, 100)] {
            let piece = piece(&[n_rows, n_columns], &[1, n_rows]);
            let rows = Rows { total: &[n_rows, n_columns], axis: 0, at: 0 };
            let source: Vec<u8> = (0..n_rows * n_columns).flat_map(|i| (i as u32).to_le_bytes()).collect();
            let mut out = vec![0xff; source.len()];
            copy(&piece, &source, 4, &rows, &mut out).unwrap();
            for (i, bytes) in out.chunks_exact(4).enumerate() {
                let expected = (i % n_columns * n_rows + i / n_columns) as u32;
                assert_eq!(bytes, expected.to_le_bytes(), "{n_rows} {n_columns} {i}");
            }
            assert_eq!(copy(&piece, &source[4..], 4, &rows, &mut out), None);
        }
    }

    #[test]
    fn places_that_do_not_fit_copy_nothing() {
        let rows = Rows { total: &[3], axis: 0, at: 1 };
        assert_eq!(copy(&piece(&[3], &[1]), &[1, 2, 3], 1, &rows, &mut [0; 3]), None);
        assert_eq!(copy(&piece(&[3], &[2]), &[1, 2, 3], 1, &Rows { at: 0, ..rows }, &mut [0; 3]), None);
    }
}
