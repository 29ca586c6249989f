//! One request in progress: its tokens, its blocks, and what is done with its logits. Knows nothing of other sequences.

use crate::{
    Error, Event, FinishReason, MAX_DRAFT, Request, Result, Stats, TextStream, Vocabulary,
    draft::{Costs, Drafter},
    event::Flags,
    sample::Chain,
    states::Snapshot,
    stop::StopMatcher,
};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, TrySendError},
    },
    time::Instant,
};

/// A sequence of tokens being computed.
pub(crate) struct Sequence {
    /// Prompt, then what was generated.
    pub(crate) tokens: Vec<u32>,
    /// Positions whose keys and values are in the cache.
    pub(crate) n_computed: usize,
    /// Its blocks of the cache.
    pub(crate) blocks: Vec<u32>,
    /// States after some of its positions, in models that keep any: the last after those that are computed.
    pub(crate) states: Vec<Snapshot>,
    /// The slot that the states of the next pass go to.
    pub(crate) next_slot: Option<u32>,
    /// States that are kept of the middle of the next pass.
    pub(crate) saves: Vec<Snapshot>,
    /// Its passes are its own until this many positions are computed (after a pass with others failed).
    pub(crate) alone_until: usize,
    /// What may follow its tokens: computed with them, counted as computed only once it came.
    pub(crate) draft: Vec<u32>,
    /// What its logits are for.
    pub(crate) task: Task,
}

/// What a sequence's logits are for.
pub(crate) enum Task {
    /// An answer is sampled from them.
    Generate(Box<Generation>),
    /// They are handed out.
    Score(Scoring),
}

impl Sequence {
    pub(crate) fn new(tokens: Vec<u32>, task: Task) -> Self {
        Sequence {
            tokens,
            n_computed: 0,
            blocks: Vec::new(),
            states: Vec::new(),
            next_slot: None,
            saves: Vec::new(),
            alone_until: 0,
            draft: Vec::with_capacity(MAX_DRAFT),
            task,
        }
    }

    /// Rows still to compute before there is something to decide.
    pub(crate) fn remaining(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Positions that may come from the cache: the rows whose logits are wanted must be computed.
    pub(crate) fn most_reusable(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        match &self.task {
            Task::Generate(_) => last,
            Task::Score(scoring) => scoring.from.min(last),
        }
    }

    /// Positions whose states are worth keeping: those before the last token of the prompt, which another answer to it, or
    /// another question in its place, goes on from. Later ones are passed by.
    fn kept_states(&self) -> usize {
        match &self.task {
            Task::Generate(generation) => generation.n_prompt.saturating_sub(1),
            Task::Score(_) => 0,
        }
    }

    /// Where in a pass of so many rows a state is to be kept, if not at its end.
    pub(crate) fn save_within(&self, rows: usize) -> Option<usize> {
        let n = self.kept_states();
        (n > self.n_computed && n < self.n_computed + rows).then_some(n)
    }

    /// A pass has written the states after `n` positions. Gives back those that need not be kept.
    pub(crate) fn passed(&mut self, n: usize) -> Option<Snapshot> {
        let slot = self.next_slot.take()?;
        let kept = self.kept_states();
        let passed_by = self.states.pop_if(|last| last.n > kept);
        self.states.append(&mut self.saves);
        self.states.push(Snapshot { n, slot });
        passed_by
    }

    /// Takes all slots from it.
    pub(crate) fn give_up_states(&mut self) -> impl Iterator<Item = Snapshot> {
        let next = self.next_slot.take().map(|slot| Snapshot { n: 0, slot });
        std::mem::take(&mut self.states).into_iter().chain(std::mem::take(&mut self.saves)).chain(next)
    }

    /// What it had in the cache is lost.
    pub(crate) fn lose_cache(&mut self) {
        self.blocks.clear();
        self.states.clear();
        self.saves.clear();
        (self.next_slot, self.n_computed) = (None, 0);
    }

    /// Whether it can use a pass now; not when its reader is behind.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.outbox.queue.is_empty(),
            Task::Score(scoring) => scoring.credit > 0,
        }
    }

    /// Of the next `rows` rows, those whose logits are wanted.
    pub(crate) fn wanted_logits(&self, rows: usize) -> Range<usize> {
        match &self.task {
            Task::Generate(_) if rows == self.remaining() + self.draft.len() => {
                rows.saturating_sub(1 + self.draft.len())..rows
            }
            Task::Generate(_) => rows..rows,
            Task::Score(scoring) => scoring.from.saturating_sub(self.n_computed).min(rows)..rows,
        }
    }

    /// Rows of one pass at most, if `max_logits` of them may want logits.
    pub(crate) fn most_rows(&self, max_logits: usize) -> usize {
        match &self.task {
            Task::Generate(_) => usize::MAX,
            Task::Score(scoring) => scoring.from.saturating_sub(self.n_computed) + max_logits,
        }
    }

    /// Guesses what follows, if it decodes: at most `room` tokens.
    pub(crate) fn guess(&mut self, room: usize, costs: &mut Costs) {
        self.draft.clear();
        if self.remaining() == 1
            && self.is_ready()
            && let Task::Generate(generation) = &mut self.task
        {
            generation.guess(&self.tokens, room, costs, &mut self.draft);
        }
    }

    /// Forgets its draft and makes no other. False if there was none.
    pub(crate) fn give_up_guessing(&mut self) -> bool {
        let had = !self.draft.is_empty();
        self.draft.clear();
        if let (true, Task::Generate(generation)) = (had, &mut self.task) {
            generation.drafter.switch_off();
        }
        had
    }

    /// Of the rows that the pass under way has of it, so many are computed.
    pub(crate) fn within_pass(&self, n_rows: usize) {
        if let Task::Generate(generation) = &self.task {
            generation.progress(self.n_computed + n_rows);
        }
    }

    /// Whether nobody wants its result any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.outbox.flags.cancelled.load(Ordering::SeqCst),
            Task::Score(scoring) => scoring.abandoned || scoring.cancelled.load(Ordering::SeqCst),
        }
    }
}

/// Sends events without ever waiting: what the channel does not take is kept.
pub(crate) struct Outbox {
    events: SyncSender<Event>,
    queue: VecDeque<Event>,
    flags: Arc<Flags>,
}

impl Outbox {
    pub(crate) fn new(events: SyncSender<Event>, flags: Arc<Flags>) -> Self {
        Outbox { events, queue: VecDeque::new(), flags }
    }

    /// Sends, or keeps for later, in order.
    pub(crate) fn send(&mut self, event: Event) {
        self.queue.push_back(event);
        self.flush();
    }

    /// Sends if there is room now: for events that may be missed.
    fn offer(&self, event: Event) {
        if self.queue.is_empty() {
            let _ = self.events.try_send(event);
        }
    }

    /// Sends what was kept. True when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        let mut warned = false;
        while let Some(event) = self.queue.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => {
                    self.flags.cancelled.store(true, Ordering::SeqCst);
                    self.queue.clear();
                }
                Err(TrySendError::Full(event)) => {
                    self.queue.push_front(event);
                    if warned {
                        return false;
                    }
                    // The reader may have emptied the channel before it could see the flag: look once more.
                    self.flags.stalled.store(true, Ordering::SeqCst);
                    warned = true;
                }
            }
        }
        true
    }
}

/// An answer being generated.
pub(crate) struct Generation {
    chain: Chain,
    text: Box<dyn TextStream>,
    stops: StopMatcher,
    vocabulary: Arc<dyn Vocabulary>,
    n_prompt: usize,
    n_cached: Option<usize>,
    max_tokens: usize,
    context: usize,
    most_tokens: usize,
    ignore_eos: bool,
    outbox: Outbox,
    asked: Instant,
    started: Option<Instant>,
    prefilled: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    completion_tokens: usize,
    drafter: Drafter,
}

impl Generation {
    pub(crate) fn new(
        request: &Request,
        chain: Chain,
        vocabulary: Arc<dyn Vocabulary>,
        context: usize,
        outbox: Outbox,
        asked: Instant,
    ) -> Self {
        let most_tokens = most_tokens(request, context);
        Generation {
            chain,
            text: vocabulary.text_stream(&request.tokens),
            stops: StopMatcher::new(&request.stop),
            vocabulary,
            n_prompt: request.tokens.len(),
            n_cached: None,
            max_tokens: request.max_tokens.unwrap_or(usize::MAX),
            context,
            ignore_eos: request.ignore_eos,
            outbox,
            asked,
            started: None,
            prefilled: None,
            first: None,
            last: None,
            completion_tokens: 0,
            drafter: Drafter::new(
                request.speculation,
                request.sampling.temperature == 0.0 || request.sampling.seed.is_some(),
                &request.tokens,
                most_tokens,
            ),
            most_tokens,
        }
    }

    /// Tokens, prompt included, that it can come to.
    pub(crate) fn most_tokens(&self) -> usize {
        self.most_tokens
    }

    fn guess(&mut self, tokens: &[u32], room: usize, costs: &mut Costs, draft: &mut Vec<u32>) {
        // The last token is never computed: no use in rows after it.
        let room = room.min(self.most_tokens.saturating_sub(tokens.len() + 1));
        let (ignore_eos, ends) = (self.ignore_eos, self.vocabulary.end_of_generation());
        self.drafter.guess(tokens, room, costs, |id| !ignore_eos && ends.contains(&id), draft);
    }

    /// Decides what follows from the logits after the last token and, as long as the draft comes true, after its tokens.
    /// Gives the number of draft tokens whose rows were used, and why the answer ends if it does.
    pub(crate) fn advance_through(
        &mut self,
        tokens: &mut Vec<u32>,
        draft: &[u32],
        logits: &[f32],
        n_vocab: usize,
    ) -> (usize, Result<Option<FinishReason>>) {
        let (mut n_used, mut n_accepted, mut refused) = (0, 0, false);
        let mut outcome = Ok(None);
        for row in logits.chunks_exact(n_vocab) {
            let n_tokens = tokens.len();
            outcome = self.advance(tokens, row);
            let came = tokens.get(n_tokens);
            if came.is_some() && draft.get(n_accepted).is_some() {
                if came == draft.get(n_accepted) {
                    n_accepted += 1;
                } else {
                    refused = true;
                }
            }
            let cancelled = self.outbox.flags.cancelled.load(Ordering::SeqCst);
            if !matches!(outcome, Ok(None)) || refused || cancelled || n_used == draft.len() {
                break;
            }
            n_used += 1;
        }
        if !draft.is_empty() {
            self.drafter.verified(draft.len(), n_accepted, refused);
        }
        (n_used, outcome)
    }

    /// Work begins, or begins again after the sequence was set aside.
    pub(crate) fn begin(&mut self, n_cached: usize) {
        if self.n_cached.is_none() {
            self.n_cached = Some(n_cached);
            self.started = Some(Instant::now());
            self.outbox.offer(Event::Prefill { done: n_cached, total: self.n_prompt, cached: n_cached });
        }
    }

    /// A part of the prompt is computed.
    pub(crate) fn progress(&self, n_computed: usize) {
        if self.prefilled.is_none() {
            let (total, cached) = (self.n_prompt, self.n_cached.unwrap_or(0));
            self.outbox.offer(Event::Prefill { done: n_computed.min(total), total, cached });
        }
    }

    /// Decides what follows from the logits after the last token: appends the next one to `tokens`, or says why the
    /// answer ends.
    fn advance(&mut self, tokens: &mut Vec<u32>, logits: &[f32]) -> Result<Option<FinishReason>> {
        let now = Instant::now();
        self.prefilled.get_or_insert(now);
        if let Some(reason) = self.limit(tokens.len()) {
            return Ok(Some(self.ended(reason)));
        }
        let position = tokens.len().saturating_sub(1);
        let id = self.chain.choose(logits).ok_or(Error::NoFiniteLogits { position })?;
        self.first.get_or_insert(now);
        if !self.ignore_eos && self.vocabulary.end_of_generation().contains(&id) {
            return Ok(Some(self.ended(FinishReason::Stop)));
        }
        self.chain.accept(id);
        tokens.push(id);
        self.completion_tokens += 1;
        self.last = Some(now);
        let released = self.stops.push(self.text.push(id));
        let mut text = released.text;
        let reason = if released.stopped { Some(FinishReason::Stop) } else { self.limit(tokens.len()) };
        if reason.is_some() && !released.stopped {
            text += &self.rest();
        }
        self.outbox.send(Event::Token { id, text, at: Instant::now() });
        Ok(reason)
    }

    /// The answer ends without a further token: brings out the text held back.
    pub(crate) fn ended(&mut self, reason: FinishReason) -> FinishReason {
        let text = self.rest();
        if !text.is_empty() {
            self.outbox.send(Event::Text { text });
        }
        reason
    }

    /// The last event. Gives back the outbox, which may still have to be emptied.
    pub(crate) fn done(mut self, reason: FinishReason, n_tokens: usize, kv_bytes: u64) -> Outbox {
        let seconds = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.duration_since(from).as_secs_f64(),
            _ => 0.0,
        };
        let stats = Stats {
            prompt_tokens: self.n_prompt,
            cached_tokens: self.n_cached.unwrap_or(0),
            completion_tokens: self.completion_tokens,
            prefill_s: seconds(self.started, self.prefilled),
            decode_s: seconds(self.first, self.last),
            ttft_s: seconds(Some(self.asked), self.first),
            seed: self.chain.seed(),
            kv_bytes,
            context_used: n_tokens,
            drafted_tokens: self.drafter.n_drafted,
            accepted_tokens: self.drafter.n_accepted,
        };
        self.outbox.send(Event::Done { reason, stats });
        self.outbox
    }

    /// The last event of a failed request; the text held back comes before it.
    pub(crate) fn failed(mut self, error: Error) -> Outbox {
        self.ended(FinishReason::Error);
        self.outbox.send(Event::Error(error));
        self.outbox
    }

    /// Sends what the reader had no room for.
    pub(crate) fn flush(&mut self) -> bool {
        self.outbox.flush()
    }

    fn limit(&self, n_tokens: usize) -> Option<FinishReason> {
        if self.completion_tokens >= self.max_tokens {
            Some(FinishReason::Length)
        } else {
            (n_tokens >= self.context).then_some(FinishReason::Context)
        }
    }

    /// Text still held back by the decoder and the stop matcher.
    fn rest(&mut self) -> String {
        let tail = self.text.finish();
        let released = self.stops.push(tail);
        if released.stopped { released.text } else { released.text + &self.stops.finish() }
    }
}

/// Tokens that a request can come to, its prompt included.
fn most_tokens(request: &Request, context: usize) -> usize {
    let n_prompt = request.tokens.len();
    n_prompt.saturating_add(request.max_tokens.unwrap_or(usize::MAX)).min(context).max(n_prompt)
}

/// Logits being handed out, block by block.
pub(crate) struct Scoring {
    /// First row that is wanted and not yet handed out.
    from: usize,
    blocks: Sender<Result<Vec<f32>>>,
    /// Buffers that the reader has done with.
    used: Receiver<Vec<f32>>,
    spare: Vec<Vec<f32>>,
    /// Blocks that may still be sent before the reader gives one back.
    credit: usize,
    abandoned: bool,
    /// The reader breaks off.
    cancelled: Arc<AtomicBool>,
}

impl Scoring {
    pub(crate) fn new(
        from: usize,
        in_flight: usize,
        blocks: Sender<Result<Vec<f32>>>,
        used: Receiver<Vec<f32>>,
        cancelled: Arc<AtomicBool>,
    ) -> Self {
        Scoring { from, blocks, used, spare: Vec::new(), credit: in_flight, abandoned: false, cancelled }
    }

    /// Takes back what the reader has done with.
    pub(crate) fn collect(&mut self) {
        loop {
            match self.used.try_recv() {
                Ok(block) => {
                    self.credit += 1;
                    self.spare.push(block);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.abandoned = true;
                    break;
                }
            }
        }
    }

    /// Hands out the rows before `n_computed`.
    pub(crate) fn send(&mut self, logits: &[f32], n_computed: usize) {
        let mut block = self.spare.pop().unwrap_or_default();
        block.clear();
        block.extend_from_slice(logits);
        self.from = n_computed;
        self.credit = self.credit.saturating_sub(1);
        self.abandoned |= self.blocks.send(Ok(block)).is_err();
    }

    /// Tells the reader that there will be no more.
    pub(crate) fn failed(self, error: Error) {
        let _ = self.blocks.send(Err(error));
    }
}
