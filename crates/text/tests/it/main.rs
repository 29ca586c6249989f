//! Integration tests of the `text` crate: golden cases of the shared fixtures.
#![allow(missing_docs)]

mod fixtures;
mod speed;
mod templates;
mod tokenizers;
mod vocabularies;
