//! Text in and text out: tokenizers (text ↔ token ids) and chat templates (a conversation → one prompt).
//!
//! What belongs here: everything that turns characters into ids or back, and the rendering of a model's own chat
//! template. What does not: reading files (the `checkpoint` crate does), the model, sampling, the terminal.
//! Everything here reads data from files nobody vouches for, so all of it is bounded by [`limits`].
#![forbid(unsafe_code)]

mod error;
pub mod limits;
mod message;
mod template;
mod tokenizer;

pub use error::{Error, Result};
pub use message::{Message, Role};
pub use template::{ChatTemplate, RenderInput};
pub use tokenizer::{DecodeStream, EncodeOptions, ExportedTokenizer, Kind, Tokenizer, TokenizerModel};
