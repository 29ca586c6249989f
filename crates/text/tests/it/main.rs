//! Integration tests of the `text` crate: golden cases of the shared fixtures.
#![allow(missing_docs, reason = "not a library")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests, outside #[test] functions too")]

mod fixtures;
mod hugging_face;
mod mutations;
mod speed;
mod templates;
mod tokenizers;
mod vocabularies;
mod vocabulary_files;
