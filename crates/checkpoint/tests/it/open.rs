//! Opening: typed metadata, tensor bytes with and without a map, files that are no models.

use crate::{
    graph_writer, torch_writer,
    writer::{Writer, array, string},
};
use checkpoint::{Checkpoint, Error, OpenOptions, Value};
use std::path::Path;

pub(crate) const MAPPED: OpenOptions = OpenOptions { mmap: true, format: None };
pub(crate) const READ: OpenOptions = OpenOptions { mmap: false, format: None };

pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn metadata_and_tensors() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", &Writer::small().bytes());
    for options in [MAPPED, READ] {
        let model = Checkpoint::open(&path, &options).unwrap();
        let metadata = model.metadata();
        assert_eq!(model.format(), "gguf");
        assert_eq!(metadata.str("general.architecture").unwrap(), Some("llama"));
        assert_eq!(metadata.u32("n.u32").unwrap(), Some(7));
        assert_eq!(metadata.i32("n.i64").unwrap(), Some(-5));
        assert_eq!(metadata.f32("n.f32").unwrap(), Some(1.5));
        assert_eq!(metadata.bool("n.bool").unwrap(), Some(true));
        assert_eq!(metadata.u32("absent").unwrap(), None);
        assert_eq!(metadata.i32_array("numbers").unwrap(), Some(vec![1, -1]));
        assert_eq!(metadata.u32_or_array("n.u32").unwrap(), Some(vec![7]));
        let words = metadata.string_array("words").unwrap().unwrap();
        assert_eq!(words.iter().collect::<Vec<_>>(), [b"a".as_slice(), b"", "é".as_bytes()]);
        assert_eq!(words.get(3), None);
        assert_eq!(metadata.iter().count(), 7);
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.first(), Some(&"general.architecture"));

        let a = model.load("a").unwrap();
        assert_eq!(a.shape().dims(), [2, 4]);
        assert_eq!(a.bytes()[..], [0x3f; 32]);
        let b = model.load("b").unwrap();
        assert_eq!((b.bytes().len(), b.to_f32().unwrap().len()), (34, 32));
        model.release(&b);
        assert_eq!(b.bytes()[..], [1; 34], "a released tensor comes back from the file");
        assert!(matches!(model.load("c"), Err(Error::MissingTensor { .. })));
        assert_eq!(model.file_bytes(), std::fs::metadata(&path).unwrap().len());
        assert_eq!(model.files(), std::slice::from_ref(&path));
        model.check_unchanged().unwrap();
    }
}

#[test]
fn a_model_in_memory_is_the_same_without_files() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = Writer::small().bytes();
    let on_disk = Checkpoint::open(&write(directory.path(), "m.gguf", &bytes), &MAPPED).unwrap();
    let shared = |bytes: &[u8]| tensor::SharedBytes::from_vec(bytes.to_vec());
    let model = Checkpoint::from_memory(Path::new("demo"), shared(&bytes)).unwrap();
    assert_eq!((model.format(), model.path()), ("gguf", Path::new("demo")));
    assert_eq!((model.files().len(), model.file_bytes()), (0, bytes.len() as u64));
    assert_eq!(model.tensors(), on_disk.tensors());
    for info in model.tensors() {
        let tensor = model.load(&info.name).unwrap();
        assert_eq!(tensor.bytes()[..], on_disk.load(&info.name).unwrap().bytes()[..], "{}", info.name);
        model.release(&tensor);
    }
    model.check_unchanged().unwrap();

    #[track_caller]
    fn check(bytes: tensor::SharedBytes, expected: &str) {
        let error = Checkpoint::from_memory(Path::new("demo"), bytes).unwrap_err().to_string();
        assert!(error.contains("demo") && error.contains(expected), "{error}");
    }
    check(shared(b""), "too short");
    check(shared(b"PK\x03\x04"), "not a model file");
    for n in (0..bytes.len()).step_by(7) {
        check(shared(&bytes[..n]), "");
    }
}

#[test]
fn values_of_the_wrong_type_name_their_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.gguf", &Writer::small().bytes());
    let model = Checkpoint::open(&path, &MAPPED).unwrap();
    let metadata = model.metadata();
    #[track_caller]
    fn check<T: std::fmt::Debug>(result: checkpoint::Result<T>, parts: &[&str]) {
        let error = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    check(metadata.u32("n.i64"), &["n.i64", "u32", "-5", "m.gguf"]);
    check(metadata.u32("n.f32"), &["n.f32", "u32", "f32 1.5"]);
    check(metadata.u32("general.architecture"), &["general.architecture", "string `llama`"]);
    check(metadata.str("n.u32"), &["n.u32", "string", "u32 7"]);
    check(metadata.f32("n.u32"), &["n.u32", "f32"]);
    check(metadata.bool("n.u32"), &["bool"]);
    check(metadata.string_array("numbers"), &["array of 2 i32"]);
    check(metadata.u32_array("numbers"), &["element 1", "-1"]);
}

#[test]
fn version_2_and_vocabulary_only_files_open() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::new().key("tokens", 9, &array(8, 1, &string(b"\xff")));
    writer.version = 2;
    let path = write(directory.path(), "v.gguf", &writer.bytes());
    for options in [MAPPED, READ] {
        let model = Checkpoint::open(&path, &options).unwrap();
        assert!(model.tensors().is_empty());
        let tokens = model.metadata().string_array("tokens").unwrap().unwrap();
        assert_eq!(tokens.get(0), Some(b"\xff".as_slice()));
    }
}

#[test]
fn arrays_of_arrays() {
    let directory = tempfile::tempdir().unwrap();
    let inner = [array(5, 2, &[1, 0, 0, 0, 2, 0, 0, 0]), array(8, 1, &string(b"x"))].concat();
    let path = write(directory.path(), "m.gguf", &Writer::new().key("k", 9, &array(9, 2, &inner)).bytes());
    let model = Checkpoint::open(&path, &MAPPED).unwrap();
    let outer = model.metadata().array("k").unwrap().unwrap();
    let [Some(Value::Array(first)), Some(Value::Array(second)), None] = [0, 1, 2].map(|i| outer.get(i)) else {
        panic!("{outer:?}")
    };
    assert_eq!(first.iter().map(|v| v.as_integer()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(second.get(0).unwrap().as_str(), Some("x"));
    assert!(model.metadata().u32_array("k").is_err());
}

#[test]
fn heads_longer_than_the_first_read() {
    let directory = tempfile::tempdir().unwrap();
    let words = vec![string(&[b'w'; 1000]); 5000].concat();
    let writer = Writer::small().key("many", 9, &array(8, 5000, &words)).key("after", 4, &9u32.to_le_bytes());
    let path = write(directory.path(), "m.gguf", &writer.bytes());
    let model = Checkpoint::open(&path, &READ).unwrap();
    assert_eq!(model.metadata().string_array("many").unwrap().unwrap().len(), 5000);
    assert_eq!(model.metadata().u32("after").unwrap(), Some(9));
    assert_eq!(model.load("a").unwrap().bytes()[..], [0x3f; 32]);
}

#[test]
fn a_file_that_changed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    for options in [MAPPED, READ] {
        let path = write(directory.path(), "m.gguf", &Writer::small().bytes());
        let model = Checkpoint::open(&path, &options).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(40).unwrap();
        assert!(matches!(model.check_unchanged(), Err(Error::Changed { .. })));
        assert!(matches!(model.load("a"), Err(Error::Changed { .. })));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    #[track_caller]
    fn check(path: &Path, expected: &str) {
        for options in [MAPPED, READ] {
            let error = Checkpoint::open(path, &options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    check(&directory.path().join("absent.gguf"), "cannot open");
    check(directory.path(), "is a directory");
    check(&write(directory.path(), "empty.gguf", b""), "empty");
    check(&write(directory.path(), "short.gguf", b"GGU"), "too short");
    check(&write(directory.path(), "text.gguf", b"hello, I am a text"), "not a model file");
    #[cfg(unix)]
    {
        check(Path::new("/dev/zero"), "character device");
        let socket = directory.path().join("socket.gguf");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        check(&socket, "socket");
        let fifo = directory.path().join("fifo.gguf");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        if made.is_ok_and(|status| status.success()) {
            check(&fifo, "FIFO");
        }
    }
}

#[test]
fn directories_say_what_they_hold() {
    #[track_caller]
    fn check(names: &[&str], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            write(directory.path(), name, b"{}");
        }
        let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    check(&["config.json", "pytorch_model.bin"], "neither a zip archive nor a pickle");
    check(&["config.json"], "no weights (model.safetensors, pytorch_model.bin)");
    check(&["model.onnx"], "as no ONNX file does");
    check(&["config.json", "q4.gguf"], "q4.gguf` is damaged");
    check(&[], "no model file");
}

/// Which format of a directory is opened, and what is said of the others.
#[test]
fn a_directory_with_several_formats() {
    let safetensors: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
    let gguf = Writer::small().bytes();
    let onnx = graph_writer::Writer::layer().bytes();
    let weights = torch_writer::dictionary(&[("w", torch_writer::Tensor::floats("0", &[1]).program())]);
    let pytorch = torch_writer::Zip::model(&weights, &[&[0; 4]]).bytes();
    let directory = tempfile::tempdir().unwrap();
    let holding = |names: &[&str]| {
        let path = directory.path().join(names.join("+").replace('/', "_"));
        std::fs::create_dir_all(path.join("onnx")).unwrap();
        write(&path, "config.json", b"{}");
        for name in names {
            let bytes = match name.rsplit_once('.').unwrap().1 {
                "safetensors" => safetensors,
                "gguf" => &gguf,
                "onnx" => &onnx,
                _ => &pytorch,
            };
            write(&path, name, bytes);
        }
        path
    };
    let check = |names: &[&str], wanted: Option<&str>, expected: std::result::Result<(&str, &[&str]), &str>| {
        let format = wanted.map(|wanted| checkpoint::format_names().find(|name| *name == wanted).unwrap());
        match (Checkpoint::open(&holding(names), &OpenOptions { format, ..MAPPED }), expected) {
            (Ok(model), Ok(expected)) => {
                assert_eq!((model.format(), model.other_formats()), expected, "{names:?} {wanted:?}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{names:?} {wanted:?}: {error}"),
            (result, _) => panic!("{names:?} {wanted:?}: {:?}", result.map(|model| model.format())),
        }
    };
    let all = ["model.safetensors", "pytorch_model.bin", "m.gguf", "onnx/model.onnx"];
    check(&all, None, Ok(("safetensors", &["pytorch", "gguf", "onnx"])));
    check(&all, Some("pytorch"), Ok(("pytorch", &["safetensors", "gguf", "onnx"])));
    check(&all, Some("gguf"), Ok(("gguf", &["safetensors", "pytorch", "onnx"])));
    check(&all, Some("onnx"), Ok(("onnx", &["safetensors", "pytorch", "gguf"])));
    check(&all[1..], None, Ok(("pytorch", &["gguf", "onnx"])));
    check(&all[..1], None, Ok(("safetensors", &[])));
    check(&all[..2], Some("gguf"), Err("as safetensors and as pytorch, and none as gguf"));
    check(&all[..2], Some("onnx"), Err("none as onnx"));
    // A file of PyTorch's that has no usual name gives way, unless it is wanted.
    check(&["model.safetensors", "odd.pt"], None, Ok(("safetensors", &[])));
    check(&["model.safetensors", "odd.pt"], Some("pytorch"), Ok(("pytorch", &["safetensors"])));
    check(&["odd.pt"], None, Ok(("pytorch", &[])));
    // Several files of one format.
    check(&["m.gguf", "mmproj-m.gguf"], None, Ok(("gguf", &[])));
    check(&["a.gguf", "b.gguf"], None, Err("several models, `a.gguf`, `b.gguf`: name the one"));
    check(
        &["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n.gguf"],
        None,
        Err("`m-00001-of-00002.gguf`, `n.gguf`:"),
    );
    check(
        &["a.safetensors", "b.safetensors"],
        None,
        Err("several files of weights, `a.safetensors` to `b.safetensors`"),
    );
    check(&["adapter_model.safetensors"], None, Err("it holds an adapter"));
    check(&["adapter_model.safetensors", "pytorch_model.bin"], None, Ok(("pytorch", &[])));
    check(&["optimizer.pt"], None, Err("no weights"));
}
