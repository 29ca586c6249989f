//! Keeps conversations moving: sequences, batching, the KV cache, sampling, stop rules and the window's accounting.
//!
//! One worker thread owns the decoder and its cache; [`Engine`] is a cloneable handle to it. Callers always pass the
//! *full* token prefix, and the engine alone decides how much of it is already computed. It prints nothing, reads no
//! environment, and knows neither file formats nor model families.
//!
//! Where things are: [`Engine`] (the handle), `worker` (the thread), `scheduler` (which rows go into the next pass),
//! `blocks` (who owns which KV block), `states` (those of recurrent layers), `sequence` (one request in progress),
//! [`sample`] (the chain), `stop` (stop strings), `draft` (guesses verified many a pass), `adapter` (changes to a model that
//! runs), [`window`] (what fits), [`Stats`].
#![forbid(unsafe_code)]

mod adapter;
mod bench;
mod blocks;
mod draft;
mod engine;
mod error;
mod event;
mod forward;
mod loaded;
mod owners;
mod pass;
mod request;
pub mod sample;
mod scheduler;
mod sequence;
mod states;
mod stats;
mod stop;
pub mod window;
mod worker;

pub use adapter::AdapterChange;
pub use draft::{MAX_DRAFT, Speculation};
pub use engine::{Engine, EngineConfig, Limits, Usage};
pub use error::{Error, Result};
pub use event::{Canceller, Event, FinishReason, Stream};
pub use forward::{Batch, Forward, Info, TextStream, Vocabulary};
pub use request::{BenchRequest, BenchTimings, Request, Sampling};
pub use stats::Stats;
