//! rustorch-cli: chat with a local language model.
//!
//! `main` reads the command line, settles the settings, and hands over to one mode; every error comes back here to be
//! printed once and become the exit code. What a mode does is in `tool`, `repl`, `loading`; who prints is `output`.

#![forbid(unsafe_code)]
#![allow(dead_code)] // until the modes below use all of it

mod exit;
mod logging;
mod messages;
mod output;
mod paths;
mod safe_write;
mod session;
mod settings;
mod terminal_filter;

fn main() {}
