//! What can go wrong in a chore.

use std::path::PathBuf;

/// A chore's failure, naming what it was about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no chore is called `{0}`; `cargo xtask help` lists them")]
    UnknownChore(String),
    #[error("`cargo xtask {chore}` knows no argument `{argument}`")]
    UnknownArgument { chore: &'static str, argument: String },
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("cannot write the report: {0}")]
    Report(#[from] std::io::Error),
    #[error("rustorch-cli: {0}")]
    Program(String),
    #[error("{0} place(s) in the documents differ from the program")]
    Documents(usize),
    #[error("dist: {0}")]
    Dist(String),
    #[error("{script} failed: {status}")]
    Script { script: &'static str, status: String },
    #[error("bench: {0}")]
    Bench(String),
    #[error("{0} breach(es) of the invariants above; ARCHITECTURE.md says what each is for")]
    Untidy(usize),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
