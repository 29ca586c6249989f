//! What one call of the forward pass computes.

use crate::{Error, Result};
use compute::{Rows, StateRows};
use std::ops::Range;

/// Tokens of one or more sequences, where they belong, and which of them want logits. One pass of any length: the decoder
/// cuts it into chunks that its scratch memory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position and sequence of each row, and the KV blocks of each sequence.
    pub rows: Rows,
    /// Rows whose logits are wanted, ascending.
    pub logits: Vec<u32>,
}

impl Batch {
    /// Checks that the parts agree. What lies in the cache is checked by the device.
    pub(crate) fn check(&self) -> Result<()> {
        let n_rows = self.tokens.len();
        let wrong = |what: String| Err(Error::Batch(what));
        if self.rows.positions.len() != n_rows {
            return wrong(format!("{n_rows} tokens and {} positions", self.rows.positions.len()));
        }
        let mut covered = 0;
        for sequence in &self.rows.sequences {
            if sequence.rows.start != covered || sequence.rows.end <= covered {
                return wrong(format!("a sequence with the rows {:?} after row {covered}", sequence.rows));
            }
            covered = sequence.rows.end;
        }
        if covered != n_rows {
            return wrong(format!("its sequences cover {covered} of {n_rows} rows"));
        }
        if !self.logits.is_sorted_by(|a, b| a < b) {
            return wrong("the rows with logits do not ascend".to_owned());
        }
        match self.logits.last() {
            Some(&last) if last as usize >= n_rows => wrong(format!("logits of row {last} of {n_rows}")),
            _ => Ok(()),
        }
    }
}

/// Makes `part` the rows `start..end` of `all`, reusing its memory.
pub(crate) fn cut(all: &Rows, start: usize, end: usize, part: &mut Rows) {
    part.positions.clear();
    part.positions.extend_from_slice(all.positions.get(start..end).unwrap_or(&[]));
    let mut n = 0;
    for sequence in &all.sequences {
        let rows = sequence.rows.start.max(start)..sequence.rows.end.min(end);
        if rows.is_empty() {
            continue;
        }
        if n == part.sequences.len() {
            part.sequences.push(compute::SequenceRows::default());
        }
        if let Some(to) = part.sequences.get_mut(n) {
            to.rows = rows.start - start..rows.end - start;
            to.blocks.clear();
            to.blocks.extend_from_slice(&sequence.blocks);
            match &sequence.states {
                Some(all) => {
                    let begun = rows.start - sequence.rows.start;
                    cut_states(all, begun..begun + rows.len(), to.states.get_or_insert_default());
                }
                None => to.states = None,
            }
        }
        n += 1;
    }
    part.sequences.truncate(n);
}

/// The states of rows `range` of a sequence: the first part begins with what was there, the others with what was written.
fn cut_states(all: &StateRows, range: Range<usize>, part: &mut StateRows) {
    part.from = if range.start == 0 { all.from } else { Some(all.to) };
    part.to = all.to;
    part.saves.clear();
    let here = all.saves.iter().filter(|(n, _)| *n > range.start && *n <= range.end);
    part.saves.extend(here.map(|&(n, slot)| (n - range.start, slot)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use compute::SequenceRows;

    fn two_sequences() -> Rows {
        Rows {
            positions: vec![5, 6, 7, 0, 1],
            sequences: vec![
                SequenceRows { rows: 0..3, blocks: vec![4], states: None },
                SequenceRows { rows: 3..5, blocks: vec![2, 9], states: None },
            ],
        }
    }

    #[test]
    fn contradictions_are_errors() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Batch), good: bool) {
            let mut batch = Batch { tokens: vec![1; 5], rows: two_sequences(), logits: vec![2, 4] };
            change(&mut batch);
            assert_eq!(batch.check().is_ok(), good, "{batch:?}");
        }
        check(|_| {}, true);
        check(|b| b.logits.clear(), true);
        check(|b| *b = Batch::default(), true);
        check(|b| b.tokens.push(1), false);
        check(|b| b.logits.push(5), false);
        check(|b| b.logits = vec![4, 2], false);
        check(|b| b.logits = vec![2, 2], false);
        check(|b| b.rows.sequences[1].rows = 4..5, false);
        check(|b| b.rows.sequences[0].rows = 0..0, false);
        check(|b| drop(b.rows.sequences.pop()), false);
    }

    #[test]
    fn cuts_keep_positions_and_sequences() {
        #[track_caller]
        fn check(start: usize, end: usize, positions: &[u32], sequences: &[(std::ops::Range<usize>, &[u32])]) {
            let mut part = two_sequences();
            cut(&two_sequences(), start, end, &mut part);
            assert_eq!(part.positions, positions);
            let got: Vec<_> = part.sequences.iter().map(|s| (s.rows.clone(), s.blocks.as_slice())).collect();
            assert_eq!(got, sequences);
        }
        check(0, 5, &[5, 6, 7, 0, 1], &[(0..3, &[4]), (3..5, &[2, 9])]);
        check(0, 2, &[5, 6], &[(0..2, &[4])]);
        check(2, 4, &[7, 0], &[(0..1, &[4]), (1..2, &[2, 9])]);
        check(4, 5, &[1], &[(0..1, &[2, 9])]);
    }

    #[test]
    fn states_of_parts() {
        let saves = vec![(1, 7), (4, 8), (5, 9)];
        let all = StateRows { from: Some(3), to: 4, saves };
        #[track_caller]
        fn check(all: &StateRows, range: Range<usize>, from: u32, saves: &[(usize, u32)]) {
            let mut part = StateRows { saves: vec![(9, 9)], ..StateRows::default() };
            cut_states(all, range, &mut part);
            assert_eq!(part, StateRows { from: Some(from), to: 4, saves: saves.to_vec() });
        }
        check(&all, 0..5, 3, &[(1, 7), (4, 8), (5, 9)]);
        check(&all, 0..4, 3, &[(1, 7), (4, 8)]);
        check(&all, 4..5, 4, &[(1, 9)]);
        check(&all, 1..4, 4, &[(3, 8)]);
    }
}
