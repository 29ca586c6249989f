//! Which rows go into the next pass: a pure function of what every sequence still needs.
//!
//! Continuous batching (Yu et al. 2022, Orca) with chunked prefill (Agrawal et al. 2023, SARATHI): every sequence that
//! decodes gets its one row in every pass, and the rest of the pass is filled with prefill, shared evenly among the
//! sequences that have a prompt left. So a long prompt delays the others by one chunk, not by its length, and the
//! weights are read once for all of them.

/// What a sequence needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Rows still to compute; 1 for a sequence that decodes.
    pub(crate) remaining: usize,
    /// Rows that it may have in one pass.
    pub(crate) most: usize,
    /// It was in a pass that failed: to find the culprit it gets passes of its own.
    pub(crate) alone: bool,
}

/// Gives each sequence its rows of a pass of `max_rows` rows; 0 for those that are not in it. `wants` are in order of
/// arrival; `None` cannot run now (its reader is behind).
pub(crate) fn plan(wants: &[Option<Want>], max_rows: usize, rows: &mut Vec<usize>) {
    rows.clear();
    rows.resize(wants.len(), 0);
    let able = |want: &Option<Want>| want.filter(|want| want.remaining.min(want.most) > 0);
    if let Some(at) = wants.iter().position(|want| able(want).is_some_and(|want| want.alone)) {
        rows[at] = able(&wants[at]).map_or(0, |want| want.remaining.min(want.most).min(max_rows));
        return;
    }
    let mut left = max_rows;
    for (share, _) in rows.iter_mut().zip(wants).filter(|(_, want)| able(want).is_some_and(|w| w.remaining == 1)) {
        *share = left.min(1);
        left -= *share;
    }
    // Even shares; what a short prompt leaves over goes round again.
    while left > 0 {
        let more = |rows: usize, want: &Option<Want>| {
            able(want).map_or(0, |want| want.remaining.min(want.most)).saturating_sub(rows)
        };
        let mut sequences = rows.iter().zip(wants).filter(|(rows, want)| more(**rows, want) > 0).count();
        if sequences == 0 {
            break;
        }
        for (rows, want) in rows.iter_mut().zip(wants) {
            let more = more(*rows, want);
            if more > 0 {
                let share = left.div_ceil(sequences).min(more);
                *rows += share;
                left -= share;
                sequences -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(remaining, most, alone)`; remaining 0 stands for a sequence that cannot run.
    fn check(wants: &[(usize, usize, bool)], max_rows: usize, expected: &[usize]) {
        let want = |&(remaining, most, alone): &(usize, usize, bool)| {
            (remaining > 0).then_some(Want { remaining, most, alone })
        };
        let wants: Vec<Option<Want>> = wants.iter().map(want).collect();
        let mut rows = Vec::new();
        plan(&wants, max_rows, &mut rows);
        assert_eq!(rows, expected, "{wants:?}");
        assert!(rows.iter().sum::<usize>() <= max_rows);
    }

    #[test]
    fn rows_of_a_pass() {
        const ALL: usize = usize::MAX;
        check(&[], 8, &[]);
        check(&[(5, ALL, false)], 8, &[5]);
        check(&[(50, ALL, false)], 8, &[8]);
        check(&[(1, ALL, false), (1, ALL, false)], 8, &[1, 1]);
        // Decoding first, prefill fills the rest.
        check(&[(50, ALL, false), (1, ALL, false)], 8, &[7, 1]);
        // Prefills share evenly, and leftovers are used.
        check(&[(50, ALL, false), (50, ALL, false)], 8, &[4, 4]);
        check(&[(50, ALL, false), (2, ALL, false), (50, ALL, false)], 9, &[3, 2, 4]);
        check(&[(3, ALL, false), (50, ALL, false)], 8, &[3, 5]);
        // A limit of its own.
        check(&[(50, 3, false), (50, ALL, false)], 8, &[3, 5]);
        // Not able to run.
        check(&[(0, ALL, false), (1, ALL, false)], 8, &[0, 1]);
        // Alone.
        check(&[(1, ALL, false), (50, ALL, true), (1, ALL, true)], 8, &[0, 8, 0]);
        // More decoding sequences than rows.
        check(&[(1, ALL, false), (1, ALL, false), (1, ALL, false)], 2, &[1, 1, 0]);
    }
}
