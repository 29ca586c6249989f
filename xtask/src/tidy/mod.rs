//! `cargo xtask tidy`: the invariants of ARCHITECTURE.md as rules over the source text.
//!
//! Each rule is one row of [`RULES`]: the sentence printed in ARCHITECTURE.md, why it holds, and the check. A rule that
//! has exceptions keeps them in an explicit list with a reason for each. What does not belong here: anything the compiler
//! or clippy already decides.

mod documents;
mod effects;
mod files;
mod floors;
mod vocabulary;

use crate::error::{Error, Result};
use crate::project::{File, Project};
use crate::source::Line;
use std::io::Write;

/// One breach of a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    /// 1-based; 0 when the whole file is meant.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

/// One invariant.
struct Rule {
    /// The sentence as ARCHITECTURE.md prints it.
    says: &'static str,
    why: &'static str,
    check: fn(&Project) -> Vec<Finding>,
}

/// A place where a rule does not apply, and the reason.
struct Allowed {
    /// A file, or a folder ending in `/`.
    path: &'static str,
    #[allow(dead_code, reason = "written for the reader of the list")]
    reason: &'static str,
}

fn allowed(list: &[Allowed], path: &str) -> bool {
    list.iter().any(|a| path == a.path || (a.path.ends_with('/') && path.starts_with(a.path)))
}

const RULES: &[Rule] = &[
    Rule {
        says: "Imports go down: a crate depends only on crates of lower floors.",
        why: "a lower floor that knew an upper one could not be read, tested or replaced alone",
        check: floors::check,
    },
    Rule {
        says: "Checkpoint knows files, not transformers.",
        why: "a format reader must serve any model, and a family must work from any format",
        check: vocabulary::checkpoint,
    },
    Rule {
        says: "Family names appear only in `model/src/arch/`.",
        why: "a family is a record of data; code that asks for a name cannot run the next family",
        check: vocabulary::families,
    },
    Rule {
        says: "Model names no file format and no device.",
        why: "the decoder is written once against `Checkpoint` and `Device`",
        check: vocabulary::model,
    },
    Rule { says: "Text knows no tensor.", why: "tokenizing needs strings and numbers only", check: vocabulary::text },
    Rule {
        says: "Block type names appear only in the dtype table, `block/` and kernel folders.",
        why: "everything else treats a quantized weight as a dtype, so a new type costs one file",
        check: vocabulary::blocks,
    },
    Rule {
        says: "Unsafe code lives in `compute` and `checkpoint/src/mmap.rs`; every other crate forbids it.",
        why: "what can break memory safety must be few files that are read with that in mind",
        check: effects::unsafe_code,
    },
    Rule {
        says: "Floor 4 alone exits and reads environment and home; it prints only from `output.rs`.",
        why: "a library that prints or reads the environment cannot be embedded, tested or kept quiet",
        check: effects::surroundings,
    },
    Rule {
        says: "Threads start only in compute's pool, the engine's worker, the template sandbox and floor 4.",
        why: "a thread nobody joins outlives its data, and two pools fight over the cores",
        check: effects::threads,
    },
    Rule {
        says: "The engine alone schedules and owns the cache; callers pass whole prefixes.",
        why: "then clearing, loading and undoing need no cache code and cannot disagree with it",
        check: vocabulary::whole_prefixes,
    },
    Rule {
        says: "The REPL links no sockets.",
        why: "no outside communication is a promise, so it must be a fact of the dependency list",
        check: effects::sockets,
    },
    Rule {
        says: "One spelling of each setting: only the settings table spells environment variables.",
        why: "flag, variable, key and documentation come from one row and cannot drift apart",
        check: vocabulary::settings,
    },
    Rule {
        says: "Every Rust file opens by saying what it is for, and no module is a drawer for odds and ends.",
        why: "a reader decides by the first lines whether this is the place",
        check: files::heads,
    },
    Rule {
        says: "No unfinished work is marked in the source, and no test is ignored without a reason.",
        why: "what is not done is an issue or an honest error, not a mark in the code",
        check: files::marks,
    },
    Rule {
        says: "Every user document exists in English and Japanese, and links between documents lead somewhere.",
        why: "half of the readers would otherwise miss it",
        check: documents::languages,
    },
    Rule {
        says: "ARCHITECTURE.md prints these rules, gives a reason for every dependency, and stays within 200 lines.",
        why: "the document is only worth reading while it is true and short",
        check: documents::architecture,
    },
];

/// Checks every rule and writes the findings to `out`.
pub(crate) fn run(project: &Project, out: &mut dyn Write) -> Result<()> {
    let mut breaches = 0;
    for rule in RULES {
        let findings = (rule.check)(project);
        for f in &findings {
            let (path, line, what) = (&f.path, f.line.max(1), &f.what);
            writeln!(out, "{path}:{line}: {what}\n    invariant: {}\n    why: {}", rule.says, rule.why)?;
        }
        breaches += findings.len();
    }
    for note in files::long(project) {
        writeln!(out, "note: {}: {}", note.path, note.what)?;
    }
    if breaches > 0 {
        return Err(Error::Untidy(breaches));
    }
    writeln!(out, "tidy: {} rules over {} files, no breach", RULES.len(), project.files().count())?;
    Ok(())
}

/// Findings for every shipped line on which `look` finds something to name.
fn over_shipped(project: &Project, look: impl Fn(&File, &Line) -> Option<String>) -> Vec<Finding> {
    project.shipped_lines().filter_map(|(f, n, l)| look(f, l).map(|what| Finding::new(&f.path, n, what))).collect()
}

#[cfg(test)]
fn check_rule(check: fn(&Project) -> Vec<Finding>, files: &[(&str, &str)], expected: &[(&str, usize)]) {
    let project = Project::new(files.iter().map(|(p, t)| File::new(*p, *t)).collect());
    let found = check(&project);
    let places: Vec<(&str, usize)> = found.iter().map(|f| (f.path.as_str(), f.line)).collect();
    assert_eq!(places, expected, "{found:?}");
}
