//! The rows of a tensor to be written, a few at a time: bytes of the source in the order that the new file has them.

use crate::row_order::{Heads, source_row};
use crate::{Error, Result};
use checkpoint::Checkpoint;
use std::ops::Range;
use tensor::{DType, HostTensor};

/// A tensor open for reading by rows.
pub struct Rows {
    pieces: Vec<HostTensor>,
    heads: Vec<Heads>,
    /// Rows of the source in the order of the new tensor; none: as they are.
    runs: Vec<Range<usize>>,
    rows_of_piece: usize,
}

impl Rows {
    pub(super) fn new(pieces: Vec<HostTensor>, heads: Vec<Heads>) -> Rows {
        let rows_of_piece = pieces.first().map_or(0, |piece| piece.shape().rows());
        Rows { pieces, heads, runs: Vec::new(), rows_of_piece }
    }

    /// The rows `runs` of one tensor, one run after another.
    pub(super) fn of_runs(tensor: HostTensor, runs: Vec<Range<usize>>) -> Rows {
        Rows { runs, ..Rows::new(vec![tensor], Vec::new()) }
    }

    /// The type of the bytes.
    pub fn dtype(&self) -> DType {
        self.pieces.first().map_or(DType::F32, HostTensor::dtype)
    }

    /// Appends the bytes of rows `range` of the new tensor to `out`.
    ///
    /// Error: rows that there are not.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        if self.runs.is_empty() {
            return self.read_in_order(range, out);
        }
        let (mut before, mut n_read) = (0, 0);
        for run in &self.runs {
            let here = before..before + run.len();
            let (start, end) = (range.start.max(here.start), range.end.min(here.end));
            if start < end {
                let first = run.start + (start - before);
                self.read_in_order(first..first + (end - start), out)?;
                n_read += end - start;
            }
            before = here.end;
        }
        if n_read == range.len() { Ok(()) } else { Err(Error::Overflow { what: format!("rows {range:?}") }) }
    }

    fn read_in_order(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let mut row = range.start;
        while row < range.end {
            // As many rows as lie in order in one piece.
            let piece_end = row - row % self.rows_of_piece.max(1) + self.rows_of_piece;
            let next_heads = self.heads.iter().map(|heads| heads.rows.start).filter(|&start| start > row).min();
            let end = match self.heads.iter().any(|heads| heads.rows.contains(&row)) {
                true => row + 1,
                false => range.end.min(piece_end).min(next_heads.unwrap_or(usize::MAX)),
            };
            let source = source_row(&self.heads, row);
            let outside = || Error::Overflow { what: format!("row {row}") };
            let piece = self.pieces.get(row / self.rows_of_piece.max(1)).ok_or_else(outside)?;
            let row_bytes = piece.row_bytes();
            let first = source % self.rows_of_piece.max(1);
            let bytes = piece.bytes().get(first * row_bytes..(first + end - row) * row_bytes).ok_or_else(outside)?;
            out.extend_from_slice(bytes);
            row = end;
        }
        Ok(())
    }

    /// Lets the mapped pages leave memory.
    pub fn release(&self, checkpoint: &Checkpoint) {
        self.pieces.iter().for_each(|piece| checkpoint.release(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::{Shape, SharedBytes};

    fn tensor(first: u8, rows: usize) -> HostTensor {
        let bytes: Vec<u8> = (0..rows * 2).map(|i| first + i as u8).collect();
        HostTensor::new("t", DType::U8, Shape::new(&[rows, 2]).unwrap(), SharedBytes::from_vec(bytes)).unwrap()
    }

    #[test]
    fn halves_become_neighbours() {
        let heads = [Heads { rows: 0..8, head_dim: 4, n_dims: 4 }];
        let order: Vec<usize> = (0..10).map(|row| source_row(&heads, row)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7, 8, 9]);
        let partly = [Heads { rows: 2..8, head_dim: 6, n_dims: 4 }];
        let order: Vec<usize> = (0..8).map(|row| source_row(&partly, row)).collect();
        assert_eq!(order, [0, 1, 2, 4, 3, 5, 6, 7]);
    }

    #[test]
    fn runs_follow_one_another() {
        let rows = Rows::of_runs(tensor(0, 6), vec![4..6, 0..1, 2..4]);
        let mut out = Vec::new();
        rows.read(0..5, &mut out).unwrap();
        assert_eq!(out, [8, 9, 10, 11, 0, 1, 4, 5, 6, 7]);
        out.clear();
        rows.read(1..4, &mut out).unwrap();
        assert_eq!(out, [10, 11, 0, 1, 4, 5]);
        assert!(rows.read(4..6, &mut out).is_err());
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let heads = vec![Heads { rows: 0..8, head_dim: 4, n_dims: 4 }];
        for (pieces, heads) in
            [(vec![tensor(0, 12)], heads), (vec![tensor(0, 4), tensor(8, 4), tensor(16, 4)], Vec::new())]
        {
            let rows = Rows::new(pieces, heads);
            let mut whole = Vec::new();
            rows.read(0..12, &mut whole).unwrap();
            assert_eq!(whole.len(), 24);
            for step in 1..12 {
                let mut cut = Vec::new();
                for start in (0..12).step_by(step) {
                    rows.read(start..(start + step).min(12), &mut cut).unwrap();
                }
                assert_eq!(cut, whole, "{step}");
            }
            assert!(rows.read(11..13, &mut Vec::new()).is_err());
        }
    }
}
