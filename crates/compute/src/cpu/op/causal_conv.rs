//! A causal convolution of few taps, each channel by itself, whose first rows see what an earlier pass left in the state.
//!
//! What belongs here: the sum over taps and the state, `[n_taps - 1, width]`, oldest row first. What does not: what is
//! convolved and what follows (`short_conv`, `delta_rule`).

use super::require;
use crate::{
    Result, StateRows, Weight,
    cpu::{states::LayerStates, weight},
};
use std::ops::Range;

/// Factors whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct CausalConv<'a> {
    taps: &'a [f32],
    bias: Option<&'a [f32]>,
    width: usize,
    n_taps: usize,
}

/// What a convolution of one sequence sees: rows of a pass, and before them those of the state.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The state before the pass, its elements of the channels at hand, row after row; empty: zeros.
    pub(crate) before: &'a [f32],
    /// The pass's rows, from the sequence's first on.
    pub(crate) rows: &'a [f32],
    /// Elements from one of them to the next.
    pub(crate) stride: usize,
}

impl<'a> CausalConv<'a> {
    /// Checks the factors of `width` channels.
    pub(crate) fn of(op: &'static str, taps: &'a Weight, bias: Option<&'a Weight>, width: usize) -> Result<Self> {
        let dims = taps.shape().dims();
        let ok = dims.len() == 2 && dims[0] > 1 && dims[1] == width;
        require(op, ok, format_args!("the taps are {} and should be [2 or more, {width}]", taps.shape()))?;
        let (n_taps, bias) = (dims[0], weight::optional_vector(op, bias, width)?);
        Ok(Self { taps: weight::vector(op, taps, n_taps * width)?, bias, width, n_taps })
    }

    /// Rows of the state.
    pub(crate) fn n_kept(&self) -> usize {
        self.n_taps - 1
    }

    /// Elements of the state.
    pub(crate) fn state_len(&self) -> usize {
        self.n_kept() * self.width
    }

    /// Copies the state before a pass, for some channels, to `before`; zeros if there is none. Returns what is to be seen.
    ///
    /// # Safety
    /// Nobody else uses these channels of the slot.
    pub(crate) unsafe fn before<'b>(
        &self,
        states: LayerStates<'_>,
        from: Option<u32>,
        channels: &Range<usize>,
        before: &'b mut [f32],
    ) -> &'b [f32] {
        for (kept, to) in before.chunks_exact_mut(channels.len()).take(self.n_kept()).enumerate() {
            match from {
                // SAFETY: by this function's contract.
                Some(slot) => to.copy_from_slice(unsafe { states.part(slot, self.kept(kept, channels)) }),
                None => to.fill(0.0),
            }
        }
        before
    }

    /// One row's result for some channels: row `row` of a sequence.
    pub(crate) fn row(&self, seen: &Seen<'_>, row: usize, channels: &Range<usize>, out: &mut [f32]) {
        match self.bias {
            Some(bias) => out.copy_from_slice(&bias[channels.clone()]),
            None => out.fill(0.0),
        }
        for tap in 0..self.n_taps {
            let factors = &self.taps[tap * self.width..][channels.clone()];
            let values = seen.at(row + tap, self.n_kept(), channels);
            for ((o, f), v) in out.iter_mut().zip(factors).zip(values) {
                *o += f * v;
            }
        }
    }

    /// Writes the states after some rows of a sequence, as `wanted` says, for some channels.
    ///
    /// # Safety
    /// Nobody else uses these channels of those slots.
    pub(crate) unsafe fn save(
        &self,
        states: LayerStates<'_>,
        wanted: &StateRows,
        n_rows: usize,
        seen: &Seen<'_>,
        channels: &Range<usize>,
    ) {
        for (n, slot) in wanted.saves.iter().copied().chain([(n_rows, wanted.to)]) {
            for kept in 0..self.n_kept() {
                // SAFETY: by this function's contract.
                let to = unsafe { states.part(slot, self.kept(kept, channels)) };
                to.copy_from_slice(seen.at(n + kept, self.n_kept(), channels));
            }
        }
    }

    /// Where row `kept` of the state is.
    fn kept(&self, kept: usize, channels: &Range<usize>) -> Range<usize> {
        kept * self.width + channels.start..kept * self.width + channels.end
    }
}

impl Seen<'_> {
    /// Row `index` of the state's `n_kept` rows and the pass's after them.
    fn at(&self, index: usize, n_kept: usize, channels: &Range<usize>) -> &[f32] {
        match index.checked_sub(n_kept) {
            Some(row) => &self.rows[row * self.stride..][channels.clone()],
            None => &self.before[index * channels.len()..][..channels.len()],
        }
    }
}
