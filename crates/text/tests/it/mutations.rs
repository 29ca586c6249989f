//! The entry points of the fuzz targets, fed with mutated fixtures on stable Rust: whatever is changed, reading ends with an
//! error or a model. The mutations cluster where the structure of a file is: at its beginning and its end.

#[path = "../../../../fuzz/exercise.rs"]
mod exercise;

use crate::fixtures;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Bytes at each end that hold the structure of the files here.
const EDGE: usize = 6 << 10;

/// One change.
#[derive(Clone, Debug)]
enum Change {
    /// A byte.
    Set(u8),
    /// A bit.
    Flip(u8),
    /// A length or an offset.
    Number(u64),
    /// Bytes that go.
    Remove(usize),
    /// Bytes that come twice.
    Repeat(usize),
    /// The rest.
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    let numbers = prop_oneof![
        Just(0u64),
        Just(1),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(u64::from(u32::MAX)),
        Just(1 << 40),
        any::<u64>()
    ];
    prop_oneof![
        4 => any::<u8>().prop_map(Change::Set),
        4 => (0u8..8).prop_map(Change::Flip),
        4 => numbers.prop_map(Change::Number),
        1 => (1usize..64).prop_map(Change::Remove),
        1 => (1usize..64).prop_map(Change::Repeat),
        1 => Just(Change::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: usize, change: &Change) {
    // The lower half of the places counts from the front, the upper half from the end.
    let at = if at < EDGE { at } else { bytes.len().saturating_sub(2 * EDGE - at) }.min(bytes.len().saturating_sub(1));
    let up_to = |n: usize, bytes: &[u8]| at..at.saturating_add(n).min(bytes.len());
    match change {
        Change::Set(value) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *value),
        Change::Flip(bit) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit),
        Change::Number(number) => {
            bytes.iter_mut().skip(at).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new)
        }
        Change::Remove(n) => {
            let range = up_to(*n, bytes);
            bytes.drain(range);
        }
        Change::Repeat(n) => {
            let twice = bytes[up_to(*n, bytes)].to_vec();
            bytes.splice(at..at, twice);
        }
        Change::Cut => bytes.truncate(at),
    }
}

/// Feeds `read` with `cases` mutations of a fixture.
fn check(fixture: &str, cases: u32, read: fn(&[u8])) {
    let Some(path) = fixtures::find(fixture) else { return };
    let good = std::fs::read(path).unwrap();
    read(&good);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let changes = prop::collection::vec((0..2 * EDGE, change()), 1..6);
    let result = TestRunner::new(config).run(&changes, |changes| {
        let mut bytes = good.clone();
        changes.iter().for_each(|(at, change)| apply(&mut bytes, *at, change));
        read(&bytes);
        Ok(())
    });
    assert!(result.is_ok(), "{fixture}: {result:?}");
}

#[test]
fn gguf() {
    check("archs/llama/model.gguf", 96, exercise::gguf);
    check("archs/phi3/model.gguf", 96, exercise::gguf);
}

#[test]
fn safetensors() {
    check("families/gpt2/hf/model.safetensors", 128, exercise::safetensors);
}

#[test]
fn pickle() {
    check("demo/pytorch/model/pytorch_model.bin", 96, exercise::pickle);
}

#[test]
fn protobuf() {
    check("onnx/genai-int4/model.onnx", 96, exercise::protobuf);
}

#[test]
fn tokenizer_json() {
    check("archs/llama/hf/tokenizer.json", 96, exercise::tokenizer_json);
}

#[test]
fn template() {
    check("onnx/genai-int4/chat_template.jinja", 96, exercise::template);
}
