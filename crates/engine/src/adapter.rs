//! Changes to the adapters of a running model. What an adapter is, `model` knows.

use checkpoint::Checkpoint;

/// What shall change. Indices count the adapters in the order in which they were added.
#[derive(Debug)]
pub enum AdapterChange {
    /// One more.
    Add {
        /// Its file.
        source: Box<Checkpoint>,
        /// How much of it counts.
        scale: f32,
    },
    /// One counts more or less than before.
    Scale {
        /// Which.
        index: usize,
        /// How much of it counts.
        scale: f32,
    },
    /// One goes.
    Remove {
        /// Which.
        index: usize,
    },
}
