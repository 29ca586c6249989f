//! Names for the weights of a graph: those of the modules that it was exported from.
//!
//! A name is sought where exporters keep it: in the scope of the node (`/model/layers.0/mlp/up_proj/MatMul`), else in that
//! of the constant (`model.layers.0.mlp.up_proj.weight`). A graph that lost them is named after its structure, from norm to
//! norm. The names are those of the `transformers` package, since exporters trace its modules; what ONNX Runtime's model
//! builder calls otherwise is told in [`ALIASES`].

use super::graph::{Element, Graph, Kind};
use crate::error::quoted;

/// How parts of a layer are called by others, and in the modules.
const ALIASES: &[(&str, &str)] = &[("attn.", "self_attn.")];
/// The builder's name of the norm after the last layer, which it counts as a layer.
const LAST_NORM: &str = "final_norm_layernorm";
/// Endings of constants that were quantized.
const QUANTIZED: &[&str] = &["_quantized", "_scales", "_packed"];
/// Ends of a path that are no modules.
const OPERATORS: &[&str] = &["MatMul", "Gemm", "Add", "layernorm", "LayerNorm"];

/// A weight and its name.
pub(super) struct Named {
    pub(super) element: usize,
    /// Without `.weight` or `.bias`.
    pub(super) path: String,
}

/// Names all weights of the graph but the head where it is the table of tokens. The problem in words: what has no name.
pub(super) fn name(graph: &Graph<'_, '_>) -> Result<Vec<Named>, String> {
    let used: Vec<usize> = (0..graph.elements.len()).filter(|index| is_used(graph, *index)).collect();
    let named = used.iter().map(|index| Some(Named { element: *index, path: path(graph, *index)? }));
    if let Some(named) = named.collect::<Option<Vec<_>>>() {
        return Ok(named);
    }
    by_structure(graph, &used)
}

/// Whether the element is a weight that the model needs.
fn is_used(graph: &Graph<'_, '_>, index: usize) -> bool {
    graph.elements.get(index).is_some_and(|element| match element.kind {
        Kind::Lookup(_) => element.is_taken,
        Kind::Projection(_) | Kind::Scale { .. } => true,
        Kind::Sum => false,
    })
}

/// The path that an exporter left, in its node or in its constant.
fn path(graph: &Graph<'_, '_>, index: usize) -> Option<String> {
    let element = graph.elements.get(index)?;
    let node = graph.nodes.get(element.node)?;
    let scope = node.name.strip_prefix('/').and_then(|name| Some(name.rsplit_once('/')?.0.replace('/', ".")));
    let constant = || {
        let Kind::Scale { constant, .. } = element.kind else { return constant_path(node.input(1)?) };
        constant_path(graph.constants.get(constant)?.name)
    };
    scope.or_else(constant).map(|path| module(&path))
}

/// The path in the name of a constant.
fn constant_path(name: &str) -> Option<String> {
    let mut name = QUANTIZED.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    if let Some((start, digits)) = name.rsplit_once("_Q")
        && digits.chars().all(|c| c.is_ascii_digit())
    {
        name = start;
    }
    let path = name.strip_suffix(".weight")?;
    (!path.contains("::")).then(|| path.to_owned())
}

/// A path in the names of the modules.
fn module(path: &str) -> String {
    let mut path = path;
    while let Some((start, last)) = path.rsplit_once('.')
        && OPERATORS.contains(&last)
    {
        path = start;
    }
    let Some((root, rest)) = path.split_once("layers.") else { return path.to_owned() };
    let Some((number, part)) = rest.split_once('.') else { return path.to_owned() };
    if part == LAST_NORM {
        return format!("{root}norm");
    }
    let renamed = ALIASES.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", part.strip_prefix(theirs)?)));
    format!("{root}layers.{number}.{}", renamed.as_deref().unwrap_or(part))
}

/// Names after the structure of the plain case: norm, queries, keys, values, output, sum, norm, gate, up, down, sum.
fn by_structure(graph: &Graph<'_, '_>, used: &[usize]) -> Result<Vec<Named>, String> {
    let structure = Structure { graph };
    let mut named = Vec::new();
    let add = |named: &mut Vec<Named>, element: usize, path: String| named.push(Named { element, path });
    add(&mut named, graph.head, "lm_head".to_owned());
    let last_norm = structure.only_parent(graph.head, "the norm before the output")?;
    add(&mut named, last_norm, "model.norm".to_owned());
    let (sums, table) = structure.sums(structure.only_parent(last_norm, "the sum of all layers")?)?;
    add(&mut named, table, "model.embed_tokens".to_owned());
    for (index, branch) in sums.into_iter().enumerate() {
        let layer = format!("model.layers.{}", index / 2);
        let is_first_half = index.is_multiple_of(2);
        let (last, norm) = match is_first_half {
            true => ("self_attn.o_proj", "input_layernorm"),
            false => ("mlp.down_proj", "post_attention_layernorm"),
        };
        add(&mut named, branch, format!("{layer}.{last}"));
        let inner = match is_first_half {
            true => structure.first_half(branch)?,
            false => structure.second_half(branch)?,
        };
        for (element, name) in &inner {
            add(&mut named, *element, format!("{layer}.{name}"));
        }
        let (first, _) = inner.first().ok_or_else(|| structure.unknown(branch, "a half of a layer"))?;
        let input = structure.only_parent(*first, "the norm before it")?;
        add(&mut named, input, format!("{layer}.{norm}"));
    }
    match used.iter().find(|index| !named.iter().any(|n| n.element == **index)) {
        Some(stranger) => Err(structure.unknown(*stranger, "a part of a layer")),
        None => Ok(named),
    }
}

struct Structure<'g, 'a, 'm> {
    graph: &'g Graph<'a, 'm>,
}

impl Structure<'_, '_, '_> {
    fn element(&self, index: usize) -> Option<&Element> {
        self.graph.elements.get(index)
    }

    fn unknown(&self, index: usize, what: &str) -> String {
        let node = self.element(index).and_then(|element| self.graph.nodes.get(element.node));
        let node = node.map_or_else(|| quoted("?"), |node| node.described());
        format!("its nodes are not named after modules, and {node} is not recognised as {what} by its place")
    }

    fn is_projection(&self, index: usize) -> bool {
        self.element(index).is_some_and(|e| matches!(e.kind, Kind::Projection(_)))
    }

    fn is_scale(&self, index: usize) -> bool {
        self.element(index).is_some_and(|e| matches!(e.kind, Kind::Scale { .. }))
    }

    fn only_parent(&self, index: usize, what: &str) -> Result<usize, String> {
        match self.element(index).map(|element| &*element.parents) {
            Some([parent]) => Ok(*parent),
            _ => Err(self.unknown(index, what)),
        }
    }

    /// What is added to the model's state, from the first layer on, and the table that it begins with.
    fn sums(&self, last: usize) -> Result<(Vec<usize>, usize), String> {
        let (mut branches, mut at) = (Vec::new(), last);
        loop {
            let element = self.element(at).ok_or_else(|| self.unknown(at, "a sum"))?;
            match (&element.kind, &*element.parents) {
                (Kind::Lookup(_), _) => break,
                (Kind::Sum, [one, other]) => {
                    let (state, branch) = match self.element(*one) {
                        Some(term) if term.carries => (*one, *other),
                        _ => (*other, *one),
                    };
                    if !self.is_projection(branch) {
                        return Err(self.unknown(branch, "the end of half a layer"));
                    }
                    branches.push(branch);
                    // A sum's terms are older than the sum, so this ends.
                    at = state;
                }
                _ => return Err(self.unknown(at, "a sum")),
            }
        }
        branches.reverse();
        match branches.len().is_multiple_of(2) {
            true => Ok((branches, at)),
            false => Err(self.unknown(last, "the sum of whole layers")),
        }
    }

    /// What the output projection of a layer's first half is made of; projections first.
    fn first_half(&self, output: usize) -> Result<Vec<(usize, &'static str)>, String> {
        let parents = self.element(output).map(|element| element.parents.to_vec()).unwrap_or_default();
        let scales: Vec<usize> = parents.iter().copied().filter(|index| self.is_scale(*index)).collect();
        let mut projections: Vec<usize> = parents.iter().copied().filter(|index| self.is_projection(*index)).collect();
        for scale in &scales {
            let parent = self.only_parent(*scale, "a norm of heads")?;
            if !projections.contains(&parent) {
                projections.push(parent);
            }
        }
        // Exporters write them in the order in which they are computed.
        projections.sort_unstable();
        let projections: Vec<(usize, &str)> = match projections.as_slice() {
            [all] => vec![(*all, "self_attn.qkv_proj")],
            [q, k, v] => vec![(*q, "self_attn.q_proj"), (*k, "self_attn.k_proj"), (*v, "self_attn.v_proj")],
            _ => return Err(self.unknown(output, "the output of queries, keys and values")),
        };
        let norms = match scales.as_slice() {
            [] => vec![],
            [q, k] => vec![(*q, "self_attn.q_norm"), (*k, "self_attn.k_norm")],
            _ => return Err(self.unknown(output, "the output of normed queries and keys")),
        };
        Ok(projections.into_iter().chain(norms).collect())
    }

    /// What the last projection of a layer's second half is made of.
    fn second_half(&self, output: usize) -> Result<Vec<(usize, &'static str)>, String> {
        let parents = self.element(output).map(|element| element.parents.to_vec()).unwrap_or_default();
        let is_gate = |index: usize| self.element(index).is_some_and(|element| element.activated.is_some());
        match parents.as_slice() {
            [both] if self.is_projection(*both) => Ok(vec![(*both, "mlp.gate_up_proj")]),
            [one, other]
                if self.is_projection(*one) && self.is_projection(*other) && is_gate(*one) != is_gate(*other) =>
            {
                let (gate, up) = if is_gate(*one) { (*one, *other) } else { (*other, *one) };
                Ok(vec![(gate, "mlp.gate_proj"), (up, "mlp.up_proj")])
            }
            _ => Err(self.unknown(output, "the end of a gated layer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_names_of_constants() {
        #[track_caller]
        fn check(name: &str, expected: Option<&str>) {
            assert_eq!(constant_path(name).map(|path| module(&path)).as_deref(), expected, "{name}");
        }
        check("model.layers.0.mlp.up_proj.weight", Some("model.layers.0.mlp.up_proj"));
        check("model.layers.12.attn.qkv_proj.MatMul.weight_Q4", Some("model.layers.12.self_attn.qkv_proj"));
        check("model.layers.1.attn.q_norm.layernorm.weight", Some("model.layers.1.self_attn.q_norm"));
        check("model.layers.3.final_norm_layernorm.weight", Some("model.norm"));
        check("lm_head.MatMul.weight_quantized", Some("lm_head"));
        check("onnx::MatMul_1593", None);
        check("onnx::MatMul_1593_quantized", None);
        check("val_12", None);
    }
}
