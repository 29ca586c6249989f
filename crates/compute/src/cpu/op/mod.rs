//! The operations of [`crate::Device`] on the CPU, one file each.
//!
//! What belongs here: what operations share: pool, scratch, the check of [`Rows`]. What does not: inner loops (`simd`).

pub(crate) mod attend;
pub(crate) mod causal_conv;
pub(crate) mod delta_rule;
pub(crate) mod embed;
pub(crate) mod experts;
pub(crate) mod feed_forward;
pub(crate) mod latent;
pub(crate) mod layer_input;
pub(crate) mod linear;
pub(crate) mod logits;
pub(crate) mod low_rank;
pub(crate) mod norm;
pub(crate) mod output_gate;
pub(crate) mod product;
pub(crate) mod qkv;
pub(crate) mod rope;
pub(crate) mod short_conv;
pub(crate) mod streams;

use super::{
    argument,
    memory::{Arena, Scratch, SharedMut},
    pool::Pool,
    simd::Kernels,
};
use crate::{KV_BLOCK, Precision, Result, Rows};
use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What all operations of one device share. Scratch only grows, so that decoding does not allocate.
pub(crate) struct Work {
    pub(crate) team: Team,
    pub(crate) scratch: OpScratch,
}

/// The threads, each with its own scratch, and the loops they run.
pub(crate) struct Team {
    pool: Pool,
    pub(crate) kernels: &'static Kernels,
    pub(crate) precision: Precision,
    /// Where packed weights lie.
    pub(crate) arena: Arena,
    locals: Vec<Mutex<Scratch<f32>>>,
}

/// Scratch of the operations, by what it holds.
#[derive(Default)]
pub(crate) struct OpScratch {
    /// The normalized input.
    pub(crate) normed: Scratch<f32>,
    /// K, or the gate's product.
    pub(crate) first: Scratch<f32>,
    /// V, or the product of `up`.
    pub(crate) second: Scratch<f32>,
    /// A product that an epilogue's norm still has to see.
    pub(crate) product: Scratch<f32>,
    pub(crate) attend: attend::AttendScratch,
    pub(crate) experts: experts::ExpertScratch,
    pub(crate) heads: latent::HeadScratch,
    pub(crate) delta_rule: delta_rule::DeltaScratch,
    pub(crate) products: product::ProductScratch,
}

impl Work {
    pub(crate) fn new(threads: usize, kernels: &'static Kernels, precision: Precision) -> std::io::Result<Self> {
        let pool = Pool::new(threads)?;
        let locals = (0..pool.threads()).map(|_| Mutex::default()).collect();
        Ok(Self {
            team: Team { pool, kernels, precision, arena: Arena::default(), locals },
            scratch: OpScratch::default(),
        })
    }
}

/// One thread's scratch while it runs a chunk.
pub(crate) struct Local<'a>(MutexGuard<'a, Scratch<f32>>);

impl Local<'_> {
    /// The first `len` elements, which [`Team::reserve`] was told of.
    pub(crate) fn floats(&mut self, len: usize) -> &mut [f32] {
        self.0.take(len).expect("reserved before the region")
    }
}

impl Team {
    /// Threads that run chunks.
    pub(crate) fn threads(&self) -> usize {
        self.locals.len()
    }

    /// Makes sure that every thread has `len` elements of scratch.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<()> {
        for local in &mut self.locals {
            local.get_mut().unwrap_or_else(PoisonError::into_inner).take(len)?;
        }
        Ok(())
    }

    /// Runs `job` once for every chunk.
    pub(crate) fn run(&mut self, chunks: usize, job: impl Fn(usize, Local<'_>) + Sync) {
        let locals = &self.locals;
        self.pool.run(chunks, &|chunk, thread| {
            let local = locals[thread].lock().unwrap_or_else(PoisonError::into_inner);
            job(chunk, Local(local));
        });
    }

    /// Runs `job` over `0..n` in ranges of at most `per_chunk`.
    pub(crate) fn ranges(&mut self, n: usize, per_chunk: usize, job: impl Fn(Range<usize>, Local<'_>) + Sync) {
        self.run(n.div_ceil(per_chunk), |chunk, local| {
            let first = chunk * per_chunk;
            job(first..n.min(first + per_chunk), local);
        });
    }

    /// How many rows of `width` make a chunk worth handing out.
    pub(crate) fn rows_per_chunk(width: usize) -> usize {
        const WORTH: usize = 8192;
        (WORTH / width.max(1)).max(1)
    }

    /// Runs `job(row, elements)` over the rows of a matrix.
    pub(crate) fn rows(
        &mut self,
        matrix: &mut [f32],
        width: usize,
        job: impl Fn(usize, &mut [f32], &mut Local<'_>) + Sync,
    ) {
        let n_rows = matrix.len() / width.max(1);
        let shared = SharedMut::new(matrix);
        self.ranges(n_rows, Self::rows_per_chunk(width), |rows, mut local| {
            for row in rows {
                // SAFETY: each row belongs to one chunk.
                let elements = unsafe { shared.range(row * width..(row + 1) * width) };
                job(row, elements, &mut local);
            }
        });
    }
}

/// Checks that `rows` is what it promises: sequences that cover the rows in order, consecutive positions, and blocks
/// that exist for all of them.
fn check_rows(op: &'static str, rows: &Rows, n_blocks: usize) -> Result<()> {
    let mut next = 0;
    for sequence in &rows.sequences {
        let range = sequence.rows.clone();
        if range.start != next || range.end < range.start || range.end > rows.len() {
            return Err(argument(op, "sequences do not cover the rows in order"));
        }
        next = range.end;
        let positions = &rows.positions[range];
        if positions.windows(2).any(|pair| pair[0].checked_add(1) != Some(pair[1])) {
            return Err(argument(op, "positions of a sequence are not consecutive"));
        }
        let Some(&last) = positions.last() else { continue };
        let used = last as usize / KV_BLOCK + 1;
        let Some(blocks) = sequence.blocks.get(..used) else {
            let what =
                format_args!("position {last} needs {used} KV blocks, the sequence has {}", sequence.blocks.len());
            return Err(argument(op, what));
        };
        if let Some(bad) = blocks.iter().find(|b| **b as usize >= n_blocks) {
            return Err(argument(op, format_args!("KV block {bad} does not exist: there are {n_blocks}")));
        }
    }
    if next == rows.len() { Ok(()) } else { Err(argument(op, "sequences do not cover all rows")) }
}

/// An error unless `ok`.
fn require(op: &'static str, ok: bool, what: impl std::fmt::Display) -> Result<()> {
    if ok { Ok(()) } else { Err(argument(op, what)) }
}
