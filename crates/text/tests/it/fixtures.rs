//! Finding fixtures: the ones in the repository first, then the shared folder beside it.

use std::path::{Path, PathBuf};

/// The fixture `name`, or `None` (with a note) where the shared folder is absent and this is not CI.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let in_repo = root.join("fixtures").join(name);
    if in_repo.exists() {
        return Some(in_repo);
    }
    let shared = root.join("../shared/fixtures");
    let path = shared.join(name);
    if path.exists() {
        return Some(path);
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "fixture {name} is missing");
    assert!(!shared.exists(), "fixture {name} is missing from {}", shared.display());
    println!("skipped: fixture {name} is not here");
    None
}

/// A fixture that is JSON.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
