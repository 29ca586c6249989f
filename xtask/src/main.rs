//! The project's own chores, run as `cargo xtask NAME`.
//!
//! What belongs here: checks and generated files that concern the repository as a whole. What does not: anything a user
//! of the program needs, and anything that reads a network.
#![forbid(unsafe_code)]

mod bench;
mod dist;
mod docs;
mod error;
mod fixtures;
mod project;
mod source;
mod tidy;

use error::{Error, Result};
use project::Project;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One chore: its name, the line that explains it, and what it does.
struct Chore {
    name: &'static str,
    about: &'static str,
    run: fn(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()>,
}

const CHORES: &[Chore] = &[
    Chore {
        name: "tidy",
        about: "check the invariants that ARCHITECTURE.md lists",
        run: |root, arguments, out| {
            expect_arguments("tidy", arguments, &[])?;
            tidy::run(&Project::read(root)?, out)
        },
    },
    Chore {
        name: "bench",
        about: "measure the program against llama.cpp; bench --help lists the arguments",
        run: bench::run,
    },
    Chore {
        name: "dist",
        about: "make release archives, a Debian package and their checksums; dist --help lists the targets",
        run: dist::run,
    },
    Chore {
        name: "fixtures",
        about: "make fixtures anew with the reference libraries; fixtures --help lists them",
        run: fixtures::run,
    },
    Chore {
        name: "docs",
        about: "write the documents made from the program's tables; with --check, compare only",
        run: |root, arguments, out| {
            expect_arguments("docs", arguments, &["--check"])?;
            docs::run(root, !arguments.is_empty(), out)
        },
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match start(&arguments, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed as well; the status says it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    if matches!(name, "help" | "-h" | "--help") {
        for chore in CHORES {
            writeln!(out, "cargo xtask {:<8} {}", chore.name, chore.about)?;
        }
        return Ok(());
    }
    let chore = CHORES.iter().find(|c| c.name == name).ok_or_else(|| Error::UnknownChore(name.to_owned()))?;
    (chore.run)(&root(), rest, out)
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
