//! Where fixtures lie and how their reference files are read. What is tested with them is elsewhere.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where a fixture is: the copy in the repository, then the one in the workplace's shared folder.
pub(crate) fn find_all(relative: &str) -> impl Iterator<Item = PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = [root.join("fixtures"), root.join("../shared/fixtures")];
    places.into_iter().map(move |place| place.join(relative)).filter(|path| path.exists())
}

/// A fixture that a test can do without here: a visible line when it is absent. CI fails when `kept`, the part of the
/// fixtures that the repository keeps, is absent.
pub(crate) fn find_or_skip(relative: &str, kept: bool) -> Option<PathBuf> {
    let path = find_all(relative).next();
    if path.is_none() {
        println!("skipped: there is no fixture {relative}");
        let in_ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!(in_ci && kept), "CI needs the fixture {relative}");
    }
    path
}

/// The names of what lies in a folder of the fixtures that the repository keeps, in order.
pub(crate) fn entries(folder: &str) -> Vec<String> {
    let Some(path) = find_or_skip(folder, true) else { return Vec::new() };
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Every quantized file, its prompt and its entry in the reference: those of the repository, then the others.
pub(crate) fn mixtures() -> Vec<(PathBuf, Vec<u32>, Value)> {
    let mut found: Vec<(PathBuf, Vec<u32>, Value)> = Vec::new();
    if find_or_skip("quants/reference.json", true).is_none() {
        return found;
    }
    for folder in find_all("quants") {
        let reference = json(&folder.join("reference.json"));
        for (file, entry) in reference["files"].as_object().unwrap() {
            let path = folder.join(file);
            if path.exists() && found.iter().all(|(known, ..)| !known.ends_with(file)) {
                found.push((path, ids(&reference["ids"]), entry.clone()));
            }
        }
    }
    assert!(found.len() >= 5, "{} quantized files", found.len());
    found
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| u32::try_from(v.as_u64().unwrap()).unwrap()).collect()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// A two-dimensional float32 array in C order (NumPy's format, version 1): its values.
pub(crate) fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert!(text.contains("'descr': '<f4'") && text.contains("'fortran_order': False"), "{text}");
    bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The largest difference between two arrays of the same length.
#[track_caller]
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|v| v.is_finite()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}
