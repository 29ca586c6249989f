//! Safetensors and the directories they come in: good ones, damaged ones, hostile ones.

use crate::open::{MAPPED, READ, write};
use checkpoint::{Checkpoint, Error, OpenOptions, Value};
use proptest::prelude::*;
use std::path::Path;
use tensor::DType;

/// A file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

const TWO: &str = r#"{"__metadata__": {"format": "pt"},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}  "#;
const TWO_DATA: [u8; 22] = [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 128, 63, 0, 64, 64, 64];
const CONFIG: &str = r#"{"model_type": "none", "hidden_size": 4, "torch_dtype": null,
    "rope": {"factor": 2.5, "long": [1, 1.5]}, "layer_types": ["x", "y"], "auto_map": {"AutoModel": "m.py"}}"#;

/// A directory of those files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        write(directory.path(), name, bytes);
    }
    directory
}

#[test]
fn a_directory_and_the_file_in_it() {
    let two = file(TWO, &TWO_DATA);
    let directory = directory(&[
        ("model.safetensors", &two),
        ("config.json", CONFIG.as_bytes()),
        ("tokenizer.json", b"{}"),
        ("a.tiktoken", b"x"),
        ("q.gguf", b"GGUF"),
    ]);
    for options in [MAPPED, READ] {
        for path in [directory.path().to_owned(), directory.path().join("model.safetensors")] {
            let model = Checkpoint::open(&path, &options).unwrap();
            assert_eq!((model.format(), model.tensors().len()), ("safetensors", 2));
            let metadata = model.metadata();
            assert_eq!(metadata.str("config.model_type").unwrap(), Some("none"));
            assert_eq!(metadata.u32("config.hidden_size").unwrap(), Some(4));
            assert!(matches!(metadata.get("config.torch_dtype"), Some(Value::Null)));
            assert_eq!(metadata.str("config.torch_dtype").unwrap(), None);
            assert_eq!(metadata.f32("config.rope.factor").unwrap(), Some(2.5));
            assert_eq!(metadata.f32_array("config.rope.long").unwrap(), Some(vec![1.0, 1.5]));
            assert_eq!(metadata.string_array("config.layer_types").unwrap().unwrap().get(1), Some(b"y".as_slice()));
            assert_eq!(metadata.str("safetensors.format").unwrap(), Some("pt"));
            let a = model.load("a").unwrap();
            assert_eq!((a.dtype(), a.shape().dims()), (DType::F32, [2, 2].as_slice()));
            assert_eq!(a.to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(model.load("b").unwrap().to_f32().unwrap(), [1.0, 2.0, 3.0]);
            assert_eq!(model.sidecars().collect::<Vec<_>>(), ["a.tiktoken", "tokenizer.json"]);
            assert_eq!(model.sidecar("tokenizer.json").unwrap().unwrap()[..], *b"{}");
            assert!(model.sidecar("config.json").unwrap().is_none());
            assert!(model.notes().iter().any(|note| note.contains("auto_map")), "{:?}", model.notes());
            let others: &[&str] = if path.is_dir() { &["gguf"] } else { &[] };
            assert_eq!(model.other_formats(), others);
        }
    }
}

#[test]
fn a_file_alone_opens_and_a_directory_needs_its_config() {
    let directory = directory(&[("lone.safetensors", &file(TWO, &TWO_DATA))]);
    let model = Checkpoint::open(&directory.path().join("lone.safetensors"), &MAPPED).unwrap();
    assert!(model.notes()[0].contains("config.json"));
    let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
    assert!(error.contains("no config.json"), "{error}");
}

const FIRST: &str = r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}"#;
const SECOND: &str = r#"{"b": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}}"#;

fn index(map: &str) -> Vec<u8> {
    format!(r#"{{"metadata": {{"total_size": 10}}, "weight_map": {map}}}"#).into_bytes()
}

#[test]
fn shards() {
    let map = index(r#"{"a": "x-1.safetensors", "b": "x-2.safetensors"}"#);
    let (first, second) = (file(FIRST, &[1, 2]), file(SECOND, &[9, 0, 0, 0, 0, 0, 0, 0]));
    let directory = directory(&[
        ("model.safetensors.index.json", &map),
        ("x-1.safetensors", &first),
        ("x-2.safetensors", &second),
        ("config.json", b"{}"),
    ]);
    for path in [directory.path().to_owned(), directory.path().join("x-2.safetensors")] {
        let model = Checkpoint::open(&path, &MAPPED).unwrap();
        assert_eq!(model.files().len(), 2);
        assert_eq!(model.load("a").unwrap().to_f32().unwrap(), [1.0, 2.0]);
        assert_eq!(model.load("b").unwrap().to_f32().unwrap(), [9.0]);
    }
}

#[test]
fn bad_indices() {
    #[track_caller]
    fn check(bytes: &[u8], parts: &[&str]) {
        let first = file(FIRST, &[1, 2]);
        let files = [("model.safetensors.index.json", bytes), ("x.safetensors", &first), ("config.json", b"{}")];
        let error = Checkpoint::open(directory(&files).path(), &MAPPED).unwrap_err().to_string();
        assert!(error.contains("index.json"), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    check(b"[]", &["object"]);
    check(b"{", &["JSON", "line 1"]);
    check(b"{}", &["weight_map"]);
    for map in ["null", "3", "[]", r#""x""#] {
        check(&index(map), &["weight_map"]);
    }
    check(&index("{}"), &["0 shards"]);
    check(&index(r#"{"a": 1}"#), &["weight_map", "no string"]);
    check(&index(r#"{"a": "../x.safetensors"}"#), &["`../x.safetensors`", "not a plain file name"]);
    check(&index(r#"{"a": "/etc/passwd"}"#), &["not a plain file name"]);
    check(&index(r#"{"a": "y.safetensors"}"#), &["`y.safetensors` is missing"]);
    check(&index(r#"{"a": "x.safetensors", "c": "x.safetensors"}"#), &["`c` is missing in the shard"]);
    check(&index(r#"{"a": "x.safetensors", "a": "x.safetensors"}"#), &["duplicate key `a`"]);
    check(&index(r#"{"a": "model.safetensors.index.json"}"#), &["header"]);
}

/// Opens `bytes` as a directory's weights, mapped and read: the same error both times, with all `parts`.
#[track_caller]
fn check(bytes: &[u8], parts: &[&str]) {
    let directory = directory(&[("model.safetensors", bytes), ("config.json", b"{}")]);
    let errors = [MAPPED, READ].map(|options| Checkpoint::open(directory.path(), &options).unwrap_err().to_string());
    assert_eq!(errors[0], errors[1]);
    let error = &errors[0];
    assert!(error.contains("model.safetensors") && error.len() <= 2000, "{error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
    for part in parts {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn damaged_headers() {
    check(b"", &["empty"]);
    check(&[0; 7], &["header", "too short"]);
    check(&[0; 8], &["header", "begin with `{`"]);
    for len in [u64::MAX, 1 << 63, 100_000_001] {
        check(&[&len.to_le_bytes(), &b"{}"[..]].concat(), &["header", "length", "too large"]);
    }
    check(&[&3u64.to_le_bytes(), &b"{}"[..]].concat(), &["header", "truncated"]);
    check(&file("[]", b""), &["header", "no JSON object"]);
    check(&file(" {}", b""), &["header", "begin with `{`"]);
    check(&file("{} x", b""), &["header", "invalid JSON", "trailing"]);
    check(&file("{\"\u{1b}", b""), &["header", "invalid JSON"]);
    check(&file("{}", b"x"), &["header", "1 bytes of data follow"]);
    check(&file(r#"{"__metadata__": {"a": 1}}"#, b""), &["__metadata__", "strings"]);
    check(&file(r#"{"__metadata__": {}, "__metadata__": {}}"#, b""), &["duplicate"]);
    let deep = format!(r#"{{"__metadata__": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
    check(&file(&deep, b""), &["header", "recursion limit"]);
}

#[test]
fn damaged_tensors() {
    let one = |dtype: &str, shape: &str, offsets: &str, data: &[u8]| {
        file(&format!(r#"{{"t": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}}}"#), data)
    };
    let f32 = r#""F32""#;
    check(&one(r#""F99""#, "[1]", "[0, 4]", &[0; 4]), &["`t`", "type `F99`", "not supported"]);
    check(&one(r#""Q4_K""#, "[256]", "[0, 144]", &[0; 144]), &["type `Q4_K`"]);
    check(&one(r#""f32""#, "[1]", "[0, 4]", &[0; 4]), &["type `f32`"]);
    check(&one("7", "[1]", "[0, 4]", &[0; 4]), &["`t`", "invalid type"]);
    check(&one(f32, "[-1]", "[0, 4]", &[0; 4]), &["`t`", "-1"]);
    check(&one(f32, "[1.5]", "[0, 4]", &[0; 4]), &["`t`", "1.5"]);
    check(&one(f32, "{}", "[0, 4]", &[0; 4]), &["`t`", "a shape"]);
    check(&one(f32, "[1,1,1,1,1,1,1]", "[0, 4]", &[0; 4]), &["`t`", "more than 6 dimensions"]);
    check(&one(f32, "[4294967296, 4294967296]", "[0, 4]", &[0; 4]), &["`t`", "overflow"]);
    check(&one(f32, "[4611686018427387904]", "[0, 4]", &[0; 4]), &["`t`", "overflow"]);
    check(&one(f32, "[2]", "[0, 4]", &[0; 4]), &["`t`", "shape [2] of F32 needs 8 bytes"]);
    check(&one(f32, "[1]", "[4, 0]", &[0; 4]), &["`t`", "offsets are 4 to 0"]);
    check(&one(f32, "[1]", "[0, 4]", &[0; 3]), &["`t`", "truncated"]);
    check(&one(f32, "[1]", "[18446744073709551612, 18446744073709551615]", &[0; 4]), &["`t`", "beyond the end"]);
    check(&one(f32, "[1]", "[4, 8]", &[0; 8]), &["`t`", "hole"]);
    check(&one(f32, "[1]", "[0, 4, 8]", &[0; 4]), &["`t`"]);
    check(&file(r#"{"t": {"dtype": "U8", "shape": [0]}}"#, b""), &["`t`", "data_offsets"]);
    check(&file(r#"{"t": {"dtype": "U8", "dtype": "U8"}}"#, b""), &["`t`", "duplicate"]);
    check(&file(r#"{"t": {"dtype": "U8", "\u001b": 1}}"#, b""), &["`t`", "\\u{1b}"]);
    check(&file(r#"{"": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}"#, b""), &["length 0"]);
    let twice =
        FIRST.trim_end_matches('}').to_owned() + r#"}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}"#;
    check(&file(&twice, &[0; 4]), &["`a`", "duplicate"]);
    let overlap =
        FIRST.trim_end_matches('}').to_owned() + r#"}, "c": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#;
    check(&file(&overlap, &[0; 3]), &["`c`", "overlaps"]);
}

#[test]
fn descriptions_beside_the_weights() {
    let two = file(TWO, &TWO_DATA);
    #[track_caller]
    fn check(two: &[u8], name: &str, bytes: &[u8], part: &str) {
        let mut files = vec![("model.safetensors", two), ("config.json", b"{}")];
        files.retain(|(known, _)| *known != name);
        files.push((name, bytes));
        let error = Checkpoint::open(directory(&files).path(), &MAPPED).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
    check(&two, "config.json", b"", "empty");
    check(&two, "config.json", b"[]", "object");
    check(&two, "config.json", b"{\"a\"", "JSON");
    check(&two, "config.json", b"{\"a\": 1, \"a\": 2}", "duplicate key `a`");
    check(&two, "config.json", b"{\"a\": {\"b\": 1}, \"a.b\": 2}", "`config.a.b`");
    check(&two, "config.json", format!("{{\"{}\": {{\"b\": 1}}}}", "k".repeat(2000)).as_bytes(), "too long");
    check(&two, "config.json", &vec![b' '; (16 << 20) + 1], "too large");
    check(&two, "tokenizer_config.json", b"nonsense", "JSON");
    check(&two, "tokenizer.json", b"", "empty");
    let many: Vec<String> = (0..70_000).map(|i| format!("\"k{i}\": 1")).collect();
    check(&two, "config.json", format!("{{{}}}", many.join(",")).as_bytes(), "more than 65536 keys");
}

#[test]
fn limits_on_either_side() {
    #[track_caller]
    fn check(weights: &[u8], config: &str, refused: Option<&str>) {
        let files = [("model.safetensors", weights), ("config.json", config.as_bytes())];
        let directory = directory(&files);
        match (Checkpoint::open(directory.path(), &MAPPED), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) if error.to_string().contains(expected) => {}
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        }
    }
    let tensor =
        |name: &str, shape: &str| format!(r#""{name}": {{"dtype":"U8","shape":{shape},"data_offsets":[0,0]}}"#);
    let named = |len: usize| file(&format!("{{{}}}", tensor(&"n".repeat(len), "[0]")), b"");
    check(&named(1024), "{}", None);
    check(&named(1025), "{}", Some("tensor name of length 1025"));
    check(&file(&format!("{{{}}}", tensor("t", "[0,1,1,1,1,1]")), b""), "{}", None);
    check(&file(&format!("{{{}}}", tensor("t", "[0,1,1,1,1,1,1]")), b""), "{}", Some("more than 6 dimensions"));
    let many = |n: usize| {
        let tensors: Vec<String> = (0..n).map(|i| tensor(&format!("t{i}"), "[0]")).collect();
        file(&format!("{{{}}}", tensors.join(",")), b"")
    };
    check(&many(131_072), "{}", None);
    check(&many(131_073), "{}", Some("more than 131072 tensors"));
    let empty = file("{}", b"");
    let keys = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(","));
    check(&empty, &keys(65_536), None);
    check(&empty, &keys(65_537), Some("more than 65536 keys"));
    // With `config.` before it.
    check(&empty, &format!("{{\"{}\": 1}}", "k".repeat(1017)), None);
    check(&empty, &format!("{{\"{}\": 1}}", "k".repeat(1018)), Some("too long"));
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    check(&empty, &nested(127), None);
    check(&empty, &nested(128), Some("recursion limit"));
    let numbers = |n: usize| format!("{{\"a\": [{}]}}", vec!["0"; n].join(","));
    check(&empty, &numbers((1 << 20) - 2), None);
    check(&empty, &numbers((1 << 20) - 1), Some("more than 1048576 values"));
    check(&empty, &format!("{{}}{}", " ".repeat((16 << 20) - 2)), None);
    check(&empty, &format!("{{}}{}", " ".repeat((16 << 20) - 1)), Some("too large"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_pipes_are_not() {
    let two = file(TWO, &TWO_DATA);
    let blobs = directory(&[("blob", &two)]);
    let links = directory(&[("config.json", b"{}")]);
    std::os::unix::fs::symlink(blobs.path().join("blob"), links.path().join("model.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(links.path(), &MAPPED).unwrap().tensors().len(), 2);
    let pipes = directory(&[("config.json", b"{}")]);
    let made = std::process::Command::new("mkfifo").arg(pipes.path().join("model.safetensors")).status();
    if made.is_ok_and(|status| status.success()) {
        let error = Checkpoint::open(pipes.path(), &MAPPED).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = file(TWO, &TWO_DATA);
    for len in 0..whole.len() {
        let directory = directory(&[("model.safetensors", &whole[..len]), ("config.json", b"{}")]);
        assert!(Checkpoint::open(directory.path(), &READ).is_err(), "{len} bytes of {}", whole.len());
    }
}

fn use_all(model: &Checkpoint) {
    model.metadata().iter().for_each(|(_, value)| drop(value.to_string()));
    for info in model.tensors() {
        model.load(&info.name).unwrap().to_f32().unwrap();
    }
}

fn open_changed(directory: &Path, name: &str, bytes: &[u8], mmap: bool) -> Result<(), TestCaseError> {
    write(directory, name, bytes);
    match Checkpoint::open(directory, &OpenOptions { mmap, ..OpenOptions::default() }) {
        Ok(model) => use_all(&model),
        Err(error) => prop_assert!(error.to_string().len() <= 2000),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damage_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        which in 0..3usize,
        mmap in any::<bool>(),
    ) {
        let two = file(TWO, &TWO_DATA);
        let map = index(r#"{"a": "x.safetensors", "b": "x.safetensors"}"#);
        let (weights, changed) = [
            ("model.safetensors", "model.safetensors"),
            ("x.safetensors", "model.safetensors.index.json"),
            ("model.safetensors", "config.json"),
        ][which];
        let directory = directory(&[(weights, &two), ("config.json", CONFIG.as_bytes())]);
        let mut bytes = [two.clone(), map, CONFIG.as_bytes().to_vec()][which].clone();
        for (place, byte) in edits {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        open_changed(directory.path(), changed, &bytes, mmap)?;
    }
}
