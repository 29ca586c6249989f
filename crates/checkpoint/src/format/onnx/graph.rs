//! The walk along a graph that finds its weights: what each is used for, and from which others its input comes.
//!
//! Nodes come in an order in which each reads only what was written before (the specification demands it), so one pass is
//! enough and a cycle cannot be. The walk knows tables that rows are looked up in, projections, norms and the sums that
//! carry the model's state from layer to layer; everything between them only mixes values. What does not belong here:
//! names (`names.rs`), how levels lie in their tensors (`matrix.rs`).

use super::{
    data::{Constant, Parts},
    matrix::{Matrix, Reader},
    operators::{self, Rule},
    proto::{Model, Node},
};
use crate::{Error, Result, error::quoted, limits};
use std::{collections::HashMap, path::Path, rc::Rc};

/// Where a value comes from.
#[derive(Clone)]
enum Origin {
    /// An input that is left out.
    Absent,
    /// An input of the graph.
    Input,
    /// A constant as it is stored.
    Constant(usize),
    /// A constant in another shape.
    Reshaped(usize),
    /// A matrix made of constants.
    Matrix(Matrix),
    /// A constant vector and one more.
    PlusOne(usize),
    /// Rows of a constant's integers.
    Gathered(usize),
    /// A product with a constant's integers that lacks its scale: levels, zero points, where the other factor is from.
    Integers { levels: usize, zeros: Option<usize>, sources: Rc<[usize]> },
    /// The scale of values that were quantized while computing.
    InputScale,
    /// That times a constant.
    Scale(usize),
    /// Just what this element yields.
    Element(usize),
    /// Made of what these elements yield.
    Mixed(Rc<[usize]>),
}

/// What an element is.
pub(super) enum Kind {
    /// A table that rows are looked up in.
    Lookup(Matrix),
    /// A product with a matrix, rows of which belong to the outputs.
    Projection(Matrix),
    /// A product with a vector: the end of a norm.
    Scale { constant: usize, plus_one: bool, epsilon: Option<f32> },
    /// A sum of two other elements.
    Sum,
}

/// A weight in use, or a sum of what they yield.
pub(super) struct Element {
    pub(super) kind: Kind,
    pub(super) node: usize,
    /// The elements that its input is made of; of a sum its terms.
    pub(super) parents: Rc<[usize]>,
    /// A vector added to what it yields.
    pub(super) bias: Option<usize>,
    /// Whether the model's state from layer to layer is what it yields.
    pub(super) carries: bool,
    /// Whether it yields something that a sum or a norm takes as it is.
    pub(super) is_taken: bool,
    /// The node that applies a function to what it yields.
    pub(super) activated: Option<usize>,
}

/// A graph and what was found in it.
pub(super) struct Graph<'a, 'm> {
    pub(super) nodes: &'m [Node<'a>],
    pub(super) constants: Vec<Constant<'a>>,
    pub(super) elements: Vec<Element>,
    /// The element that yields the graph's first output.
    pub(super) head: usize,
    /// The first node that computes attention as one operator.
    pub(super) attends: Option<usize>,
    /// Tables of cosines and sines of rotary positions.
    pub(super) rotation: Option<[usize; 2]>,
}

/// Finds the weights of `model`, which is at `path`.
pub(super) fn read<'a, 'm>(model: &'m Model<'a>, parts: &mut Parts, path: &Path) -> Result<Graph<'a, 'm>> {
    let mut walk = Walk {
        path,
        nodes: &model.graph.nodes,
        constants: Vec::new(),
        values: HashMap::new(),
        elements: Vec::new(),
        broken: None,
        attends: None,
        rotation: None,
    };
    for tensor in &model.graph.initializers {
        walk.constant(parts.constant(tensor, tensor.name)?)?;
    }
    for name in &model.graph.inputs {
        // Older files list constants among the inputs.
        walk.values.entry(name).or_insert(Origin::Input);
    }
    if model.graph.nodes.is_empty() {
        return Err(walk.refusal("it has no nodes".to_owned()));
    }
    for (index, node) in model.graph.nodes.iter().enumerate() {
        walk.step(index, node, parts)?;
    }
    let head = walk.head(&model.graph.outputs)?;
    let Walk { constants, elements, attends, rotation, .. } = walk;
    Ok(Graph { nodes: &model.graph.nodes, constants, elements, head, attends, rotation })
}

struct Walk<'a, 'm> {
    path: &'m Path,
    nodes: &'m [Node<'a>],
    constants: Vec<Constant<'a>>,
    values: HashMap<&'a str, Origin>,
    elements: Vec<Element>,
    /// The first node that adds something unknown to the model's state.
    broken: Option<usize>,
    attends: Option<usize>,
    rotation: Option<[usize; 2]>,
}

impl<'a> Walk<'a, '_> {
    fn refusal(&self, detail: String) -> Error {
        Error::Graph { path: self.path.to_owned(), detail }
    }

    fn constant(&mut self, constant: Constant<'a>) -> Result<()> {
        let index = self.constants.len();
        let name = constant.name;
        self.constants.push(constant);
        self.define(name, Origin::Constant(index))
    }

    fn define(&mut self, name: &'a str, origin: Origin) -> Result<()> {
        match self.values.insert(name, origin) {
            None => Ok(()),
            Some(_) => Err(self.refusal(format!("the value {} is written twice", quoted(name)))),
        }
    }

    fn step(&mut self, index: usize, node: &Node<'a>, parts: &mut Parts) -> Result<()> {
        let Some(operator) = operators::find(node.domain, node.op) else {
            let what = if node.has_graph() { "is control flow" } else { "is unknown" };
            return Err(self.refusal(format!("the operator of {} {what}", node.described())));
        };
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(match self.values.get(name) {
                _ if name.is_empty() => Origin::Absent,
                Some(origin) => origin.clone(),
                None => {
                    let problem =
                        format!("{} reads {}, which no node before it writes", node.described(), quoted(name));
                    return Err(self.refusal(problem));
                }
            });
        }
        if inputs.len() < operator.n_inputs {
            let problem = format!("{} has {} inputs, it needs {}", node.described(), inputs.len(), operator.n_inputs);
            return Err(self.refusal(problem));
        }
        if operator.rule == Rule::Constant {
            return self.constant_node(node, parts);
        }
        let outputs = self.apply(index, node, operator.rule, &inputs, parts)?;
        let rest = || Origin::Mixed(self.union(&inputs));
        let names = node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty());
        let outputs: Vec<_> = names.map(|(i, name)| (*name, outputs.get(i).cloned().unwrap_or_else(rest))).collect();
        outputs.into_iter().try_for_each(|(name, origin)| self.define(name, origin))
    }

    /// A constant may be a node: with a tensor, or with a single number, which is of no interest here.
    fn constant_node(&mut self, node: &Node<'a>, parts: &mut Parts) -> Result<()> {
        let Some(name) = node.outputs.first().copied() else { return Ok(()) };
        match node.tensor("value") {
            Some(tensor) => self.constant(parts.constant(tensor, name)?),
            None => self.define(name, Origin::Mixed(Rc::default())),
        }
    }

    /// What the outputs of a node are; further ones depend on all inputs.
    fn apply(
        &mut self,
        index: usize,
        node: &Node<'a>,
        rule: Rule,
        inputs: &[Origin],
        parts: &Parts,
    ) -> Result<Vec<Origin>> {
        let input = |i: usize| inputs.get(i).unwrap_or(&Origin::Absent);
        let reader = Reader { constants: &self.constants, node };
        let refused = |problem: String| self.refusal(format!("{}: {problem}", node.described()));
        let found = match rule {
            Rule::Mixes | Rule::Constant => None,
            Rule::Measures => Some(Origin::Mixed(Rc::default())),
            Rule::Passes => Some(input(0).clone()),
            Rule::Activates => self.activation(index, node, input(0)),
            Rule::Reshape => match input(0) {
                Origin::Constant(constant) => Some(Origin::Reshaped(*constant)),
                Origin::Element(_) | Origin::Input => Some(input(0).clone()),
                _ => None,
            },
            Rule::Transpose => {
                let turns = node.ints("perm").is_none_or(|perm| *perm == [1, 0]);
                self.matrix(input(0)).filter(|_| turns).map(|matrix| Origin::Matrix(matrix.transposed()))
            }
            Rule::Add => self.sum(index, input(0), input(1), parts)?,
            Rule::Mul => match (input(0), input(1)) {
                (Origin::Integers { levels, zeros, sources }, Origin::Scale(scale))
                | (Origin::Scale(scale), Origin::Integers { levels, zeros, sources }) => {
                    let matrix = reader.levels(*levels, *scale, *zeros, 1, 0).map_err(refused)?;
                    Some(self.projection(index, matrix.transposed(), Rc::clone(sources)))
                }
                (Origin::InputScale, Origin::Constant(scale)) | (Origin::Constant(scale), Origin::InputScale) => {
                    Some(Origin::Scale(*scale))
                }
                (one, other) => self.scaled(index, one, other).or_else(|| self.scaled(index, other, one)),
            },
            Rule::Div => match (input(0), input(1)) {
                (value, Origin::Constant(divisor)) if self.is_scalar(*divisor) => Some(value.clone()),
                _ => None,
            },
            Rule::Lookup => self.lookup(index, node, input(0), input(1)),
            Rule::GroupedLookup => match input(0) {
                Origin::Constant(levels) | Origin::Reshaped(levels) => {
                    let (scales, zeros) = (constant_of(input(2)), constant_of(input(3)));
                    let matrix = reader.grouped_table(*levels, scales, zeros).map_err(refused)?;
                    Some(self.element(index, Kind::Lookup(matrix), Rc::default()))
                }
                _ => None,
            },
            Rule::Product => match self.matrix(input(1)) {
                Some(matrix) => self.product(index, matrix.transposed(), input(0), &Origin::Absent),
                None => None,
            },
            Rule::GeneralProduct => match self.matrix(input(1)) {
                Some(matrix) => {
                    let matrix = reader.general(matrix).map_err(refused)?;
                    self.product(index, matrix, input(0), input(2))
                }
                None => None,
            },
            Rule::IntegerProduct => match input(1) {
                Origin::Constant(levels) => Some(Origin::Integers {
                    levels: *levels,
                    zeros: constant_of(input(3)),
                    sources: self.sources(input(0)),
                }),
                _ => None,
            },
            Rule::ScaledIntegerProduct | Rule::DynamicProduct => {
                let (scale, zeros, bias) = if rule == Rule::DynamicProduct { (2, 3, 4) } else { (3, 5, 6) };
                match (input(1), input(scale)) {
                    (Origin::Constant(levels), Origin::Constant(scale)) => {
                        let zeros = constant_of(input(zeros));
                        let matrix = reader.levels(*levels, *scale, zeros, 1, 0).map_err(refused)?;
                        self.product(index, matrix.transposed(), input(0), input(bias))
                    }
                    _ => None,
                }
            }
            Rule::GroupedProduct => match input(1) {
                Origin::Constant(levels) => {
                    if !matches!(input(4), Origin::Absent) {
                        return Err(refused("groups in an order of their own (g_idx) are not supported".to_owned()));
                    }
                    let (scales, zeros) = (constant_of(input(2)), constant_of(input(3)));
                    let matrix = reader.grouped(*levels, scales, zeros).map_err(refused)?;
                    self.product(index, matrix, input(0), input(5))
                }
                _ => None,
            },
            Rule::Quantizes => return Ok(vec![input(0).clone(), Origin::InputScale, Origin::Mixed(Rc::default())]),
            Rule::Dequantizes => match (input(0), input(1)) {
                (Origin::Constant(levels), Origin::Constant(scale)) => {
                    let (axis, block) = reader.axis_and_block().map_err(refused)?;
                    let zeros = constant_of(input(2));
                    let matrix = reader.levels(*levels, *scale, zeros, axis, block).map_err(refused)?;
                    Some(Origin::Matrix(matrix))
                }
                (Origin::Gathered(levels), Origin::Constant(scale)) => {
                    let matrix = reader.levels(*levels, *scale, constant_of(input(2)), 1, 0).map_err(refused)?;
                    Some(self.element(index, Kind::Lookup(matrix), Rc::default()))
                }
                (value, _) => Some(value.clone()),
            },
            Rule::Norm => {
                let sources = self.take(input(0));
                self.norm(index, input(1), input(2), sources, epsilon(node))
            }
            Rule::SumNorm { shift, bias } => {
                let skip = self.biased(input(1), input(bias));
                let Some(sum) = self.sum_of(index, input(0), &skip) else { return Ok(Vec::new()) };
                let sources = self.take(&sum);
                let shift = shift.map_or(&Origin::Absent, input);
                let normed = self.norm(index, input(2), shift, sources, epsilon(node));
                let nothing = || Origin::Mixed(Rc::default());
                return Ok(vec![normed.unwrap_or_else(|| sum.clone()), nothing(), nothing(), sum]);
            }
            Rule::Attends | Rule::Rotates => {
                self.attention(index, node, rule, inputs)?;
                None
            }
        };
        Ok(found.into_iter().collect())
    }

    /// The elements that a value is made of.
    fn sources(&self, origin: &Origin) -> Rc<[usize]> {
        match origin {
            Origin::Element(element) => Rc::from([*element]),
            Origin::Mixed(sources) | Origin::Integers { sources, .. } => Rc::clone(sources),
            _ => Rc::default(),
        }
    }

    fn union(&self, inputs: &[Origin]) -> Rc<[usize]> {
        let mut all: Vec<Rc<[usize]>> = inputs.iter().map(|origin| self.sources(origin)).collect();
        all.retain(|sources| !sources.is_empty());
        if let [one] = all.as_slice() {
            return Rc::clone(one);
        }
        let mut union: Vec<usize> = all.iter().flat_map(|sources| sources.iter().copied()).collect();
        union.sort_unstable();
        union.dedup();
        union.truncate(limits::ONNX_SOURCES);
        Rc::from(union)
    }

    fn element(&mut self, node: usize, kind: Kind, parents: Rc<[usize]>) -> Origin {
        let carries = match kind {
            Kind::Lookup(_) => true,
            Kind::Sum => parents.iter().any(|parent| self.elements.get(*parent).is_some_and(|e| e.carries)),
            Kind::Projection(_) | Kind::Scale { .. } => false,
        };
        self.elements.push(Element { kind, node, parents, bias: None, carries, is_taken: false, activated: None });
        Origin::Element(self.elements.len() - 1)
    }

    /// [`Walk::sources`] of a value that is taken as it is.
    fn take(&mut self, origin: &Origin) -> Rc<[usize]> {
        if let Origin::Element(element) = origin
            && let Some(element) = self.elements.get_mut(*element)
        {
            element.is_taken = true;
        }
        self.sources(origin)
    }

    /// A matrix, as it is stored or already turned.
    fn matrix(&self, origin: &Origin) -> Option<Matrix> {
        match origin {
            Origin::Matrix(matrix) => Some(matrix.clone()),
            Origin::Constant(index) => Matrix::plain(&self.constants, *index),
            _ => None,
        }
    }

    fn is_scalar(&self, constant: usize) -> bool {
        self.constants.get(constant).is_some_and(|c| c.len() == 1)
    }

    /// A constant vector of floats, and its length.
    fn vector(&self, origin: &Origin) -> Option<(usize, usize)> {
        let Origin::Constant(index) = origin else { return None };
        let constant = self.constants.get(*index)?;
        let len = constant.len();
        (constant.is_float() && len > 1 && constant.dims.last() == Some(&len)).then_some((*index, len))
    }

    fn product(&mut self, node: usize, matrix: Matrix, factor: &Origin, bias: &Origin) -> Option<Origin> {
        let sources = self.sources(factor);
        if sources.is_empty() {
            return None;
        }
        let product = self.projection(node, matrix, sources);
        Some(self.biased(&product, bias))
    }

    fn projection(&mut self, node: usize, matrix: Matrix, sources: Rc<[usize]>) -> Origin {
        self.element(node, Kind::Projection(matrix), sources)
    }

    /// `value` with a constant vector added; as it is when there is none, and mixed when that is no simple bias.
    fn biased(&mut self, value: &Origin, bias: &Origin) -> Origin {
        if matches!(bias, Origin::Absent) {
            return value.clone();
        }
        let vector = self.vector(bias);
        if let (Origin::Element(index), Some((constant, len))) = (value, vector)
            && let Some(n_outputs) = self.n_outputs(*index)
            && let Some(element) = self.elements.get_mut(*index)
            && n_outputs == len
            && element.bias.is_none()
        {
            element.bias = Some(constant);
            return value.clone();
        }
        Origin::Mixed(self.sources(value))
    }

    /// How many numbers an element yields, when it may have a bias.
    fn n_outputs(&self, element: usize) -> Option<usize> {
        match &self.elements.get(element)?.kind {
            Kind::Projection(matrix) => Some(matrix.dims(&self.constants)[0]),
            Kind::Scale { constant, .. } => Some(self.constants.get(*constant)?.len()),
            Kind::Lookup(_) | Kind::Sum => None,
        }
    }

    /// What `value` times `factor` is, when `factor` is a constant.
    fn scaled(&mut self, node: usize, factor: &Origin, value: &Origin) -> Option<Origin> {
        match (factor, value) {
            (Origin::Constant(factor), Origin::Element(_)) if self.is_scalar(*factor) => Some(value.clone()),
            _ => {
                let sources = self.sources(value);
                if sources.is_empty() {
                    return None;
                }
                self.norm(node, factor, &Origin::Absent, sources, None)
            }
        }
    }

    fn norm(
        &mut self,
        node: usize,
        scale: &Origin,
        shift: &Origin,
        sources: Rc<[usize]>,
        epsilon: Option<f32>,
    ) -> Option<Origin> {
        let (constant, plus_one) = match scale {
            Origin::PlusOne(constant) => (*constant, true),
            other => (self.vector(other)?.0, false),
        };
        // A decomposed norm reads its input before the constant: what it is made of is taken as it is.
        for source in sources.iter() {
            if let Some(element) = self.elements.get_mut(*source) {
                element.is_taken = true;
            }
        }
        let scaled = self.element(node, Kind::Scale { constant, plus_one, epsilon }, sources);
        Some(self.biased(&scaled, shift))
    }

    fn sum(&mut self, node: usize, one: &Origin, other: &Origin, parts: &Parts) -> Result<Option<Origin>> {
        for (value, term) in [(one, other), (other, one)] {
            if let (Some((vector, _)), Origin::Constant(scalar)) = (self.vector(value), term)
                && let Some(constant) = self.constants.get(*scalar).filter(|c| c.len() == 1)
                && parts.floats(constant)?.as_deref() == Some(&[1.0])
            {
                return Ok(Some(Origin::PlusOne(vector)));
            }
            if let Origin::Element(_) = value
                && self.vector(term).is_some()
            {
                return Ok(Some(self.biased(value, term)));
            }
        }
        Ok(self.sum_of(node, one, other))
    }

    /// The sum of what two elements yield. `None`: something else is added.
    fn sum_of(&mut self, node: usize, one: &Origin, other: &Origin) -> Option<Origin> {
        if let (Origin::Element(a), Origin::Element(b)) = (one, other) {
            self.take(one);
            self.take(other);
            return Some(self.element(node, Kind::Sum, Rc::from([*a, *b])));
        }
        let carries =
            |origin: &Origin| matches!(origin, Origin::Element(e) if self.elements.get(*e).is_some_and(|e| e.carries));
        if carries(one) || carries(other) {
            self.broken.get_or_insert(node);
        }
        None
    }

    fn lookup(&mut self, index: usize, node: &Node<'_>, table: &Origin, rows: &Origin) -> Option<Origin> {
        if node.int("axis").unwrap_or(0) != 0 || matches!(rows, Origin::Constant(_) | Origin::Absent) {
            return None;
        }
        if let Some(matrix) = self.matrix(table) {
            return Some(self.element(index, Kind::Lookup(matrix), Rc::default()));
        }
        match table {
            Origin::Constant(levels) if self.constants.get(*levels).is_some_and(|c| c.dims.len() == 2) => {
                Some(Origin::Gathered(*levels))
            }
            _ => None,
        }
    }

    fn activation(&mut self, index: usize, node: &Node<'_>, value: &Origin) -> Option<Origin> {
        let Origin::Element(element) = value else { return None };
        if let Some(element) = self.elements.get_mut(*element) {
            element.activated.get_or_insert(index);
        }
        // It also ends a model whose outputs are soft-capped.
        (node.op == "Tanh").then(|| value.clone())
    }

    fn attention(&mut self, index: usize, node: &Node<'a>, rule: Rule, inputs: &[Origin]) -> Result<()> {
        let flag = if rule == Rule::Attends { "rotary_interleaved" } else { "interleaved" };
        if node.int(flag).unwrap_or(0) != 0 {
            return Err(
                self.refusal(format!("{}: rotary positions of neighbours ({flag}) are unknown", node.described()))
            );
        }
        let first = match (rule, node.domain) {
            (Rule::Rotates, "com.microsoft") => 2,
            (Rule::Rotates, _) => 1,
            _ => 7,
        };
        let table = |i: usize| inputs.get(i).and_then(constant_of);
        if let (Some(cosines), Some(sines)) = (table(first), table(first + 1)) {
            self.rotation.get_or_insert([cosines, sines]);
        }
        if rule == Rule::Attends {
            self.attends.get_or_insert(index);
        }
        Ok(())
    }

    /// The element that yields the first output, proven to stand at the end of a model.
    fn head(&self, outputs: &[&'a str]) -> Result<usize> {
        for output in outputs {
            if !self.values.contains_key(output) {
                return Err(self.refusal(format!("no node writes the graph's output {}", quoted(output))));
            }
        }
        let Some(output) = outputs.iter().find(|name| **name == "logits").or(outputs.first()) else {
            return Err(self.refusal("it has no outputs".to_owned()));
        };
        let writer = self.nodes.iter().find(|node| node.outputs.contains(output));
        let writer = || writer.map_or_else(|| "nothing".to_owned(), Node::described);
        let Some(Origin::Element(head)) = self.values.get(output) else {
            let problem = format!("the output {} is written by {}, which is no projection", quoted(output), writer());
            return Err(self.refusal(problem));
        };
        let element = |index: &usize| self.elements.get(*index);
        let is_projection = element(head).is_some_and(|e| matches!(e.kind, Kind::Projection(_)));
        if !is_projection {
            let problem = format!("the output {} is written by {}, which is no projection", quoted(output), writer());
            return Err(self.refusal(problem));
        }
        // From the head down: a norm as a rule, then the state. Anything else in between would be more than one source.
        let only = |parents: &[usize]| match parents {
            [parent] => self.elements.get(*parent),
            _ => None,
        };
        let first = element(head).and_then(|head| only(&head.parents));
        let state = first.filter(|first| first.carries).or_else(|| first.and_then(|norm| only(&norm.parents)));
        if state.is_some_and(|state| state.carries) {
            return Ok(*head);
        }
        let broken = self.broken.and_then(|node| self.nodes.get(node));
        Err(self.refusal(match broken {
            Some(node) => format!(
                "{} adds something to the model's state that is neither a projection nor a norm",
                node.described()
            ),
            None => {
                format!("the output {} does not come from a table of tokens through sums and norms", quoted(output))
            }
        }))
    }
}

/// The constant that a value is, if it is one.
fn constant_of(origin: &Origin) -> Option<usize> {
    match origin {
        Origin::Constant(index) => Some(*index),
        _ => None,
    }
}

/// What a norm adds under its root; 1e-5 where the node does not say.
fn epsilon(node: &Node<'_>) -> Option<f32> {
    Some(node.float("epsilon").unwrap_or(1e-5))
}
