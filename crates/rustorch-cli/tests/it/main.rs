//! The program as a script or a person meets it: the built binary, its streams and its exit codes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod adapters;
mod answers;
mod arguments;
mod convert;
mod demo;
mod families;
mod folders;
mod imatrix;
mod integrity;
mod plan;
mod repl_script;
mod repl_support;
mod repl_terminal;
mod support;
mod tools;
