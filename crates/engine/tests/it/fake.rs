//! A scripted model: the next token is a function of the whole prefix, which it reads from its own "KV cache". So a
//! token that comes out right proves that every position before it was written, at the right place, in the right block,
//! and that nobody else wrote there.

use compute::{DeviceInfo, KV_BLOCK, Precision};
use engine::{Batch, Engine, Error, Event, FinishReason, Forward, Info, Limits, Request, Result, Sampling, Stats};
use engine::{Stream, TextStream, Vocabulary};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

/// Tokens 0..26 are the letters; 26 ends the answer, 27 is a control token, 28 and 29 are the two halves of `é`,
/// 30 is two letters (`xy`), 31 nothing.
pub(crate) const N_VOCAB: usize = 32;
pub(crate) const END: u32 = 26;
pub(crate) const CONTROL: u32 = 27;

/// What the model answers after a prefix.
pub(crate) type Script = dyn Fn(&[u32]) -> Answer + Send + Sync;

pub(crate) enum Answer {
    /// This token is by far the best.
    Token(u32),
    /// These logits.
    Logits(Vec<f32>),
    /// A panic.
    Panic,
    /// An error.
    Error,
}

/// What the test can see of the model's work.
#[derive(Default)]
pub(crate) struct Log {
    /// Rows of each pass, by sequence.
    pub(crate) passes: Mutex<Vec<Vec<usize>>>,
    pub(crate) resets: AtomicUsize,
}

impl Log {
    pub(crate) fn rows(&self) -> usize {
        self.passes.lock().unwrap().iter().flatten().sum()
    }
}

pub(crate) struct Fake {
    n_blocks: usize,
    max_rows: usize,
    cache: Vec<Option<u32>>,
    /// The state of a slot: all tokens before it. None: nobody wrote it, or a pass failed.
    slots: Vec<Option<Vec<u32>>>,
    script: Arc<Script>,
    log: Arc<Log>,
    /// Each pass takes a permit from here, if there is a gate.
    gate: Option<Receiver<()>>,
    /// Asks whether to stop, before every row.
    breaks_off: bool,
    out: Vec<f32>,
}

impl Forward for Fake {
    fn info(&self) -> Info {
        Info {
            n_vocab: N_VOCAB,
            trained_context: 4096,
            n_blocks: self.n_blocks,
            max_rows: self.max_rows,
            max_logits: self.max_rows,
            n_states: self.slots.len(),
            states_bytes: 0,
            kv_bytes: (self.n_blocks * KV_BLOCK * 10) as u64,
            weights_bytes: 0,
            scratch_bytes: 0,
            device: DeviceInfo {
                backend: "fake",
                name: String::new(),
                isa: "",
                threads: 1,
                precision: Precision::Fast,
            },
        }
    }

    fn forward(&mut self, batch: &Batch, stop: &dyn Fn(f32) -> bool) -> Result<&[f32]> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let sequences = &batch.rows.sequences;
        self.log.passes.lock().unwrap().push(sequences.iter().map(|s| s.rows.len()).collect());
        assert!(batch.tokens.len() <= self.max_rows, "too many rows");
        self.out.clear();
        let mut wanted = batch.logits.iter().copied().peekable();
        let has_states = !self.slots.is_empty();
        for sequence in sequences.iter().filter(|_| has_states) {
            let states = sequence.states.as_ref().expect("a sequence without states");
            assert_eq!(states.from.is_none(), batch.rows.positions[sequence.rows.start] == 0);
            let written = states.saves.iter().map(|(_, slot)| *slot).chain([states.to]);
            for slot in written.filter(|slot| Some(*slot) != states.from) {
                self.slots[slot as usize] = None;
            }
        }
        for sequence in sequences {
            let states = sequence.states.clone().filter(|_| !self.slots.is_empty());
            let mut state = states.as_ref().map(|states| match states.from {
                Some(from) => self.slots[from as usize].clone().expect("a state that nobody wrote"),
                None => Vec::new(),
            });
            let slot = |position: usize| sequence.blocks[position / KV_BLOCK] as usize * KV_BLOCK + position % KV_BLOCK;
            for row in sequence.rows.clone() {
                let position = batch.rows.positions[row] as usize;
                if stop(row as f32 / batch.tokens.len() as f32) && self.breaks_off {
                    return Err(Error::Interrupted);
                }
                self.cache[slot(position)] = Some(batch.tokens[row]);
                if let (Some(state), Some(states)) = (&mut state, &states) {
                    let past: Vec<u32> = (0..position).filter_map(|p| self.cache[slot(p)]).collect();
                    assert_eq!(*state, past, "the state of another past");
                    state.push(batch.tokens[row]);
                    let n = row + 1 - sequence.rows.start;
                    let saves = states.saves.iter().filter(|save| save.0 == n).map(|save| save.1);
                    for to in saves.chain((row + 1 == sequence.rows.end).then_some(states.to)) {
                        self.slots[to as usize] = Some(state.clone());
                    }
                }
                if wanted.next_if_eq(&(row as u32)).is_none() {
                    continue;
                }
                let prefix: Vec<u32> =
                    (0..=position).map(|p| self.cache[slot(p)].expect("a position nobody computed")).collect();
                match (self.script)(&prefix) {
                    Answer::Token(id) => {
                        self.out.extend((0..N_VOCAB as u32).map(|other| if other == id { 9.0 } else { 0.0 }));
                    }
                    Answer::Logits(logits) => self.out.extend(logits),
                    Answer::Panic => panic!("scripted"),
                    Answer::Error => return Err(Error::Model("scripted".into())),
                }
            }
        }
        Ok(&self.out)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        let from = from as usize * KV_BLOCK;
        self.cache.copy_within(from..from + KV_BLOCK, to as usize * KV_BLOCK);
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.cache.fill(None);
        self.slots.fill(None);
        self.log.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// The letters and oddities of [`N_VOCAB`].
pub(crate) struct Letters;

impl Vocabulary for Letters {
    fn text_stream(&self, _prompt: &[u32]) -> Box<dyn TextStream> {
        Box::new(LetterStream(false))
    }

    fn end_of_generation(&self) -> &[u32] {
        &[END]
    }
}

/// Whether the first half of `é` is pending.
struct LetterStream(bool);

impl TextStream for LetterStream {
    fn push(&mut self, id: u32) -> String {
        let pending = std::mem::take(&mut self.0);
        let lost = if pending && id != 29 { "\u{fffd}" } else { "" };
        let text = match id {
            0..26 => char::from(b'a' + id as u8).to_string(),
            26 => "<end>".to_string(),
            28 => {
                self.0 = true;
                String::new()
            }
            29 if pending => "é".to_string(),
            30 => "xy".to_string(),
            _ => String::new(),
        };
        lost.to_string() + &text
    }

    fn finish(&mut self) -> String {
        if std::mem::take(&mut self.0) { "\u{fffd}".to_string() } else { String::new() }
    }
}

pub(crate) struct Setup {
    pub(crate) n_blocks: usize,
    pub(crate) limits: Limits,
    pub(crate) max_rows: usize,
    /// Whether a pass can be broken off.
    pub(crate) breaks_off: bool,
    /// Slots for states; 0: a model that keeps none.
    pub(crate) n_states: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let limits = Limits { context: 1024, prefill_chunk: 16, max_sequences: 4 };
        Setup { n_blocks: 16, limits, max_rows: 64, breaks_off: false, n_states: 0 }
    }
}

impl Setup {
    pub(crate) fn start(&self, script: impl Fn(&[u32]) -> Answer + Send + Sync + 'static) -> (Engine, Arc<Log>) {
        self.start_gated(script, None)
    }

    /// With a gate, every pass waits for a permit.
    pub(crate) fn gated(
        &self,
        script: impl Fn(&[u32]) -> Answer + Send + Sync + 'static,
    ) -> (Engine, Arc<Log>, SyncSender<()>) {
        let (permits, gate) = sync_channel(10_000);
        let (engine, log) = self.start_gated(script, Some(gate));
        (engine, log, permits)
    }

    fn start_gated(
        &self,
        script: impl Fn(&[u32]) -> Answer + Send + Sync + 'static,
        gate: Option<Receiver<()>>,
    ) -> (Engine, Arc<Log>) {
        let log = Arc::new(Log::default());
        let fake = Fake {
            n_blocks: self.n_blocks,
            max_rows: self.max_rows,
            cache: vec![None; self.n_blocks * KV_BLOCK],
            slots: vec![None; self.n_states],
            script: Arc::new(script),
            log: Arc::clone(&log),
            gate,
            breaks_off: self.breaks_off,
            out: Vec::new(),
        };
        (Engine::with_parts(Box::new(fake), Arc::new(Letters), self.limits).unwrap(), log)
    }
}

/// A next token that depends on every token of the prefix and its position: never the end.
pub(crate) fn mixed(prefix: &[u32]) -> u32 {
    let hash = prefix.iter().fold(7u64, |hash, &t| (hash ^ u64::from(t)).wrapping_mul(0x100_0000_01b3).rotate_left(7));
    (hash % 26) as u32
}

/// What `mixed` continues a prefix with.
pub(crate) fn continuation(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    (0..n).for_each(|_| tokens.push(mixed(&tokens)));
    tokens.split_off(prompt.len())
}

/// A prompt of `n` tokens.
pub(crate) fn prompt(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 7 + seed * 11 + i * i * seed) % 26).collect()
}

pub(crate) fn greedy(tokens: Vec<u32>, max_tokens: usize) -> Request {
    Request { tokens, sampling: Sampling::greedy(), max_tokens: Some(max_tokens), ..Request::default() }
}

/// A finished answer.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
    /// `done` of the prefill events.
    pub(crate) progress: Vec<usize>,
    pub(crate) end: std::result::Result<(FinishReason, Stats), Error>,
}

impl Outcome {
    pub(crate) fn reason(&self) -> FinishReason {
        self.end.as_ref().map(|end| end.0).unwrap_or(FinishReason::Error)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.end.as_ref().unwrap().1
    }
}

/// Takes what is left of a stream. Fails rather than hanging.
pub(crate) fn drain(mut stream: Stream) -> Outcome {
    let mut outcome = Outcome { ids: Vec::new(), text: String::new(), progress: Vec::new(), end: Err(Error::Stopped) };
    while let Some(event) = stream.recv_timeout(Duration::from_secs(60)).expect("an event within a minute") {
        match event {
            Event::Prefill { done, .. } => outcome.progress.push(done),
            Event::Token { id, text, .. } => {
                outcome.ids.push(id);
                outcome.text += &text;
            }
            Event::Text { text } => outcome.text += &text,
            Event::Done { reason, stats } => outcome.end = Ok((reason, stats)),
            Event::Error(error) => outcome.end = Err(error),
        }
    }
    outcome
}
