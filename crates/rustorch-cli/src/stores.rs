//! Models that are on this machine already (specification 4.11): where other programs keep them, found without changing
//! anything, and the names by which they can be asked for.
//!
//! Places and layouts are those that the programs document: ollama's manifests and blobs, LM Studio's and Jan's folders, the
//! Hugging Face Hub's cache, llama.cpp's and GPT4All's files. What does not belong here: what is in a model (`checkpoint`).

use crate::paths;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Folders below each other that are looked into.
const MAX_DEPTH: usize = 6;
/// Entries that are looked at in one store.
const MAX_ENTRIES: usize = 65_536;
/// A larger manifest is none.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A model somewhere on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// What it is asked for by.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) store: &'static str,
    /// The file or folder.
    pub(crate) path: PathBuf,
}

/// How a store is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Model files and folders, named by their paths below the store.
    Tree,
    /// `models--OWNER--NAME/snapshots/REVISION/…`.
    Hub,
    /// `manifests/…/NAME/TAG`, each naming a file in `blobs/`.
    Manifests,
}

/// Where a path begins.
#[derive(Clone, Copy, Debug)]
enum Root {
    Home,
    /// An environment variable.
    Variable(&'static str),
    Absolute,
}

/// Every store: whose, where, and how it is laid out. Several places may be of one program.
const STORES: &[(&str, Root, &str, Layout)] = &[
    ("rustorch", Root::Home, ".rustorch/models", Layout::Tree),
    ("ollama", Root::Variable("OLLAMA_MODELS"), "", Layout::Manifests),
    ("ollama", Root::Home, ".ollama/models", Layout::Manifests),
    ("ollama", Root::Absolute, "/usr/share/ollama/.ollama/models", Layout::Manifests),
    ("LM Studio", Root::Home, ".lmstudio/models", Layout::Tree),
    ("LM Studio", Root::Home, ".cache/lm-studio/models", Layout::Tree),
    ("Hugging Face", Root::Variable("HF_HUB_CACHE"), "", Layout::Hub),
    ("Hugging Face", Root::Variable("HF_HOME"), "hub", Layout::Hub),
    ("Hugging Face", Root::Home, ".cache/huggingface/hub", Layout::Hub),
    ("llama.cpp", Root::Variable("LLAMA_CACHE"), "", Layout::Tree),
    ("llama.cpp", Root::Home, ".cache/llama.cpp", Layout::Tree),
    ("llama.cpp", Root::Home, "Library/Caches/llama.cpp", Layout::Tree),
    ("llama.cpp", Root::Variable("LOCALAPPDATA"), "llama.cpp", Layout::Tree),
    ("GPT4All", Root::Home, ".local/share/nomic.ai/GPT4All", Layout::Tree),
    ("GPT4All", Root::Home, "Library/Application Support/nomic.ai/GPT4All", Layout::Tree),
    ("GPT4All", Root::Variable("LOCALAPPDATA"), "nomic.ai/GPT4All", Layout::Tree),
    ("Jan", Root::Home, ".local/share/Jan/data", Layout::Tree),
    ("Jan", Root::Home, "jan/models", Layout::Tree),
    ("Jan", Root::Home, "Library/Application Support/Jan/data", Layout::Tree),
    ("Jan", Root::Variable("APPDATA"), "Jan/data", Layout::Tree),
];

/// Endings of files that are models by themselves.
const FILES: &[&str] = &["gguf", "onnx"];
/// Endings of weights that need the files beside them: the folder is the model.
const WEIGHTS: &[&str] = &["safetensors", "bin"];

/// All models of all stores, each file once, ordered by store and name.
pub(crate) fn all() -> Vec<Found> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for &(store, root, below, layout) in STORES {
        let base = match root {
            Root::Home => paths::home(),
            Root::Variable(name) => std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from),
            Root::Absolute => Some(PathBuf::new()),
        };
        let Some(dir) = base.map(|base| if below.is_empty() { base } else { base.join(below) }) else { continue };
        for (name, path) in models_in(&dir, layout) {
            let same = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            if seen.insert(same) {
                found.push(Found { name, store, path });
            }
        }
    }
    found
}

/// The model that is part of the program.
pub(crate) fn in_program() -> impl Iterator<Item = Found> {
    let name = crate::demo::NAME;
    std::iter::once(Found { name: name.to_owned(), store: "built in", path: PathBuf::from(name) })
}

/// Models called `name`: those whose whole name it is; else those whose last part it is.
pub(crate) fn find(name: &str) -> Vec<Found> {
    matching(all(), name)
}

fn matching(all: Vec<Found>, name: &str) -> Vec<Found> {
    let last = |full: &str| full.rsplit('/').next().unwrap_or_default().to_lowercase();
    let (whole, wanted) = (name.to_lowercase(), format!("{}:latest", name.to_lowercase()));
    let exact = |found: &&Found| [&whole, &wanted].contains(&&found.name.to_lowercase());
    let exact: Vec<Found> = all.iter().filter(exact).cloned().collect();
    if exact.is_empty() { all.into_iter().filter(|found| last(&found.name) == whole).collect() } else { exact }
}

fn models_in(dir: &Path, layout: Layout) -> Vec<(String, PathBuf)> {
    let mut found = match layout {
        Layout::Tree => tree(dir),
        Layout::Hub => hub(dir),
        Layout::Manifests => manifests(dir),
    };
    found.sort();
    found
}

/// Names and paths below `dir`, folders of weights as a whole.
fn tree(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut budget = MAX_ENTRIES;
    walk(dir, MAX_DEPTH, &mut budget, &mut |path, names| {
        let ends = |name: &str, endings: &[&str]| {
            Path::new(name).extension().is_some_and(|e| endings.iter().any(|ending| e.eq_ignore_ascii_case(ending)))
        };
        let below = |path: &Path| {
            let parts = path.strip_prefix(dir).unwrap_or(path).components();
            parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect::<Vec<_>>().join("/")
        };
        if names.iter().any(|name| name == "config.json") && names.iter().any(|name| ends(name, WEIGHTS)) {
            found.push((below(path), path.to_path_buf()));
            return;
        }
        for name in names.iter().filter(|name| ends(name, FILES) && !is_later_part(name)) {
            let whole = path.join(name);
            let stem = below(&whole.with_extension(""));
            found.push((stem, whole));
        }
    });
    found
}

/// Part two and above of a split model.
fn is_later_part(name: &str) -> bool {
    let part = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-"));
    part.and_then(|(before, _)| before.rsplit_once('-'))
        .is_some_and(|(_, number)| number.len() == 5 && number.parse::<u32>().is_ok_and(|number| number > 1))
}

/// Calls `visit` with each folder and the names of its files.
fn walk(dir: &Path, depth: usize, budget: &mut usize, visit: &mut dyn FnMut(&Path, &[String])) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let (mut names, mut dirs) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        let Some(left) = budget.checked_sub(1) else { return };
        *budget = left;
        let Ok(kind) = entry.file_type() else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Links to files are how some stores keep them; links to folders could lead in circles.
        if kind.is_dir() {
            dirs.push(entry.path());
        } else if kind.is_file() || entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    dirs.sort();
    visit(dir, &names);
    if depth > 0 {
        dirs.iter().for_each(|dir| walk(dir, depth - 1, budget, visit));
    }
}

/// The newest snapshot of each repository.
fn hub(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries.flatten().take(MAX_ENTRIES) {
        let Ok(folder) = entry.file_name().into_string() else { continue };
        let Some(repository) = folder.strip_prefix("models--") else { continue };
        let repository = repository.replace("--", "/");
        let Ok(snapshots) = std::fs::read_dir(entry.path().join("snapshots")) else { continue };
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|facts| facts.modified()).ok();
        let Some(newest) = snapshots.flatten().map(|entry| entry.path()).max_by_key(changed) else { continue };
        for (name, path) in tree(&newest) {
            found.push((if name.is_empty() { repository.clone() } else { format!("{repository}/{name}") }, path));
        }
    }
    found
}

/// What is read of a manifest.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<ManifestLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestLayer {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    digest: String,
}

/// Models that manifests name, as `NAME:TAG` (before it the owner, where there is one).
fn manifests(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let (top, mut budget) = (dir.join("manifests"), MAX_ENTRIES);
    walk(&top, MAX_DEPTH, &mut budget, &mut |path, names| {
        for tag in names {
            let text = crate::safe_write::read_text(&path.join(tag), MAX_MANIFEST_BYTES);
            let Some(manifest) = text.ok().and_then(|text| serde_json::from_str::<Manifest>(&text).ok()) else {
                continue;
            };
            let is_model = |layer: &&ManifestLayer| layer.media_type.ends_with(".image.model");
            let Some(layer) = manifest.layers.iter().find(is_model) else { continue };
            // A digest is a plain file name: it cannot lead elsewhere.
            let blob = layer.digest.replace(':', "-");
            let is_plain = blob.strip_prefix("sha256-").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let blob = dir.join("blobs").join(blob);
            if !is_plain || !blob.is_file() {
                continue;
            }
            // The first folder is the host it came from, `library` the owner of those without one.
            let parts = path.strip_prefix(&top).unwrap_or(path).components().skip(1);
            let parts: Vec<String> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
            let name = parts.join("/");
            let name = name.strip_prefix("library/").unwrap_or(&name);
            found.push((format!("{name}:{tag}"), blob));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], layout: Layout, expected: &[(&str, &str)]) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let found = models_in(dir.path(), layout);
        let found: Vec<(String, String)> = found
            .into_iter()
            .map(|(name, path)| (name, path.strip_prefix(dir.path()).unwrap().to_string_lossy().replace('\\', "/")))
            .collect();
        let expected: Vec<(String, String)> = expected.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn layouts() {
        check(
            &[
                ("pub/repo/a-Q4.gguf", ""),
                ("pub/repo/readme.md", ""),
                ("b-00001-of-00002.gguf", ""),
                ("b-00002-of-00002.gguf", ""),
                ("folder/config.json", ""),
                ("folder/model.safetensors", ""),
                ("folder/x.gguf", ""),
            ],
            Layout::Tree,
            &[
                ("b-00001-of-00002", "b-00001-of-00002.gguf"),
                ("folder", "folder"),
                ("pub/repo/a-Q4", "pub/repo/a-Q4.gguf"),
            ],
        );
        check(
            &[
                ("models--org--name/snapshots/abc/config.json", ""),
                ("models--org--name/snapshots/abc/model.safetensors", ""),
                ("models--org--gg/snapshots/abc/m.gguf", ""),
                ("datasets--org--data/snapshots/abc/m.gguf", ""),
                ("models--org--empty/refs/main", ""),
            ],
            Layout::Hub,
            &[("org/gg/m", "models--org--gg/snapshots/abc/m.gguf"), ("org/name", "models--org--name/snapshots/abc")],
        );
        let manifest = |digest: &str| {
            format!(r#"{{"layers":[{{"mediaType":"application/x.image.model","digest":"{digest}","size":1}}]}}"#)
        };
        check(
            &[
                ("manifests/host/library/tiny/latest", &manifest("sha256:ab12")),
                ("manifests/host/me/own/1b", &manifest("sha256:ab12")),
                ("manifests/host/library/gone/latest", &manifest("sha256:ffff")),
                ("manifests/host/library/evil/latest", &manifest("sha256:../../x")),
                ("manifests/host/library/broken/latest", "{"),
                ("blobs/sha256-ab12", ""),
            ],
            Layout::Manifests,
            &[("me/own:1b", "blobs/sha256-ab12"), ("tiny:latest", "blobs/sha256-ab12")],
        );
        check(&[], Layout::Manifests, &[]);
    }

    #[test]
    fn names_are_found_whole_or_by_their_last_part() {
        let found = |name: &str| Found { name: name.into(), store: "s", path: name.into() };
        let all = || vec![found("pub/repo/A-Q4"), found("other/a-q4"), found("tiny:latest"), found("tiny:1b")];
        let names = |wanted: &str| matching(all(), wanted).into_iter().map(|f| f.name).collect::<Vec<_>>();
        assert_eq!(names("pub/repo/a-q4"), ["pub/repo/A-Q4"]);
        assert_eq!(names("a-Q4"), ["pub/repo/A-Q4", "other/a-q4"]);
        assert_eq!(names("tiny"), ["tiny:latest"]);
        assert_eq!(names("tiny:1b"), ["tiny:1b"]);
        assert!(names("b").is_empty());
    }
}
