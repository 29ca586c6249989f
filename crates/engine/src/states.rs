//! The states of recurrent layers: in which slot each lies, and after how many positions of a sequence it was written.
//!
//! Keys and values of a position stay where they are; a state is overwritten by the next position and cannot be taken
//! back. So a sequence reads one slot and writes another, and slots that were written stay as places to go on from: a new
//! sequence begins at the last of them that it shares. References are counted (`owners.rs`); a slot that two hold is only read.
//!
//! Where slots are kept is decided by the sequence, which are given up first here. The numbers live on the device.

use crate::owners::Owners;

/// The states after the first `n` positions of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) n: usize,
    pub(crate) slot: u32,
}

/// Adds to `states` those of `others` that it lacks; both are of the same tokens.
pub(crate) fn merge(slots: &mut Owners, states: &mut Vec<Snapshot>, others: Vec<Snapshot>) {
    for other in others {
        match states.binary_search_by_key(&other.n, |state| state.n) {
            Ok(_) => slots.release([other.slot]),
            Err(at) => states.insert(at, other),
        }
    }
}

/// Keeps the states after at most `n` positions.
pub(crate) fn truncate(slots: &mut Owners, states: &mut Vec<Snapshot>, n: usize) {
    let kept = states.partition_point(|state| state.n <= n);
    slots.release(states.drain(kept..).map(|state| state.slot));
}

/// Positions of the last state within the first `n`.
pub(crate) fn last_within(states: &[Snapshot], n: usize) -> usize {
    let within = states.partition_point(|state| state.n <= n);
    within.checked_sub(1).and_then(|at| states.get(at)).map_or(0, |state| state.n)
}

/// The slot that is missed least when it goes, among those that may: where other states are near, measured by how far back
/// it lies. Never the last.
pub(crate) fn least_worth(states: &[Snapshot], may_go: impl Fn(u32) -> bool) -> Option<u32> {
    let end = states.last()?.n;
    let worth = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| states.get(at)).map_or(0, |state| state.n);
        let (here, after) =
            (states.get(at).map_or(0, |state| state.n), states.get(at + 1).map_or(end, |state| state.n));
        (after - before) as f64 / (end - here).max(1) as f64
    };
    let between = states.iter().enumerate().take(states.len() - 1).filter(|(_, state)| may_go(state.slot));
    between.min_by(|&(a, _), &(b, _)| worth(a).total_cmp(&worth(b))).map(|(_, state)| state.slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(positions: &[usize]) -> Vec<Snapshot> {
        positions.iter().zip(0..).map(|(&n, slot)| Snapshot { n, slot }).collect()
    }

    #[test]
    fn where_to_go_on() {
        #[track_caller]
        fn check(positions: &[usize], n: usize, expected: usize) {
            assert_eq!(last_within(&states(positions), n), expected, "{positions:?} {n}");
        }
        check(&[], 10, 0);
        check(&[3, 7], 2, 0);
        check(&[3, 7], 3, 3);
        check(&[3, 7], 6, 3);
        check(&[3, 7], 100, 7);
    }

    #[test]
    fn what_is_given_up() {
        #[track_caller]
        fn check(positions: &[usize], expected: Option<u32>) {
            assert_eq!(least_worth(&states(positions), |_| true), expected, "{positions:?}");
            let next = least_worth(&states(positions), |slot| Some(slot) != expected);
            assert!(next.is_none() || next != expected);
        }
        check(&[], None);
        check(&[5], None);
        check(&[5, 9], Some(0));
        check(&[100, 200, 300, 400], Some(0)); // of a long prefill the places far back
        check(&[500, 990, 995, 1000], Some(0)); // those at the end stay close
        check(&[400, 401, 800, 1000], Some(1)); // two that are nearly the same
    }

    #[test]
    fn references_are_counted() {
        let mut slots = Owners::new(3);
        let (a, b) = (slots.take().unwrap(), slots.take().unwrap());
        slots.share(a);
        let mut one = vec![Snapshot { n: 4, slot: a }];
        merge(&mut slots, &mut one, vec![Snapshot { n: 2, slot: b }, Snapshot { n: 4, slot: a }]);
        assert_eq!(one, [Snapshot { n: 2, slot: b }, Snapshot { n: 4, slot: a }]);
        assert_eq!((slots.counts(), slots.n_free()), (&[1, 1, 0][..], 1));
        truncate(&mut slots, &mut one, 3);
        assert_eq!((one.len(), slots.counts(), slots.n_free()), (1, &[0, 1, 0][..], 2));
        slots.release([b]);
        assert_eq!((slots.n_free(), slots.len()), (3, 3));
        assert!((0..3).all(|_| slots.take().is_some()) && slots.take().is_none());
    }
}
