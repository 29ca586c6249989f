//! `paths`: every file that this program reads without being told, or writes.

use super::Tool;
use crate::{
    exit::Result,
    messages::{Language, language},
    output, paths,
    settings::{Layers, arguments::Values},
    terminal_filter::visible_line,
};

pub(super) const TOOL: Tool = Tool {
    name: "paths",
    synopsis: "",
    en: "list the files that are read and written",
    ja: "読み書きするファイルの一覧",
    arguments: &[],
    settings: &["history.", "model.quantize_cache"],
    run,
    ..Tool::NEW
};

/// The built-in places, for the man page.
pub(super) fn files(language: Language) -> Vec<(String, &'static str)> {
    [
        ("~/.rustorch/config.toml", "config file", "設定ファイル"),
        ("~/.rustorch/history/", "conversations", "会話履歴"),
        ("~/.rustorch/logs/cli.log", "log", "ログ"),
        (
            "~/.rustorch/cache/quantized/",
            "weights quantized while loading, if asked",
            "読み込み時に量子化した重み(指定時)",
        ),
        ("~/.rustorch/models.lock", "models as they were when first used", "初回使用時のモデルの記録"),
    ]
    .into_iter()
    .map(|(path, en, ja)| (path.to_owned(), language.pick(en, ja)))
    .collect()
}

fn run(layers: &Layers, _: &Values) -> Result<()> {
    let s = layers.settings();
    let config = layers.config().map(std::path::Path::to_path_buf).or_else(paths::default_config);
    let kept = |path: &Option<std::path::PathBuf>| path.clone().filter(|_| !s.history.ephemeral);
    let folder =
        kept(&s.history.file).filter(|_| s.history.auto_save).and_then(|f| f.parent().map(|d| d.to_path_buf()));
    let quantized = crate::quantized::folder().filter(|_| s.model.quantize_cache.is_some());
    let rows = [
        ("config", config, language().pick("read", "読み取り")),
        ("history", kept(&s.history.file).filter(|_| s.history.auto_save), language().pick("written", "書き込み")),
        ("sessions", folder.clone(), language().pick("written", "書き込み")),
        ("lines", folder.map(|dir| dir.join("lines.history")), language().pick("written", "書き込み")),
        ("save-history", kept(&s.history.save), language().pick("written", "書き込み")),
        ("load-history", s.history.load.clone(), language().pick("read", "読み取り")),
        ("cache", quantized, language().pick("written", "書き込み")),
        ("models-lock", kept(&crate::integrity::lock_file()), language().pick("written", "書き込み")),
        ("log", s.log_options().file, language().pick("written", "書き込み")),
    ];
    for (name, path, access) in rows {
        let path = path.map_or_else(|| "-".to_owned(), |path| visible_line(&path.to_string_lossy()));
        output::answer_line(&format!("{name:<13} {access:<9} {path}"))?;
    }
    Ok(())
}
