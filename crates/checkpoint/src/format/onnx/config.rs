//! What a graph says about its model beyond weights, as the keys of a `config.json`.
//!
//! Where a `config.json` lies beside the graph it counts, but for what the graph knows better: whether the output matrix is
//! the table of tokens, and how weights are quantized. ONNX Runtime's model builder writes a `genai_config.json` instead,
//! with most of the numbers; the others are the graph's: its epsilon, its activation, its tables of rotary positions.

use super::{
    data::Parts,
    graph::{Graph, Kind},
    proto::{Attribute, Node},
};
use crate::{
    Error, Metadata, Result, TensorInfo,
    format::hugging_face::{CONFIG, GENAI},
    value::{Text, Value},
};
use std::{f64::consts::TAU, path::Path};
use tensor::{DType, SharedBytes};

/// Keys that say which model it is.
const MODEL_KEYS: &[&str] = &["config.model_type", "config.text_config.model_type", "config.architectures"];
/// Where the flag is that the output matrix is the table of tokens.
const TIED_KEYS: &[&str] = &["config.tie_word_embeddings", "config.text_config.tie_word_embeddings"];
/// Whether norm weights are those that are multiplied with, in families that otherwise store them less one.
const WHOLE_NORMS_KEY: &str = "weights.whole_norms";
/// Whether the rows of every matrix belong to its outputs, in families that otherwise store some the other way.
const ROWS_KEY: &str = "weights.rows_are_outputs";

/// Numbers of `genai_config.json` and what `config.json` calls them.
const BUILDER_KEYS: &[(&str, &str)] = &[
    ("model.type", "model_type"),
    ("model.context_length", "max_position_embeddings"),
    ("model.vocab_size", "vocab_size"),
    ("model.bos_token_id", "bos_token_id"),
    ("model.eos_token_id", "eos_token_id"),
    ("model.pad_token_id", "pad_token_id"),
    ("model.decoder.hidden_size", "hidden_size"),
    ("model.decoder.num_attention_heads", "num_attention_heads"),
    ("model.decoder.num_key_value_heads", "num_key_value_heads"),
    ("model.decoder.num_hidden_layers", "num_hidden_layers"),
    ("model.decoder.head_size", "head_dim"),
];

/// Operators between gate and product, and what `config.json` calls them.
const ACTIVATIONS: &[(&str, &str)] =
    &[("Sigmoid", "silu"), ("Swish", "silu"), ("Gelu", "gelu"), ("FastGelu", "gelu_pytorch_tanh"), ("Relu", "relu")];

/// Completes the metadata of the graph at `path`.
pub(super) fn complete(
    metadata: &mut Metadata,
    graph: &Graph<'_, '_>,
    tensors: &[TensorInfo],
    is_tied: bool,
    parts: &Parts,
    path: &Path,
) -> Result<()> {
    metadata.retain(|key| !key.starts_with("config.quantization_config"));
    let [first, others @ ..] = TIED_KEYS else { return Ok(()) };
    metadata.set(first, Value::Bool(is_tied));
    for key in others.iter().filter(|key| metadata.get(key).is_some()).collect::<Vec<_>>() {
        metadata.set(key, Value::Bool(is_tied));
    }
    let is_whole = |kind: &Kind| matches!(kind, Kind::Scale { plus_one: false, .. });
    let any_less_one = graph.elements.iter().any(|e| matches!(e.kind, Kind::Scale { plus_one: true, .. }));
    metadata.set(ROWS_KEY, Value::Bool(true));
    metadata.set(WHOLE_NORMS_KEY, Value::Bool(!any_less_one));
    if any_less_one && graph.elements.iter().any(|e| is_whole(&e.kind)) {
        let detail = "some of its norms have one added to their weights and others have not".to_owned();
        return Err(Error::Graph { path: path.to_owned(), detail });
    }
    if MODEL_KEYS.iter().any(|key| metadata.get(key).is_some()) || metadata.get("genai_config.model.type").is_none() {
        return Ok(());
    }
    let found: Vec<_> = BUILDER_KEYS
        .iter()
        .filter_map(|(theirs, ours)| Some((*ours, metadata.get(&format!("genai_config.{theirs}"))?.clone())))
        .collect();
    let from_graph = Numbers { graph, parts, path }.read(tensors, metadata)?;
    for (key, value) in found.into_iter().chain(from_graph) {
        metadata.set(&format!("config.{key}"), value);
    }
    Ok(())
}

/// What the graph has of the numbers that the builder's file lacks.
struct Numbers<'g, 'a, 'm> {
    graph: &'g Graph<'a, 'm>,
    parts: &'g Parts,
    path: &'g Path,
}

impl Numbers<'_, '_, '_> {
    fn refusal<T>(&self, detail: String) -> Result<T> {
        let detail = format!("{detail}; a {CONFIG} beside it would say it ({GENAI} does not)");
        Err(Error::Graph { path: self.path.to_owned(), detail })
    }

    fn read(&self, tensors: &[TensorInfo], metadata: &Metadata) -> Result<Vec<(&'static str, Value)>> {
        let mut found = Vec::new();
        let epsilon = self.graph.elements.iter().find_map(|element| match element.kind {
            Kind::Scale { epsilon, .. } => epsilon,
            _ => None,
        });
        match epsilon {
            Some(epsilon) => found.push(("rms_norm_eps", Value::F32(epsilon))),
            None => return self.refusal("no norm says its epsilon".to_owned()),
        }
        let down = tensors.iter().find(|tensor| tensor.name.ends_with(".mlp.down_proj.weight"));
        if let Some(down) = down {
            found.push(("intermediate_size", Value::U64(down.shape.row_len() as u64)));
        }
        if let Some(activation) = self.activation()? {
            found.push(("hidden_act", text(activation)));
        }
        self.attention(&mut found, metadata)?;
        self.rotation(&mut found, metadata)?;
        Ok(found)
    }

    /// The function between gate and product.
    fn activation(&self) -> Result<Option<&'static str>> {
        let gates = self.graph.elements.iter().filter(|element| matches!(element.kind, Kind::Projection(_)));
        let Some(node) = gates.filter_map(|gate| self.graph.nodes.get(gate.activated?)).next() else { return Ok(None) };
        let is_tanh = matches!(node.attribute("approximate"), Some(Attribute::Text(b"tanh")));
        if node.op == "Gelu" && is_tanh {
            return Ok(Some("gelu_pytorch_tanh"));
        }
        if node.op == "QuickGelu" && node.float("alpha") == Some(1.0) {
            return Ok(Some("silu"));
        }
        match ACTIVATIONS.iter().find(|(op, _)| *op == node.op) {
            Some((_, name)) => Ok(Some(name)),
            None => self.refusal(format!("{} is no activation that is known", node.described())),
        }
    }

    /// Scale, cap and window of attention, which every layer must have in common.
    fn attention(&self, found: &mut Vec<(&'static str, Value)>, metadata: &Metadata) -> Result<()> {
        let Some(first) = self.graph.attends.and_then(|index| self.graph.nodes.get(index)) else { return Ok(()) };
        let window = |node: &Node<'_>| node.int("local_window_size").filter(|window| *window > 0);
        let differs = |node: &&Node<'_>| node.op == first.op && window(node) != window(first);
        if let Some(other) = self.graph.nodes.iter().find(differs) {
            return self.refusal(format!("{} has another window than {}", other.described(), first.described()));
        }
        if let Some(window) = window(first) {
            found.push(("sliding_window", Value::I64(window)));
        }
        if let Some(cap) = first.float("softcap").filter(|cap| *cap > 0.0) {
            found.push(("attn_logit_softcapping", Value::F32(cap)));
        }
        // Zero: the usual one.
        let usual = metadata.u32("genai_config.model.decoder.head_size")?.map(|dim| 1.0 / f64::from(dim).sqrt());
        let scale = first.float("scale").filter(|scale| *scale > 0.0).map(f64::from);
        if let (Some(scale), Some(usual)) = (scale, usual)
            && (scale / usual - 1.0).abs() > 1e-4
        {
            found.push(("attention_multiplier", Value::F64(scale)));
        }
        Ok(())
    }

    /// The base of rotary positions, and what part of a head they turn.
    fn rotation(&self, found: &mut Vec<(&'static str, Value)>, metadata: &Metadata) -> Result<()> {
        let tables = self.graph.rotation.map(|tables| tables.map(|index| self.graph.constants.get(index)));
        let Some([Some(cosines), Some(sines)]) = tables else {
            return self.refusal("it has no tables of rotary positions".to_owned());
        };
        let unknown = || format!("the tables of rotary positions {} follow no single base", cosines.described());
        let &[n_rows, n_pairs] = cosines.dims.as_slice() else { return self.refusal(unknown()) };
        let (Some(cos), Some(sin)) = (self.parts.floats(cosines)?, self.parts.floats(sines)?) else {
            return self.refusal(unknown());
        };
        let noise = match cosines.element.dtype {
            Some(DType::F16) => 2e-3,
            Some(DType::BF16) => 2e-2,
            _ => 1e-5,
        };
        let table = Table { cos: &cos, sin: &sin, n_rows, n_pairs, noise };
        match table.base() {
            Some(base) => found.push(("rope_theta", Value::F64(base))),
            None => return self.refusal(unknown()),
        }
        let head = metadata.u32("genai_config.model.decoder.head_size")?.map(f64::from);
        if let Some(fraction) = head.map(|head| 2.0 * n_pairs as f64 / head)
            && (fraction - 1.0).abs() > 1e-6
        {
            found.push(("partial_rotary_factor", Value::F64(fraction)));
        }
        Ok(())
    }
}

/// Cosines and sines of each position (row) and pair of a head (column).
struct Table<'t> {
    cos: &'t [f32],
    sin: &'t [f32],
    n_rows: usize,
    n_pairs: usize,
    /// How far a number may be off for its type's sake.
    noise: f64,
}

impl Table<'_> {
    fn at(&self, row: usize, pair: usize) -> Option<(f64, f64)> {
        let index = row.checked_mul(self.n_pairs)?.checked_add(pair)?;
        Some((f64::from(*self.cos.get(index)?), f64::from(*self.sin.get(index)?)))
    }

    /// The base `b` of which pair `i` of `n` turns by `b^(-i/n)` with each position (Su et al. 2021). `None`: there is none.
    fn base(&self) -> Option<f64> {
        let pair = self.n_pairs.checked_sub(1).filter(|pair| *pair > 0)?;
        let angle = |row: usize| self.at(row, pair).map(|(cos, sin)| sin.atan2(cos));
        let mut step = angle(1)?.rem_euclid(TAU);
        // Each doubling of the distance halves what the table's rounding does to the step.
        let mut row = 2;
        while row < self.n_rows {
            let turned = angle(row)?;
            let turns = ((step * row as f64 - turned) / TAU).round();
            step = (turned + turns * TAU) / row as f64;
            row *= 2;
        }
        let exact = step.powf(-(self.n_pairs as f64) / pair as f64);
        // People choose round numbers.
        let rounded = (1..=6).filter_map(|digits| format!("{exact:.digits$e}").parse().ok());
        rounded.chain([exact]).find(|base| self.follows(*base))
    }

    fn follows(&self, base: f64) -> bool {
        if !base.is_finite() || base <= 1.0 {
            return false;
        }
        [0, 1, 7, 64, 1000].into_iter().map(|row: usize| row.min(self.n_rows - 1)).all(|row| {
            (0..self.n_pairs).all(|pair| {
                let angle = row as f64 * base.powf(-(pair as f64) / self.n_pairs as f64);
                // Exporters multiply in single precision.
                let bound = self.noise + row as f64 * 4e-7;
                self.at(row, pair)
                    .is_some_and(|(cos, sin)| (cos - angle.cos()).abs() <= bound && (sin - angle.sin()).abs() <= bound)
            })
        })
    }
}

fn text(text: &str) -> Value {
    Value::String(Text(SharedBytes::from_vec(text.as_bytes().to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_a_table() {
        /// Rounded as halves are: to eleven bits, and no finer than 2⁻²⁴.
        fn half(x: f32) -> f32 {
            let step = 2f32.powi(x.abs().log2().floor().max(-14.0) as i32 - 10);
            (x / step).round() * step
        }
        #[track_caller]
        fn check(base: f64, n_pairs: usize, n_rows: usize, round: fn(f32) -> f32, noise: f64) {
            let angle = |x: usize| ((x / n_pairs) as f64 * base.powf(-((x % n_pairs) as f64) / n_pairs as f64)) as f32;
            let cos: Vec<f32> = (0..n_rows * n_pairs).map(|x| round(angle(x).cos())).collect();
            let sin: Vec<f32> = (0..n_rows * n_pairs).map(|x| round(angle(x).sin())).collect();
            let table = Table { cos: &cos, sin: &sin, n_rows, n_pairs, noise };
            assert_eq!(table.base(), Some(base));
        }
        check(1e6, 16, 256, |x| x, 1e-5);
        check(10_000.0, 64, 4096, |x| x, 1e-5);
        check(500_000.0, 32, 2048, half, 2e-3);
        check(1_000_000.0, 64, 4096, half, 2e-3);
        check(8_000_000.0, 64, 1000, |x| x, 1e-5);
    }

    #[test]
    fn scaled_tables_have_none() {
        let (n_pairs, n_rows) = (16, 64);
        let angle = |x: usize| (x / n_pairs) as f32 * 10_000f32.powf(-((x % n_pairs) as f32) / 16.0) / 4.0;
        let cos: Vec<f32> = (0..n_rows * n_pairs).map(|x| angle(x).cos()).collect();
        let sin: Vec<f32> = (0..n_rows * n_pairs).map(|x| angle(x).sin()).collect();
        assert_eq!(Table { cos: &cos, sin: &sin, n_rows, n_pairs, noise: 1e-5 }.base(), None);
        assert_eq!(Table { cos: &[], sin: &[], n_rows: 0, n_pairs: 0, noise: 1e-5 }.base(), None);
        assert_eq!(Table { cos: &[1.0], sin: &[0.0], n_rows: 1, n_pairs: 1, noise: 1e-5 }.base(), None);
    }
}
