//! The messages of an ONNX file that matter here: the graph, its nodes with their attributes, its constant tensors.
//!
//! Field numbers and meanings are those of the specification's `onnx.proto` (version 3 of the intermediate representation
//! and later). What belongs here: reading them where they lie, counted against the limits. What does not: what a node
//! computes (`graph.rs`), the elements of tensors (`data.rs`). Nothing recurses: of graphs inside attributes one is read, the branch that
//! [`inlined`] puts in its node's place, and those inside it are only seen.

use crate::{
    error::quoted,
    limits,
    protobuf::{Fault, Field, Message, Value},
};

/// An ONNX file.
pub(super) struct Model<'a> {
    pub(super) graph: Graph<'a>,
}

/// The graph of a model.
#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) initializers: Vec<Tensor<'a>>,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
}

/// A node: one use of an operator.
#[derive(Default)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) op: &'a str,
    /// The set that the operator is from; empty: that of ONNX itself.
    pub(super) domain: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    attributes: Vec<(&'a str, Attribute<'a>)>,
}

/// The value of an attribute.
pub(super) enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Text(&'a [u8]),
    Tensor(Box<Tensor<'a>>),
    Ints(Vec<i64>),
    /// Another graph: control flow.
    Graph(Message<'a>),
    /// Of a kind that nothing here needs.
    Other,
}

/// A constant tensor.
#[derive(Clone, Default)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) dims: Vec<i64>,
    /// The number of its element type.
    pub(super) data_type: u64,
    pub(super) stored: Stored<'a>,
}

/// How the elements are stored.
#[derive(Clone, Default)]
pub(super) enum Stored<'a> {
    #[default]
    Nowhere,
    /// As bytes: of the element type, little endian.
    Raw(Message<'a>),
    /// As numbers of this field, in pieces: each one number or several packed.
    Numbers { field: u32, pieces: Vec<Value<'a>> },
    /// In another file.
    External(External<'a>),
}

/// Where another file has the elements.
#[derive(Clone, Default)]
pub(super) struct External<'a> {
    pub(super) location: Option<&'a str>,
    pub(super) offset: Option<&'a str>,
    pub(super) length: Option<&'a str>,
}

/// Numbers in fields of their own: `float_data`, `int32_data`, `int64_data`, `double_data`, `uint64_data`.
pub(super) const FLOATS: u32 = 4;
pub(super) const INTS: u32 = 5;
const STRINGS: u32 = 6;
pub(super) const LONGS: u32 = 7;
pub(super) const DOUBLES: u32 = 10;
const UNSIGNED_LONGS: u32 = 11;

type Result<T> = std::result::Result<T, Fault>;

impl<'a> Node<'a> {
    /// The attribute called `name`.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The integer called `name`.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The number called `name`.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// The integers called `name`.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// The tensor called `name`.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        match self.attribute(name) {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }

    /// Whether it holds another graph.
    pub(super) fn has_graph(&self) -> bool {
        self.attributes.iter().any(|(_, value)| matches!(value, Attribute::Graph(_)))
    }

    /// Input `index`; none when it is left out.
    pub(super) fn input(&self, index: usize) -> Option<&'a str> {
        self.inputs.get(index).copied().filter(|name| !name.is_empty())
    }

    /// What it is, for messages: operator and name, or what it writes when it has none.
    pub(super) fn described(&self) -> String {
        let domain = if self.domain.is_empty() { String::new() } else { format!("{}::", self.domain) };
        let op = quoted(format!("{domain}{}", self.op));
        match self.outputs.first() {
            _ if !self.name.is_empty() => format!("the node {} (operator {op})", quoted(self.name)),
            Some(output) => format!("the node that writes {} (operator {op})", quoted(output)),
            None => format!("a node without name (operator {op})"),
        }
    }
}

/// Reads the file, whose bytes are `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Model<'_>> {
    let mut graph = None;
    for field in (Message { bytes, at: 0 }).fields() {
        let field = field?;
        match field.number {
            7 if graph.is_some() => return fault(&field, "a second graph"),
            7 => graph = Some(read_graph(field.message()?)?),
            _ => {}
        }
    }
    match graph {
        Some(graph) => Ok(Model { graph: inlined(graph)? }),
        None => Err(Fault { at: 0, problem: "the graph is missing".to_owned() }),
    }
}

fn fault<T>(field: &Field<'_>, problem: impl Into<String>) -> Result<T> {
    Err(Fault { at: field.at, problem: problem.into() })
}

fn read_graph(message: Message<'_>) -> Result<Graph<'_>> {
    let mut graph = Graph::default();
    let mut n_links = 0;
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 if graph.nodes.len() == limits::ONNX_NODES => return fault(&field, "too many nodes"),
            1 => {
                let node = read_node(field.message()?)?;
                n_links += node.inputs.len() + node.outputs.len() + node.attributes.len();
                if n_links > limits::ONNX_LINKS {
                    return fault(&field, "too many inputs, outputs and attributes of nodes");
                }
                graph.nodes.push(node);
            }
            5 if graph.initializers.len() as u64 == limits::TENSORS => return fault(&field, "too many initializers"),
            5 => graph.initializers.push(read_tensor(field.message()?)?),
            11 | 12 => {
                let names = if field.number == 11 { &mut graph.inputs } else { &mut graph.outputs };
                if names.len() == limits::ONNX_NODES {
                    return fault(&field, "too many inputs or outputs of the graph");
                }
                names.push(value_name(field.message()?)?);
            }
            15 => return fault(&field, "sparse initializers are not supported"),
            _ => {}
        }
    }
    Ok(graph)
}

/// The graph with its first `If` replaced by the branch taken when the condition holds. Exporters choose so between a
/// model with a cache and the same without, or between tables of positions: either branch has the same weights.
fn inlined(mut graph: Graph<'_>) -> Result<Graph<'_>> {
    let is_choice = |node: &Node<'_>| node.op == "If" && node.domain.is_empty();
    let Some(at) = graph.nodes.iter().position(is_choice) else { return Ok(graph) };
    let branch = match graph.nodes.get(at).and_then(|node| node.attribute("then_branch")) {
        Some(Attribute::Graph(message)) => *message,
        _ => return Ok(graph),
    };
    let fault = |problem: &str| Err(Fault { at: branch.at, problem: problem.to_owned() });
    let Graph { nodes, initializers, inputs: _, outputs } = read_graph(branch)?;
    let n_constants = graph.initializers.len().saturating_add(initializers.len());
    if graph.nodes.len().saturating_add(nodes.len()) > limits::ONNX_NODES || n_constants as u64 > limits::TENSORS {
        return fault("too many nodes or initializers with those of a branch");
    }
    let choice = graph.nodes.remove(at);
    if choice.outputs.len() != outputs.len() {
        return fault("a branch with another number of outputs than its node");
    }
    let named = outputs.into_iter().zip(choice.outputs).map(|(inner, outer)| Node {
        op: "Identity",
        inputs: vec![inner],
        outputs: vec![outer],
        ..Node::default()
    });
    let all: Vec<Node<'_>> = nodes.into_iter().chain(named).collect();
    graph.nodes.splice(at..at, all);
    graph.initializers.extend(initializers);
    Ok(graph)
}

fn value_name(message: Message<'_>) -> Result<&str> {
    let mut name = "";
    for field in message.fields() {
        let field = field?;
        if field.number == 1 {
            name = field.text()?;
        }
    }
    Ok(name)
}

fn read_node(message: Message<'_>) -> Result<Node<'_>> {
    let mut node = Node::default();
    for field in message.fields() {
        let field = field?;
        if node.inputs.len() + node.outputs.len() + node.attributes.len() > limits::ONNX_NODE_LINKS {
            return fault(&field, "a node with too many inputs, outputs and attributes");
        }
        match field.number {
            1 => node.inputs.push(field.text()?),
            2 => node.outputs.push(field.text()?),
            3 => node.name = field.text()?,
            4 => node.op = field.text()?,
            5 => node.attributes.push(read_attribute(field.message()?)?),
            7 => node.domain = field.text()?,
            _ => {}
        }
    }
    Ok(node)
}

fn read_attribute(message: Message<'_>) -> Result<(&str, Attribute<'_>)> {
    let (mut name, mut value) = ("", Attribute::Other);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => match field.value {
                Value::Fixed32(bits) => value = Attribute::Float(f32::from_bits(bits)),
                _ => return fault(&field, "an attribute's number that is no float"),
            },
            3 => value = Attribute::Int(field.varint()? as i64),
            4 => value = Attribute::Text(field.message()?.bytes),
            5 => value = Attribute::Tensor(Box::new(read_tensor(field.message()?)?)),
            6 => value = Attribute::Graph(field.message()?),
            8 => {
                if !matches!(value, Attribute::Ints(_)) {
                    value = Attribute::Ints(Vec::new());
                }
                if let Attribute::Ints(ints) = &mut value {
                    append(&field, limits::ONNX_ATTRIBUTE_INTS, ints)?;
                }
            }
            _ => {}
        }
    }
    Ok((name, value))
}

/// Adds the integers of a field, one or several packed.
fn append(field: &Field<'_>, most: usize, to: &mut Vec<i64>) -> Result<()> {
    let mut add = |number: u64| match to.len() < most {
        true => {
            to.push(number as i64);
            Ok(())
        }
        false => fault(field, format!("more than {most} integers in a list")),
    };
    match field.value {
        Value::Varint(number) => add(number),
        Value::Bytes(packed) => packed.varints().try_for_each(|number| add(number?)),
        _ => fault(field, "invalid wire type of a list of integers"),
    }
}

fn read_tensor(message: Message<'_>) -> Result<Tensor<'_>> {
    let mut tensor = Tensor::default();
    let mut external = External::default();
    let mut is_external = false;
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => append(&field, limits::ONNX_DIMS, &mut tensor.dims)?,
            2 => tensor.data_type = field.varint()?,
            3 => return fault(&field, "a tensor in segments is not supported"),
            FLOATS | INTS | LONGS | DOUBLES | UNSIGNED_LONGS => push_number(&mut tensor.stored, &field)?,
            STRINGS => return fault(&field, "a tensor of strings is not supported"),
            8 => tensor.name = field.text()?,
            9 => tensor.stored = Stored::Raw(field.message()?),
            13 => {
                let (key, value) = entry(field.message()?)?;
                match key {
                    "location" => external.location = Some(value),
                    "offset" => external.offset = Some(value),
                    "length" => external.length = Some(value),
                    // A checksum, which is optional and hardly ever written.
                    _ => {}
                }
            }
            14 => is_external = field.varint()? == 1,
            _ => {}
        }
    }
    if is_external {
        tensor.stored = Stored::External(external);
    }
    Ok(tensor)
}

fn push_number<'a>(stored: &mut Stored<'a>, field: &Field<'a>) -> Result<()> {
    match stored {
        Stored::Raw(_) => Ok(()),
        Stored::Numbers { field: known, pieces } if *known == field.number => {
            if pieces.len() == limits::ONNX_SINGLE_NUMBERS {
                return fault(field, "too many numbers in fields of their own: large tensors are stored as raw bytes");
            }
            pieces.push(field.value);
            Ok(())
        }
        _ => {
            *stored = Stored::Numbers { field: field.number, pieces: vec![field.value] };
            Ok(())
        }
    }
}

fn entry(message: Message<'_>) -> Result<(&str, &str)> {
    let mut pair = ("", "");
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => pair.0 = field.text()?,
            2 => pair.1 = field.text()?,
            _ => {}
        }
    }
    Ok(pair)
}
