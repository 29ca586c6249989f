//! The measurements behind `bench`: the same passes as real work, with arbitrary tokens and without sampling.

use crate::{
    BenchRequest, BenchTimings, Error, Forward, Info, Limits, Result, blocks::Blocks, pass::Pass, states::Snapshot,
};
use std::time::Instant;

/// Measures prefill, then decoding, each at the same depth.
pub(crate) fn run(
    request: &BenchRequest,
    model: &mut dyn Forward,
    info: &Info,
    limits: &Limits,
    blocks: &mut Blocks,
    pass: &mut Pass,
    stop: &dyn Fn() -> bool,
) -> Result<BenchTimings> {
    let longest = request.depth.saturating_add(request.prompt_tokens.max(request.gen_tokens));
    if longest > limits.context {
        return Err(Error::ContextOverflow { prompt: longest, limit: limits.context });
    }
    let n_rows = request.parallel.saturating_mul(request.pass_tokens);
    let n_logits = if request.all_logits { n_rows } else { request.parallel };
    if n_rows > info.max_rows || n_logits > info.max_logits {
        let name = if request.pass_tokens == 1 { "parallel" } else { "pass_tokens" };
        return Err(Error::Config { name, problem: format!("{n_rows} rows are more than a pass may have") });
    }
    let mut slots = vec![None; request.parallel];
    if blocks.has_states() {
        slots.fill_with(|| {
            loop {
                let slot = blocks.take_slot();
                if slot.is_some() || !blocks.reclaim(&mut []) {
                    break slot;
                }
            }
        });
    }
    let has_slots = !blocks.has_states() || slots.iter().all(Option::is_some);
    let mut lists = vec![Vec::new(); request.parallel];
    let enough = lists.iter_mut().all(|list| blocks.grow(list, longest));
    let measured = if !has_slots {
        let problem = format!("the cache has {} slots for states", info.n_states);
        Err(Error::Config { name: "parallel", problem })
    } else if enough {
        let chunk = limits.prefill_chunk;
        let mut bench = Bench { model, pass, lists: &lists, slots: &slots, n_vocab: info.n_vocab, chunk, stop };
        bench.measure(request)
    } else {
        let needed = longest.div_ceil(compute::KV_BLOCK).saturating_mul(compute::KV_BLOCK);
        let needed = needed.saturating_mul(request.parallel);
        Err(Error::CacheTooSmall { needed, available: info.cache_positions() })
    };
    lists.into_iter().for_each(|list| blocks.release(list));
    blocks.release_states(slots.into_iter().flatten().map(|slot| Snapshot { n: 0, slot }));
    measured
}

struct Bench<'a> {
    model: &'a mut dyn Forward,
    pass: &'a mut Pass,
    lists: &'a [Vec<u32>],
    /// The slot of each one's states.
    slots: &'a [Option<u32>],
    n_vocab: usize,
    chunk: usize,
    stop: &'a dyn Fn() -> bool,
}

impl Bench<'_> {
    fn measure(&mut self, request: &BenchRequest) -> Result<BenchTimings> {
        let mut timings = BenchTimings::default();
        self.prefill(0, request.depth)?;
        let start = Instant::now();
        self.prefill(request.depth, request.depth + request.prompt_tokens)?;
        if request.prompt_tokens > 0 {
            timings.prefill_s = start.elapsed().as_secs_f64();
        }
        let (mut position, end) = (request.depth, request.depth + request.gen_tokens);
        timings.pass_s.reserve_exact(request.gen_tokens.div_ceil(request.pass_tokens));
        while position < end {
            let n = request.pass_tokens.min(end - position);
            let start = Instant::now();
            self.decode(position, n, if request.all_logits { n } else { 1 })?;
            timings.pass_s.push(start.elapsed().as_secs_f64());
            position += n;
        }
        timings.decode_s = timings.pass_s.iter().sum();
        Ok(timings)
    }

    /// Computes positions `from..to` of every sequence, passes filled across sequences.
    fn prefill(&mut self, from: usize, to: usize) -> Result<()> {
        let mut tokens = Vec::with_capacity(self.chunk);
        let (mut sequence, mut position) = (0, from);
        while from < to && sequence < self.lists.len() {
            self.pass.clear();
            let mut room = self.chunk;
            while room > 0 && sequence < self.lists.len() {
                let n = (to - position).min(room);
                tokens.clear();
                tokens.extend((position..position + n).map(|at| self.token(sequence, at)));
                self.pass.add(
                    &tokens,
                    position,
                    (&self.lists[sequence], self.slots[sequence]),
                    usize::from(position + n == to),
                );
                (room, position) = (room - n, position + n);
                if position == to {
                    (sequence, position) = (sequence + 1, from);
                }
            }
            self.model.forward(&self.pass.batch, &|_| (self.stop)())?;
        }
        Ok(())
    }

    /// Computes `n` positions of every sequence; the last `n_logits` of each want logits.
    fn decode(&mut self, position: usize, n: usize, n_logits: usize) -> Result<()> {
        self.pass.clear();
        let mut tokens = Vec::with_capacity(n);
        for (sequence, (list, slot)) in self.lists.iter().zip(self.slots).enumerate() {
            tokens.clear();
            tokens.extend((position..position + n).map(|at| self.token(sequence, at)));
            self.pass.add(&tokens, position, (list, *slot), n_logits);
        }
        self.model.forward(&self.pass.batch, &|_| (self.stop)())?;
        Ok(())
    }

    /// Any tokens will do, but not always the same one: embedding rows and experts should be those of real text.
    fn token(&self, sequence: usize, position: usize) -> u32 {
        let mixed = (sequence as u64 * 7919 + position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        (mixed % self.n_vocab as u64) as u32
    }
}
