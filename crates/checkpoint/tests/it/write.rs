//! Files that this crate writes are read back as what was written.

use checkpoint::{Checkpoint, Layout, NewTensor, OpenOptions, Part, Value};
use std::io;
use tensor::{DType, Shape};

fn tensors() -> Vec<NewTensor> {
    let tensor = |name: &str, dtype, dims: &[usize]| NewTensor {
        name: name.to_owned(),
        dtype,
        shape: Shape::new(dims).unwrap(),
    };
    vec![
        tensor("a", DType::F32, &[3]),
        tensor("b", DType::F16, &[2, 5]),
        tensor("日本", DType::BF16, &[2, 3, 4]),
        tensor("c", DType::F32, &[1, 1]),
    ]
}

/// The bytes of tensor `index`.
fn content(index: usize, tensor: &NewTensor) -> Vec<u8> {
    let n = tensor.dtype.tensor_bytes(&tensor.shape).unwrap();
    (0..n).map(|i| (i * 7 + index) as u8).collect()
}

#[track_caller]
fn check(layout: &Layout, name: &str, format: &str) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut file = Vec::new();
    let tensors = tensors();
    layout.write::<io::Error>(&mut file, |i, out| out.write_all(&content(i, &tensors[i]))).unwrap();
    assert_eq!(file.len() as u64, layout.file_bytes());
    std::fs::write(&path, file).unwrap();
    let checkpoint = Checkpoint::open(&path, &OpenOptions { mmap: false, ..OpenOptions::default() }).unwrap();
    assert_eq!(checkpoint.format(), format);
    assert_eq!(checkpoint.tensors().len(), tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        let loaded = checkpoint.load(&tensor.name).unwrap();
        assert_eq!((loaded.dtype(), loaded.shape()), (tensor.dtype, &tensor.shape));
        assert_eq!(loaded.bytes()[..], content(i, tensor), "{}", tensor.name);
    }
    checkpoint
}

#[test]
fn gguf() {
    let fields = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-2)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-5)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f32", Value::F32(1.5)),
        ("f64", Value::F64(-0.1)),
        ("bool", Value::Bool(true)),
        ("text", Value::text("häß")),
        ("texts", Value::texts([b"a".as_slice(), b"", b"\xff\xfe"].into_iter())),
        ("floats", Value::floats(&[1.0, -2.5])),
        ("integers", Value::integers(&[-1, 7])),
        ("counts", Value::counts(&[])),
        ("flags", Value::flags(&[true, false])),
        ("bytes", Value::bytes(&[0, 255])),
        ("general.alignment", Value::U32(4096)),
    ];
    let fields: Vec<(String, Value)> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let checkpoint = check(&Layout::gguf(&fields, &tensors(), None).unwrap(), "m.gguf", "gguf");
    // The alignment is the writer's own.
    for (key, value) in fields.iter().filter(|(key, _)| key != "general.alignment") {
        let found = checkpoint.metadata().get(key).unwrap();
        match (value, found) {
            (Value::Array(a), Value::Array(b)) => {
                let shown = |array: &checkpoint::Array| array.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>();
                assert_eq!(shown(a), shown(b), "{key}");
            }
            (Value::String(a), Value::String(b)) => assert_eq!(a.as_bytes(), b.as_bytes()),
            (a, b) => assert_eq!(format!("{a:?}"), format!("{b:?}"), "{key}"),
        }
    }
    assert!(checkpoint.metadata().get("general.alignment").is_none());
}

#[test]
fn safetensors() {
    check(&Layout::safetensors(&tensors()).unwrap(), "m.safetensors", "safetensors");
}

#[test]
fn what_no_file_can_hold_is_refused() {
    let name = |name: &str, dtype, dims: &[usize]| {
        vec![NewTensor { name: name.to_owned(), dtype, shape: Shape::new(dims).unwrap() }]
    };
    let twice = [name("a", DType::F32, &[1]), name("a", DType::F32, &[1])].concat();
    for (tensors, in_gguf, in_safetensors) in [
        (twice, false, false),
        (name("", DType::F32, &[1]), false, false),
        (name("a", DType::Q8_0, &[32]), true, false),
        (name("a", DType::Q8_0, &[33]), false, false),
        (name("a", DType::F8_E4M3, &[4]), false, true),
        (name("a", DType::F32, &[1, 1, 1, 1, 1]), false, true),
    ] {
        assert_eq!(Layout::gguf(&[], &tensors, None).is_ok(), in_gguf, "{tensors:?}");
        assert_eq!(Layout::safetensors(&tensors).is_ok(), in_safetensors, "{tensors:?}");
    }
    let key = |key: &str, value| vec![(key.to_owned(), value)];
    for fields in
        [key("", Value::U8(1)), key("a", Value::Null), [key("a", Value::U8(1)), key("a", Value::U8(2))].concat()]
    {
        assert!(Layout::gguf(&fields, &[], None).is_err(), "{fields:?}");
    }
    let part = Part { number: 0, count: 2, n_tensors: usize::MAX };
    assert!(Layout::gguf(&[], &[], Some(part)).is_err());
}
