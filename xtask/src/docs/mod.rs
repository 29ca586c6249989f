//! `cargo xtask docs`: user documents made from the program's own tables, in both languages.
//!
//! The program says what it knows through its hidden command `docs-json`; the pages here only lay that out. With `--check`
//! nothing is written: a page that differs is named, and so is a flag, variable or command that a hand-written document
//! mentions and the program does not know. What does not belong here: a sentence about a setting or a command, which
//! belongs to its row in the program.

mod pages;
mod readme;
mod spelling;
mod tables;

use crate::error::{Error, Result};
use crate::project::Project;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tables::Tables;

/// The language of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Language {
    English,
    Japanese,
}

impl Language {
    const ALL: &'static [Language] = &[Language::English, Language::Japanese];

    fn folder(self) -> &'static str {
        self.pick("en", "ja")
    }

    /// The text of this language.
    fn pick(self, en: &'static str, ja: &'static str) -> &'static str {
        match self {
            Language::English => en,
            Language::Japanese => ja,
        }
    }
}

/// Writes the pages, or with `check` compares them and the hand-written documents with the program.
pub(crate) fn run(root: &Path, check: bool, out: &mut dyn Write) -> Result<()> {
    let tables = ask_program(root)?;
    let mut problems = Vec::new();
    for page in pages::PAGES {
        for language in Language::ALL {
            let path = format!("docs/{}/{}.md", language.folder(), page.name);
            let text = (page.render)(&tables, *language);
            let file = root.join(&path);
            if check {
                if fs::read_to_string(&file).ok().as_deref() != Some(text.as_str()) {
                    problems.push(format!("{path}: not what the program says now; run `cargo xtask docs`"));
                }
                continue;
            }
            let failed = |cause| Error::Io { path: file.clone(), cause };
            fs::create_dir_all(file.parent().unwrap_or(root)).map_err(failed)?;
            fs::write(&file, text).map_err(failed)?;
            writeln!(out, "wrote {path}")?;
        }
    }
    for language in Language::ALL {
        let path = readme::file(*language);
        let file = root.join(path);
        let failed = |cause| Error::Io { path: file.clone(), cause };
        let text = fs::read_to_string(&file).map_err(failed)?;
        match readme::renew(&text, &tables, *language) {
            None => problems.push(format!("{path}: lacks the marks of the table of formats")),
            Some(new) if new == text => {}
            Some(_) if check => problems.push(format!("{path}: the table of formats is old; run `cargo xtask docs`")),
            Some(new) => {
                fs::write(&file, new).map_err(failed)?;
                writeln!(out, "wrote the table of {path}")?;
            }
        }
    }
    if !check && !problems.is_empty() {
        return Err(Error::Program(problems.join("; ")));
    }
    if check {
        problems.extend(spelling::check(&Project::read(root)?, &tables));
        for problem in &problems {
            writeln!(out, "{problem}")?;
        }
        if !problems.is_empty() {
            return Err(Error::Documents(problems.len()));
        }
        writeln!(
            out,
            "docs: {} generated pages and all flags that documents mention agree with the program",
            pages::PAGES.len() * 2
        )?;
    }
    Ok(())
}

/// Builds the program if needed and reads its tables.
fn ask_program(root: &Path) -> Result<Tables> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--package", "rustorch-cli", "--", "docs-json"])
        .current_dir(root)
        .output()
        .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
    if !output.status.success() {
        return Err(Error::Program(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| Error::Program(format!("its tables do not read: {e}")))
}
