//! ONNX graphs made here: names by structure, every way to store a matrix, and what is refused with which words.

use crate::{
    graph_writer::{Node, Tensor, Writer, bytes, floats, integers, node, number},
    open::{MAPPED, READ, write},
};
use checkpoint::Checkpoint;
use std::path::Path;

const RUNTIME: &str = "com.microsoft";

#[track_caller]
fn open(directory: &Path, writer: &Writer) -> Checkpoint {
    let path = write(directory, "model.onnx", &writer.bytes());
    Checkpoint::open(&path, &MAPPED).unwrap()
}

#[track_caller]
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.load(name).unwrap().to_f32().unwrap()
}

/// Constants called after nothing and nodes without names: the structure tells what they are.
#[test]
fn weights_are_named_after_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let mapped = open(directory.path(), &Writer::layer());
    let read = Checkpoint::open(&directory.path().join("model.onnx"), &READ).unwrap();
    assert_eq!((mapped.format(), mapped.tensors().len()), ("onnx", 13));
    let layer = |part: &str| format!("model.layers.0.{part}");
    for (name, dims, first, second) in [
        ("model.embed_tokens.weight".to_owned(), vec![4, 4], 0.0, 1.0),
        (layer("input_layernorm.weight"), vec![4], 100.0, 101.0),
        // Stored by columns: a row's next element is a row's length on.
        (layer("self_attn.q_proj.weight"), vec![4, 4], 200.0, 204.0),
        (layer("self_attn.k_proj.weight"), vec![2, 4], 300.0, 302.0),
        (layer("self_attn.v_proj.weight"), vec![2, 4], 400.0, 402.0),
        (layer("self_attn.v_proj.bias"), vec![2], 500.0, 501.0),
        (layer("self_attn.o_proj.weight"), vec![4, 4], 600.0, 604.0),
        (layer("post_attention_layernorm.weight"), vec![4], 700.0, 701.0),
        (layer("mlp.up_proj.weight"), vec![6, 4], 800.0, 806.0),
        (layer("mlp.gate_proj.weight"), vec![6, 4], 900.0, 906.0),
        (layer("mlp.down_proj.weight"), vec![4, 6], 1000.0, 1004.0),
        ("model.norm.weight".to_owned(), vec![4], 1100.0, 1101.0),
        ("lm_head.weight".to_owned(), vec![4, 4], 1200.0, 1204.0),
    ] {
        let tensor = mapped.tensor(&name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(tensor.shape.dims(), dims, "{name}");
        let found = values(&mapped, &name);
        assert_eq!((found[0], found[1]), (first, second), "{name}");
        assert_eq!(found, values(&read, &name), "{name}");
    }
    assert_eq!(mapped.metadata().bool("config.tie_word_embeddings").unwrap(), Some(false));
}

/// The table of tokens as the output matrix, turned: it is one tensor.
#[test]
fn a_tied_table_is_one_tensor() {
    let directory = tempfile::tempdir().unwrap();
    let turned = [node("Transpose", &["t0"], &["turned"]), node("MatMul", &["n2", "turned"], &["logits"])];
    let tied = open(directory.path(), &Writer::layer().instead("logits", &turned));
    assert_eq!(tied.metadata().bool("config.tie_word_embeddings").unwrap(), Some(true));
    assert!(tied.tensor("lm_head.weight").is_none() && tied.tensor("model.embed_tokens.weight").is_some());
}

/// A model with a cache and one without in one graph: the branches share the weights.
#[test]
fn a_choice_between_branches() {
    let branch = Writer { tensors: Vec::new(), ..Writer::layer() }
        .instead("logits", &[node("MatMul", &["n2", "t12"], &["inner"])]);
    let graph = Writer { outputs: vec!["inner"], inputs: Vec::new(), ..branch }.graph();
    let choice = node("If", &["mask"], &["logits"]);
    let merged = |graph: &[u8]| Writer { nodes: vec![choice.clone().graph("then_branch", graph)], ..Writer::layer() };
    let directory = tempfile::tempdir().unwrap();
    let model = open(directory.path(), &merged(&graph));
    assert_eq!(model.tensors().len(), 13);
    assert_eq!(values(&model, "model.layers.0.mlp.down_proj.weight")[..2], [1000.0, 1004.0]);
    for (writer, expected) in [
        (merged(&Writer { outputs: Vec::new(), ..Writer::layer() }.graph()), "another number of outputs"),
        (merged(b"\x0a"), "truncated"),
        (merged(&Writer { tensors: Vec::new(), ..merged(&graph) }.graph()), "is control flow"),
        (Writer { nodes: vec![choice.clone()], ..Writer::layer() }, "(operator `If`) is unknown"),
        (
            Writer::layer().instead("a", &[node("Loop", &["q"], &["a"]).graph("body", &graph)]),
            "(operator `Loop`) is control flow",
        ),
    ] {
        let path = write(directory.path(), "bad.onnx", &writer.bytes());
        let error = Checkpoint::open(&path, &MAPPED).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Levels of `q`: 32 inputs and 2 outputs, however they are stored; weights are `(i + 3 j) % 16 - 4` halves.
#[test]
fn quantized_matrices() {
    let level = |i: usize, j: usize| (i + 3 * j) as u8 % 16;
    let expected: Vec<f32> = (0..64).map(|x| (f32::from(level(x % 32, x / 32)) - 4.0) * 0.5).collect();
    let by_columns: Vec<u8> = (0..64).map(|x| level(x / 2, x % 2)).collect();
    let nibbles = |levels: &[u8]| levels.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect::<Vec<u8>>();
    let by_rows: Vec<u8> = (0..64).map(|x| level(x % 32, x / 32)).collect();
    let half = floats("scale", &[], &[0.5]);
    let four = integers("zero", &[], 2, &[4]);
    let signed: Vec<u8> = by_columns.iter().map(|q| q.wrapping_sub(8)).collect();
    let dynamic = [
        node("DynamicQuantizeLinear", &["wide"], &["x8", "xs", "xz"]),
        node("MatMulInteger", &["x8", "levels", "xz", "zero"], &["q32"]),
        node("Cast", &["q32"], &["qf"]).int("to", 1),
        node("Mul", &["xs", "scale"], &["both"]),
        node("Mul", &["qf", "both"], &["q"]),
    ];
    let dequantized =
        [node("DequantizeLinear", &["levels", "scale", "zero"], &["w"]), node("MatMul", &["wide", "w"], &["q"])];
    let in_groups = |zero: &'static str| {
        let product = node("MatMulNBits", &["wide", "levels", "scale", zero], &["q"]).from(RUNTIME);
        [product.int("K", 32).int("N", 2).int("bits", 4).int("block_size", 16)]
    };
    #[track_caller]
    fn check(nodes: &[Node], tensors: &[&Tensor], expected: &[f32]) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::layer().instead("q", nodes);
        // A wider input for it; attention does not mind.
        writer.nodes.insert(2, node("Concat", &["n0", "n0"], &["wide"]));
        let writer = tensors.iter().fold(writer, |writer, tensor| writer.with((*tensor).clone()));
        let model = open(directory.path(), &writer);
        let name = "model.layers.0.self_attn.q_proj.weight";
        assert!(model.tensor(name).unwrap().dtype.is_quantized());
        assert_eq!(values(&model, name), expected);
    }
    let levels = |data_type, dims: &[i64], bytes: &[u8]| integers("levels", dims, data_type, bytes);
    check(&dynamic, &[&levels(2, &[32, 2], &by_columns), &half, &four], &expected);
    let minus_four = integers("zero", &[], 3, &[(-4i8) as u8]);
    check(&dynamic, &[&levels(3, &[32, 2], &signed), &half, &minus_four], &expected);
    check(
        &dequantized,
        &[&levels(2, &[32, 2], &by_columns), &floats("scale", &[2], &[0.5, 0.5]), &integers("zero", &[2], 2, &[4, 4])],
        &expected,
    );
    check(
        &dequantized,
        &[&levels(21, &[32, 2], &nibbles(&by_columns)), &half, &integers("zero", &[], 21, &[4])],
        &expected,
    );
    let halves = floats("scale", &[2, 2], &[0.5; 4]);
    let rows = levels(2, &[2, 2, 8], &nibbles(&by_rows));
    check(&in_groups("zero"), &[&rows, &halves, &integers("zero", &[2, 1], 2, &[0x44, 0x44])], &expected);
    check(&in_groups("zero"), &[&rows, &halves, &floats("zero", &[2, 2], &[4.0; 4])], &expected);
    let without: Vec<f32> = expected.iter().map(|v| v - 2.0).collect();
    check(&in_groups(""), &[&rows, &halves], &without);
}

#[test]
fn data_beside_the_graph() {
    let directory = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = (0..20).flat_map(|i| (i as f32).to_le_bytes()).collect();
    write(directory.path(), "weights.bin", &raw);
    let external =
        floats("t6", &[4, 4], &[]).external(&[("location", "weights.bin"), ("offset", "16"), ("length", "64")]);
    let model = open(directory.path(), &Writer::layer().with(external));
    assert_eq!(model.files().len(), 2);
    assert_eq!(values(&model, "model.layers.0.self_attn.o_proj.weight")[..2], [4.0, 8.0]);
}

/// The folder of a repository: graphs in `onnx`, what describes the model above it.
#[test]
fn folders() {
    let directory = tempfile::tempdir().unwrap();
    let graphs = directory.path().join("onnx");
    std::fs::create_dir(&graphs).unwrap();
    write(directory.path(), "config.json", br#"{"model_type": "x", "quantization_config": {"bits": 4}}"#);
    write(directory.path(), "tokenizer.json", b"{}");
    write(&graphs, "model_b.onnx", &Writer::layer().bytes());
    for path in [directory.path().to_owned(), graphs.clone(), graphs.join("model_b.onnx")] {
        let model = Checkpoint::open(&path, &MAPPED).unwrap();
        assert_eq!(model.metadata().str("config.model_type").unwrap(), Some("x"), "{}", path.display());
        assert!(model.metadata().get("config.quantization_config.bits").is_none());
        assert_eq!(model.sidecars().collect::<Vec<_>>(), ["tokenizer.json"]);
    }
    write(&graphs, "model_a.onnx", &Writer::layer().bytes());
    let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
    assert!(error.contains("several graphs, `model_a.onnx`, `model_b.onnx`: name the one to open"), "{error}");
    write(&graphs, "model.onnx", b"\x08\x08\x12");
    let error = Checkpoint::open(directory.path(), &MAPPED).unwrap_err().to_string();
    assert!(error.contains("protobuf at byte 3: truncated"), "{error}");
}

/// Every graph that is not one, and the words that say why.
#[test]
fn refusals() {
    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "w.bin", &[0; 64]);
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        let path = write(directory.path(), "model.onnx", bytes);
        let error = Checkpoint::open(&path, &MAPPED).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let layer = Writer::layer;
    let refused = |writer: Writer, expected: &str| check(&writer.bytes(), expected);
    // The graph.
    check(&[number(1, 8), bytes(8, b"")].concat(), "the graph is missing");
    check(&[layer().bytes(), bytes(7, &layer().graph())].concat(), "a second graph");
    refused(Writer { nodes: Vec::new(), ..layer() }, "it has no nodes");
    refused(Writer { outputs: Vec::new(), ..layer() }, "it has no outputs");
    refused(Writer { outputs: vec!["nothing"], ..layer() }, "no node writes the graph's output `nothing`");
    refused(layer().instead("e", &[node("NoSuchOp", &["t0", "tokens"], &["e"])]), "(operator `NoSuchOp`) is unknown");
    refused(layer().instead("e", &[node("Gather", &["t0", "tokens"], &["e"]).from("evil")]), "`evil::Gather`");
    refused(layer().instead("d", &[node("MatMul", &["ghost", "t10"], &["d"])]), "reads `ghost`");
    refused(layer().instead("d", &[node("MatMul", &[], &["d"])]), "has 0 inputs, it needs 2");
    refused(layer().instead("d", &[node("MatMul", &["h", "t10"], &["d", "h"])]), "`h` is written twice");
    // What a model is.
    let bomb = [node("MatMul", &["n2", "t12"], &["all"]), node("Range", &["mask", "mask", "mask"], &["bomb"])];
    let spliced = layer().instead("logits", &[&bomb[..], &[node("Add", &["all", "bomb"], &["logits"])]].concat());
    refused(
        spliced,
        "the output `logits` is written by the node that writes `logits` (operator `Add`), which is no projection",
    );
    refused(layer().instead("s1", &[node("Add", &["s0", "h"], &["s1"])]), "adds something to the model's state");
    refused(layer().instead("e", &[node("Cast", &["tokens"], &["e"])]), "does not come from a table of tokens");
    refused(layer().instead("g1", &[node("Cos", &["g"], &["g1"])]), "is not recognised as the end of a gated layer");
    // Constants.
    refused(layer().with(floats("t10", &[-6, 4], &[])), "tensor `t10`: the shape [-6, 4] is negative or overflows");
    refused(layer().with(floats("t10", &[1 << 62, 4], &[])), "overflows");
    refused(layer().with(floats("t10", &[6, 4], &[0.0; 23])), "needs 96 bytes, there are 92");
    refused(layer().with(integers("t10", &[6, 4], 99, &[])), "the element type 99 is unknown");
    refused(layer().with(integers("t10", &[6, 4], 8, &[])), "the element type 8 is unknown");
    refused(layer().with(Tensor { data: Vec::new(), ..floats("t10", &[6, 4], &[]) }), "it has no data");
    // Files beside it.
    let beside = |entries: &[(&str, &str)]| layer().with(floats("t10", &[6, 4], &[]).external(entries));
    refused(beside(&[]), "no location");
    refused(beside(&[("location", "../w.bin")]), "`../w.bin`, which is not a plain file name");
    refused(beside(&[("location", "/etc/passwd")]), "not a plain file name");
    refused(beside(&[("location", "gone.bin")]), "`gone.bin`, cannot be read");
    refused(beside(&[("location", "sub")]), "a directory");
    refused(beside(&[("location", "w.bin")]), "96 bytes at offset 0, reaches beyond the end of `w.bin` (64 bytes)");
    refused(beside(&[("location", "w.bin"), ("offset", "-1")]), "the offset of its external data is no number: `-1`");
    refused(
        beside(&[("location", "w.bin"), ("length", "95")]),
        "needs 96 bytes, the length of its external data is 95",
    );
    refused(beside(&[("location", "w.bin"), ("offset", "18446744073709551615")]), "beyond the end");
    // Products.
    let grouped = |k: i64, size: i64, inputs: &[&'static str]| {
        let product = node("MatMulNBits", inputs, &["q"]).from(RUNTIME);
        let product = product.int("K", k).int("N", 4).int("bits", 4).int("block_size", size);
        let tensors = [integers("levels", &[4, 1, 16], 2, &[0; 64]), floats("scale", &[4, 1], &[1.0; 4])];
        tensors.into_iter().fold(layer().instead("q", &[product]), Writer::with)
    };
    refused(grouped(64, 32, &["n0", "levels", "scale"]), "the levels do not fit the shape [4, 64]");
    refused(grouped(32, 16, &["n0", "levels", "scale"]), "the scales do not fit the shape [4, 32]");
    refused(grouped(32, 0, &["n0", "levels", "scale"]), "the attribute block_size is missing or invalid");
    refused(grouped(-1, 32, &["n0", "levels", "scale"]), "the attribute K is missing or invalid");
    refused(grouped(32, i64::MAX, &["n0", "levels", "scale"]), "are not supported");
    refused(grouped(32, 32, &["n0", "levels", "scale", "", "t1"]), "g_idx");
}

/// A file cut off or damaged anywhere is refused or read, and nothing else.
#[test]
fn damage_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let good = Writer::layer().bytes();
    for at in (0..good.len()).step_by(3) {
        let path = write(directory.path(), "model.onnx", &good[..at]);
        assert!(Checkpoint::open(&path, &READ).is_err(), "cut at {at}");
        for value in [0, 0x80, good[at] ^ 1] {
            let mut damaged = good.clone();
            damaged[at] = value;
            let path = write(directory.path(), "model.onnx", &damaged);
            if let Ok(model) = Checkpoint::open(&path, &READ) {
                for tensor in model.tensors() {
                    let _ = model.load(&tensor.name);
                }
            }
        }
    }
}
