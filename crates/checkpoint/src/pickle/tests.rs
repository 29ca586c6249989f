//! The machine on pickles written by hand: what is plain data is read, all else refused by name, nothing panics.

use super::{Fault, Node, Pickle, read};
use crate::limits;
use proptest::prelude::*;

/// A string as protocol 2 writes it.
fn uni(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A tensor of shape 2 × 3 in storage `0`.
fn tensor() -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        uni("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        uni("0"),
        uni("cpu"),
        b"K\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// `{"w": …}` of a tensor.
fn model() -> Vec<u8> {
    [b"\x80\x02}".to_vec(), uni("w"), tensor(), b"s.".to_vec()].concat()
}

#[track_caller]
fn ok(bytes: &[u8]) -> Pickle<'_> {
    read(bytes).unwrap()
}

#[test]
fn a_dictionary_of_a_tensor() {
    let bytes = model();
    let pickle = ok(&bytes);
    assert_eq!(pickle.len, bytes.len());
    let Node::Dict(entries) = pickle.root() else { panic!("{:?}", pickle.root()) };
    let [(key, value)] = entries.as_slice() else { panic!("{entries:?}") };
    assert!(matches!(pickle.node(*key), Node::Text(text) if *text == "w"));
    let Node::Tensor(tensor) = pickle.node(*value) else { panic!("{:?}", pickle.node(*value)) };
    assert_eq!((tensor.offset, &tensor.dims[..], &tensor.strides[..]), (0, &[2, 3][..], &[3, 1][..]));
    let (storage, key) = pickle.storage(tensor).unwrap();
    assert_eq!((key, storage.element.name, storage.n_elements, storage.window), ("0", "float32", 6, 0));
}

#[test]
fn plain_data_of_all_protocols() {
    #[track_caller]
    fn check(program: &[u8], expected: &str) {
        let program = [program, b"."].concat();
        let pickle = ok(&program);
        assert_eq!(format!("{:?}", pickle.root()), expected);
    }
    check(b"N", "None");
    check(b"\x88", "Bool(true)");
    check(b"I01\n", "Bool(true)");
    check(b"I-12\n", "Int(-12)");
    check(b"L123L\n", "Int(123)");
    check(b"J\xff\xff\xff\xff", "Int(-1)");
    check(b"M\x01\x02", "Int(513)");
    check(b"\x8a\x00", "Int(0)");
    check(b"\x8a\x01\xff", "Int(-1)");
    check(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x40\x00", "Int(4611686018427387904)");
    check(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00", "Long([0, 0, 0, 0, 0, 0, 0, 128, 0])");
    check(b"\x8b\x01\0\0\0\x07", "Int(7)");
    check(b"F1.5\n", "Float");
    check(b"G\0\0\0\0\0\0\0\0", "Float");
    check(b"S'ab'\n", "Text(\"ab\")");
    check(b"U\x02ab", "Text(\"ab\")");
    check(b"T\x02\0\0\0ab", "Text(\"ab\")");
    check(b"U\x01\xff", "Bytes");
    check(b"Vab\n", "Text(\"ab\")");
    check(b"\x8c\x02ab", "Text(\"ab\")");
    check(b"\x8d\x02\0\0\0\0\0\0\0ab", "Text(\"ab\")");
    check(b"C\x02ab", "Bytes");
    check(b"\x96\x01\0\0\0\0\0\0\0a", "Bytes");
    check(b"\x95\x01\0\0\0\0\0\0\0N", "None");
    check(b"NN0", "None");
    check(b"N(NN1", "None");
    check(b"N(0", "None");
    check(b"(NNl", "List([Id(0), Id(0)])");
    check(b"(NNd", "Dict([(Id(0), Id(0))])");
    check(b"]N2\x860", "List([])");
    check(b"Np0\n0g0\n", "None");
    check(b"N\x940h\0", "None");
    check(b"\x8f(K\x01\x90", "Opaque");
    check(b"(K\x01\x91", "Opaque");
    check(b"ccollections\nOrderedDict\n)R", "Dict([])");
    check(b"ccollections\nOrderedDict\n)\x81", "Dict([])");
    check(b"ccollections\nOrderedDict\n]]NaNaa\x85R", "Dict([(Id(0), Id(0))])");
    check(b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R", "Dict([])");
    check(b"ccollections\nOrderedDict\n)R}X\x01\0\0\0_NsbX\x01\0\0\0kNs", "Dict([(Id(11), Id(0))])");
    check(b"\x8c\x05torch\x8c\x04Size\x93)\x85R", "Tuple([])");
    check(b"ctorch\ndevice\nX\x03\0\0\0cpu\x85R", "Opaque");
    check(b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x89\x88\x87R(K\x03tbC\x01\0\x86R", "Opaque");
}

#[test]
fn storages_and_tensors_of_every_kind() {
    #[track_caller]
    fn check(tensor: &[u8], expected: &str) {
        let program = [tensor, b"."].concat();
        let pickle = ok(&program);
        let Node::Tensor(tensor) = pickle.root() else { panic!("{:?}", pickle.root()) };
        let (storage, key) = pickle.storage(tensor).unwrap();
        let facts = (key, tensor.element.name, storage.n_elements, storage.window, &tensor.dims);
        assert_eq!(format!("{facts:?}"), expected);
    }
    let storage = |class: &str, window: &[u8]| {
        let head = [b"(".to_vec(), uni("storage"), format!("c{class}\n").into_bytes(), uni("7")].concat();
        [head, uni("cuda:0"), b"K\x08".to_vec(), window.to_vec(), b"tQ".to_vec()].concat()
    };
    let call =
        |name: &str, arguments: &[&[u8]]| [format!("c{name}\n(").as_bytes(), &arguments.concat(), b"tR"].concat();
    let half = storage("torch\nHalfStorage", b"");
    let view = b"K\0K\x08\x85K\x01\x85".as_slice();
    check(&call("torch._utils\n_rebuild_tensor", &[&half, view]), "(\"7\", \"float16\", 8, 0, [8])");
    check(&call("torch._utils\n_rebuild_tensor_v2", &[&half, view, b"\x89NN"]), "(\"7\", \"float16\", 8, 0, [8])");
    let untyped = storage("torch.storage\nUntypedStorage", b"");
    let v3 = call("torch._utils\n_rebuild_tensor_v3", &[&untyped, view, b"\x89Nctorch\nfloat8_e5m2\n"]);
    check(&v3, "(\"7\", \"float8_e5m2\", 8, 0, [8])");
    let plain = call("torch._utils\n_rebuild_tensor", &[&half, view]);
    let parameter = call("torch._utils\n_rebuild_parameter", &[&plain, b"\x88N"]);
    check(&parameter, "(\"7\", \"float16\", 8, 0, [8])");
    let with_state = call("torch._utils\n_rebuild_parameter_with_state", &[&plain, b"\x88N}"]);
    check(&with_state, "(\"7\", \"float16\", 8, 0, [8])");
    let arguments = [b"(".as_slice(), &half, view, b"\x89Nt"].concat();
    let from_type = call(
        "torch._tensor\n_rebuild_from_type_v2",
        &[
            b"ctorch._utils\n_rebuild_tensor_v2\nctorch.nn.parameter\nParameter\n",
            &arguments[..arguments.len() - 1],
            b"Nt}",
        ],
    );
    check(&from_type, "(\"7\", \"float16\", 8, 0, [8])");
    let no_window = storage("torch\nHalfStorage", b"N");
    check(&call("torch._utils\n_rebuild_tensor", &[&no_window, view]), "(\"7\", \"float16\", 8, 0, [8])");
    let window = storage("torch\nHalfStorage", &[b"(".to_vec(), uni("x"), b"K\x02K\x06t".to_vec()].concat());
    check(&call("torch._utils\n_rebuild_tensor", &[&window, view]), "(\"7\", \"float16\", 6, 2, [8])");
}

/// Refused as something that is not plain data, naming all `parts`.
#[track_caller]
fn forbidden(program: &[u8], parts: &[&str]) {
    match read(program) {
        Err(Fault::Forbidden(problem)) => {
            assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_runs_code_is_refused_by_name() {
    let touch = uni("touch /tmp/x");
    let with = |start: &[u8], end: &[u8]| [start, &touch, end].concat();
    forbidden(&with(b"\x80\x02cposix\nsystem\n(", b"tR."), &["GLOBAL", "`posix.system`", "byte 2"]);
    forbidden(&with(b"cos\nsystem\n(", b"tR."), &["`os.system`"]);
    forbidden(&with(b"cbuiltins\neval\n(", b"tR."), &["`builtins.eval`"]);
    forbidden(&with(b"c__builtin__\nexec\n(", b"tR."), &["`__builtin__.exec`"]);
    forbidden(b"cbuiltins\ngetattr\n.", &["`builtins.getattr`"]);
    forbidden(b"ctorch\nload\n.", &["`torch.load`"]);
    forbidden(b"ctorch.storage\n_load_from_bytes\n.", &["`torch.storage._load_from_bytes`"]);
    forbidden(b"ctorch\nNopeStorage\n.", &["`torch.NopeStorage`"]);
    forbidden(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", &["not allowed"]);
    forbidden(b"c\x1b[31m\n\xff\n.", &["\\u{1b}", "\\xff"]);
    forbidden(&[uni("posix"), uni("system"), b"\x93.".to_vec()].concat(), &["STACK_GLOBAL", "`posix.system`"]);
    forbidden(&with(b"(", b"iposix\nsystem\n."), &["INST", "`posix.system`"]);
    forbidden(b"(ccollections\nOrderedDict\no.", &["OBJ"]);
    forbidden(b"ccollections\nOrderedDict\n)}\x92.", &["NEWOBJ_EX"]);
    forbidden(b"N)R.", &["REDUCE", "calls None"]);
    forbidden(b"N)\x81.", &["NEWOBJ", "calls None"]);
    forbidden(&with(b"", b")R."), &["calls a string"]);
    forbidden(b"ctorch\nFloatStorage\n)R.", &["only a name"]);
    forbidden(b"ctorch\nTensor\n)\x81.", &["only a name"]);
    forbidden(b"ctorch\nfloat32\n)R.", &["only a name"]);
    forbidden(&[tensor(), b"}b.".to_vec()].concat(), &["BUILD", "a tensor"]);
    forbidden(b"ctorch\nTensor\n}b.", &["BUILD", "a global"]);
    forbidden(b"N}b.", &["BUILD", "None"]);
    forbidden(b"\x82\x01.", &["EXT1"]);
    forbidden(b"Pid\n.", &["PERSID"]);
    forbidden(b"\x97.", &["NEXT_BUFFER"]);
    forbidden(&[b"(".to_vec(), uni("module"), b"NNNtQ.".to_vec()].concat(), &["`module`"]);
}

/// Refused as damaged or cut short, naming all `parts`.
#[track_caller]
fn damaged(program: &[u8], parts: &[&str]) {
    match read(program) {
        Err(Fault::Bad(problem) | Fault::Truncated(problem)) => {
            assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn contradictions_are_refused() {
    damaged(b"", &["truncated"]);
    damaged(b"\x80\x02}", &["truncated", "without STOP"]);
    damaged(b"\x80\x06N.", &["protocol 6"]);
    damaged(b".", &["stack underflow"]);
    damaged(b"(.", &["stack underflow"]);
    damaged(b"N(.", &["stack underflow"]);
    damaged(b"\x80\x02R.", &["REDUCE", "stack underflow"]);
    damaged(b"ctorch\nSize\nNR.", &["REDUCE", "not a tuple"]);
    damaged(b"t.", &["TUPLE", "no MARK"]);
    damaged(b"h\x63.", &["BINGET", "number 99"]);
    damaged(b"j\xff\xff\xff\xff.", &["4294967295"]);
    damaged(b"\x8b\xfb\xff\xff\xffa.", &["negative"]);
    damaged(b"T\xfb\xff\xff\xffa.", &["length -5"]);
    damaged(b"X\xff\xff\xff\xffa.", &["truncated", "4294967295"]);
    damaged(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", &["truncated"]);
    damaged(b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", &["frame"]);
    damaged(b"X\x02\0\0\0\xff\xfe.", &["not UTF-8"]);
    damaged(b"ctorch", &["truncated", "GLOBAL"]);
    damaged(b"\xee.", &["0xee"]);
    damaged(b"Ix\n.", &["no integer"]);
    damaged(b"L99999999999999999999L\n.", &["no integer"]);
    damaged(b"NK\x01K\x02s.", &["SETITEM", "None"]);
    damaged(b"NNa.", &["APPEND", "None"]);
    damaged(b"}(Nu.", &["key without a value"]);
    damaged(b"](N\x90.", &["ADDITEMS"]);
    damaged(b"NN\x93.", &["STACK_GLOBAL"]);
    damaged(b"NQ.", &["persistent identifier", "None"]);
    damaged(b")Q.", &["persistent identifier"]);
    damaged(b"ctorch._utils\n_rebuild_tensor_v2\n)R.", &["invalid arguments"]);
    damaged(b"ctorch._utils\n_rebuild_parameter\n(NNNtR.", &["invalid arguments", "None"]);
    damaged(b"ccollections\nOrderedDict\n]Na\x85R.", &["no pair"]);
    damaged(b"ctorch\nSize\nN\x85R.", &["None"]);
    // Every bound of a tensor's record.
    let record = |count: &[u8], offset: &[u8], size: &[u8], stride: &[u8]| {
        let start = [b"ctorch._utils\n_rebuild_tensor\n((".to_vec(), uni("storage")].concat();
        let start = [start, b"ctorch\nFloatStorage\n".to_vec(), uni("0"), uni("cpu")].concat();
        [&start, count, b"tQ", offset, size, stride, b"tR."].concat()
    };
    let one = b"K\x01\x85".as_slice();
    damaged(&record(b"J\xff\xff\xff\xff", b"K\0", one, one), &["size of storage `0`", "negative"]);
    damaged(&record(b"K\x01", b"J\xff\xff\xff\xff", one, one), &["offset", "negative"]);
    damaged(&record(b"K\x01", b"K\0", b"J\xff\xff\xff\xff\x85", one), &["dimension", "negative"]);
    damaged(&record(b"K\x01", b"K\0", one, b"N\x85"), &["stride", "None"]);
    damaged(&record(b"K\x01", b"K\0", one, b")"), &["1 dimensions and 0 strides"]);
    damaged(&record(b"K\x01", b"K\0", b"N", one), &["dimensions", "None"]);
    damaged(&record(b"\x8a\x09\0\0\0\0\0\0\0\0\x01", b"K\0", one, one), &["beyond 64 bits"]);
    let many = [b"(".as_slice(), &b"K\x01".repeat(65), b"t"].concat();
    damaged(&record(b"K\x01", b"K\0", &many, &many), &["65 dimensions"]);
    damaged(&record(b"N", b"K\0", one, one), &["size of storage", "None"]);
}

#[test]
fn bombs_cost_little() {
    let depth = usize::from(limits::PICKLE_DEPTH);
    let nested = |n: usize| [b"]".repeat(n), b"a".repeat(n - 1), b".".to_vec()].concat();
    ok(&nested(depth));
    damaged(&nested(depth + 1), &["nested too deep"]);
    damaged(&nested(200_000), &["nested too deep"]);
    damaged(&[b")".to_vec(), b"\x85".repeat(300), b".".to_vec()].concat(), &["nested too deep"]);
    // A list that holds itself costs one element; ten levels of doubling cost ten nodes.
    assert!(matches!(ok(b"]q\0h\0a.").root(), Node::List(items) if items.len() == 1));
    let laughs = [b"]".to_vec(), b"q\0h\0\x86".repeat(200), b".".to_vec()].concat();
    ok(&laughs);
    // Copies are paid for: a dictionary made of the same thousand pairs over and over.
    let pairs = [b"](".to_vec(), b"NN\x86".repeat(5000), b"eq\0ccollections\nOrderedDict\nq\x01".to_vec()].concat();
    let copies = [pairs, b"h\x01h\0\x85R0".repeat(5000), b".".to_vec()].concat();
    damaged(&copies, &["too large"]);
    damaged(&[b"N".to_vec(), b"\x94".repeat(limits::PICKLE_NODES + 1), b".".to_vec()].concat(), &["too large"]);
    damaged(&[b"N".repeat(limits::PICKLE_NODES + 1), b".".to_vec()].concat(), &["stack", "too large"]);
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = model();
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Err(Fault::Truncated(_)) => {}
            other => panic!("{len}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn random_programs_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(read(&bytes));
    }

    #[test]
    fn damaged_models_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = model();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        drop(read(&bytes));
    }
}
