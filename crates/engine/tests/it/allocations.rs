//! What decoding allocates, counted on the engine's own thread.

use crate::fake::*;
use engine::{
    Batch, Engine, Event, Forward, Info, Limits, Request, Result, Sampling, Speculation, TextStream, Vocabulary,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

thread_local! {
    static N: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting calls by thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    // A thread that is ending has no counter any more.
    let _ = N.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its callers, and a counter
// without destructor is never allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `dealloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// A model of two thousand tokens that only counts. It notes what the thread allocated by the time of each pass.
struct Tape {
    marks: Arc<Mutex<Vec<usize>>>,
    /// Tokens that the reader has taken. A pass waits for it, so that it is never behind.
    n_read: Arc<AtomicUsize>,
    logits: Vec<f32>,
}

const N_TAPE: usize = 2000;
const N_PROMPT: usize = 200;

impl Forward for Tape {
    fn info(&self) -> Info {
        Info {
            n_vocab: N_TAPE,
            trained_context: 4096,
            n_blocks: 64,
            max_rows: 32,
            max_logits: 32,
            n_states: 0,
            states_bytes: 0,
            kv_bytes: 1,
            weights_bytes: 0,
            scratch_bytes: 0,
            device: compute::DeviceInfo {
                backend: "tape",
                name: String::new(),
                isa: "",
                threads: 1,
                precision: compute::Precision::Fast,
            },
        }
    }

    fn forward(&mut self, batch: &Batch, _stop: &dyn Fn(f32) -> bool) -> Result<&[f32]> {
        let n_said = (batch.rows.positions[0] as usize + 1).saturating_sub(N_PROMPT);
        while self.n_read.load(Ordering::SeqCst) < n_said {
            std::thread::yield_now();
        }
        self.marks.lock().unwrap().push(N.get());
        for (row, &at) in self.logits.chunks_mut(N_TAPE).zip(&batch.logits) {
            let position = batch.rows.positions[at as usize] as usize;
            // A text that repeats, with slips; a few tokens are likely.
            let next = if position.is_multiple_of(37) { position % 700 } else { position * 7 % 60 };
            row.iter_mut().enumerate().for_each(|(id, logit)| *logit = ((id * 31 + next) % 100) as f32 * 0.05);
            row[next] = 9.0;
        }
        Ok(&self.logits[..batch.logits.len() * N_TAPE])
    }

    fn copy_block(&mut self, _from: u32, _to: u32) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Tokens that have no text: what is counted is the engine's.
struct Silent;

impl Vocabulary for Silent {
    fn text_stream(&self, _prompt: &[u32]) -> Box<dyn TextStream> {
        Box::new(Silent)
    }

    fn end_of_generation(&self) -> &[u32] {
        &[]
    }
}

impl TextStream for Silent {
    fn push(&mut self, _id: u32) -> String {
        String::new()
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}

/// After the first 100 passes of an answer of 1500 tokens, the worker's loop allocates nothing: planning, sampling,
/// guessing, the cache's blocks, events. (The text of a token is the reader's: one allocation for each piece of text
/// that is sent, none for a piece that is empty.)
#[track_caller]
fn check(sampling: Sampling, speculation: Speculation) {
    let marks = Arc::new(Mutex::new(Vec::with_capacity(4096)));
    let n_read = Arc::new(AtomicUsize::new(0));
    let tape = Tape { marks: Arc::clone(&marks), n_read: Arc::clone(&n_read), logits: vec![0.0; 32 * N_TAPE] };
    let limits = Limits { context: 4096, prefill_chunk: 32, max_sequences: 2 };
    let engine = Engine::with_parts(Box::new(tape), Arc::new(Silent), limits).unwrap();
    let tokens = (0..N_PROMPT as u32).map(|i| i * 13 % 60).collect();
    let request = Request { sampling: sampling.clone(), speculation, ignore_eos: true, ..greedy(tokens, 1500) };
    for event in engine.generate(request) {
        match event {
            Event::Token { .. } => _ = n_read.fetch_add(1, Ordering::SeqCst),
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(n_read.load(Ordering::SeqCst), 1500);
    let marks = marks.lock().unwrap();
    let steps: Vec<usize> = marks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let late: Vec<(usize, usize)> = steps.into_iter().enumerate().skip(100).filter(|(_, n)| *n > 0).collect();
    assert!(marks.len() > 150 && late.is_empty(), "{late:?} of {} passes; {sampling:?} {speculation:?}", marks.len());
}

#[test]
fn decoding_allocates_nothing() {
    let plain = Sampling { seed: Some(1), ..Sampling::default() };
    let samplings = [
        Sampling::greedy(),
        plain.clone(),
        Sampling { top_k: 40, min_p: 0.05, repeat_penalty: 1.1, repeat_last_n: 64, ..plain.clone() },
        Sampling { top_k: 5, top_p: 1.0, presence_penalty: 0.1, frequency_penalty: 0.1, repeat_last_n: 256, ..plain },
    ];
    for sampling in samplings {
        for speculation in [Speculation::Off, Speculation::Auto, Speculation::Fixed(4)] {
            check(sampling.clone(), speculation);
        }
    }
}
