//! `inspect`: what is in a model file, and what it would take to run it.

use super::Tool;
use crate::{
    adapters::{self, Adapter},
    exit::Result,
    fitting::{self, Fitting},
    loading, output, paths,
    settings::{
        Layers, Settings,
        arguments::{ARGUMENT, Argument, Values},
        kv_type_name,
    },
    terminal_filter::visible_line,
};
use checkpoint::{Array, Checkpoint, Value};
use model::{HyperParams, PlanRow};
use serde_json::{Map, json};
use std::{collections::BTreeMap, fmt::Write as _};

pub(super) const TOOL: Tool = Tool {
    name: "inspect",
    synopsis: "--model FILE [--ctx N] [--json]",
    en: "show metadata, tensors and memory need of a model file",
    ja: "モデルファイルのメタデータ、テンソル、必要メモリを表示する",
    arguments: &[Argument { flag: "json", en: "result as JSON", ja: "結果を JSON で出力", ..ARGUMENT }],
    settings: &[
        "model.path",
        "model.arch",
        "model.format",
        "model.mmap",
        "model.quantize",
        "model.lora",
        "backend.memory_budget",
        "context.size",
        "context.kv_type",
        "context.prefix_cache",
        "backend.precision",
        "backend.prefill_chunk",
    ],
    run,
    ..Tool::NEW
};

/// Longer arrays are shown by type and length.
const MAX_ARRAY: usize = 32;

/// Longer texts are cut for people.
const MAX_TEXT: usize = 200;

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let settings = layers.settings();
    let checkpoint = loading::open(settings)?;
    let facts = facts(&checkpoint, settings, &adapters::open(settings)?);
    if values.has("json") {
        return output::answer_line(&facts.to_string());
    }
    output::answer(&page(&facts))
}

fn facts(checkpoint: &Checkpoint, settings: &Settings, adapters: &[Adapter]) -> serde_json::Value {
    let metadata: Map<String, serde_json::Value> =
        checkpoint.metadata().iter().map(|(key, value)| (key.to_owned(), value_json(value))).collect();
    let mut types: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let row = types.entry(tensor.dtype.to_string()).or_default();
        row.0 += 1;
        row.1 = row.1.saturating_add(tensor.shape.elements() as u64);
        row.2 = row.2.saturating_add(tensor.bytes);
    }
    let types: Vec<serde_json::Value> = types
        .into_iter()
        .map(|(name, (n, elements, bytes))| json!({"type": name, "n_tensors": n, "n_elements": elements, "bytes": bytes}))
        .collect();
    let tensors: Vec<serde_json::Value> = checkpoint
        .tensors()
        .iter()
        .map(|t| json!({"name": t.name, "type": t.dtype.to_string(), "shape": t.shape.dims(), "bytes": t.bytes}))
        .collect();
    let (model, memory) = match HyperParams::read(checkpoint) {
        Ok(hyper) => (model_json(&hyper), memory_json(checkpoint, &hyper, settings, adapters)),
        Err(error) => (json!({"error": error.to_string()}), serde_json::Value::Null),
    };
    json!({
        "path": checkpoint.path().to_string_lossy(),
        "format": checkpoint.format(),
        "files": checkpoint.files().iter().map(|f| f.to_string_lossy()).collect::<Vec<_>>(),
        "file_bytes": checkpoint.file_bytes(),
        "model": model,
        "memory": memory,
        "tensor_types": types,
        "metadata": metadata,
        "tensors": tensors,
    })
}

fn model_json(hyper: &HyperParams) -> serde_json::Value {
    let first = hyper.layers.first();
    json!({
        "architecture": hyper.architecture.name,
        "n_layers": hyper.n_layers,
        "width": hyper.width,
        "n_vocab": hyper.n_vocab,
        "context_length": hyper.context_length,
        "n_heads": first.map(|layer| layer.n_heads),
        "n_kv_heads": first.map(|layer| layer.n_kv_heads),
        "head_dim": first.map(|layer| layer.head_dim),
        "n_experts": hyper.experts.as_ref().map(|experts| experts.n_experts),
    })
}

/// The plan as loading would make it, and the same with the file's own types where it does not fit.
fn memory_json(
    checkpoint: &Checkpoint,
    hyper: &HyperParams,
    settings: &Settings,
    adapters: &[Adapter],
) -> serde_json::Value {
    let allowed = fitting::allowed(settings);
    let fitting = Fitting { checkpoint, settings, hyper, n_sequences: 1, saves: true, allowed, adapters };
    let (plan, context, mixture, saved_positions) = match fitting.fit() {
        Ok(fit) => (fit.plan, fit.context, fit.mixture, fit.saved_positions),
        Err(_) => {
            let context = settings.context.size.unwrap_or(hyper.context_length);
            match fitting.plan(None, context) {
                Ok(plan) => (plan, context, None, 0),
                Err(error) => return json!({"error": error.to_string()}),
            }
        }
    };
    let weights = plan.weights().filter_map(|row| match row {
        PlanRow::Weights { group, dtype, n_tensors, bytes } => {
            Some(json!({"group": group.name(), "type": dtype.name(), "n_tensors": n_tensors, "bytes": bytes}))
        }
        PlanRow::Adapters { .. } | PlanRow::Cache { .. } | PlanRow::States { .. } | PlanRow::Scratch { .. } => None,
    });
    json!({
        "context": context,
        "kv_type": kv_type_name(fitting.kv_type(context)),
        "quantize": mixture.map(|mixture| mixture.name),
        "weights": weights.collect::<Vec<_>>(),
        "weights_bytes": plan.weights_bytes,
        "adapters_bytes": plan.adapters_bytes,
        "kv_bytes": plan.kv_bytes,
        "saved_prefixes_tokens": saved_positions,
        "scratch_bytes": plan.scratch_bytes,
        "total_bytes": plan.total_bytes,
        "available_bytes": loading::available_memory(),
        "allowed_bytes": allowed,
        "fits": allowed.map(|allowed| plan.total_bytes <= allowed),
    })
}

fn value_json(value: &Value) -> serde_json::Value {
    if let Some(on) = value.as_bool() {
        return json!(on);
    }
    if let Some(n) = value.as_integer() {
        return match (i64::try_from(n), u64::try_from(n)) {
            (Ok(n), _) => json!(n),
            (_, Ok(n)) => json!(n),
            _ => json!(n.to_string()),
        };
    }
    match value {
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::String(text) => json!(text.to_string_lossy()),
        Value::Array(array) => array_json(array),
        _ => serde_json::Value::Null,
    }
}

fn array_json(array: &Array) -> serde_json::Value {
    if array.len() > MAX_ARRAY {
        return json!({"array": array.element_type().name(), "len": array.len()});
    }
    serde_json::Value::Array(array.iter().map(|value| value_json(&value)).collect())
}

fn page(facts: &serde_json::Value) -> String {
    let mut out = String::new();
    let bytes = |value: &serde_json::Value| value.as_u64().map_or_else(|| "?".to_owned(), loading::size);
    let path = facts["path"].as_str().unwrap_or_default();
    let _ = writeln!(
        out,
        "{}  {}, {}",
        paths::display(std::path::Path::new(path)),
        facts["format"].as_str().unwrap_or_default(),
        bytes(&facts["file_bytes"])
    );
    for (title, key) in [("model", "model"), ("memory", "memory"), ("metadata", "metadata")] {
        let _ = writeln!(out, "\n[{title}]");
        for (name, value) in facts[key].as_object().into_iter().flatten() {
            let text = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::Array(rows) if key == "memory" => {
                    for row in rows {
                        let _ = writeln!(
                            out,
                            "{name}: {} {} × {} = {}",
                            row["group"].as_str().unwrap_or_default(),
                            row["n_tensors"],
                            row["type"].as_str().unwrap_or_default(),
                            bytes(&row["bytes"])
                        );
                    }
                    continue;
                }
                value if name.ends_with("_bytes") => bytes(value),
                serde_json::Value::String(text) => shorten(text),
                value => shorten(&value.to_string()),
            };
            let _ = writeln!(out, "{} = {text}", visible_line(name));
        }
    }
    let _ = writeln!(out, "\n[tensors]");
    for row in facts["tensor_types"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "{:<8} {:>5} tensors  {:>14} elements  {}",
            row["type"].as_str().unwrap_or_default(),
            row["n_tensors"],
            row["n_elements"],
            bytes(&row["bytes"])
        );
    }
    out
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    visible_line(&short)
}
