//! The repository as the checks see it: its text files, the Rust ones already split into code, literals and comments.

use crate::error::{Error, Result};
use crate::source::{self, Line};
use std::fs;
use std::path::Path;

/// Folders that hold nothing of ours to check.
const SKIPPED: &[&str] = &["target", ".git", "shared"];
/// Kinds of file that are read. Others (models, arrays) are bytes, not text.
const KINDS: &[&str] = &["rs", "toml", "md", "lock"];

/// One text file.
pub(crate) struct File {
    /// Path from the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The lines of a Rust file; empty for others.
    pub(crate) lines: Vec<Line>,
}

impl File {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> File {
        let (path, text) = (path.into(), text.into());
        let lines = if path.ends_with(".rs") { source::split(&text) } else { Vec::new() };
        File { path, text, lines }
    }

    /// Whether the file ends up in no program: tests, benchmarks, examples.
    pub(crate) fn is_test(&self) -> bool {
        let mut folders = self.path.split('/');
        folders.any(|f| matches!(f, "tests" | "benches" | "examples" | "tests.rs"))
    }

    /// The crate folder's name (`tensor` of `crates/tensor/src/lib.rs`).
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

/// All files of the repository.
pub(crate) struct Project {
    files: Vec<File>,
}

impl Project {
    /// Reads the text files below `root`, in path order.
    pub(crate) fn read(root: &Path) -> Result<Project> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        Ok(Project::new(files))
    }

    pub(crate) fn new(mut files: Vec<File>) -> Project {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Project { files }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|f| f.path.ends_with(".rs"))
    }

    /// The lines that end up in the programs: Rust outside tests, with the 1-based line number.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (&File, usize, &Line)> {
        self.rust()
            .filter(|f| f.path.starts_with("crates/") && !f.is_test())
            .flat_map(|f| (1..).zip(&f.lines).filter(|(_, l)| !l.test).map(move |(n, l)| (f, n, l)))
    }
}

fn collect(root: &Path, relative: &str, files: &mut Vec<File>) -> Result<()> {
    let folder = root.join(relative);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| Error::Io { path, cause }
    };
    for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
        let entry = entry.map_err(failed(&folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
        let kind = entry.file_type().map_err(failed(&entry.path()))?;
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() && KINDS.iter().any(|k| name.ends_with(&format!(".{k}"))) {
            let text = fs::read_to_string(entry.path()).map_err(failed(&entry.path()))?;
            files.push(File::new(path, text));
        }
    }
    Ok(())
}
