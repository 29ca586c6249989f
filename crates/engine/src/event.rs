//! What comes back: the events of a request, and the stream that carries them.
//!
//! The channel is bounded. A reader that is slow stops its own sequence, not the worker; a reader that goes away cancels.

use crate::{Error, Stats, worker::Command};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

/// One thing that happened to a request. `Done` and `Error` are the last one.
#[derive(Debug)]
pub enum Event {
    /// The prompt is being computed: sent when work begins (`done == cached`), after each chunk, and as large
    /// chunks advance. A reader that is behind may miss some.
    Prefill {
        /// Tokens of the prompt that are computed, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens that were in the cache.
        cached: usize,
    },
    /// A token was generated. `text` is what can be shown now: empty while a character is incomplete or while the text
    /// might be the start of a stop string.
    Token {
        /// Its id.
        id: u32,
        /// Text to append.
        text: String,
        /// When the engine had it: a reader that is behind still knows how long each token took.
        at: Instant,
    },
    /// Text that was held back and turned out to belong to the answer, when no further token brings it out.
    Text {
        /// Text to append.
        text: String,
    },
    /// The answer is complete.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// What it cost.
        stats: Stats,
    },
    /// The request failed; the engine goes on.
    Error(Error),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The window is full.
    Context,
    /// The caller cancelled.
    Interrupted,
    /// It failed. The engine sends [`Event::Error`] instead; this is for callers that record the reason.
    Error,
}

impl FinishReason {
    /// The name in JSON: `stop`, `length`, `context`, `interrupted` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Interrupted => "interrupted",
            FinishReason::Error => "error",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What reader and worker both see of one request.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// The reader wants no more.
    pub(crate) cancelled: AtomicBool,
    /// The worker found the channel full and waits to be told that there is room.
    pub(crate) stalled: AtomicBool,
}

/// Cancels one request from any thread, for instance a Ctrl-C handler.
#[derive(Clone, Debug)]
pub struct Canceller {
    flags: Arc<Flags>,
    worker: Sender<Command>,
}

impl Canceller {
    /// Asks the request to end within one token or, while only cancelled requests are computed, one layer of the model. The
    /// stream then brings the text still held back
    /// and `Done` with [`FinishReason::Interrupted`]. A pass that was broken off counts as not computed: the cache keeps
    /// what was there before it. Without effect when the answer is complete.
    pub fn cancel(&self) {
        self.flags.cancelled.store(true, Ordering::SeqCst);
        // The worker being gone is as good as cancelled.
        let _ = self.worker.send(Command::Wake);
    }
}

/// The events of one request, in order. Dropping it cancels the request; see [`Canceller::cancel`].
#[derive(Debug)]
pub struct Stream {
    events: Receiver<Event>,
    canceller: Canceller,
    finished: bool,
}

impl Stream {
    pub(crate) fn new(events: Receiver<Event>, flags: Arc<Flags>, worker: Sender<Command>) -> Self {
        Stream { events, canceller: Canceller { flags, worker }, finished: false }
    }

    /// Waits for the next event; None after the last one.
    pub fn recv(&mut self) -> Option<Event> {
        if self.finished {
            return None;
        }
        let event = self.events.recv().unwrap_or(Event::Error(Error::Stopped));
        Some(self.took(event))
    }

    /// Waits for the next event for at most `timeout`; `Ok(None)` after the last one, `Err` when time ran out.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Event>, mpsc::RecvTimeoutError> {
        if self.finished {
            return Ok(None);
        }
        let event = match self.events.recv_timeout(timeout) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Err(RecvTimeoutError::Timeout),
            Err(RecvTimeoutError::Disconnected) => Event::Error(Error::Stopped),
        };
        Ok(Some(self.took(event)))
    }

    /// Ends the request soon; the stream still brings the rest and `Done`. See [`Canceller::cancel`].
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// A handle that can cancel from another thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    fn took(&mut self, event: Event) -> Event {
        self.finished = matches!(event, Event::Done { .. } | Event::Error(_));
        if self.canceller.flags.stalled.swap(false, Ordering::SeqCst) {
            let _ = self.canceller.worker.send(Command::Wake);
        }
        event
    }
}

impl Iterator for Stream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.finished {
            self.canceller.cancel();
        }
    }
}
