//! Models as they were when first used: changes are named, whoever made them.

use crate::support::{Home, llama};
use std::{path::PathBuf, time::Duration};

/// A copy of the small model in the home.
fn copied(home: &Home) -> PathBuf {
    let path = home.path().join("m.gguf");
    std::fs::copy(llama(), &path).unwrap();
    path
}

fn used(home: &Home, code: i32) -> String {
    let base = ["logits", "--model", "m.gguf", "--tokens", "1,2", "--out", "l.npy"];
    home.run(&base).ends_with(code).err
}

/// Turns the last byte of the file, which is in its last tensor.
fn damage(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_changed_model_is_refused_by_name() {
    let home = Home::new();
    let path = copied(&home);
    used(&home, 0);
    assert!(home.path().join(".rustorch/models.lock").exists());
    used(&home, 0);
    // Written to, and still the same.
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(9)).unwrap();
    used(&home, 0);
    damage(&path);
    let err = used(&home, 3);
    assert!(err.contains("changed tensors: ") && err.contains("verify --accept"), "{err}");
    home.run(&["logits", "--model", "m.gguf", "--tokens", "1", "--out", "l.npy", "--no-model-lock"]).ends_with(0);
    home.run(&["verify", "m.gguf"]).ends_with(3);
    home.run(&["verify", "m.gguf", "--accept"]).ends_with(0);
    used(&home, 0);
    let again = home.run(&["verify", "m.gguf"]).ends_with(0);
    assert!(again.err.contains("unchanged") && again.text().contains("m.gguf"), "{}", again.err);
    // What this program makes itself is no change.
    std::fs::copy(llama(), home.path().join("o.gguf")).unwrap();
    home.run(&["convert", "o.gguf", "m.gguf", "--force", "--type", "Q8_0"]).ends_with(0);
    used(&home, 0);
}

#[test]
fn nothing_is_remembered_when_nothing_may_be_written() {
    let home = Home::new();
    copied(&home);
    home.run(&["logits", "--model", "m.gguf", "--tokens", "1", "--out", "l.npy", "--ephemeral"]).ends_with(0);
    assert!(!home.path().join(".rustorch/models.lock").exists());
    home.file(".rustorch/models.lock", "{ not ours");
    assert!(used(&home, 0).contains("models.lock"));
    assert_eq!(std::fs::read_to_string(home.path().join(".rustorch/models.lock")).unwrap(), "{ not ours");
}

#[test]
fn published_checksums() {
    let home = Home::new();
    let path = copied(&home);
    let sums = home.run(&["verify", "m.gguf"]).ends_with(0).text().to_owned();
    let (sum, _) = sums.split_once(' ').unwrap();
    assert_eq!(sum.len(), 64);
    home.file("SHA256SUMS", &format!("{}  other.gguf\n{sum} *models/m.gguf\n", "0".repeat(64)));
    let ran = home.run(&["verify", "m.gguf", "--sums", "SHA256SUMS"]).ends_with(0);
    assert!(ran.err.contains("published"), "{}", ran.err);
    home.file("wrong", &format!("{}  m.gguf\n", "0".repeat(64)));
    assert!(home.run(&["verify", "m.gguf", "--sums", "wrong"]).ends_with(3).err.contains(sum));
    home.file("other", &format!("{sum}  other.gguf\n"));
    home.run(&["verify", "m.gguf", "--sums", "other"]).ends_with(2);
    home.file("none", "nothing of the kind");
    home.run(&["verify", "m.gguf", "--sums", "none"]).ends_with(2);
    damage(&path);
    home.run(&["verify", "m.gguf", "--sums", "SHA256SUMS", "--accept"]).ends_with(3);
}
