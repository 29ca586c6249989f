//! States of recurrent layers on the CPU device: slots of `f32`, one after another in each layer.
//!
//! What belongs here: their memory, the check of which slots a pass reads and writes, access by slot. What does not: what
//! is in a state (`op::causal_conv`, `op::delta_rule`), which slot is whose (the engine).

use super::{
    argument, kv,
    memory::{Memory, SharedMut},
};
use crate::{KvCache, Result, Rows, StateRows, StateSpec};
use std::ops::Range;

/// Makes the states of all layers. Memory is not touched.
pub(crate) fn memory(spec: &StateSpec) -> Result<Vec<Memory<f32>>> {
    let layer = |len: &usize| {
        let len = len.checked_mul(spec.n_slots).ok_or_else(|| argument("kv_cache", "the states' size overflows"))?;
        Memory::zeroed(len, "the states")
    };
    spec.layers.iter().map(layer).collect()
}

/// The states of one layer, which threads share: each works on elements of its own, in whatever slots.
#[derive(Clone, Copy)]
pub(crate) struct LayerStates<'a> {
    all: SharedMut<'a, f32>,
    len: usize,
}

impl<'a> LayerStates<'a> {
    /// Checks that layer `layer` has states of `len` elements, and that `rows` name slots for all sequences.
    pub(crate) fn of(
        op: &'static str,
        cache: &'a mut KvCache,
        layer: usize,
        len: usize,
        rows: &Rows,
    ) -> Result<LayerStates<'a>> {
        let has = cache.spec.states.layers.get(layer).copied().unwrap_or(0);
        if has != len || len == 0 {
            return Err(argument(op, format_args!("the states of layer {layer} have {has} elements, not {len}")));
        }
        check(op, rows, cache.spec.states.n_slots)?;
        let kv = cache.inner.downcast_mut::<kv::CpuKv>().ok_or_else(|| argument(op, "a KV cache of another device"))?;
        let memory = kv.states.get_mut(layer).ok_or_else(|| argument(op, format_args!("no layer {layer}")))?;
        Ok(LayerStates { all: SharedMut::new(memory), len })
    }

    /// Elements `range` of a slot.
    ///
    /// # Safety
    /// No other reference to any of them lives at the same time.
    pub(crate) unsafe fn part(self, slot: u32, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.end <= self.len, "elements outside a state");
        let first = slot as usize * self.len;
        // SAFETY: by this function's contract; that the slot exists is asserted there.
        unsafe { self.all.range(first + range.start..first + range.end) }
    }
}

/// Checks that every sequence says where its states are, and that no slot is written by one and used by another.
fn check(op: &'static str, rows: &Rows, n_slots: usize) -> Result<()> {
    let wrong = |what: std::fmt::Arguments<'_>| Err(argument(op, what));
    let mut written: Vec<u32> = Vec::new();
    for sequence in rows.sequences.iter().filter(|sequence| !sequence.rows.is_empty()) {
        let Some(StateRows { from, to, saves }) = &sequence.states else {
            return wrong(format_args!("a sequence without states"));
        };
        let at_start = rows.positions.get(sequence.rows.start) == Some(&0);
        if at_start != from.is_none() {
            return wrong(format_args!("states before the first row of a sequence are for those that go on"));
        }
        let all = from.iter().chain([to]).chain(saves.iter().map(|(_, slot)| slot));
        if let Some(slot) = all.into_iter().find(|slot| **slot as usize >= n_slots) {
            return wrong(format_args!("slot {slot} does not exist: there are {n_slots}"));
        }
        if saves.iter().any(|&(n, slot)| n == 0 || n > sequence.rows.len() || Some(slot) == *from) {
            return wrong(format_args!("states saved after no row of the sequence, or over those that it begins with"));
        }
        written.push(*to);
        written.extend(saves.iter().map(|(_, slot)| slot));
    }
    let reads = |slot: u32| {
        let states = rows.sequences.iter().filter_map(|sequence| sequence.states.as_ref());
        states.filter(|states| states.from == Some(slot) && states.to != slot).count()
    };
    let n_written = written.len();
    written.sort_unstable();
    written.dedup();
    match written.len() == n_written && written.iter().all(|&slot| reads(slot) == 0) {
        true => Ok(()),
        false => wrong(format_args!("a slot that two sequences use and one writes")),
    }
}
