//! Which crate may depend on which, read from the manifests and from `use` lines.

use super::Finding;
use crate::project::{File, Project};
use crate::source;

/// Folder below `crates/`, and its floor.
const FLOORS: &[(&str, usize)] = &[
    ("tensor", 0),
    ("checkpoint", 1),
    ("compute", 1),
    ("text", 2),
    ("model", 2),
    ("bridge", 3),
    ("engine", 3),
    ("rustorch-cli", 4),
    ("rustorch-server", 4),
];

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
}

pub(super) fn check(project: &Project) -> Vec<Finding> {
    let manifests = project.files().filter(|f| f.crate_name().is_some() && f.path.ends_with("/Cargo.toml"));
    let mut findings: Vec<Finding> = manifests.flat_map(manifest).collect();
    for file in project.rust() {
        let Some(own) = file.crate_name().and_then(floor) else { continue };
        for (number, line) in (1..).zip(&file.lines) {
            let Some(path) = line.code.trim_start().strip_prefix("use ") else { continue };
            let Some((_, first)) = source::names(path).next() else { continue };
            let local = path.starts_with("crate::") || project.file(&sibling(file, first)).is_some();
            if !local && file.crate_name() != Some(first) && floor(first).is_some_and(|f| f >= own) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    format!("imports `{first}`, which is not on a lower floor"),
                ));
            }
        }
    }
    findings
}

/// The file that a module `name` declared in `file` would live in, so that `use name::…` is not taken for a crate.
fn sibling(file: &File, name: &str) -> String {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{name}.rs")
}

fn manifest(file: &File) -> Vec<Finding> {
    let own = file.crate_name().unwrap_or_default();
    let Some(own_floor) = floor(own) else {
        return vec![Finding::new(
            &file.path,
            0,
            format!("crate `{own}` has no floor: give it one in xtask/src/tidy/floors.rs"),
        )];
    };
    let table: toml::Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&file.path, 0, format!("not a manifest: {error}"))],
    };
    let mut names = dependencies(&table);
    for target in table.get("target").and_then(|t| t.as_table()).into_iter().flatten() {
        names.extend(target.1.as_table().map(dependencies).unwrap_or_default());
    }
    let declares = |line: &str, name: &str| line.strip_prefix("rustorch-").unwrap_or(line).starts_with(name);
    let line = |name: &str| file.text.lines().position(|l| declares(l, name)).map_or(0, |n| n + 1);
    names
        .iter()
        .filter(|n| floor(n).is_some_and(|f| f >= own_floor))
        .map(|n| {
            let what = format!("`{own}` (floor {own_floor}) depends on `{n}`, which is not on a lower floor");
            Finding::new(&file.path, line(n), what)
        })
        .collect()
}

/// The names under every kind of dependency table, without the prefix that package names carry.
fn dependencies(table: &toml::Table) -> Vec<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| table.get(*kind)?.as_table())
        .flat_map(|t| t.keys())
        .map(|name| match name.strip_prefix("rustorch-") {
            Some(short) if floor(name).is_none() => short.to_owned(),
            _ => name.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_rule;

    #[test]
    fn imports_go_down() {
        let manifest = |own: &str, text: &str, expected: &[usize]| {
            let path = format!("crates/{own}/Cargo.toml");
            let places: Vec<(&str, usize)> = expected.iter().map(|n| (path.as_str(), *n)).collect();
            check_rule(check, &[(&path, text)], &places);
        };
        manifest("engine", "[dependencies]\nmodel.workspace = true\nserde = \"1\"", &[]);
        manifest("model", "[dependencies]\ntext.workspace = true", &[2]);
        manifest("tensor", "[dev-dependencies]\nengine = { path = \"x\" }", &[2]);
        manifest("compute", "[target.'cfg(unix)'.dependencies]\nrustorch-checkpoint = \"1\"", &[2]);
        manifest("attic", "[dependencies]", &[0]);
    }

    #[test]
    fn use_lines_go_down() {
        let source = |text: &str, others: &[(&str, &str)], expected: &[(&str, usize)]| {
            let mut files = vec![("crates/model/src/lib.rs", text)];
            files.extend_from_slice(others);
            check_rule(check, &files, expected);
        };
        source("//! M.\nuse tensor::DType;\nuse std::fmt;", &[], &[]);
        source("//! M.\nuse engine::Engine;", &[], &[("crates/model/src/lib.rs", 2)]);
        source("//! M.\nuse text::x;", &[("crates/model/src/text.rs", "")], &[]);
        source("//! M.\nuse crate::text::x;", &[], &[]);
    }
}
