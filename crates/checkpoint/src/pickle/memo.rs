//! What a pickle keeps under numbers, to say it once and mean it often.
//!
//! Writers count up from zero or one, so a list serves; other numbers are possible, and go into a map that is kept small.

use super::{Read, bad, node::Id};
use crate::limits;
use std::collections::HashMap;

/// How far beyond its end the list may be continued: writers that start from one need one.
const GAP: usize = 16;

/// Values by number.
#[derive(Default)]
pub(super) struct Memo {
    dense: Vec<Option<Id>>,
    sparse: HashMap<u64, Id>,
}

impl Memo {
    /// The number after the highest that was counted up to.
    pub(super) fn next(&self) -> u64 {
        self.dense.len() as u64
    }

    /// Keeps `id` under `index`. Error: too many numbers out of order.
    pub(super) fn insert(&mut self, index: u64, id: Id) -> Read<()> {
        match usize::try_from(index) {
            Ok(index) if index <= self.dense.len().saturating_add(GAP) => {
                if index >= self.dense.len() {
                    self.dense.resize(index + 1, None);
                }
                if let Some(slot) = self.dense.get_mut(index) {
                    *slot = Some(id);
                }
            }
            _ if self.sparse.len() < limits::PICKLE_ODD_NUMBERS => {
                self.sparse.insert(index, id);
            }
            _ => return bad("values are kept under too many numbers out of order, which is too large"),
        }
        Ok(())
    }

    /// What is kept under `index`.
    pub(super) fn get(&self, index: u64) -> Option<Id> {
        let dense = usize::try_from(index).ok().and_then(|index| *self.dense.get(index)?);
        dense.or_else(|| self.sparse.get(&index).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_and_out_of_order() {
        let mut memo = Memo::default();
        for (i, index) in [1, 2, 0, u64::MAX, 1000, 3, 2].into_iter().enumerate() {
            memo.insert(index, Id(i as u32)).unwrap();
        }
        let kept = [0, 1, 2, 3, 4, 1000, u64::MAX].map(|index| memo.get(index).map(|id| id.0));
        assert_eq!(kept, [Some(2), Some(0), Some(6), Some(5), None, Some(4), Some(3)]);
        assert_eq!(memo.next(), 4);
        // A number that was out of order when it was kept is found again when the list has grown past it.
        (4..=1001).filter(|i| *i != 1000).for_each(|index| memo.insert(index, Id(7)).unwrap());
        assert_eq!(memo.get(1000), Some(Id(4)));
        memo.insert(1000, Id(8)).unwrap();
        assert_eq!(memo.get(1000), Some(Id(8)));
    }

    #[test]
    fn odd_numbers_are_few() {
        let mut memo = Memo::default();
        let mut insert = |i: usize| memo.insert(1 << 40 | i as u64, Id(0));
        (0..limits::PICKLE_ODD_NUMBERS).for_each(|i| insert(i).unwrap());
        assert!(insert(limits::PICKLE_ODD_NUMBERS).is_err());
    }
}
