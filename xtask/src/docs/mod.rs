//! `cargo xtask docs`: user documents made from the program's own tables, in both languages.
//!
//! The program says what it knows through its hidden command `docs-json`; the pages here only lay that out. With `--check`
//! nothing is written: a page that differs is named, and so is a flag, variable or command that a hand-written document
//! mentions and the program does not know. What does not belong here: a sentence about a setting or a command, which
//! belongs to its row in the program.

mod matrix;
mod matrix_page;
mod pages;
mod readme;
mod spelling;
mod tables;

use crate::error::{Error, Result};
use crate::project::Project;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
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
    let tables = Program::build(root)?.tables()?;
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

/// The program, built, asked without the settings of whoever runs this.
struct Program {
    executable: PathBuf,
    root: PathBuf,
}

impl Program {
    /// Builds it if needed.
    fn build(root: &Path) -> Result<Program> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--package", "rustorch-cli", "--message-format", "json"])
            .current_dir(root)
            .output()
            .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
        let failed = || Error::Program(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        if !output.status.success() {
            return Err(failed());
        }
        let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let executable =
            messages.filter_map(|message: Value| message["executable"].as_str().map(PathBuf::from)).next_back();
        Ok(Program { executable: executable.ok_or_else(failed)?, root: root.to_path_buf() })
    }

    /// What it says, as JSON.
    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RUSTORCH_"));
        let mut command = Command::new(&self.executable);
        for (name, _) in ours {
            command.env_remove(name);
        }
        // No configuration, no log file.
        let output = command
            .args(arguments)
            .env("HOME", self.root.join("target/xtask-home"))
            .current_dir(&self.root)
            .output()
            .map_err(|cause| Error::Io { path: self.executable.clone(), cause })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Program(format!("{}: {}", arguments.join(" "), words.trim())));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| Error::Program(format!("{}: its answer does not read: {e}", arguments.join(" "))))
    }

    /// Its tables, and what tests compare.
    fn tables(&self) -> Result<Tables> {
        let mut tables: Tables = serde_json::from_value(self.ask(&["docs-json"])?)
            .map_err(|e| Error::Program(format!("its tables do not read: {e}")))?;
        tables.matrix = matrix::read(&self.root, &|paths| {
            let list = self.root.join("target/fixtures.txt");
            fs::write(&list, paths.join("\n")).map_err(|cause| Error::Io { path: list.clone(), cause })?;
            serde_json::from_value(self.ask(&["docs-json", "--models", &list.to_string_lossy()])?)
                .map_err(|e| Error::Program(format!("what it says of models does not read: {e}")))
        })?;
        Ok(tables)
    }
}
