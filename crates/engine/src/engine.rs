//! The handle: checks what callers ask for, hands it to the worker, and brings answers back. No scheduling here.

use crate::{
    AdapterChange, BenchRequest, BenchTimings, Error, Event, Forward, Info, Request, Result, Stream, Vocabulary,
    event::Flags,
    loaded::{Loaded, Spelling},
    sample::Chain,
    sequence::{Generation, Outbox, Scoring, Sequence, Task},
    worker::{Command, Worker},
};
use compute::{KV_BLOCK, KvType};
use model::{AdapterInfo, Decoder};
use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use text::Tokenizer;

/// Events that may wait in a stream until the worker sets its sequence aside.
const EVENTS_IN_FLIGHT: usize = 64;

/// Row blocks of [`Engine::logits`] that may wait.
const BLOCKS_IN_FLIGHT: usize = 2;

/// How long a caller of [`Engine::logits`] waits before it may break off.
const PATIENCE: Duration = Duration::from_millis(50);

/// The engine's own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that one sequence may have, prompt and answer; at most what the cache holds.
    pub context: usize,
    /// Rows of one prefill pass: the grain of progress and cancellation. At most what the model takes.
    pub prefill_chunk: usize,
    /// Sequences computed at a time; others wait.
    pub max_sequences: usize,
}

impl Limits {
    /// Blocks of the cache beyond the windows of all sequences: the budget of saved prefixes.
    pub(crate) fn budget_blocks(&self, info: &Info) -> usize {
        info.n_blocks.saturating_sub(self.max_sequences.saturating_mul(self.context.div_ceil(KV_BLOCK)))
    }
}

/// A loaded model and how to run it.
pub struct EngineConfig {
    /// The model.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that one sequence may have, prompt and answer.
    pub context: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Rows of one prefill pass; see [`Limits::prefill_chunk`].
    pub prefill_chunk: usize,
    /// Sequences computed at a time. The cache is made for as many full windows.
    pub max_sequences: usize,
    /// Positions of the cache beyond the windows, in whole blocks of [`KV_BLOCK`]: they hold the prefixes of finished
    /// sequences (other conversations, other branches). What was computed last stays in the window even without any.
    pub saved_positions: usize,
}

/// What the engine holds and does at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks of the cache in use, by running sequences or as cached prefixes.
    pub blocks_used: usize,
    /// Blocks of the cache.
    pub n_blocks: usize,
    /// Prefixes kept for reuse.
    pub cached_prefixes: usize,
    /// Bytes of the blocks that only they hold.
    pub cached_bytes: u64,
    /// Bytes that they may take beside the windows.
    pub budget_bytes: u64,
    /// Bytes that they take of these. What was used last belongs to a window that is idle, and does not count.
    pub budget_used_bytes: u64,
    /// Requests that could begin with positions already computed, since the start.
    pub prefix_hits: usize,
    /// Positions that were not computed again for them.
    pub reused_positions: usize,
    /// Sequences being computed.
    pub running: usize,
    /// Sequences waiting for their turn.
    pub waiting: usize,
}

/// A running engine. Cloning is cheap; all clones mean the same worker. Dropping the last one ends what is running,
/// stops the worker and frees model and cache before it returns.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    commands: Sender<Command>,
    vocabulary: Arc<dyn Vocabulary>,
    info: Info,
    limits: Limits,
    usage: Arc<RwLock<Usage>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The pass in progress is not wanted any more.
    stopping: Arc<AtomicBool>,
}

impl Inner {
    /// Ends the worker and waits until it has given back model and cache.
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = self.commands.send(Command::Shutdown);
        let thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(thread) = thread {
            // A panicked worker has already told its streams.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine {
    /// Makes the KV cache and starts the worker.
    ///
    /// # Errors
    /// [`Error::Config`] for a limit that is zero or more than the model can do; [`Error::Model`] when the cache does
    /// not fit.
    pub fn start(config: EngineConfig) -> Result<Engine> {
        let EngineConfig { decoder, tokenizer, context, kv_type, prefill_chunk, max_sequences, saved_positions } =
            config;
        // Whole blocks for each sequence: none has to wait for another's.
        let windows = context.div_ceil(KV_BLOCK).saturating_mul(KV_BLOCK).saturating_mul(max_sequences);
        let positions = windows.saturating_add(saved_positions / KV_BLOCK * KV_BLOCK);
        let loaded = Loaded::new(decoder, positions, kv_type)?;
        let limits = Limits { context, prefill_chunk, max_sequences };
        Engine::with_parts(Box::new(loaded), Arc::new(Spelling::new(tokenizer)), limits)
    }

    /// Starts the worker over anything that computes and anything that spells tokens.
    ///
    /// # Errors
    /// [`Error::Config`] when a limit is zero or more than the model or its cache can do.
    pub fn with_parts(model: Box<dyn Forward>, vocabulary: Arc<dyn Vocabulary>, limits: Limits) -> Result<Engine> {
        let info = model.info();
        check_limits(&limits, &info)?;
        let (commands, inbox) = mpsc::channel();
        let budget_bytes = limits.budget_blocks(&info) as u64 * info.block_bytes();
        let usage = Usage { n_blocks: info.n_blocks, budget_bytes, ..Usage::default() };
        let usage = Arc::new(RwLock::new(usage));
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker::new(model, limits, inbox, Arc::clone(&usage), Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name("engine".to_string())
            .spawn(move || worker.run())
            .map_err(Error::Thread)?;
        let thread = Mutex::new(Some(thread));
        Ok(Engine { inner: Arc::new(Inner { commands, vocabulary, info, limits, usage, thread, stopping }) })
    }

    /// Starts an answer. What is wrong with the request comes as the stream's first and only event.
    pub fn generate(&self, request: Request) -> Stream {
        let (sender, events) = mpsc::sync_channel(EVENTS_IN_FLIGHT);
        let flags = Arc::new(Flags::default());
        let outbox = Outbox::new(sender.clone(), Arc::clone(&flags));
        let sent = self.sequence(request, outbox).and_then(|sequence| self.send(Command::Run(Box::new(sequence))));
        if let Err(error) = sent {
            // The channel is empty and its reader is alive: this cannot fail.
            let _ = sender.try_send(Event::Error(error));
        }
        Stream::new(events, flags, self.inner.commands.clone())
    }

    /// Computes the logits of rows `from..` of `tokens` and hands them to `rows` in blocks: the index of the block's
    /// first row, and its values, `[n, n_vocab]`. Row `i` is the prediction after `tokens[..=i]`. The blocks are a few
    /// MiB each, whatever the length and the vocabulary. `rows` runs on the calling thread and may break off; while none
    /// is ready it is called with an empty block now and then, so that it can.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `rows` broke off; those of a request; those of the model.
    pub fn logits(
        &self,
        tokens: &[u32],
        from: usize,
        mut rows: impl FnMut(usize, &[f32]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.check_tokens(tokens)?;
        let (sender, blocks) = mpsc::channel();
        let (recycle, used) = mpsc::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let scoring = Scoring::new(from, BLOCKS_IN_FLIGHT, sender, used, Arc::clone(&cancelled));
        self.send(Command::Run(Box::new(Sequence::new(tokens.to_vec(), Task::Score(scoring)))))?;
        let mut row = from;
        while row < tokens.len() {
            let block = match blocks.recv_timeout(PATIENCE) {
                Ok(block) => block?,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Stopped),
            };
            if rows(row, &block).is_break() {
                cancelled.store(true, Ordering::SeqCst);
                self.send(Command::Wake)?;
                return Err(Error::Interrupted);
            }
            if block.is_empty() {
                continue;
            }
            row += (block.len() / self.inner.info.n_vocab).max(1);
            // The worker is done with this sequence when it does not take the buffer any more.
            let _ = recycle.send(block);
            self.send(Command::Wake)?;
        }
        Ok(())
    }

    /// Measures prefill and decode speed without sampling, once nothing else runs. Cached prefixes may be dropped.
    ///
    /// # Errors
    /// [`Error::CacheTooSmall`] when the cache does not hold the sequences.
    pub fn bench(&self, request: &BenchRequest) -> Result<BenchTimings> {
        for (name, value) in [("parallel", request.parallel), ("pass_tokens", request.pass_tokens)] {
            if value == 0 {
                return Err(Error::Config { name, problem: "must be at least 1".to_string() });
            }
        }
        self.ask(|reply| Command::Bench(request.clone(), reply))?
    }

    /// Changes the adapters once all requests so far are answered, and forgets all cached prefixes: they were another
    /// model's. Returns the adapters there are then, in order.
    ///
    /// # Errors
    /// [`Error::Model`] with what the model says: everything is as before then.
    pub fn adapt(&self, change: AdapterChange) -> Result<Vec<AdapterInfo>> {
        self.ask(|reply| Command::Adapt(change, reply))?
    }

    /// How many of these tokens are in the cache now: what a request for them would not have to compute, its last
    /// token aside.
    pub fn cached_prefix(&self, tokens: &[u32]) -> Result<usize> {
        self.ask(|reply| Command::CachedPrefix(tokens.to_vec(), reply))
    }

    /// Gives back the memory of model and cache. Answers in progress end; later requests end with [`Error::Stopped`].
    pub fn stop(&self) {
        self.inner.stop();
    }

    /// Forgets all cached prefixes.
    pub fn forget(&self) -> Result<()> {
        self.send(Command::Forget)
    }

    /// Facts about model, cache and device.
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// The limits it was started with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Tokens that one sequence may have, prompt and answer.
    pub fn context(&self) -> usize {
        self.inner.limits.context
    }

    /// What it holds and does at this moment.
    pub fn usage(&self) -> Usage {
        *self.inner.usage.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn send(&self, command: Command) -> Result<()> {
        self.inner.commands.send(command).map_err(|_| Error::Stopped)
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T> {
        let (reply, answer): (SyncSender<T>, Receiver<T>) = mpsc::sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| Error::Stopped)
    }

    fn sequence(&self, request: Request, outbox: Outbox) -> Result<Sequence> {
        self.check_tokens(&request.tokens)?;
        request.speculation.validate()?;
        let mut chain = Chain::new(&request.sampling)?;
        request.tokens.iter().for_each(|&token| chain.accept(token));
        let generation = Generation::new(
            &request,
            chain,
            Arc::clone(&self.inner.vocabulary),
            self.inner.limits.context,
            outbox,
            Instant::now(),
        );
        let mut tokens = request.tokens;
        tokens.reserve_exact(generation.most_tokens() - tokens.len());
        Ok(Sequence::new(tokens, Task::Generate(Box::new(generation))))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let (limit, n_vocab) = (self.inner.limits.context, self.inner.info.n_vocab);
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens.len() > limit {
            return Err(Error::ContextOverflow { prompt: tokens.len(), limit });
        }
        match tokens.iter().position(|&id| id as usize >= n_vocab) {
            Some(position) => Err(Error::TokenOutOfRange { id: tokens[position], position, n_vocab }),
            None => Ok(()),
        }
    }
}

fn check_limits(limits: &Limits, info: &Info) -> Result<()> {
    let rows: [(&'static str, usize, usize, &str); 3] = [
        ("context", limits.context, info.cache_positions(), "positions of the KV cache"),
        ("prefill_chunk", limits.prefill_chunk, info.max_rows, "rows that the model takes in a pass"),
        (
            "max_sequences",
            limits.max_sequences,
            info.max_rows.min(info.max_logits),
            "rows that the model takes in a pass",
        ),
    ];
    for (name, value, most, what) in rows {
        if value == 0 {
            return Err(Error::Config { name, problem: "must be at least 1".to_string() });
        }
        if value > most {
            return Err(Error::Config { name, problem: format!("{value} is more than the {most} {what}") });
        }
    }
    if info.n_vocab == 0 {
        return Err(Error::Config { name: "n_vocab", problem: "the model has no vocabulary".to_string() });
    }
    Ok(())
}
