//! Each limit of a file's head, on either side of it.

use crate::{
    open::{MAPPED, write},
    writer::{Writer, array, string},
};
use checkpoint::Checkpoint;

/// Opens `bytes`, followed by zeros up to `file_len` that take no room on the disk.
#[track_caller]
fn check(bytes: &[u8], file_len: Option<u64>, refused: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", bytes);
    if let Some(len) = file_len {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
    }
    match (Checkpoint::open(&path, &MAPPED), refused) {
        (Ok(_), None) => {}
        (Err(error), Some(expected)) if error.to_string().contains(expected) => {}
        (result, expected) => panic!("{result:?}, expected {expected:?}"),
    }
}

fn with_keys(n: usize) -> Vec<u8> {
    (0..n).fold(Writer::new(), |writer, i| writer.key(&format!("k{i}"), 7, &[1])).bytes()
}

fn with_tensors(n: u64) -> Vec<u8> {
    let mut writer = (0..n).fold(Writer::new(), |writer, i| writer.tensor_at(&format!("t{i}"), &[4], 0, i * 32));
    writer.data = vec![0; n as usize * 32];
    writer.bytes()
}

#[test]
fn counts() {
    check(&with_keys(65_536), None, None);
    check(&with_keys(65_537), None, Some("metadata key count 65537"));
    check(&with_tensors(131_072), None, None);
    check(&with_tensors(131_073), None, Some("tensor count 131073"));
}

#[test]
fn names() {
    let key = |n: usize| Writer::new().key(&"k".repeat(n), 7, &[1]).bytes();
    check(&key(65_535), None, None);
    check(&key(65_536), None, Some("length 65536 of key"));
    let tensor = |n: usize| Writer::new().tensor(&"t".repeat(n), &[4], 24, &[0; 4]).bytes();
    check(&tensor(1024), None, None);
    check(&tensor(1025), None, Some("length 1025 of tensor name"));
}

#[test]
fn dimensions_and_alignments() {
    let tensor = |n: usize| Writer::new().tensor("t", &vec![1; n], 24, &[0]).bytes();
    check(&tensor(4), None, None);
    check(&tensor(5), None, Some("5 dimensions"));
    let aligned = |alignment: u32| {
        let mut writer = Writer::new().key("general.alignment", 4, &alignment.to_le_bytes());
        writer.alignment = alignment as usize;
        writer.tensor("t", &[1], 24, &[0]).bytes()
    };
    check(&aligned(1), None, None);
    check(&aligned(1 << 20), None, None);
    check(&aligned(1 << 21), None, Some("alignment 2097152"));
}

#[test]
fn nested_arrays() {
    let nested = |depth: usize| {
        let inner = array(4, 1, &7u32.to_le_bytes());
        let value = (1..depth).fold(inner, |inner, _| array(9, 1, &inner));
        Writer::new().key("nested", 9, &value).bytes()
    };
    check(&nested(4), None, None);
    check(&nested(5), None, Some("nested too deep"));
    let wide = |n: u64| Writer::new().key("wide", 9, &array(9, n, &array(4, 0, b"").repeat(n as usize))).bytes();
    check(&wide(4096), None, None);
    check(&wide(4097), None, Some("array length 4097"));
    let many =
        [array(9, 2048, &array(4, 0, b"").repeat(2048)), array(9, 2048, &array(4, 0, b"").repeat(2048))].concat();
    check(&Writer::new().key("many", 9, &array(9, 2, &many)).bytes(), None, Some("too many arrays"));
}

#[test]
fn long_strings_and_heads() {
    // The length is written, its bytes are the zeros that the file is extended by.
    let text = |len: u64| Writer::new().key("text", 8, &len.to_le_bytes()).bytes();
    check(&text(64 << 20), Some(65 << 20), None);
    check(&text((64 << 20) + 1), Some(65 << 20), Some("at most 67108864 bytes"));
    let numbers = |len: u64| Writer::new().key("numbers", 9, &array(0, len, b"")).bytes();
    check(&numbers(1000 << 20), Some(1 << 30), None);
    check(&numbers(1 << 30), Some((1 << 30) + 100), Some("too large"));
    let words = Writer::new().key("words", 9, &array(8, 1, &string(&[b'w'; 1000]))).bytes();
    check(&words, None, None);
}
