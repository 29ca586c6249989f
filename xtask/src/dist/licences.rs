//! Whose work is in the program: every package that is linked, its licence, and the texts that have to go along.
//!
//! Cargo says what is linked for a target; the texts are the files of the packages themselves. Equal texts are printed
//! once. A package without a text is named with its licence and where it comes from.

use super::cargo;
use super::targets::Target;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// How files that hold a licence begin.
const TEXTS: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What is read of `cargo metadata`.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    /// None: ours.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// None: an ordinary one, which is linked.
    kind: Option<String>,
}

/// The document for the program of a target.
pub(super) fn text(root: &Path, target: &Target) -> Result<String> {
    let output = cargo(root)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", target.triple])
        .output()
        .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
    if !output.status.success() {
        return Err(Error::Dist(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|e| Error::Dist(format!("cargo metadata: {e}")))?;
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut out = String::from(
        "Software of others that is part of this program, with its licences.\nWritten by `cargo xtask dist`.\n\n",
    );
    for package in linked(&metadata, "rustorch-cli") {
        let Some(licence) = package.license.as_deref().filter(|licence| !licence.is_empty()) else {
            return Err(Error::Dist(format!("{} {} names no licence", package.name, package.version)));
        };
        let name = format!("{} {}", package.name, package.version);
        let texts = texts_of(package)?;
        let note = if texts.is_empty() { " (the package holds no text of it)" } else { "" };
        let _ = writeln!(out, "{name}: {licence}{note}\n    {}", package.repository.as_deref().unwrap_or_default());
        for text in texts {
            owners.entry(text).or_default().push(name.clone());
        }
    }
    for (text, names) in owners {
        let line = "=".repeat(80);
        let _ = write!(out, "\n{line}\n{}\n{line}\n\n{}\n", names.join(", "), text.trim_end());
    }
    Ok(out)
}

/// The packages of others that are linked into `name`, by name.
fn linked<'a>(metadata: &'a Metadata, name: &str) -> Vec<&'a Package> {
    let package = |id: &str| metadata.packages.iter().find(|package| package.id == id);
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> =
        metadata.packages.iter().filter(|p| p.name == name && p.source.is_none()).map(|p| p.id.as_str()).collect();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = metadata.resolve.nodes.iter().find(|node| node.id == id);
        let linked = node.into_iter().flat_map(|node| &node.deps);
        open.extend(linked.filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none())).map(|d| d.pkg.as_str()));
    }
    let mut found: Vec<&Package> = seen.into_iter().filter_map(package).filter(|p| p.source.is_some()).collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    found
}

fn texts_of(package: &Package) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().unwrap_or(&package.manifest_path);
    let failed = |cause| Error::Io { path: folder.to_path_buf(), cause };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && TEXTS.iter().any(|begin| name.starts_with(begin)) {
            files.push(path);
        }
    }
    files.sort();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(|cause| Error::Io { path: path.clone(), cause })?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
    };
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_counts() {
        let package = |name: &str, ours: bool| {
            let source = if ours { "null" } else { "\"registry\"" };
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1","license":"MIT","repository":null,"source":{source},"manifest_path":"/x/Cargo.toml"}}"#
            )
        };
        let to = |name: &str, kind: &str| format!(r#"{{"pkg":"{name}","dep_kinds":[{{"kind":{kind}}}]}}"#);
        let node = |name: &str, deps: &[String]| format!(r#"{{"id":"{name}","deps":[{}]}}"#, deps.join(","));
        let text = format!(
            r#"{{"packages":[{}],"resolve":{{"nodes":[{}]}}}}"#,
            [package("cli", true), package("a", false), package("b", false), package("test", false)].join(","),
            [
                node("cli", &[to("a", "null"), to("test", "\"dev\"")]),
                node("a", &[to("b", "null"), to("test", "\"build\"")]),
                node("b", &[to("a", "null")]),
                node("test", &[]),
            ]
            .join(",")
        );
        let metadata: Metadata = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = linked(&metadata, "cli").into_iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
