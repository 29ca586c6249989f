//! Damaged and hostile GGUF files: one clear error each, never a panic, never more memory than the file justifies.

use crate::{
    open::{MAPPED, READ, write},
    writer::{Writer, array, string},
};
use checkpoint::{Checkpoint, Error};
use proptest::prelude::*;

/// Opens `bytes` as a file, mapped and read: both must give the same error, whose message has all `parts`.
#[track_caller]
fn check(bytes: &[u8], parts: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", bytes);
    let errors = [MAPPED, READ].map(|options| Checkpoint::open(&path, &options).unwrap_err().to_string());
    assert_eq!(errors[0], errors[1]);
    let error = &errors[0];
    assert!(error.contains("m.gguf"), "{error}");
    assert!(error.len() <= 2000 && !error.chars().any(char::is_control), "{error:?}");
    for part in parts {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

fn with(change: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::small();
    change(&mut writer);
    writer.bytes()
}

#[test]
fn headers() {
    check(&with(|w| w.version = 0), &["version 0"]);
    check(&with(|w| w.version = 1), &["version 1", "convert"]);
    check(&with(|w| w.version = 4), &["version 4"]);
    check(&with(|w| w.version = 3u32.swap_bytes()), &["big-endian", "version 3"]);
    check(&with(|w| w.magic = b"gguf".to_vec()), &["not a model file"]);
    for count in [u64::MAX, 1 << 63, 1 << 60, 1 << 32, u64::MAX / 24, 131_073] {
        check(&with(|w| w.n_tensors = Some(count)), &["tensor count", &count.to_string()]);
        check(&with(|w| w.n_keys = Some(count)), &["metadata key count", &count.to_string()]);
    }
    check(&with(|w| w.n_tensors = Some(100)), &["truncated", "tensor count 100"]);
    check(&with(|w| w.n_keys = Some(0)), &["general.architecture"]);
}

#[test]
fn keys_and_values() {
    let key = |value_type: u32, value: &[u8]| Writer::small().key("bad.key", value_type, value).bytes();
    let huge = |len: u64, rest: &[u8]| [&len.to_le_bytes(), rest].concat();
    check(&key(13, &[0; 8]), &["`bad.key`", "value type 13"]);
    check(&key(7, &[2]), &["`bad.key`", "neither 0 nor 1"]);
    check(&key(8, &huge(u64::MAX, b"x")), &["`bad.key`", "length 18446744073709551615", "string"]);
    check(&key(8, &huge(60 << 20, b"x")), &["`bad.key`", "truncated"]);
    check(&key(9, &array(0, u64::MAX, b"")), &["`bad.key`", "array length"]);
    check(&key(9, &array(10, 1 << 61, b"")), &["`bad.key`", "array length"]);
    check(&key(9, &array(8, 3, &string(b"one"))), &["`bad.key`"]);
    check(&key(9, &array(99, 1, &[0; 8])), &["`bad.key`", "array element type 99"]);
    check(&key(9, &array(9, 1, &array(99, 1, &[0; 4]))), &["`bad.key`", "array element type 99"]);
    check(&key(9, &array(7, 2, &[1, 2])), &["`bad.key`", "neither 0 nor 1"]);
    let raw = |bytes: &[u8]| Writer::small().raw_key(bytes).bytes();
    check(&raw(&huge(u64::MAX, b"k")), &["key number 7", "length 18446744073709551615"]);
    check(&raw(&huge(65_536, &[b'k'; 65_600])), &["length 65536", "at most 65535"]);
    check(&raw(&[string(b"k\xff\x1b"), vec![0; 5]].concat()), &["`k\\xff\\u{1b}`", "not UTF-8"]);
    check(&Writer::small().key("n.u32", 4, &[0; 4]).bytes(), &["`n.u32`", "duplicate"]);
}

#[test]
fn alignments() {
    let aligned = |value: u32| Writer::small().key("general.alignment", 4, &value.to_le_bytes()).bytes();
    check(&aligned(0), &["general.alignment", "alignment 0"]);
    check(&aligned(3), &["general.alignment", "alignment 3"]);
    check(&aligned(1 << 21), &["general.alignment"]);
    let text = Writer::small().key("general.alignment", 8, &string(b"32")).bytes();
    check(&text, &["general.alignment", "type string"]);
    let mut writer = Writer::new();
    writer.alignment = 64;
    let writer = writer.key("general.alignment", 4, &64u32.to_le_bytes());
    let writer = writer.tensor("a", &[1], 0, &[1; 4]).tensor("b", &[1], 0, &[2; 4]);
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", &writer.bytes());
    let model = Checkpoint::open(&path, &MAPPED).unwrap();
    assert_eq!(model.load("b").unwrap().bytes()[..], [2; 4]);
}

#[test]
fn tensors() {
    let tensor = |name: &str, ne: &[u64], dtype, offset| Writer::small().tensor_at(name, ne, dtype, offset).bytes();
    check(&tensor("t", &[1; 5], 0, 0), &["`t`", "5 dimensions"]);
    check(&tensor("t", &[], 0, 0), &["`t`", "0 dimensions"]);
    check(&tensor("t", &[0, 4], 0, 0), &["`t`", "shape", "zero"]);
    check(&tensor("t", &[u64::MAX, 4], 0, 0), &["`t`", "overflow"]);
    check(&tensor("t", &[1 << 32, 1 << 32], 0, 0), &["`t`", "overflow"]);
    check(&tensor("t", &[1 << 62], 0, 0), &["`t`", "overflow"]);
    check(&tensor("t", &[33], 8, 0), &["`t`", "33", "Q8_0"]);
    check(&tensor("t", &[256], 41, 0), &["`t`", "41 (Q1_0)", "not supported"]);
    check(&tensor("t", &[256], 4, 0), &["`t`", "type 4 (Q4_2, removed"]);
    check(&tensor("t", &[256], u32::MAX, 0), &["`t`", "type 4294967295 (unknown)"]);
    check(&tensor("t", &[1], 0, 1 << 40), &["`t`", "beyond the end"]);
    check(&tensor("t", &[1], 0, u64::MAX - 31), &["`t`", "offset", "beyond the end"]);
    check(&tensor("t", &[1], 0, 33), &["`t`", "alignment 32"]);
    check(&tensor("t", &[1], 0, 0), &["overlap", "`a`", "`t`"]);
    check(&tensor("", &[1], 0, 0), &["tensor number 2", "name is empty"]);
    check(&tensor(&"n".repeat(1025), &[1], 0, 0), &["length 1025 of tensor name"]);
    check(&Writer::small().tensor("a", &[1], 0, &[0; 4]).bytes(), &["`a`", "duplicate"]);
    let mut short = Writer::small().bytes();
    short.truncate(short.len() - 1);
    check(&short, &["`b`", "truncated"]);
}

#[test]
fn names_cannot_drive_a_terminal() {
    let writer = Writer::small().tensor_at("\u{1b}]0;title\u{7}\u{202e}", &[1], 99, 0);
    check(&writer.bytes(), &["\\u{1b}]0;title\\u{7}\\u{202e}"]);
}

#[test]
fn every_truncation_is_an_error() {
    let whole = Writer::small().bytes();
    let directory = tempfile::tempdir().unwrap();
    for len in 0..whole.len() {
        let path = write(directory.path(), "m.gguf", &whole[..len]);
        for options in [MAPPED, READ] {
            assert!(Checkpoint::open(&path, &options).is_err(), "{len} bytes of {}", whole.len());
        }
    }
}

#[test]
fn many_tensors_are_checked_quickly() {
    // Duplicate and overlap checks that compared all pairs would need 10^10 steps here.
    let mut writer = Writer::new();
    for i in 0..100_000u64 {
        writer = writer.tensor_at(&format!("t{i}"), &[8], 0, i * 32);
    }
    writer.data = vec![0; 3_200_000];
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", &writer.bytes());
    assert_eq!(Checkpoint::open(&path, &MAPPED).unwrap().tensors().len(), 100_000);
}

/// Uses everything an open checkpoint offers.
fn exercise(model: &Checkpoint) {
    for (key, value) in model.metadata().iter() {
        let _ = (key, value.to_string(), value.as_str());
        let _ = (model.metadata().u32_or_array(key), model.metadata().f32_array(key));
        if let Ok(Some(strings)) = model.metadata().string_array(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
    }
    for info in model.tensors() {
        match model.load(&info.name) {
            Ok(tensor) => drop(tensor.to_f32()),
            Err(error) => assert!(matches!(error, Error::Memory { .. }), "{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damage_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        mmap in any::<bool>(),
    ) {
        let mut bytes = Writer::small().bytes();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), "m.gguf", &bytes);
        match Checkpoint::open(&path, &checkpoint::OpenOptions { mmap, ..checkpoint::OpenOptions::default() }) {
            Ok(model) => exercise(&model),
            Err(error) => prop_assert!(error.to_string().len() <= 2000),
        }
    }
}
