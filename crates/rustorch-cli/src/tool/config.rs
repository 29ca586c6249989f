//! `config show|check|init`: what the settings are and where each came from; whether a file is right; a file with all
//! keys.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    messages::language,
    output::{self, Channel, Look, paint},
    paths, safe_write,
    settings::{
        Layers, SETTINGS,
        arguments::{ARGUMENT, Argument, Values, see_help, unknown_argument},
        row, table,
    },
    terminal_filter::visible_line,
};
use std::{fmt::Write as _, io::Write as _, path::Path};

crate::messages::messages! {
    /// The check found nothing.
    config_good(path) { "{path}: all keys and values are valid", "{path}: すべてのキーと値が有効です" }
    /// There is nothing to check.
    config_none() { "no config file: built-in defaults are used", "設定ファイルなし: 既定値を使います" }
    /// There is a file already.
    config_exists(path) { "{path} exists already", "{path} は既に存在します" }
    /// How to replace it.
    config_exists_hint() { "--replace overwrites it", "--replace で上書きできます" }
    /// The file was written.
    config_written(path) { "written: {path}", "書き込みました: {path}" }
    /// The file could not be written.
    config_unwritable(path) { "cannot write {path}", "{path} に書き込めません" }
    /// There is no place for it.
    config_no_home() { "there is no home directory; name a file with --config", "ホームディレクトリがありません。--config でファイルを指定してください" }
}

pub(super) const TOOL: Tool = Tool {
    name: "config",
    synopsis: "show [--origin] | check | init [--replace]",
    en: "show the settings and where they come from, check a config file, write one",
    ja: "設定とその由来の表示、設定ファイルの検査と作成",
    arguments: &[
        Argument {
            flag: "action",
            value: "show|check|init",
            default: "show",
            positional: true,
            en: "what to do",
            ja: "動作",
            ..ARGUMENT
        },
        Argument {
            flag: "origin", en: "show where each value comes from", ja: "各値の由来を表示する", ..ARGUMENT
        },
        Argument {
            flag: "replace",
            en: "let init overwrite a file",
            ja: "init で既存ファイルを上書きする",
            ..ARGUMENT
        },
    ],
    settings: &["*"],
    run,
    ..Tool::NEW
};

fn run(layers: &Layers, values: &Values) -> Result<()> {
    match values.text("action")?.unwrap_or("show") {
        "show" => output::answer(&show(layers, values.has("origin"))),
        // Reaching this place means that every layer was read and judged.
        "check" => output::answer_line(&match layers.config() {
            Some(path) => config_good(paths::display(path)),
            None => config_none(),
        }),
        other => Err(Failure::new(Exit::Usage, unknown_argument(other)).hint(see_help())),
    }
}

/// Whether the words ask for `config init`, which must work while the present file is wrong or missing.
pub(crate) fn is_init(tool: &Tool, values: &Values) -> bool {
    tool.name == TOOL.name && matches!(values.text("action"), Ok(Some("init")))
}

/// `config init`
pub(crate) fn init(config: Option<&Path>, replace: bool) -> Result<()> {
    let path = config
        .map(Path::to_path_buf)
        .or_else(paths::default_config)
        .ok_or_else(|| Failure::new(Exit::Usage, config_no_home()))?;
    let shown = paths::display(&path);
    if path.exists() && !replace {
        return Err(Failure::new(Exit::Usage, config_exists(shown)).hint(config_exists_hint()));
    }
    let text = template()?;
    safe_write::replace::<std::io::Error>(&path, |w| w.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(Exit::Runtime, config_unwritable(&shown)).because(error))?;
    output::note(&config_written(shown));
    Ok(())
}

/// A config file with every key at its default, explained.
fn template() -> Result<String> {
    let defaults = table::defaults()?;
    let mut out = String::new();
    let mut section = "";
    for row in SETTINGS {
        if row.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}[{}]", row.section);
            section = row.section;
        }
        let range = row.range();
        let range = if range.is_empty() || row.is_switch() { range } else { format!(" ({range})") };
        let note = if row.is_switch() { String::new() } else { range };
        // Paths keep their `~`, so that the file can move with its owner.
        let value = match row.kind {
            row::Kind::Path(_) | row::Kind::PathOr(..) => toml::Value::String(row.default.to_owned()).to_string(),
            _ => row.show(&defaults),
        };
        let _ = writeln!(out, "# {}{note}\n{} = {value}", row.help(language()), row.key);
    }
    Ok(out)
}

fn show(layers: &Layers, origin: bool) -> String {
    let mut out = String::new();
    let mut section = "";
    for row in SETTINGS {
        if row.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", paint(Channel::Out, Look::Strong, &format!("[{}]", row.section)));
            section = row.section;
        }
        let line = format!("{} = {}", row.key, visible_line(&row.show(layers.settings())));
        let _ = if origin {
            let from = paint(Channel::Out, Look::Dim, &format!("# {}", layers.origin(row)));
            writeln!(out, "{line:<48} {from}")
        } else {
            writeln!(out, "{line}")
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::layers::Sources;

    #[test]
    fn the_written_file_loads_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, template().unwrap()).unwrap();
        let sources = Sources { config: Some(&path), lenient: false, env: &|_| None, flags: &[] };
        let layers = Layers::load(&sources).unwrap();
        assert_eq!(layers.settings(), &table::defaults().unwrap());
    }
}
