//! The one thread that owns the model and its cache: takes commands, runs passes, hands out what they bring.
//!
//! Nothing here waits for a reader. A panic is caught where it happens: in a pass, the cache is made anew, and when
//! several sequences were in that pass each is tried alone, so that only the culprit fails.

use crate::{
    AdapterChange, BenchRequest, BenchTimings, Error, FinishReason, Forward, Info, Limits, Result, Usage, bench,
    blocks::Blocks,
    draft::{Costs, MAX_EXACT_DRAFT},
    pass::Pass,
    sequence::{Outbox, Sequence, Task},
    states::Snapshot,
};
use compute::Precision;
use model::AdapterInfo;
use std::{
    any::Any,
    cell::Cell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    time::{Duration, Instant},
};

/// What the handle asks of the worker.
pub(crate) enum Command {
    /// Run a sequence.
    Run(Box<Sequence>),
    /// Measure.
    Bench(BenchRequest, Reply<BenchTimings>),
    /// Change the adapters.
    Adapt(AdapterChange, Reply<Vec<AdapterInfo>>),
    /// How much of this prefix is in the cache?
    CachedPrefix(Vec<u32>, SyncSender<usize>),
    /// Drop all cached prefixes.
    Forget,
    /// A reader has room again, or wants no more.
    Wake,
    /// End everything.
    Shutdown,
}

/// Where an answer goes.
type Reply<T> = SyncSender<Result<T>>;

/// Rows of a pass after which its progress is told.
const PROGRESS_ROWS: usize = 64;

/// Bytes of one block of rows that `logits` hands out.
const SCORE_BYTES: usize = 16 << 20;

/// How often to look after readers that are behind, should a wake-up be lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// The worker's whole state.
pub(crate) struct Worker {
    model: Box<dyn Forward>,
    info: Info,
    limits: Limits,
    inbox: Receiver<Command>,
    usage: Arc<RwLock<Usage>>,
    blocks: Blocks,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    benches: VecDeque<(BenchRequest, Reply<BenchTimings>)>,
    /// They wait until nothing runs and nothing waits.
    changes: VecDeque<(AdapterChange, Reply<Vec<AdapterInfo>>)>,
    /// Finished, but their readers have not taken everything.
    lingering: Vec<Outbox>,
    pass: Pass,
    endings: Vec<(usize, Ending)>,
    costs: Costs,
    /// The model's cache must be made anew before the next pass.
    broken: bool,
    /// Set when nothing is wanted any more, before the command says so.
    stopping: Arc<AtomicBool>,
}

/// How a sequence leaves.
enum Ending {
    Done(FinishReason),
    Scored,
    Failed(Error),
}

impl Worker {
    pub(crate) fn new(
        model: Box<dyn Forward>,
        limits: Limits,
        inbox: Receiver<Command>,
        usage: Arc<RwLock<Usage>>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        let info = model.info();
        Worker {
            model,
            blocks: Blocks::new(info.n_blocks, limits.budget_blocks(&info), info.n_states),
            info,
            limits,
            inbox,
            usage,
            running: Vec::new(),
            waiting: VecDeque::new(),
            benches: VecDeque::new(),
            changes: VecDeque::new(),
            lingering: Vec::new(),
            pass: Pass::default(),
            endings: Vec::new(),
            costs: Costs::default(),
            broken: false,
            stopping,
        }
    }

    /// Works until told to stop or until nobody can ask any more.
    pub(crate) fn run(mut self) {
        let mut idle = true;
        while self.listen(idle) {
            idle = match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(worked) => !worked,
                Err(panic) => {
                    // Not in the model: our own state may be inconsistent. Nothing of it is kept.
                    self.fail_all(&message(&*panic));
                    false
                }
            };
            self.publish();
        }
        for sequence in self.running.drain(..).chain(self.waiting.drain(..)) {
            if let Task::Generate(mut generation) = sequence.task {
                let reason = generation.ended(FinishReason::Interrupted);
                generation.done(reason, sequence.tokens.len(), 0);
            }
        }
    }

    /// Takes commands; waits for one if there is nothing to do. False when it is time to stop.
    fn listen(&mut self, idle: bool) -> bool {
        if idle {
            let behind = !self.running.is_empty() || !self.lingering.is_empty();
            let command = if behind {
                self.inbox.recv_timeout(PATIENCE)
            } else {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let go_on = match command {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !go_on {
                return false;
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => {
                    if !self.obey(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// False for the command to stop.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Run(sequence) => self.waiting.push_back(*sequence),
            Command::Bench(request, reply) => self.benches.push_back((request, reply)),
            Command::Adapt(change, reply) => self.changes.push_back((change, reply)),
            Command::CachedPrefix(tokens, reply) => {
                let common = |sequence: &Sequence| {
                    let computed = &sequence.tokens[..sequence.n_computed];
                    let n = computed.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
                    self.blocks.usable(n, &sequence.states)
                };
                let live = self.running.iter().map(common).max().unwrap_or(0);
                let _ = reply.send(live.max(self.blocks.longest_cached(&tokens)));
            }
            Command::Forget => self.blocks.forget(),
            Command::Wake => {}
            Command::Shutdown => return false,
        }
        true
    }

    /// One round: readers, cancellations, admissions, one pass. False if there was nothing to do.
    fn step(&mut self) -> bool {
        self.look_after_readers();
        self.drop_cancelled();
        if self.broken && !self.rebuild() {
            return false;
        }
        // A change is for the requests after it: those before it, which may not have begun, are answered first.
        if self.running.is_empty() && self.waiting.is_empty() {
            self.adapt();
        }
        self.admit();
        self.guess();
        self.reserve();
        if !self.pass.is_empty() {
            self.compute();
            return true;
        }
        self.running.is_empty() && self.waiting.is_empty() && self.bench()
    }

    fn look_after_readers(&mut self) {
        self.lingering.retain_mut(|outbox| !outbox.flush());
        for sequence in &mut self.running {
            match &mut sequence.task {
                Task::Generate(generation) => drop(generation.flush()),
                Task::Score(scoring) => scoring.collect(),
            }
        }
    }

    fn drop_cancelled(&mut self) {
        for at in (0..self.running.len()).rev().filter(|&at| self.running[at].is_cancelled()).collect::<Vec<_>>() {
            self.finish(at, Ending::Done(FinishReason::Interrupted));
        }
        while let Some(at) = self.waiting.iter().position(Sequence::is_cancelled) {
            if let Some(sequence) = self.waiting.remove(at) {
                self.conclude(sequence, Ending::Done(FinishReason::Interrupted));
            }
        }
    }

    /// Lets waiting sequences in, in order, while there is room for them.
    fn admit(&mut self) {
        // Each sequence reads one slot of states and writes another.
        let most = if self.blocks.has_states() { (self.info.n_states / 2).max(1) } else { usize::MAX };
        while self.running.len() < self.limits.max_sequences.min(most) {
            let Some(next) = self.waiting.front() else { break };
            let needed = (next.tokens.len() + 1).min(self.limits.context).div_ceil(compute::KV_BLOCK);
            if !self.running.is_empty() && self.blocks.n_available() < needed {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let running = self
                .running
                .iter()
                .map(|other| (&other.tokens[..other.n_computed], other.blocks.as_slice(), other.states.as_slice()));
            let mut start = self.blocks.start(&sequence.tokens, sequence.most_reusable(), running);
            let copied = match (start.copy_from, start.blocks.last()) {
                (Some(from), Some(&to)) => self.model.copy_block(from, to),
                _ => Ok(()),
            };
            if let Err(error) = &copied {
                tracing::warn!(%error, "a part of a cached prefix is computed again");
            }
            self.blocks.begun(&mut start, copied.is_ok());
            (sequence.blocks, sequence.n_computed, sequence.states) = (start.blocks, start.n_computed, start.states);
            if let Task::Generate(generation) = &mut sequence.task {
                let n_blocks = generation.most_tokens().div_ceil(compute::KV_BLOCK);
                sequence.blocks.reserve_exact(n_blocks.saturating_sub(sequence.blocks.len()));
                generation.begin(sequence.n_computed);
            }
            self.running.push(sequence);
            self.blocks.keep_to_budget(self.n_idle());
        }
    }

    /// Windows that no sequence uses.
    fn n_idle(&self) -> usize {
        self.limits.max_sequences.saturating_sub(self.running.len())
    }

    /// Lets a sequence that decodes alone guess ahead. Beside others there is none: their rows fill the pass with tokens
    /// that are sure to be wanted. Nor is there where layers keep states, which a wrong guess would be in.
    fn guess(&mut self) {
        if self.blocks.has_states() {
            return;
        }
        let exact = self.info.device.precision == Precision::F32;
        let room = self.limits.prefill_chunk.min(self.info.max_logits).saturating_sub(1);
        let room = if exact { room.min(MAX_EXACT_DRAFT) } else { room };
        match &mut self.running[..] {
            [only] => only.guess(room, &mut self.costs),
            several => several.iter_mut().for_each(|sequence| sequence.draft.clear()),
        }
    }

    /// Plans the pass and gets its blocks. When there are not enough, the youngest sequence is set aside: it waits, and
    /// computes again what it loses.
    fn reserve(&mut self) {
        let max_logits = (SCORE_BYTES / 4 / self.info.n_vocab).min(self.info.max_logits);
        let max_logits = max_logits.saturating_sub(self.limits.max_sequences).max(1);
        loop {
            self.pass.plan(&self.running, self.limits.prefill_chunk.max(self.limits.max_sequences), max_logits);
            let rows = self.running.iter_mut().zip(&self.pass.rows).filter(|(_, rows)| **rows > 0);
            let mut short = false;
            for (sequence, rows) in rows {
                if !self.blocks.grow(&mut sequence.blocks, sequence.n_computed + rows) {
                    short = true;
                    break;
                }
            }
            if !short && self.reserve_states() {
                return;
            }
            let youngest = self.running.len() - 1;
            if youngest == 0 {
                let available = self.info.cache_positions();
                let needed = self.running[0].tokens.len();
                self.finish(0, Ending::Failed(Error::CacheTooSmall { needed, available }));
                continue;
            }
            let mut sequence = self.running.remove(youngest);
            let (blocks, states) = (std::mem::take(&mut sequence.blocks), std::mem::take(&mut sequence.states));
            self.blocks.keep(sequence.tokens.clone(), blocks, sequence.n_computed, states);
            self.blocks.release_states(sequence.give_up_states());
            sequence.lose_cache();
            self.waiting.push_front(sequence);
        }
    }

    /// Gets slots for the states that the planned pass writes. False: there are not enough.
    fn reserve_states(&mut self) -> bool {
        if !self.blocks.has_states() {
            return true;
        }
        for at in 0..self.running.len() {
            let rows = self.pass.rows.get(at).copied().unwrap_or(0);
            if rows == 0 {
                continue;
            }
            if self.running[at].next_slot.is_none() {
                let Some(slot) = self.take_slot() else { return false };
                self.running[at].next_slot = Some(slot);
            }
            self.blocks.release_states(self.running[at].saves.drain(..));
            if let Some(n) = self.running[at].save_within(rows)
                && let Some(slot) = self.take_slot()
            {
                self.running[at].saves.push(Snapshot { n, slot });
            }
        }
        true
    }

    /// A slot, for which others may have to let go what they might go back to.
    fn take_slot(&mut self) -> Option<u32> {
        loop {
            if let Some(slot) = self.blocks.take_slot() {
                return Some(slot);
            }
            let mut running: Vec<_> = self.running.iter_mut().map(|sequence| &mut sequence.states).collect();
            if !self.blocks.reclaim(&mut running) {
                return None;
            }
        }
    }

    /// Runs the planned pass and hands out its logits.
    fn compute(&mut self) {
        let started = Instant::now();
        self.pass.fill(&self.running);
        let guessed = match &self.running[..] {
            [only] if only.remaining() == 1 => Some(only.draft.len()),
            _ => None,
        };
        let Worker { model, pass, running, endings, info, stopping, blocks, .. } = self;
        let (batch, members) = (&pass.batch, running.iter().zip(&pass.rows).filter(|(_, rows)| **rows > 0));
        // A pass with several sequences goes on for those that still want it.
        let stop = || stopping.load(Ordering::SeqCst) || members.clone().all(|(sequence, _)| sequence.is_cancelled());
        let told = Cell::new(0);
        let advanced = |share: f32| {
            let done = (share * batch.tokens.len() as f32).round() as usize;
            if done >= told.get() + PROGRESS_ROWS {
                told.set(done);
                members
                    .clone()
                    .for_each(|(sequence, &rows)| sequence.within_pass((share * rows as f32).round() as usize));
            }
            stop()
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let model = model;
            model.forward(batch, &advanced)
        }));
        let logits = match outcome {
            Ok(Ok(logits)) if logits.len() == pass.batch.logits.len() * info.n_vocab => logits,
            Ok(Ok(logits)) => {
                let found = format!("{} logits for {} rows", logits.len(), pass.batch.logits.len());
                return self.pass_failed(Error::Model(found.into()));
            }
            // As if the pass had not been: its sequences leave with what they had before.
            Ok(Err(Error::Interrupted)) if stop() => return,
            Ok(Err(error)) => return self.pass_failed(error),
            Err(panic) => {
                let message = message(&*panic);
                self.broken = true;
                return self.pass_failed(Error::Panicked { message });
            }
        };
        for (at, sequence) in running.iter_mut().enumerate() {
            let (Some(&rows), Some(range)) = (pass.rows.get(at), pass.logits.get(at)) else { continue };
            if rows == 0 {
                continue;
            }
            blocks.release_states(sequence.passed(sequence.n_computed + rows));
            let logits = logits.get(range.start * info.n_vocab..range.end * info.n_vocab).unwrap_or(&[]);
            let step = AssertUnwindSafe(|| deliver(sequence, rows, logits, info.n_vocab));
            let ending = catch_unwind(step)
                .unwrap_or_else(|panic| Some(Ending::Failed(Error::Panicked { message: message(&*panic) })));
            endings.extend(ending.map(|ending| (at, ending)));
        }
        if let Some(n_draft) = guessed {
            self.costs.measured(n_draft, started.elapsed().as_secs_f64());
        }
        while let Some((at, ending)) = self.endings.pop() {
            self.finish(at, ending);
        }
    }

    /// A pass brought an error. Alone in it, a sequence has failed; with others, each is tried alone.
    fn pass_failed(&mut self, error: Error) {
        tracing::warn!(%error, sequences = self.pass.n_sequences(), "a pass failed");
        let in_pass = |at: &usize| self.pass.rows.get(*at).is_some_and(|&rows| rows > 0);
        let failed: Vec<usize> = (0..self.running.len()).filter(in_pass).collect();
        if let [only] = failed[..] {
            // Nothing that was only a guess may fail an answer: once more, without.
            if self.running[only].give_up_guessing() {
                return;
            }
            self.finish(only, Ending::Failed(error));
        } else {
            for at in failed {
                self.running[at].alone_until = self.running[at].n_computed + self.pass.rows[at];
            }
        }
    }

    /// Makes the cache anew and starts the running sequences over. False if that failed, and they with it.
    fn rebuild(&mut self) -> bool {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.model.reset()));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(message(&*panic)),
        };
        self.blocks = self.blocks.anew();
        for sequence in &mut self.running {
            sequence.lose_cache();
        }
        match error {
            None => self.broken = false,
            Some(error) => self.fail_all(&error),
        }
        !self.broken
    }

    fn finish(&mut self, at: usize, ending: Ending) {
        let sequence = self.running.remove(at);
        self.conclude(sequence, ending);
    }

    /// The end of a sequence: its blocks become a cached prefix, its reader gets the last event.
    fn conclude(&mut self, mut sequence: Sequence, ending: Ending) {
        let kv_bytes = sequence.blocks.len() as u64 * self.info.block_bytes();
        let blocks = std::mem::take(&mut sequence.blocks);
        let tokens = std::mem::take(&mut sequence.tokens);
        let states = std::mem::take(&mut sequence.states);
        self.blocks.release_states(sequence.give_up_states());
        // Before the last event, so that who has read it sees the blocks as they are now.
        let n_tokens = tokens.len();
        match (&sequence.task, &ending) {
            (Task::Generate(_), Ending::Done(_)) => self.blocks.keep(tokens, blocks, sequence.n_computed, states),
            (_, Ending::Failed(Error::NoFiniteLogits { .. })) => {
                self.blocks.distrust(&blocks);
                self.blocks.release(blocks);
                self.blocks.release_states(states);
            }
            _ => {
                self.blocks.release(blocks);
                self.blocks.release_states(states);
            }
        }
        self.blocks.keep_to_budget(self.n_idle());
        self.publish();
        let outbox = match (sequence.task, ending) {
            (Task::Generate(mut generation), Ending::Done(reason)) => {
                if reason == FinishReason::Interrupted {
                    generation.ended(reason);
                }
                Some(generation.done(reason, n_tokens, kv_bytes))
            }
            (Task::Generate(generation), Ending::Failed(error)) => Some(generation.failed(error)),
            (Task::Generate(_), Ending::Scored) => None,
            (Task::Score(scoring), ending) => {
                if let Ending::Failed(error) = ending {
                    scoring.failed(error);
                }
                None
            }
        };
        self.lingering.extend(outbox.and_then(|mut outbox| (!outbox.flush()).then_some(outbox)));
    }

    /// Ends everything with an error and starts with an empty cache.
    fn fail_all(&mut self, message: &str) {
        self.blocks = self.blocks.anew();
        self.endings.clear();
        self.broken = true;
        for mut sequence in std::mem::take(&mut self.running).into_iter().chain(std::mem::take(&mut self.waiting)) {
            sequence.lose_cache();
            self.conclude(sequence, Ending::Failed(Error::Panicked { message: message.to_string() }));
        }
    }

    /// Makes the changes to the adapters that were asked for.
    fn adapt(&mut self) {
        while let Some((change, reply)) = self.changes.pop_front() {
            let model = &mut self.model;
            let result = catch_unwind(AssertUnwindSafe(|| model.adapt(&change)));
            let result = result.unwrap_or_else(|panic| Err(Error::Panicked { message: message(&*panic) }));
            self.blocks.forget();
            self.costs = Costs::default();
            let _ = reply.send(result);
        }
    }

    /// Runs one measurement. False if there is none.
    fn bench(&mut self) -> bool {
        let Some((request, reply)) = self.benches.pop_front() else { return false };
        let Worker { model, pass, blocks, limits, info, stopping, .. } = self;
        let stop = || stopping.load(Ordering::SeqCst);
        let run = AssertUnwindSafe(|| bench::run(&request, &mut **model, info, limits, blocks, pass, &stop));
        let result = catch_unwind(run).unwrap_or_else(|panic| {
            self.blocks = self.blocks.anew();
            self.broken = true;
            Err(Error::Panicked { message: message(&*panic) })
        });
        let _ = reply.send(result);
        true
    }

    fn publish(&self) {
        let bytes = |n_blocks: usize| n_blocks as u64 * self.info.block_bytes();
        let (saved, beside) = self.blocks.n_saved();
        let usage = Usage {
            blocks_used: self.blocks.n_used(),
            n_blocks: self.info.n_blocks,
            cached_prefixes: self.blocks.n_cached(),
            cached_bytes: bytes(saved),
            budget_bytes: bytes(self.blocks.budget()),
            budget_used_bytes: bytes(beside),
            prefix_hits: self.blocks.hits().0,
            reused_positions: self.blocks.hits().1,
            running: self.running.len(),
            waiting: self.waiting.len(),
        };
        *self.usage.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = usage;
    }
}

/// What a pass brought to one of its sequences: `rows` more positions, those of its draft among them, and the logits it
/// wanted.
fn deliver(sequence: &mut Sequence, rows: usize, logits: &[f32], n_vocab: usize) -> Option<Ending> {
    sequence.n_computed += rows - sequence.draft.len().min(rows);
    let n_computed = sequence.n_computed;
    match &mut sequence.task {
        Task::Generate(generation) => {
            generation.progress(n_computed);
            if logits.is_empty() {
                return None;
            }
            let Sequence { tokens, draft, .. } = sequence;
            let (n_used, outcome) = generation.advance_through(tokens, draft, logits, n_vocab);
            draft.clear();
            sequence.n_computed += n_used;
            match outcome {
                Ok(reason) => reason.map(Ending::Done),
                Err(error) => Some(Ending::Failed(error)),
            }
        }
        Task::Score(scoring) => {
            if !logits.is_empty() {
                scoring.send(logits, n_computed);
            }
            (n_computed == sequence.tokens.len()).then_some(Ending::Scored)
        }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}
