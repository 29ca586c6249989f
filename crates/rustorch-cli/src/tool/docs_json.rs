//! `docs-json`: the program's tables as JSON, from which `cargo xtask docs` writes the user documents. Not for people.

use super::{TOOLS, Tool};
use crate::{
    backends::BACKENDS,
    exit::{EXITS, Exit, Failure, Result},
    loading,
    messages::Language,
    output, safe_write,
    settings::{
        Layers, SETTINGS, Settings,
        arguments::{ARGUMENT, Argument, RUN, Values},
        help::spelling,
        row::GROUPS,
    },
};
use checkpoint::{Checkpoint, OpenOptions};
use compute::{Device, WeightUse};
use model::HyperParams;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};
use tensor::{DType, HostTensor, Shape, SharedBytes};

pub(super) const TOOL: Tool = Tool {
    name: "docs-json",
    en: "print the tables of settings, tools, commands and exit codes as JSON",
    ja: "設定、ツール、コマンド、終了コードの表を JSON で出力する",
    arguments: &[Argument {
        flag: "models",
        value: "FILE",
        en: "tell of the models in FILE, one path a line, instead",
        ja: "代わりに、FILE に一行ずつ書かれたモデルについて出力する",
        ..ARGUMENT
    }],
    hidden: true,
    run,
    ..Tool::NEW
};

fn run(layers: &Layers, values: &Values) -> Result<()> {
    if let Some(list) = values.path("models")? {
        return output::answer_line(&models(&list)?.to_string());
    }
    let groups: Vec<Value> = GROUPS
        .iter()
        .filter(|(group, ..)| SETTINGS.iter().any(|row| row.group == *group))
        .map(|(group, en, ja)| json!({"id": format!("{group:?}"), "en": en, "ja": ja}))
        .collect();
    let settings: Vec<Value> = SETTINGS
        .iter()
        .map(|row| {
            json!({
                "group": format!("{:?}", row.group),
                "key": row.full_key(),
                "flag": row.shown_flag(),
                "short": row.short,
                "value": row.value,
                "variable": row.env_name(),
                "default": row.default,
                "range": row.range(),
                "en": row.en,
                "ja": row.ja,
            })
        })
        .collect();
    let mut tools = vec![json!({
        "name": "",
        "en": "Chat, or one answer with -p.",
        "ja": "チャット、または -p で一度だけ回答。",
        "options": options(RUN),
    })];
    tools.extend(
        TOOLS
            .iter()
            .filter(|tool| !tool.hidden)
            .map(|tool| json!({"name": tool.name, "en": tool.en, "ja": tool.ja, "options": options(tool.arguments)})),
    );
    let exits: Vec<Value> = EXITS.iter().map(|row| json!({"code": row.code, "en": row.en, "ja": row.ja})).collect();
    let tables = json!({
        "groups": groups,
        "settings": settings,
        "tools": tools,
        "commands": crate::command::docs(),
        "exits": exits,
        "formats": checkpoint::format_names().collect::<Vec<_>>(),
        "families": families(),
        "dtypes": DType::ALL.iter().filter(|t| t.can_decode()).map(ToString::to_string).collect::<Vec<_>>(),
        "written": DType::ALL.iter().filter(|t| t.can_encode()).map(ToString::to_string).collect::<Vec<_>>(),
        "backends": backends(layers.settings()),
        "templates": text::ChatTemplate::builtin_names().collect::<Vec<_>>(),
    });
    output::answer_line(&tables.to_string())
}

fn options(arguments: &[Argument]) -> Vec<Value> {
    arguments
        .iter()
        .map(|argument| json!({"usage": spelling(argument), "en": argument.en, "ja": argument.ja}))
        .collect()
}

fn families() -> Vec<Value> {
    model::Architecture::all().iter().map(|family| json!({"name": family.name, "models": family.models})).collect()
}

/// Longest list of models.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// Of each model in a list: its format, its family, and the types of its matrices.
fn models(list: &Path) -> Result<Value> {
    let text = safe_write::read_text(list, MAX_LIST_BYTES)
        .map_err(|error| Failure::new(Exit::Usage, list.to_string_lossy()).because_of(&error))?;
    let mut rows = Vec::new();
    for path in text.lines() {
        let checkpoint = Checkpoint::open(Path::new(path), &OpenOptions::default())
            .map_err(|error| loading::checkpoint_failure(Path::new(path), &error))?;
        let hyper = HyperParams::read(&checkpoint).map_err(|error| loading::model_failure(Path::new(path), &error))?;
        let matrices = checkpoint.tensors().iter().filter(|tensor| tensor.shape.dims().len() > 1);
        let types: BTreeSet<&str> = matrices.map(|tensor| tensor.dtype.name()).collect();
        rows.push(json!({
            "path": path,
            "format": checkpoint.format(),
            "family": hyper.architecture.name,
            "types": types,
        }));
    }
    Ok(Value::Array(rows))
}

fn backends(settings: &Settings) -> Vec<Value> {
    let all = BACKENDS.iter().map(|backend| {
        let own_forms = backend.try_open(settings).map(|device| own_forms(device.as_ref()));
        json!({
            "name": backend.name,
            "is_built": backend.is_built(),
            "needs_en": backend.needs_in(Language::English),
            "needs_ja": backend.needs_in(Language::Japanese),
            "own_forms": own_forms.unwrap_or_default(),
        })
    });
    all.collect()
}

/// The quantized types whose matrices a device multiplies as integers, as it shows when it gets one.
fn own_forms(device: &dyn Device) -> Vec<&'static str> {
    let is_own = |dtype: &DType| {
        let shape = Shape::new(&[32, 512])?;
        let bytes = SharedBytes::from_vec(vec![0; dtype.tensor_bytes(&shape).ok()?]);
        let tensor = HostTensor::new("probe", *dtype, shape, bytes).ok()?;
        Some(device.upload(&tensor, WeightUse::Matrix).ok()?.is_integer())
    };
    let quantized = DType::ALL.iter().filter(|dtype| dtype.is_quantized());
    quantized.filter(|dtype| is_own(dtype).unwrap_or(false)).map(|dtype| dtype.name()).collect()
}
