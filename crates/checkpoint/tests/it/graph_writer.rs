//! A small ONNX writer: a graph of one layer whose nodes have no names, and lets a test change any piece of it.

/// A field of variable length.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field of bytes: text or a message.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A node without a name.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) op: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) inputs: Vec<&'static str>,
    pub(crate) outputs: Vec<&'static str>,
    pub(crate) attributes: Vec<Vec<u8>>,
}

pub(crate) fn node(op: &'static str, inputs: &[&'static str], outputs: &[&'static str]) -> Node {
    Node { op, domain: "", inputs: inputs.to_vec(), outputs: outputs.to_vec(), attributes: Vec::new() }
}

impl Node {
    pub(crate) fn from(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    /// An integer attribute.
    pub(crate) fn int(mut self, name: &str, value: i64) -> Self {
        self.attributes.push([bytes(1, name.as_bytes()), number(3, value as u64), number(20, 2)].concat());
        self
    }

    /// An attribute that is a graph.
    pub(crate) fn graph(mut self, name: &str, graph: &[u8]) -> Self {
        self.attributes.push([bytes(1, name.as_bytes()), bytes(6, graph), number(20, 5)].concat());
        self
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.inputs.iter().for_each(|input| out.extend(bytes(1, input.as_bytes())));
        self.outputs.iter().for_each(|output| out.extend(bytes(2, output.as_bytes())));
        out.extend(bytes(4, self.op.as_bytes()));
        self.attributes.iter().for_each(|attribute| out.extend(bytes(5, attribute)));
        out.extend(bytes(7, self.domain.as_bytes()));
        out
    }
}

/// A constant: dimensions, type and the field with its data.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) dims: Vec<i64>,
    pub(crate) data_type: u64,
    pub(crate) data: Vec<u8>,
}

/// Floats as raw bytes.
pub(crate) fn floats(name: &'static str, dims: &[i64], values: &[f32]) -> Tensor {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { name, dims: dims.to_vec(), data_type: 1, data: bytes(9, &raw) }
}

/// Bytes as raw bytes, of the type with this number.
pub(crate) fn integers(name: &'static str, dims: &[i64], data_type: u64, values: &[u8]) -> Tensor {
    Tensor { name, dims: dims.to_vec(), data_type, data: bytes(9, values) }
}

impl Tensor {
    fn written(&self) -> Vec<u8> {
        let dims: Vec<u8> = self.dims.iter().flat_map(|dim| number(1, *dim as u64)).collect();
        [dims, number(2, self.data_type), bytes(8, self.name.as_bytes()), self.data.clone()].concat()
    }

    /// The same with its data in another file.
    pub(crate) fn external(mut self, entries: &[(&str, &str)]) -> Self {
        let entry =
            |(key, value): &(&str, &str)| bytes(13, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat());
        self.data = [entries.iter().flat_map(entry).collect(), number(14, 1)].concat();
        self
    }
}

/// The pieces of a model.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) inputs: Vec<&'static str>,
    pub(crate) outputs: Vec<&'static str>,
}

const RUNTIME: &str = "com.microsoft";
/// Numbers that tell every element of a matrix apart.
fn counted(n: i64, from: f32) -> Vec<f32> {
    (0..n).map(|i| from + i as f32).collect()
}

impl Writer {
    /// Four tokens of width 4, one layer with queries of 4 and keys and values of 2, 6 between gate and product.
    pub(crate) fn layer() -> Self {
        let matrix =
            |name, rows: i64, columns: i64, from| floats(name, &[rows, columns], &counted(rows * columns, from));
        let vector = |name, from| floats(name, &[4], &counted(4, from));
        Self {
            nodes: vec![
                node("Gather", &["t0", "tokens"], &["e"]),
                node("SimplifiedLayerNormalization", &["e", "t1"], &["n0"]),
                node("MatMul", &["n0", "t2"], &["q"]),
                node("MatMul", &["n0", "t3"], &["k"]),
                node("MatMul", &["n0", "t4"], &["v0"]),
                node("Add", &["t5", "v0"], &["v"]),
                node("GroupQueryAttention", &["q", "k", "v", "", "", "mask", "mask"], &["a"]).from(RUNTIME),
                node("MatMul", &["a", "t6"], &["o"]),
                node("SkipSimplifiedLayerNormalization", &["e", "o", "t7"], &["n1", "", "", "s0"]).from(RUNTIME),
                node("MatMul", &["n1", "t8"], &["u"]),
                node("MatMul", &["n1", "t9"], &["g"]),
                node("Sigmoid", &["g"], &["g1"]),
                node("Mul", &["g", "g1"], &["g2"]),
                node("Mul", &["g2", "u"], &["h"]),
                node("MatMul", &["h", "t10"], &["d"]),
                node("Add", &["s0", "d"], &["s1"]),
                node("SimplifiedLayerNormalization", &["s1", "t11"], &["n2"]),
                node("MatMul", &["n2", "t12"], &["logits"]),
            ],
            tensors: vec![
                matrix("t0", 4, 4, 0.0),
                vector("t1", 100.0),
                matrix("t2", 4, 4, 200.0),
                matrix("t3", 4, 2, 300.0),
                matrix("t4", 4, 2, 400.0),
                floats("t5", &[2], &[500.0, 501.0]),
                matrix("t6", 4, 4, 600.0),
                vector("t7", 700.0),
                matrix("t8", 4, 6, 800.0),
                matrix("t9", 4, 6, 900.0),
                matrix("t10", 6, 4, 1000.0),
                vector("t11", 1100.0),
                matrix("t12", 4, 4, 1200.0),
            ],
            inputs: vec!["tokens", "mask"],
            outputs: vec!["logits"],
        }
    }

    /// Replaces the constant of the same name.
    pub(crate) fn with(mut self, tensor: Tensor) -> Self {
        match self.tensors.iter_mut().find(|known| known.name == tensor.name) {
            Some(known) => *known = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    /// Replaces the node that writes `output` by others.
    pub(crate) fn instead(mut self, output: &str, nodes: &[Node]) -> Self {
        let index = self.nodes.iter().position(|node| node.outputs.contains(&output)).unwrap();
        self.nodes.splice(index..=index, nodes.iter().cloned());
        self
    }

    pub(crate) fn graph(&self) -> Vec<u8> {
        let named = |field, name: &&str| bytes(field, &bytes(1, name.as_bytes()));
        let mut graph = Vec::new();
        self.nodes.iter().for_each(|node| graph.extend(bytes(1, &node.written())));
        self.tensors.iter().for_each(|tensor| graph.extend(bytes(5, &tensor.written())));
        self.inputs.iter().for_each(|name| graph.extend(named(11, name)));
        self.outputs.iter().for_each(|name| graph.extend(named(12, name)));
        graph
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let set = bytes(8, &[bytes(1, b""), number(2, 18)].concat());
        [number(1, 8), set, bytes(7, &self.graph())].concat()
    }
}
