//! `docs-json`: the program's tables as JSON, from which `cargo xtask docs` writes the user documents. Not for people.

use super::{TOOLS, Tool};
use crate::{
    exit::{EXITS, Result},
    output,
    settings::{
        Layers, SETTINGS,
        arguments::{Argument, RUN, Values},
        help::spelling,
        row::GROUPS,
    },
};
use serde_json::{Value, json};

pub(super) const TOOL: Tool = Tool {
    name: "docs-json",
    en: "print the tables of settings, tools, commands and exit codes as JSON",
    ja: "設定、ツール、コマンド、終了コードの表を JSON で出力する",
    hidden: true,
    run,
    ..Tool::NEW
};

fn run(_: &Layers, _: &Values) -> Result<()> {
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
        "backends": backends(),
        "families": families(),
        "dtypes": tensor::DType::ALL.iter().filter(|t| t.can_decode()).map(ToString::to_string).collect::<Vec<_>>(),
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

fn backends() -> Vec<Value> {
    let rows = crate::backends::BACKENDS.iter();
    rows.map(|backend| json!({"name": backend.name, "is_built": backend.is_built()})).collect()
}

fn families() -> Vec<Value> {
    model::Architecture::all().iter().map(|family| json!({"name": family.name, "models": family.models})).collect()
}
