//! What every source file has to look like.

use super::{Allowed, Finding, allowed};
use crate::project::Project;
use crate::source::has;

/// Lines above which a file is mentioned: a question to its author, not a breach.
const LONG: usize = 600;

pub(super) fn heads(project: &Project) -> Vec<Finding> {
    const DRAWERS: &[&str] = &["utils", "util", "common", "manager", "helper", "helpers", "misc"];
    let mut findings = Vec::new();
    for file in project.rust() {
        if !file.text.starts_with("//! ") {
            findings.push(Finding::new(&file.path, 1, "does not open with `//! …`"));
        }
        if let Some(name) = file.path.split(['/', '.']).find(|piece| DRAWERS.contains(piece)) {
            findings.push(Finding::new(&file.path, 0, format!("`{name}` says nothing about what belongs there")));
        }
    }
    findings
}

const MARKED: &[Allowed] = &[Allowed { path: "xtask/src/tidy/files.rs", reason: "the list of words itself" }];

pub(super) fn marks(project: &Project) -> Vec<Finding> {
    const MARKS: &[&str] =
        &["TODO", "FIXME", "XXX", "HACK", "todo!", "unimplemented!", "placeholder", "dummy", "not implemented"];
    let mut findings = Vec::new();
    for file in project.rust().filter(|f| !allowed(MARKED, &f.path)) {
        for (number, line) in (1..).zip(&file.lines) {
            if let Some(mark) = MARKS.iter().find(|m| has(&line.words, m) || has(&line.comment, m)) {
                findings.push(Finding::new(&file.path, number, format!("marks unfinished work (`{mark}`)")));
            }
            if ["#![allow(dead_code", "#![allow(unused"].iter().any(|a| line.code.contains(a)) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    "silences the warnings about unused code for a whole file",
                ));
            }
            if line.code.contains("#[ignore]") {
                findings.push(Finding::new(&file.path, number, "ignores a test without `#[ignore = \"reason\"]`"));
            }
        }
    }
    findings
}

/// Files longer than the habit.
pub(super) fn long(project: &Project) -> Vec<Finding> {
    let long = project.rust().filter(|f| f.lines.len() > LONG);
    long.map(|f| Finding::new(&f.path, 0, format!("{} lines: is there a second thing in here?", f.lines.len())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_rule;

    #[test]
    fn files_open_with_their_purpose() {
        check_rule(heads, &[("crates/a/src/b.rs", "//! B.\nfn f() {}")], &[]);
        check_rule(heads, &[("crates/a/src/b.rs", "fn f() {}")], &[("crates/a/src/b.rs", 1)]);
        check_rule(heads, &[("crates/a/src/utils/b.rs", "//! B.")], &[("crates/a/src/utils/b.rs", 0)]);
    }

    #[test]
    fn marks_are_found_in_code_and_comments() {
        let check = |text: &str, caught: bool| {
            let expected: &[(&str, usize)] = if caught { &[("crates/a/src/b.rs", 1)] } else { &[] };
            check_rule(marks, &[("crates/a/src/b.rs", text)], expected);
        };
        check("// TODO later", true);
        check("\"not implemented\"", true);
        check("#[ignore]", true);
        check("#[ignore = \"needs a GPU\"]", false);
        check("#![allow(dead_code)]", true);
        check("#[allow(dead_code, reason = \"part of the format\")]", false);
        check("let todos = 1;", false);
    }

    #[test]
    fn long_files_are_a_note() {
        let text = "//! A.\n".repeat(LONG);
        let project = Project::new(vec![crate::project::File::new("crates/a/src/b.rs", text)]);
        assert_eq!(long(&project).len(), 1);
        assert_eq!(heads(&project), []);
    }
}
