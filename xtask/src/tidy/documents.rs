//! The documents: both languages, working links, and an ARCHITECTURE.md that says what is checked.

use super::{Finding, RULES};
use crate::project::{File, Project};

/// Lines that ARCHITECTURE.md may have.
const ARCHITECTURE_LINES: usize = 200;

pub(super) fn languages(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.files().filter(|f| f.path.ends_with(".md")) {
        if let Some(twin) = twin(&file.path)
            && project.file(&twin).is_none()
        {
            findings.push(Finding::new(&file.path, 0, format!("has no {twin} beside it")));
        }
        findings.extend(broken_links(project, file));
    }
    findings
}

/// The same document in the other language.
fn twin(path: &str) -> Option<String> {
    match path {
        "README.md" => Some("README.ja.md".to_owned()),
        "README.ja.md" => Some("README.md".to_owned()),
        _ => match path.strip_prefix("docs/en/") {
            Some(rest) => Some(format!("docs/ja/{rest}")),
            None => path.strip_prefix("docs/ja/").map(|rest| format!("docs/en/{rest}")),
        },
    }
}

/// Links to Markdown files of this repository that do not exist.
fn broken_links(project: &Project, file: &File) -> Vec<Finding> {
    let folder: Vec<&str> = file.path.split('/').collect();
    let folder = folder.get(..folder.len().saturating_sub(1)).unwrap_or_default();
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        for piece in line.split("](").skip(1) {
            let target = piece.split([')', '#', ' ']).next().unwrap_or_default();
            if target.contains("://") || !target.ends_with(".md") {
                continue;
            }
            let mut path = folder.to_vec();
            for step in target.split('/') {
                match step {
                    "." => {}
                    ".." => drop(path.pop()),
                    _ => path.push(step),
                }
            }
            if project.file(&path.join("/")).is_none() {
                findings.push(Finding::new(&file.path, number, format!("links to {target}, which does not exist")));
            }
        }
    }
    findings
}

pub(super) fn architecture(project: &Project) -> Vec<Finding> {
    const PATH: &str = "ARCHITECTURE.md";
    let Some(document) = project.file(PATH) else { return vec![Finding::new(PATH, 0, "is missing")] };
    let mut findings = Vec::new();
    let n_lines = document.text.lines().count();
    if n_lines > ARCHITECTURE_LINES {
        findings.push(Finding::new(PATH, ARCHITECTURE_LINES + 1, format!("has {n_lines} lines")));
    }
    for rule in RULES.iter().filter(|r| !document.text.contains(r.says)) {
        findings.push(Finding::new(PATH, 0, format!("does not print the rule “{}”", rule.says)));
    }
    let (used, explained) = (third_party(project), explained(&document.text));
    for name in used.iter().filter(|name| !explained.iter().any(|(_, e)| e == name)) {
        findings.push(Finding::new(PATH, 0, format!("gives no reason for the dependency `{name}`")));
    }
    for (line, name) in explained.iter().filter(|(_, e)| !used.iter().any(|name| name == e)) {
        findings.push(Finding::new(PATH, *line, format!("explains `{name}`, which is no dependency")));
    }
    findings
}

/// The dependencies named in the first column of the document's last table, with their lines.
fn explained(document: &str) -> Vec<(usize, &str)> {
    let section = (1..).zip(document.lines()).skip_while(|(_, line)| *line != "## Dependencies");
    let cells = section.filter_map(|(n, line)| Some((n, line.strip_prefix("| `")?.split(" | ").next()?)));
    cells.flat_map(|(n, cell)| cell.split(['`', ',', ' ']).filter(|w| !w.is_empty()).map(move |w| (n, w))).collect()
}

/// The workspace's dependencies that are not its own crates.
fn third_party(project: &Project) -> Vec<String> {
    let table: Option<toml::Table> = project.file("Cargo.toml").and_then(|f| f.text.parse().ok());
    let dependencies = table.as_ref().and_then(|t| t.get("workspace")?.get("dependencies")?.as_table());
    let rows = dependencies.into_iter().flatten();
    rows.filter(|(_, value)| value.get("path").is_none()).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_rule;

    #[test]
    fn documents_come_in_pairs_and_links_lead_somewhere() {
        check_rule(languages, &[("docs/en/a.md", ""), ("docs/ja/a.md", "")], &[]);
        check_rule(languages, &[("docs/en/a.md", "")], &[("docs/en/a.md", 0)]);
        check_rule(languages, &[("README.ja.md", "")], &[("README.ja.md", 0)]);
        check_rule(
            languages,
            &[("A.md", "see [b](docs/b.md#c)\n[d](D.md)"), ("docs/b.md", "[a](../A.md)")],
            &[("A.md", 2)],
        );
    }

    #[test]
    fn the_architecture_is_complete() {
        let rules: String = RULES.iter().map(|r| format!("- {}\n", r.says)).collect();
        let check = |text: &str, expected: &[(&str, usize)]| {
            let manifest = "[workspace.dependencies]\nhalf = \"2\"\ntensor = { path = \"x\" }";
            check_rule(architecture, &[("Cargo.toml", manifest), ("ARCHITECTURE.md", text)], expected);
        };
        let table = |names: &str| format!("{rules}## Dependencies\n| {names} | floats |");
        let n_rules = RULES.len();
        check(&table("`half`"), &[]);
        check(&rules, &[("ARCHITECTURE.md", 0)]);
        check(&table("`half`, `rand`"), &[("ARCHITECTURE.md", n_rules + 2)]);
        check(&format!("{}{}", table("`half`"), "\n".repeat(300)), &[("ARCHITECTURE.md", ARCHITECTURE_LINES + 1)]);
    }
}
