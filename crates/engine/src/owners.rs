//! Numbered places, how many hold each, and which are free: what blocks of keys and values and slots of states have alike.
//!
//! What belongs here: counting. What does not: what lies in a place and who may write there (`blocks/`, `states.rs`).

/// References to each place.
#[derive(Debug)]
pub(crate) struct Owners {
    counts: Vec<u32>,
    /// Lowest number last, so that a small conversation touches little memory.
    free: Vec<u32>,
}

impl Owners {
    /// `n` free places.
    pub(crate) fn new(n: usize) -> Self {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        Owners { counts: vec![0; n as usize], free: (0..n).rev().collect() }
    }

    /// Places in all.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Free ones.
    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// How many hold each.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// A free one, which has one owner then.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let place = self.free.pop()?;
        self.counts[place as usize] = 1;
        Some(place)
    }

    /// One more holds it.
    pub(crate) fn share(&mut self, place: u32) {
        self.counts[place as usize] += 1;
    }

    /// One less holds each; what nobody holds is free.
    pub(crate) fn release(&mut self, places: impl IntoIterator<Item = u32>) {
        for place in places {
            let count = &mut self.counts[place as usize];
            *count -= 1;
            if *count == 0 {
                self.free.push(place);
            }
        }
    }
}
