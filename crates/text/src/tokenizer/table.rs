//! Compact tables over token bytes: one arena for all spellings, one open-addressing index over it, one map of pairs.
//!
//! A vocabulary of 150 000 tokens with as many merges has to be ready in a few tens of milliseconds, so there is no string
//! per token, and hashing is the multiply-and-rotate scheme of the Firefox hasher: fast, and safe here because a table
//! that a file makes collide only slows that file down, by no more than [`MAX_PROBES`].

/// Longest run of occupied slots a lookup walks. An honest table of this load stays under 30.
const MAX_PROBES: usize = 4096;

/// Marks a free slot.
const FREE: u32 = u32::MAX;

fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash, u64::from_le_bytes(word))
}

fn mix(hash: u64, word: u64) -> u64 {
    let x = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    x ^ (x >> 32)
}

/// Byte strings one after the other in one allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    /// Where string `i` ends in `bytes`; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Strings {
    /// All of `strings`, in order.
    pub(crate) fn new<'t>(strings: impl Iterator<Item = &'t [u8]>) -> Strings {
        let mut all = Strings::default();
        for string in strings {
            all.bytes.extend_from_slice(string);
            all.ends.push(all.bytes.len());
        }
        all
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// String `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            None => 0,
            Some(before) => *self.ends.get(before)?,
        };
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

/// The spellings of all tokens, found by id and by bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenTable {
    spellings: Strings,
    /// Open addressing: ids, [`FREE`] where there is none. A power of two long.
    slots: Vec<u32>,
    longest: usize,
}

impl TokenTable {
    /// A table of the spellings in order of id. Of equal spellings the last one is found by its bytes, as the reference
    /// finds it; all are found by id.
    pub(crate) fn new<'t>(tokens: impl Iterator<Item = &'t [u8]>) -> TokenTable {
        let spellings = Strings::new(tokens);
        let slots = vec![FREE; (spellings.len() * 2).next_power_of_two().max(2)];
        let mut table = TokenTable { spellings, slots, longest: 0 };
        for id in 0..u32::try_from(table.len()).unwrap_or(FREE) {
            let spelling = table.get(id).unwrap_or_default();
            let (length, slot) = (spelling.len(), table.slot(spelling));
            table.longest = table.longest.max(length);
            if let Some(slot) = slot.and_then(|slot| table.slots.get_mut(slot)) {
                *slot = id;
            }
        }
        table
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.spellings.len()
    }

    /// Length of the longest spelling, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The spelling of token `id`.
    pub(crate) fn get(&self, id: u32) -> Option<&[u8]> {
        self.spellings.get(usize::try_from(id).ok()?)
    }

    /// The token spelled `bytes`.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        self.slots.get(self.slot(bytes)?).copied().filter(|&id| id != FREE)
    }

    /// The slot that holds `bytes`, or the free one where it would go.
    fn slot(&self, bytes: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let start = hash_bytes(bytes) as usize;
        (0..MAX_PROBES).map(|step| start.wrapping_add(step) & mask).find(|&slot| match self.slots.get(slot) {
            Some(&FREE) | None => true,
            Some(&id) => self.get(id) == Some(bytes),
        })
    }
}

/// Two tokens side by side → how early they merge, and into what.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairTable {
    /// Open addressing; `rank` is [`FREE`] in a free slot. A power of two long.
    slots: Vec<Merge>,
    len: usize,
}

/// One merge of two neighbouring tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) left: u32,
    pub(crate) right: u32,
    /// Place in the list of merges: lower ones go first.
    pub(crate) rank: u32,
    /// The token they become.
    pub(crate) merged: u32,
}

impl PairTable {
    /// An empty table with room for `n` merges.
    pub(crate) fn with_capacity(n: usize) -> PairTable {
        let free = Merge { left: 0, right: 0, rank: FREE, merged: 0 };
        PairTable { slots: vec![free; (n * 2).next_power_of_two().max(2)], len: 0 }
    }

    /// Adds a merge unless the pair has one already, or the table is full.
    pub(crate) fn insert(&mut self, merge: Merge) {
        let full = self.len * 2 >= self.slots.len();
        let Some(slot) = self.slot(merge.left, merge.right).and_then(|slot| self.slots.get_mut(slot)) else { return };
        if slot.rank == FREE && !full {
            *slot = merge;
            self.len += 1;
        }
    }

    /// The merge of `left` and `right`.
    pub(crate) fn find(&self, left: u32, right: u32) -> Option<Merge> {
        self.slots.get(self.slot(left, right)?).copied().filter(|merge| merge.rank != FREE)
    }

    fn slot(&self, left: u32, right: u32) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let start = mix(0x9e37_79b9, u64::from(left) << 32 | u64::from(right)) as usize;
        (0..MAX_PROBES).map(|step| start.wrapping_add(step) & mask).find(|&slot| match self.slots.get(slot) {
            None => true,
            Some(merge) => merge.rank == FREE || (merge.left == left && merge.right == right),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_id_and_by_bytes() {
        let words: Vec<String> = (0..5000).map(|i| format!("w{}", i % 4990)).collect();
        let table = TokenTable::new(words.iter().map(|word| word.as_bytes()));
        assert_eq!(table.len(), 5000);
        for (id, word) in words.iter().enumerate() {
            assert_eq!(table.get(id as u32), Some(word.as_bytes()));
            let expected = if id < 10 { id + 4990 } else { id };
            assert_eq!(table.find(word.as_bytes()), Some(expected as u32), "{word}");
        }
        for absent in ["", "w", "w5000", "a much longer one than any there is"] {
            assert_eq!(table.find(absent.as_bytes()), None);
        }
        assert_eq!(table.get(5000), None);
        assert_eq!(TokenTable::default().find(b"a"), None);
        assert_eq!(TokenTable::new([b"".as_slice(), b"a"].into_iter()).find(b""), Some(0));
    }

    #[test]
    fn pairs_keep_their_first_merge() {
        let mut table = PairTable::with_capacity(1000);
        for i in 0..1000 {
            table.insert(Merge { left: i % 997, right: 7, rank: i, merged: i });
        }
        for i in 0..997 {
            assert_eq!(table.find(i, 7).map(|merge| merge.rank), Some(i));
        }
        assert_eq!(table.find(7, 998), None);
        assert_eq!(PairTable::default().find(1, 2), None);
    }
}
