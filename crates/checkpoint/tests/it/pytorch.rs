//! PyTorch files: those written by PyTorch itself, and damaged and hostile ones made here.

use crate::{
    fixtures,
    open::{MAPPED, READ, write},
    torch_writer::{Tensor, Zip, crc32, dictionary, legacy, pickle, text},
};
use checkpoint::{Checkpoint, Error};
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

#[test]
fn odd_tensors_have_the_values_that_pytorch_gives() {
    let Some(folder) = fixtures::find("stories260K") else { return };
    let expected = std::fs::read(folder.join("pytorch/odd_cases.expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let dtypes = [
        ("float32", "F32"),
        ("float16", "F16"),
        ("bfloat16", "BF16"),
        ("int64", "I64"),
        ("uint8", "U8"),
        ("bool", "BOOL"),
    ];
    for file in ["pytorch/odd_cases.pt", "pytorch-legacy/odd_cases.pt"] {
        for options in [MAPPED, READ] {
            let model = Checkpoint::open(&folder.join(file), &options).unwrap();
            assert_eq!(model.format(), "pytorch");
            let mut names: Vec<&str> = expected.as_object().unwrap().keys().map(String::as_str).collect();
            names.push("nested.a.0");
            let found: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
            names.sort_unstable();
            let mut sorted = found.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, names, "{file}");
            assert_eq!(found.first(), Some(&"view"), "the pickle's order");
            for (name, facts) in expected.as_object().unwrap() {
                let tensor = model.load(name).unwrap();
                let dtype = dtypes.iter().find(|(theirs, _)| *theirs == facts["dtype"]).unwrap().1;
                assert_eq!(tensor.dtype().name(), dtype, "{file} {name}");
                let shape: Vec<u64> = serde_json::from_value(facts["shape"].clone()).unwrap();
                let shape = if shape.is_empty() { vec![1] } else { shape };
                let dims: Vec<u64> = tensor.shape().dims().iter().map(|d| *d as u64).collect();
                assert_eq!(dims, shape, "{file} {name}");
                let values: Vec<f32> = serde_json::from_value(facts["values"].clone()).unwrap();
                assert_eq!(tensor.to_f32().unwrap(), values, "{file} {name}");
            }
        }
    }
}

/// The same tensors, bit for bit.
#[track_caller]
fn check_same(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|path| Checkpoint::open(path, &MAPPED).unwrap());
    assert_eq!(a.tensors().len(), b.tensors().len());
    for info in a.tensors() {
        let (a, b) = (a.load(&info.name).unwrap(), b.load(&info.name).unwrap());
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{}", info.name);
        assert!(a.bytes()[..] == b.bytes()[..], "{}", info.name);
    }
    let config = |model: &Checkpoint| model.metadata().u64("config.hidden_size").unwrap();
    assert_eq!((config(&a), config(&b)), (Some(64), Some(64)));
    assert!(a.sidecars().any(|name| name == "tokenizer.json"));
}

#[test]
fn a_story_model_is_the_same_in_every_file() {
    let Some(folder) = fixtures::find("stories260K") else { return };
    check_same(&folder.join("pytorch"), &folder.join("hf"));
    check_same(&folder.join("pytorch/pytorch_model.bin"), &folder.join("hf"));
    check_same(&folder.join("pytorch-sharded"), &folder.join("hf-f16"));
    check_same(&folder.join("pytorch-sharded/pytorch_model-00002-of-00002.bin"), &folder.join("hf-f16"));
    check_same(&folder.join("pytorch-legacy/pytorch_model.bin"), &folder.join("hf-f16"));
}

/// `a` (2 × 3, transposed in the file), `b` (its second row) and, in storage 1, `c`.
fn three() -> Vec<u8> {
    let a = Tensor { strides: vec![1, 2], ..Tensor::floats("0", &[2, 3]) };
    let b = Tensor { n_elements: 6, offset: 2, ..Tensor::floats("0", &[2]) };
    let c = Tensor { class: "torch\nHalfStorage", ..Tensor::floats("1", &[2]) };
    dictionary(&[("a", a.program()), ("epoch", b"K\x07".to_vec()), ("b", b.program()), ("c", c.program())])
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn six() -> Vec<u8> {
    floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
}

/// 1 and -2 as halves.
const HALVES: &[u8] = &[0x00, 0x3c, 0x00, 0xc0];

fn model() -> Zip {
    Zip::model(&three(), &[&six(), HALVES])
}

/// Opens `bytes`, mapped and read.
fn opened(bytes: &[u8]) -> [checkpoint::Result<Checkpoint>; 2] {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.pt", bytes);
    [MAPPED, READ].map(|options| Checkpoint::open(&path, &options))
}

#[track_caller]
fn check_three(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.pt", bytes);
    for options in [MAPPED, READ] {
        let model = Checkpoint::open(&path, &options).unwrap();
        let names: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let values = |name| model.load(name).unwrap().to_f32().unwrap();
        assert_eq!(values("a"), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(values("b"), [2.0, 3.0]);
        assert_eq!(values("c"), [1.0, -2.0]);
        model.release(&model.load("b").unwrap());
        assert_eq!(values("b"), [2.0, 3.0]);
    }
}

#[test]
fn archives_and_streams_of_every_kind() {
    check_three(&model().bytes());
    check_three(&Zip { wide: true, ..model() }.bytes());
    check_three(&Zip { comment: b"PK\x05\x06 a comment".to_vec(), ..model() }.bytes());
    // A 64-bit offset where the 32-bit one would do.
    let mut wide = model();
    let place = wide.bytes().windows(8).position(|w| w == b"m/data/0").unwrap() - 30;
    let entry = wide.entry("m/data/0");
    entry.offset = Some(u32::MAX);
    entry.extra = [b"\x01\0\x08\0", &(place as u64).to_le_bytes()[..]].concat();
    check_three(&wide.bytes());
    let machine = dictionary(&[("little_endian", b"\x88".to_vec())]);
    for machine in [&machine[..], b"}"] {
        check_three(&legacy(machine, &three(), &[("1", 2, HALVES), ("0", 6, &six())]));
    }
    // Some writers leave the metadata that state dictionaries carry, and Python 2 its own kinds of strings.
    let root = [&three()[..], b"}X\x09\0\0\0_metadata}sb"].concat();
    check_three(&Zip::model(&root, &[&six(), HALVES]).bytes());
}

#[test]
fn wrapped_and_nested_dictionaries() {
    #[track_caller]
    fn check(program: &[u8], expected: &[&str]) {
        let zip = Zip::model(program, &[&six(), HALVES]);
        let [model, _] = opened(&zip.bytes());
        let model = model.unwrap();
        let names: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, expected);
    }
    let w = Tensor::floats("0", &[6]).program();
    let inner = dictionary(&[("w", w.clone())]);
    let number = b"K\x01".to_vec();
    check(&dictionary(&[("state_dict", inner.clone())]), &["w"]);
    check(&dictionary(&[("model", inner.clone()), ("epoch", number.clone())]), &["w"]);
    check(&dictionary(&[("model", dictionary(&[("module", inner.clone())]))]), &["w"]);
    check(&dictionary(&[("model", inner.clone()), ("optimizer", inner.clone())]), &["w"]);
    check(&dictionary(&[("model", inner.clone()), ("state_dict", inner.clone())]), &["model.w", "state_dict.w"]);
    check(&dictionary(&[("model", inner.clone()), ("x", w.clone())]), &["model.w", "x"]);
    check(&dictionary(&[("other", inner.clone())]), &["other.w"]);
    let list = [b"](K\x01".to_vec(), w.clone(), b"}K\x05".to_vec(), w, b"se".to_vec()].concat();
    check(&dictionary(&[("layers", list)]), &["layers.1", "layers.2.5"]);
}

#[test]
fn what_cannot_be_used_is_left_out_with_a_note() {
    #[track_caller]
    fn check(odd: Tensor, expected: &str) {
        let program = dictionary(&[("odd", odd.program()), ("w", Tensor::floats("0", &[6]).program())]);
        let [model, _] = opened(&Zip::model(&program, &[&six(), HALVES]).bytes());
        let model = model.unwrap();
        assert_eq!(model.tensors().len(), 1);
        assert!(
            model.notes().iter().any(|note| note.contains("`odd`") && note.contains(expected)),
            "{:?}",
            model.notes()
        );
        assert!(model.load("odd").is_err());
    }
    check(Tensor { class: "torch\nComplexFloatStorage", n_elements: 3, ..Tensor::floats("0", &[3]) }, "complex64");
    check(Tensor { n_elements: 6, ..Tensor::floats("0", &[1, 1, 1, 1, 1, 1, 2]) }, "7 dimensions");
    let expanded = Tensor { strides: vec![0, 1], n_elements: 6, ..Tensor::floats("0", &[1 << 40, 6]) };
    check(expanded, "repeats its 6 elements");
}

/// Refused, mapped and read, with a message that has all `parts`.
#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    for result in opened(bytes) {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("m.pt") && parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(error.len() <= 2000 && !error.chars().any(char::is_control), "{error:?}");
    }
}

fn changed(change: impl FnOnce(&mut Zip)) -> Vec<u8> {
    let mut zip = model();
    change(&mut zip);
    zip.bytes()
}

#[test]
fn archives_that_contradict_themselves() {
    let good = model().bytes();
    refused(&good[..good.len() / 2], &["truncated"]);
    refused(&good[..good.len() - 1], &["truncated"]);
    refused(b"PK\x03\x04", &["zip", "truncated"]);
    refused(&changed(|z| z.entries.retain(|e| e.name != b"m/data.pkl")), &["data.pkl"]);
    refused(&changed(|z| z.entries.retain(|e| e.name != b"m/data/1")), &["`m/data/1`", "missing"]);
    refused(&model().with("m/data.pkl", b"N.").bytes(), &["`m/data.pkl`", "duplicate"]);
    refused(&model().with("../../evil", b"x").bytes(), &["`../../evil`", "outside"]);
    refused(&model().with("m/code/x.py", b"x").bytes(), &["TorchScript"]);
    refused(&Zip { entries: Vec::new(), ..model() }.with("a.npy", b"x").bytes(), &["NumPy"]);
    refused(&changed(|z| z.entry("m/data.pkl").method = 8), &["`m/data.pkl`", "deflate"]);
    refused(&changed(|z| z.entry("m/data/0").method = 99), &["`m/data/0`", "method 99"]);
    refused(&changed(|z| z.entry("m/data/0").flags = 1), &["`m/data/0`", "encrypted"]);
    refused(&changed(|z| z.entry("m/data/0").size = Some(1 << 30)), &["`m/data/0`", "claims a size"]);
    refused(&changed(|z| z.entry("m/data/0").stored = Some(1 << 30)), &["`m/data/0`", "beyond"]);
    refused(&changed(|z| z.entry("m/data/0").offset = Some(u32::MAX - 1)), &["`m/data/0`", "beyond"]);
    refused(&changed(|z| z.entry("m/data/0").offset = Some(u32::MAX)), &["`m/data/0`", "sizes are missing"]);
    refused(&changed(|z| z.entry("m/data/0").offset = Some(0)), &["`m/data/0`", "does not belong to it"]);
    refused(&changed(|z| z.entry("m/data/0").local_name = Some(b"m/data/9".to_vec())), &["does not belong"]);
    refused(&changed(|z| z.entry("m/data/0").name = b"m/\xff".to_vec()), &["\\xff", "UTF-8"]);
    let mut overlapping = model();
    let name = overlapping.entry("m/data/0").name.clone();
    let start = overlapping.bytes().windows(name.len()).position(|w| w == name).unwrap();
    let entry = overlapping.entry("m/data.pkl");
    (entry.stored, entry.size) = (Some(start as u32), Some(start as u32));
    refused(&overlapping.bytes(), &["`m/data.pkl`", "overlap"]);
    refused(&changed(|z| z.entry("m/data.pkl").crc = 1), &["`m/data.pkl`", "checksum", "CRC"]);
    refused(&changed(|z| z.entry("m/byteorder").data = b"big".to_vec()), &["checksum"]);
    let mut big = model();
    *big.entry("m/byteorder") = Zip::model(b"N", &[]).with("m/byteorder", b"big").entries.pop().unwrap();
    refused(&big.bytes(), &["byte order", "`big`"]);
    refused(&changed(|z| z.n_entries = Some(4)), &["more than the 4 entries"]);
    refused(&changed(|z| z.n_entries = Some(99)), &["99 entries"]);
    refused(&changed(|z| z.start = Some(u32::MAX - 5)), &["central directory", "beyond"]);
    refused(&changed(|z| z.entry("m/data/0").data.truncate(20)), &["`m/data/0`", "20 bytes", "6 elements"]);
    refused(&[pickle(&three()), b"more".to_vec()].concat(), &["magic number is missing"]);
    let mut more = model();
    more.entry("m/data.pkl").data.push(b'N');
    more.entry("m/data.pkl").crc = crc32(&more.entry("m/data.pkl").data.clone());
    refused(&more.bytes(), &["`m/data.pkl`", "it ends after"]);
}

#[test]
fn a_damaged_storage_is_noticed_when_it_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.pt", &changed(|z| z.entry("m/data/0").crc ^= 1));
    for options in [MAPPED, READ] {
        let model = Checkpoint::open(&path, &options).unwrap();
        for name in ["a", "b", "a"] {
            let error = model.load(name).unwrap_err().to_string();
            assert!(error.contains("`m/data/0`") && error.contains("checksum"), "{error}");
        }
        model.load("c").unwrap();
    }
}

#[test]
fn tensors_that_contradict_their_storage() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Tensor), parts: &[&str]) {
        let mut tensor = Tensor { n_elements: 6, ..Tensor::floats("0", &[2, 3]) };
        change(&mut tensor);
        let program = dictionary(&[("w", tensor.program())]);
        refused(&Zip::model(&program, &[&six()]).bytes(), parts);
    }
    check(|t| t.n_elements = 1 << 62, &["`m/data/0`", "size"]);
    check(|t| t.n_elements = -1, &["negative"]);
    check(|t| t.n_elements = 5, &["5 elements"]);
    check(|t| t.offset = 1, &["`w`", "beyond its storage of 6"]);
    check(|t| t.offset = 1 << 40, &["`w`", "beyond"]);
    check(|t| t.offset = i64::MAX, &["`w`", "beyond"]);
    check(|t| t.offset = -1, &["offset", "negative"]);
    check(|t| t.dims = vec![3, 3], &["`w`", "beyond"]);
    check(|t| t.dims = vec![-1, 3], &["dimension", "negative"]);
    check(|t| t.dims = vec![1 << 32, 1 << 32], &["`w`", "overflow"]);
    check(|t| t.strides = vec![1 << 40, 1], &["`w`", "beyond"]);
    check(|t| t.strides = vec![i64::MAX, i64::MAX], &["`w`", "beyond"]);
    check(|t| t.strides = vec![4, 1], &["`w`", "beyond"]);
    check(|t| t.strides = vec![3], &["2 dimensions and 1 strides"]);
    check(|t| t.key = "999".to_owned(), &["`m/data/999`", "missing"]);
    check(|t| t.key = "../../secret".to_owned(), &["`m/data/../../secret`", "missing"]);
    check(|t| t.class = "torch\nNopeStorage", &["refused", "`torch.NopeStorage`"]);
    check(|t| t.class = "torch\nDoubleStorage", &["6 elements of float64"]);
    check(|t| t.class = "torch.storage\nUntypedStorage", &["type of its elements"]);
    let twice = dictionary(&[("w", Tensor::floats("0", &[6]).program()), ("w", Tensor::floats("0", &[6]).program())]);
    refused(&Zip::model(&twice, &[&six()]).bytes(), &["`w`", "duplicate"]);
    let long = dictionary(&[(&"w".repeat(1025), Tensor::floats("0", &[6]).program())]);
    refused(&Zip::model(&long, &[&six()]).bytes(), &["1024 bytes"]);
    refused(
        &Zip::model(&dictionary(&[("", Tensor::floats("0", &[6]).program())]), &[&six()]).bytes(),
        &["name is empty"],
    );
}

#[test]
fn pickles_that_are_no_models() {
    let check = |program: &[u8], parts: &[&str]| {
        refused(&Zip::model(program, &[&six(), HALVES]).bytes(), parts);
        refused(&legacy(b"}", program, &[]), parts);
    };
    check(b"}", &["pickle holds no tensors"]);
    check(b"K\x01", &["an integer, not a dictionary"]);
    check(b"]q\0h\0a", &["a list, not a dictionary"]);
    check(b"}q\0X\x01\0\0\0ah\0s", &["cycle"]);
    check(b"}q\0(X\x01\0\0\0ah\0X\x01\0\0\0bh\0u", &["cycle"]);
    check(b"cposix\nsystem\n(X\x02\0\0\0idtR", &["refused", "`posix.system`", "nothing is ever executed"]);
    check(b"N)R", &["refused", "REDUCE"]);
    check(b"}\x82\x01", &["refused", "EXT1"]);
    // Thirty dictionaries, each holding the next twice: a billion paths.
    let laughs = (0..30).fold(b"}".to_vec(), |inner, i| {
        let memo = (i as u32).to_le_bytes();
        let again = [b"j", &memo[..]].concat();
        let a = [inner, [b"r", &memo[..]].concat(), b"0".to_vec()].concat();
        [a, b"}(".to_vec(), text("a"), again.clone(), text("b"), again, b"u".to_vec()].concat()
    });
    check(&laughs, &["nested too deep, or in a cycle"]);
    let [Err(Error::Forbidden { .. }), _] = opened(&pickle(b"cposix\nsystem\n(X\x02\0\0\0idtR")) else {
        panic!("a bare pickle that runs a program must be refused as such")
    };
}

#[test]
fn streams_that_contradict_themselves() {
    let good = [("0", 6, &six()[..]), ("1", 2, HALVES)];
    let stream = legacy(b"}", &three(), &good);
    check_three(&stream);
    refused(&stream[..stream.len() - 1], &["`1`", "truncated"]);
    refused(&stream[..stream.len() - HALVES.len() - 3], &["`1`", "truncated"]);
    refused(&legacy(b"}", &three(), &good[..1]), &["storage `1`", "missing"]);
    refused(&legacy(b"}", &three(), &[good[0], good[1], good[1]]), &["`1`", "duplicate"]);
    refused(&legacy(b"}", &three(), &[good[0], good[1], ("2", 0, b"")]), &["`2`", "no tensor says"]);
    refused(&legacy(b"}", &three(), &[("0", i64::MAX, &six()), good[1]]), &["`0`", "beyond the end"]);
    refused(&legacy(b"}", &three(), &[("0", -1, &six()), good[1]]), &["`0`", "beyond the end"]);
    refused(&legacy(b"}", &three(), &[("0", 5, &six()[..20]), good[1]]), &["`0`", "more than is stored"]);
    let big = dictionary(&[("little_endian", b"\x89".to_vec())]);
    refused(&legacy(&big, &three(), &good), &["big endian"]);
    refused(&[pickle(b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"), pickle(b"K\x01")].concat(), &["version 1"]);
    refused(&pickle(b"K\x01"), &["magic number"]);
}

#[test]
fn every_truncation_is_refused() {
    let stream = legacy(b"}", &three(), &[("0", 6, &six()), ("1", 2, HALVES)]);
    for bytes in [model().bytes(), stream] {
        let directory = tempfile::tempdir().unwrap();
        for len in 0..bytes.len() {
            let path = write(directory.path(), "m.pt", &bytes[..len]);
            Checkpoint::open(&path, &MAPPED).unwrap_err();
        }
    }
}

/// Opens damaged bytes and loads whatever is found: an error or not, but no panic.
fn survive(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "m.pt", bytes);
    if let Ok(model) = Checkpoint::open(&path, &READ) {
        for info in model.tensors() {
            drop(model.load(&info.name));
        }
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        zipped in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = if zipped {
            model().bytes()
        } else {
            legacy(b"}", &three(), &[("0", 6, &six()), ("1", 2, HALVES)])
        };
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        survive(&bytes);
    }

    #[test]
    fn damaged_pickles_in_good_archives_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut program = three();
        for (index, byte) in edits {
            let at = index.index(program.len());
            program[at] = byte;
        }
        survive(&Zip::model(&program, &[&six(), HALVES]).bytes());
    }
}

#[test]
fn meta_weights_of_a_story_model() {
    let Some(folder) = fixtures::find("stories260K") else { return };
    let hf = Checkpoint::open(&folder.join("hf-bf16"), &MAPPED).unwrap();
    for path in ["meta", "meta/consolidated.00.pth"] {
        let meta = Checkpoint::open(&folder.join(path), &MAPPED).unwrap();
        assert_eq!(meta.format(), "pytorch");
        assert_eq!(meta.metadata().u32("params.n_kv_heads").unwrap(), Some(4));
        assert_eq!(meta.metadata().f32("params.norm_eps").unwrap(), Some(1e-5));
        assert_eq!(meta.sidecars().collect::<Vec<_>>(), ["tokenizer.model"]);
        for (ours, theirs) in [
            ("tok_embeddings.weight", "model.embed_tokens.weight"),
            ("norm.weight", "model.norm.weight"),
            ("layers.4.attention.wv.weight", "model.layers.4.self_attn.v_proj.weight"),
            ("layers.4.attention.wo.weight", "model.layers.4.self_attn.o_proj.weight"),
            ("layers.0.feed_forward.w1.weight", "model.layers.0.mlp.gate_proj.weight"),
            ("layers.0.feed_forward.w2.weight", "model.layers.0.mlp.down_proj.weight"),
        ] {
            let (a, b) = (meta.load(ours).unwrap(), hf.load(theirs).unwrap());
            assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{ours}");
            assert!(a.bytes()[..] == b.bytes()[..], "{ours}");
        }
    }
}

/// Part `number` of a model of two, of which each tensor is 2 × 2 and counts on from the part's number times 100.
fn half_of_a_model(number: u8, names: &[&str]) -> Vec<u8> {
    let storages: Vec<Vec<u8>> = (0..names.len())
        .map(|i| {
            let first = f32::from(number) * 100.0 + i as f32 * 10.0;
            floats(&[first, first + 1.0, first + 2.0, first + 3.0])
        })
        .collect();
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    let keys: Vec<String> = (0..names.len()).map(|i| i.to_string()).collect();
    let programs: Vec<_> =
        names.iter().zip(&keys).map(|(name, key)| (*name, Tensor::floats(key, &[2, 2]).program())).collect();
    Zip::model(&dictionary(&programs), &storages).bytes()
}

#[test]
fn meta_weights_in_parts() {
    let names = ["wq.weight", "wo.weight", "norm.weight", "tok_embeddings.weight"];
    let two = |width: usize, names: [&[&str]; 2]| {
        let directory = tempfile::tempdir().unwrap();
        for (number, names) in (0..2).zip(names) {
            let name = format!("consolidated.{number:02}.pth");
            write(directory.path(), &name, &half_of_a_model(number, names));
        }
        write(directory.path(), "params.json", format!("{{\"dim\": {width}}}").as_bytes());
        directory
    };
    // Rows of the embedding are cut when it is as wide as the model, columns when it is half as wide.
    for (width, embedding) in [
        (2, [30.0, 31.0, 32.0, 33.0, 130.0, 131.0, 132.0, 133.0]),
        (4, [30.0, 31.0, 130.0, 131.0, 32.0, 33.0, 132.0, 133.0]),
    ] {
        let directory = two(width, [&names, &names]);
        for options in [MAPPED, READ] {
            let model = Checkpoint::open(directory.path(), &options).unwrap();
            let check = |name: &str, dims: &[usize], values: &[f32]| {
                let tensor = model.load(name).unwrap();
                assert_eq!(model.tensor(name).unwrap().bytes, tensor.bytes().len() as u64);
                assert_eq!((tensor.shape().dims(), &tensor.to_f32().unwrap()[..]), (dims, values), "{name}");
            };
            check("wq.weight", &[4, 2], &[0.0, 1.0, 2.0, 3.0, 100.0, 101.0, 102.0, 103.0]);
            check("wo.weight", &[2, 4], &[10.0, 11.0, 110.0, 111.0, 12.0, 13.0, 112.0, 113.0]);
            check("norm.weight", &[2, 2], &[20.0, 21.0, 22.0, 23.0]);
            check("tok_embeddings.weight", if width == 2 { &[4, 2] } else { &[2, 4] }, &embedding);
            assert_eq!(model.files().len(), 2);
            let order: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
            assert_eq!(order, names);
        }
    }
    #[track_caller]
    fn check(directory: &tempfile::TempDir, parts: &[&str]) {
        let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    check(&two(6, [&names, &names]), &["`tok_embeddings.weight`", "are parts missing"]);
    check(&two(4, [&names, &names[..3]]), &["`tok_embeddings.weight`", "1 of 2 parts"]);
    check(&two(4, [&["strange.weight"], &["strange.weight"]]), &["`strange.weight`", "axis", "not known"]);
    let gap = two(4, [&names, &names]);
    std::fs::remove_file(gap.path().join("consolidated.00.pth")).unwrap();
    check(&gap, &["`consolidated.00.pth` is missing"]);
    let damaged = two(4, [&names, &names]);
    write(damaged.path(), "params.json", b"{\"dim\": }");
    check(&damaged, &["params.json", "JSON"]);
}
