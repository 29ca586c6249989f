//! The project's own chores, run as `cargo xtask NAME`.
//!
//! What belongs here: checks and generated files that concern the repository as a whole. What does not: anything a user
//! of the program needs, and anything that reads a network.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore reports to whoever started it")]

mod error;
mod project;
mod source;
mod tidy;

use error::{Error, Result};
use project::Project;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One chore: its name, the line that explains it, and what it does.
struct Chore {
    name: &'static str,
    about: &'static str,
    run: fn(root: &Path, arguments: &[String]) -> Result<()>,
}

const CHORES: &[Chore] = &[Chore {
    name: "tidy",
    about: "check the invariants that ARCHITECTURE.md lists",
    run: |root, arguments| {
        expect_arguments("tidy", arguments, &[])?;
        let project = Project::read(root)?;
        tidy::run(&project)
    },
}];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Result<()> {
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    if matches!(name, "help" | "-h" | "--help") {
        for chore in CHORES {
            println!("cargo xtask {:<8} {}", chore.name, chore.about);
        }
        return Ok(());
    }
    let chore = CHORES.iter().find(|c| c.name == name).ok_or_else(|| Error::UnknownChore(name.to_owned()))?;
    (chore.run)(&root(), rest)
}

/// Refuses arguments that a chore does not know; `known` are the switches it does.
fn expect_arguments(chore: &'static str, given: &[String], known: &[&str]) -> Result<()> {
    match given.iter().find(|a| !known.contains(&a.as_str())) {
        Some(a) => Err(Error::UnknownArgument { chore, argument: a.clone() }),
        None => Ok(()),
    }
}

/// The root of the repository: the folder above this crate's.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
