//! The next pass: which sequence has which rows of it, and the batch made of them. Its memory is reused, so that
//! decoding allocates nothing here.

use crate::{
    forward::Batch,
    scheduler::{self, Want},
    sequence::Sequence,
    states::Snapshot,
};
use compute::SequenceRows;
use std::ops::Range;

/// One pass over the model.
#[derive(Default)]
pub(crate) struct Pass {
    /// Rows of each running sequence.
    pub(crate) rows: Vec<usize>,
    /// The rows of `batch.logits` that belong to each running sequence.
    pub(crate) logits: Vec<Range<usize>>,
    /// What the model gets.
    pub(crate) batch: Batch,
    wants: Vec<Option<Want>>,
    /// Entries of earlier batches, kept for the memory of their block lists.
    spare: Vec<SequenceRows>,
}

impl Pass {
    /// Decides which of the running sequences get how many rows. `max_logits`: rows with logits in a pass.
    pub(crate) fn plan(&mut self, running: &[Sequence], max_rows: usize, max_logits: usize) {
        self.wants.clear();
        let mut scoring = false;
        for sequence in running {
            let most = sequence.most_rows(max_logits);
            // One scoring sequence at a time: two together would ask for too many rows with logits.
            let second = scoring && most != usize::MAX;
            scoring |= most != usize::MAX;
            let remaining = sequence.remaining() + sequence.draft.len();
            let want = Want { remaining, most, alone: sequence.n_computed < sequence.alone_until };
            self.wants.push((sequence.is_ready() && !second).then_some(want));
        }
        scheduler::plan(&self.wants, max_rows, &mut self.rows);
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.iter().all(|&rows| rows == 0)
    }

    /// Sequences in it.
    pub(crate) fn n_sequences(&self) -> usize {
        self.rows.iter().filter(|&&rows| rows > 0).count()
    }

    /// Fills the batch as planned.
    pub(crate) fn fill(&mut self, running: &[Sequence]) {
        self.clear();
        for (sequence, &rows) in running.iter().zip(&self.rows) {
            let from = sequence.n_computed;
            let wanted = sequence.wanted_logits(rows);
            let first = self.batch.tokens.len();
            let n_logits = self.batch.logits.len();
            self.batch.logits.extend(wanted.map(|row| (first + row) as u32));
            self.logits.push(n_logits..self.batch.logits.len());
            if rows > 0 {
                let tokens = sequence.tokens[from..].iter().chain(&sequence.draft).take(rows);
                push_rows(
                    &mut self.batch,
                    &mut self.spare,
                    tokens,
                    from,
                    (&sequence.blocks, sequence.blocks.capacity()),
                    sequence.next_slot.map(|to| States {
                        from: sequence.states.last().map(|last| last.slot),
                        to,
                        saves: &sequence.saves,
                    }),
                );
            }
        }
    }

    /// Adds rows of a sequence that is not a request (`bench`); the last `n_logits` of them want logits. Its states stay in
    /// one slot, in models that keep any.
    pub(crate) fn add(&mut self, tokens: &[u32], from: usize, (blocks, slot): (&[u32], Option<u32>), n_logits: usize) {
        let states = slot.map(|to| States { from: slot.filter(|_| from > 0), to, saves: &[] });
        push_rows(&mut self.batch, &mut self.spare, tokens.iter(), from, (blocks, blocks.len()), states);
        let n_rows = self.batch.tokens.len();
        self.batch.logits.extend((n_rows - n_logits.min(tokens.len())..n_rows).map(|row| row as u32));
    }

    /// Empties the batch.
    pub(crate) fn clear(&mut self) {
        self.logits.clear();
        self.batch.tokens.clear();
        self.batch.logits.clear();
        self.batch.rows.positions.clear();
        self.spare.append(&mut self.batch.rows.sequences);
    }
}

/// Where a sequence's states come from and go.
struct States<'a> {
    from: Option<u32>,
    to: u32,
    saves: &'a [Snapshot],
}

fn push_rows<'t>(
    batch: &mut Batch,
    spare: &mut Vec<SequenceRows>,
    tokens: impl Iterator<Item = &'t u32>,
    from: usize,
    (blocks, n_blocks_later): (&[u32], usize),
    states: Option<States<'_>>,
) {
    let first = batch.tokens.len();
    batch.tokens.extend(tokens);
    let n_rows = batch.tokens.len() - first;
    batch.rows.positions.extend((from..from + n_rows).map(|position| position as u32));
    let mut entry = spare.pop().unwrap_or_default();
    entry.rows = first..batch.tokens.len();
    entry.blocks.clear();
    entry.blocks.reserve(n_blocks_later);
    entry.blocks.extend_from_slice(blocks);
    match states {
        Some(States { from: slot, to, saves }) => {
            let states = entry.states.get_or_insert_default();
            (states.from, states.to) = (slot, to);
            states.saves.clear();
            states.saves.extend(saves.iter().map(|save| (save.n - from, save.slot)));
        }
        None => entry.states = None,
    }
    batch.rows.sequences.push(entry);
}
