//! The layers of settings (specification S1): flag over environment over config file over default, and where each value
//! came from.

use super::{Row, SETTINGS, Settings, table};
use crate::{
    exit::{Exit, Failure, Result},
    paths,
    settings::row::Kind,
};
use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

crate::messages::messages! {
    /// The config file cannot be read.
    config_unreadable(path) { "cannot read the config file {path}", "設定ファイル {path} を読めません" }
    /// Where config files come from.
    config_missing_hint() {
        "`rustorch-cli config init` writes one with every key and its default",
        "`rustorch-cli config init` で全キーと既定値を含むファイルを作れます"
    }
    /// The config file is not TOML.
    config_syntax(path, line) { "{path}, line {line}: not valid TOML", "{path} の {line} 行目: TOML として正しくありません" }
    /// A key that does not exist.
    config_unknown(path, line, key) { "{path}, line {line}: unknown key `{key}`", "{path} の {line} 行目: 不明なキー `{key}`" }
    /// A key that does exist.
    config_nearest(key) {
        "did you mean `{key}`? (--lenient-config turns unknown keys into warnings)",
        "`{key}` ではありませんか?(--lenient-config で不明なキーを警告にできます)"
    }
    /// A value that does not fit.
    config_value(path, line, key) { "{path}, line {line}: wrong value for `{key}`", "{path} の {line} 行目: `{key}` の値が正しくありません" }
    /// A variable that does not fit.
    env_value(name) { "wrong value in the environment variable {name}", "環境変数 {name} の値が正しくありません" }
    /// A flag that does not fit.
    flag_value(flag) { "wrong value for --{flag}", "--{flag} の値が正しくありません" }
    /// What a row is for.
    value_hint(key, help) { "{key}: {help}", "{key}: {help}" }
}

/// A config file larger than this is none.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// A config file and the line there.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File(path, line) => write!(f, "{}:{line}", paths::display(path)),
            Origin::Env(name) => write!(f, "{name}"),
            Origin::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// Values of one flag as given on the command line.
#[derive(Clone, Debug)]
pub(crate) struct FlagValue {
    /// Its row.
    pub(crate) row: &'static Row,
    /// Its values: one, or several for a list.
    pub(crate) values: Vec<OsString>,
}

/// Settings with the origin of each.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    settings: Settings,
    /// In the order of [`SETTINGS`].
    origins: Vec<Origin>,
    /// Things that were wrong but allowed.
    warnings: Vec<String>,
    /// The config file that was read.
    config: Option<PathBuf>,
}

/// What the layers are made from.
pub(crate) struct Sources<'a> {
    /// `--config`.
    pub(crate) config: Option<&'a Path>,
    /// `--lenient-config`.
    pub(crate) lenient: bool,
    /// Looks up an environment variable.
    pub(crate) env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The flags.
    pub(crate) flags: &'a [FlagValue],
}

impl Layers {
    /// Applies all layers.
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Layers> {
        let mut layers = Layers {
            settings: table::defaults()?,
            origins: vec![Origin::Default; SETTINGS.len()],
            warnings: Vec::new(),
            config: None,
        };
        layers.apply_config(sources.config, sources.lenient)?;
        layers.apply_env(sources.env)?;
        layers.apply_flags(sources.flags)?;
        let backend = SETTINGS.iter().position(|row| row.section == "backend" && row.key == "default");
        layers.settings.backend_is_explicit =
            backend.and_then(|at| layers.origins.get(at)).is_some_and(|origin| matches!(origin, Origin::Flag(_)));
        let untouched = SETTINGS.iter().zip(&layers.origins).filter(|(_, origin)| matches!(origin, Origin::Default));
        let unset = untouched.filter(|(row, _)| row.section == "generation").map(|(row, _)| row.key);
        layers.settings.unset = unset.collect();
        Ok(layers)
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the value of a row came from.
    pub(crate) fn origin(&self, row: &Row) -> &Origin {
        let at = SETTINGS.iter().position(|other| other.flag == row.flag);
        at.and_then(|at| self.origins.get(at)).unwrap_or(&Origin::Default)
    }

    /// What was wrong but allowed.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The config file that was read.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn apply_config(&mut self, named: Option<&Path>, lenient: bool) -> Result<()> {
        let path = match named {
            Some(path) => path.to_path_buf(),
            None => match paths::default_config() {
                Some(path) if path.try_exists().unwrap_or(true) => path,
                _ => return Ok(()),
            },
        };
        let text = read_config(&path)?;
        self.apply_text(&path, &text, lenient)?;
        self.config = Some(path);
        Ok(())
    }

    fn apply_text(&mut self, path: &Path, text: &str, lenient: bool) -> Result<()> {
        let shown = paths::display(path);
        let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            Failure::new(Exit::Usage, config_syntax(&shown, line)).because(error.message())
        })?;
        // A relative path in a config file starts at the file's folder.
        let base = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_path_buf));
        for (section, value) in document.get_ref() {
            let DeValue::Table(keys) = value.get_ref() else {
                self.unknown(&shown, line_of(section.span().start), section.get_ref(), lenient)?;
                continue;
            };
            if !SETTINGS.iter().any(|row| row.section == section.get_ref()) {
                self.unknown(&shown, line_of(section.span().start), section.get_ref(), lenient)?;
                continue;
            }
            for (key, value) in keys {
                let line = line_of(key.span().start);
                let full = format!("{}.{}", section.get_ref(), key.get_ref());
                let found = SETTINGS.iter().enumerate().find(|(_, row)| row.full_key() == full);
                let Some((at, row)) = found else {
                    self.unknown(&shown, line, &full, lenient)?;
                    continue;
                };
                set_toml(row, &mut self.settings, value.get_ref(), base.as_deref()).map_err(|error| {
                    Failure::new(Exit::Usage, config_value(&shown, line, &full))
                        .because(error)
                        .hint(value_hint(&full, row.help(crate::messages::language())))
                })?;
                if let Some(origin) = self.origins.get_mut(at) {
                    *origin = Origin::File(path.to_path_buf(), line);
                }
            }
        }
        Ok(())
    }

    fn unknown(&mut self, path: &str, line: usize, key: &str, lenient: bool) -> Result<()> {
        let what = config_unknown(path, line, key);
        if lenient {
            self.warnings.push(what);
            return Ok(());
        }
        Err(Failure::new(Exit::Usage, what).hint(config_nearest(nearest_key(key))))
    }

    fn apply_env(&mut self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<()> {
        for (row, origin) in SETTINGS.iter().zip(&mut self.origins) {
            let name = row.env_name();
            let Some(value) = env(&name) else { continue };
            set_env(row, &mut self.settings, &value).map_err(|error| {
                Failure::new(Exit::Usage, env_value(&name))
                    .because(error)
                    .hint(value_hint(row.full_key(), row.help(crate::messages::language())))
            })?;
            *origin = Origin::Env(name);
        }
        Ok(())
    }

    fn apply_flags(&mut self, flags: &[FlagValue]) -> Result<()> {
        for (row, origin) in SETTINGS.iter().zip(&mut self.origins) {
            let Some(flag) = flags.iter().find(|flag| flag.row.flag == row.flag) else { continue };
            set_flag(row, &mut self.settings, &flag.values).map_err(|error| {
                Failure::new(Exit::Usage, flag_value(row.flag))
                    .because(error)
                    .hint(value_hint(format!("--{}", row.flag), row.help(crate::messages::language())))
            })?;
            *origin = Origin::Flag(row.flag);
        }
        Ok(())
    }
}

fn read_config(path: &Path) -> Result<String> {
    let fail = |cause: &dyn fmt::Display| {
        Failure::new(Exit::Usage, config_unreadable(paths::display(path))).because(cause).hint(config_missing_hint())
    };
    let meta = std::fs::metadata(path).map_err(|error| fail(&error))?;
    // A pipe (process substitution) is as good as a file; its length is unknown.
    if meta.is_dir() || meta.len() > MAX_CONFIG_BYTES {
        return Err(fail(&"not a config file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_CONFIG_BYTES + 1), &mut bytes))
        .map_err(|error| fail(&error))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(fail(&"not a config file"));
    }
    String::from_utf8(bytes).map_err(|error| fail(&error))
}

fn set_flag(row: &Row, settings: &mut Settings, values: &[OsString]) -> std::result::Result<(), String> {
    if row.repeats() {
        let texts: Option<Vec<String>> = values.iter().map(|value| value.to_str().map(str::to_owned)).collect();
        return row.set_list(settings, &texts.ok_or("the value is not valid Unicode")?, None);
    }
    // Of a flag given twice the last counts.
    row.set_text(settings, values.last().map_or(OsStr::new(""), |value| value), None)
}

fn set_env(row: &Row, settings: &mut Settings, value: &OsStr) -> std::result::Result<(), String> {
    if let (true, Some(text)) = (row.repeats(), value.to_str())
        && text.trim_start().starts_with('[')
        && let Ok(value) = DeValue::parse(text)
    {
        return set_toml(row, settings, value.get_ref(), None);
    }
    row.set_text(settings, value, None)
}

/// Sets a row from a TOML value; the type must be the row's.
fn set_toml(
    row: &Row,
    settings: &mut Settings,
    value: &DeValue<'_>,
    base: Option<&Path>,
) -> std::result::Result<(), String> {
    let is_number = matches!(value, DeValue::Integer(_) | DeValue::Float(_));
    let fits = match &row.kind {
        Kind::Switch(_) => value.is_bool(),
        Kind::Count(..) => value.is_integer(),
        Kind::CountOr(_, _, word) => value.is_integer() || value.as_str() == Some(word),
        Kind::NumberOr(_, word) => value.is_integer() || value.as_str() == Some(word),
        Kind::BytesOr(..) => value.is_integer() || value.is_str(),
        Kind::Guess(_) => value.is_integer() || matches!(value.as_str(), Some("auto" | "off")),
        Kind::Real(..) => is_number,
        Kind::Choice(..) | Kind::Text(_) | Kind::TextOr(_) | Kind::Path(_) | Kind::PathOr(..) => value.is_str(),
        Kind::List(_) | Kind::Adapters(_) | Kind::Choices(..) => value.is_array() || value.is_str(),
    };
    if !fits {
        let expected = match &row.kind {
            Kind::Switch(_) => "true or false",
            Kind::Count(..) | Kind::CountOr(..) | Kind::NumberOr(..) => "an integer",
            Kind::BytesOr(..) => "an integer, or a string such as \"6GiB\"",
            Kind::Guess(_) => "\"auto\", \"off\" or an integer",
            Kind::Real(..) => "a number",
            Kind::Choice(..) | Kind::Text(_) | Kind::TextOr(_) | Kind::Path(_) | Kind::PathOr(..) => "a string",
            Kind::List(_) | Kind::Adapters(_) | Kind::Choices(..) => "an array of strings",
        };
        return Err(format!("{} where {expected} is expected", value.type_str()));
    }
    match value {
        DeValue::Boolean(on) => row.set_text(settings, OsStr::new(if *on { "true" } else { "false" }), None),
        DeValue::Integer(n) => {
            let n = i128::from_str_radix(n.as_str(), n.radix()).map_err(|error| error.to_string())?;
            row.set_text(settings, OsStr::new(&n.to_string()), None)
        }
        DeValue::Float(x) => row.set_text(settings, OsStr::new(x.as_str()), None),
        DeValue::String(text) => row.set_text(settings, OsStr::new(text.as_ref()), base),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|i| i.get_ref().as_str().map(str::to_owned)).collect();
            row.set_list(settings, &texts.ok_or("an array of strings is expected")?, base)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => Err("not a value for a setting".into()),
    }
}

/// The key that is spelled most like `wrong`.
pub(crate) fn nearest_key(wrong: &str) -> String {
    let distance_to = |row: &Row| {
        let full = row.full_key();
        // A key without or with the wrong section is judged by its last part too.
        let last = wrong.rsplit('.').next().unwrap_or(wrong);
        distance(wrong, &full).min(distance(last, row.key) + 1).min(distance(last, &row.flag.replace('-', "_")) + 1)
    };
    SETTINGS.iter().min_by_key(|row| distance_to(row)).map(Row::full_key).unwrap_or_default()
}

/// Levenshtein distance in characters, for short words.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut previous = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let value = (previous + usize::from(x != *y)).min(*cell + 1).min(left + 1);
            previous = std::mem::replace(cell, value);
            left = value;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"
[model]
path = "~/.rustorch/models/llama-7b.gguf"
format = "gguf"

[backend]
default = "metal"
fallback = ["cpu"]

[generation]
max_tokens = 2048
temperature = 0.7
top_p = 0.9
top_k = 40

[interface]
prompt_user = "You> "
prompt_assistant = "Assistant> "
show_progress = true

[logging]
level = "info"
file = "~/.rustorch/logs/cli.log"

[history]
auto_save = true
file = "~/.rustorch/history/latest.json"
max_entries = 1000
"#;

    fn load(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)], lenient: bool) -> Result<Layers> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let env: Vec<(String, OsString)> = env.iter().map(|(k, v)| ((*k).into(), OsString::from(v))).collect();
        let flags: Vec<FlagValue> = flags
            .iter()
            .map(|(flag, value)| FlagValue {
                row: SETTINGS.iter().find(|row| row.flag == *flag).unwrap(),
                values: vec![OsString::from(value)],
            })
            .collect();
        Layers::load(&Sources {
            config: Some(&path),
            lenient,
            env: &|name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()),
            flags: &flags,
        })
    }

    #[test]
    fn the_requirements_document_loads_verbatim() {
        let layers = load(DOCUMENT, &[], &[], false).unwrap();
        let s = layers.settings();
        assert_eq!(s.model.path, crate::paths::home().map(|home| home.join(".rustorch/models/llama-7b.gguf")));
        assert_eq!((s.model.format, s.backend.default), ("gguf", "metal"));
        assert_eq!(s.backend.fallback, ["cpu"]);
        assert!(!s.backend_is_explicit);
        assert_eq!((s.generation.top_k, s.history.max_entries), (40, 1000));
        let row = table::find("generation.top_p").unwrap();
        assert!(matches!(layers.origin(row), Origin::File(_, 13)), "{:?}", layers.origin(row));
    }

    #[test]
    fn flag_over_env_over_file_over_default() {
        let file = "[generation]\ntemperature = 0.1\ntop_k = 1\nmin_p = 0.25\n";
        let env = [("RUSTORCH_GENERATION_TEMPERATURE", "0.2"), ("RUSTORCH_GENERATION_TOP_K", "2")];
        let layers = load(file, &env, &[("temperature", "0.3"), ("backend", "cuda")], false).unwrap();
        let g = &layers.settings().generation;
        assert_eq!((g.temperature, g.top_k, g.min_p, g.top_p), (0.3, 2, 0.25, 0.9));
        assert!(layers.settings().backend_is_explicit);
        let origin = |key| layers.origin(table::find(key).unwrap()).to_string();
        assert_eq!(origin("generation.temperature"), "--temperature");
        assert_eq!(origin("generation.top_k"), "RUSTORCH_GENERATION_TOP_K");
        assert!(origin("generation.min_p").ends_with("config.toml:4"));
        assert_eq!(origin("generation.top_p"), "default");
    }

    fn check_error(text: &str, what: &[&str]) {
        let failure = load(text, &[], &[], false).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let all = format!("{failure:?}");
        for part in what {
            assert!(all.contains(part), "{part:?} not in {all}");
        }
    }

    #[test]
    fn mistakes_name_line_key_and_remedy() {
        check_error("[generation]\n\ntemprature = 1\n", &["line 3", "generation.temprature", "generation.temperature"]);
        check_error("temperature = 1\n", &["line 1", "`temperature`", "generation.temperature"]);
        check_error("[genration]\ntop_k = 1\n", &["line 1", "genration", "generation."]);
        check_error("[generation]\ntop_k = \"many\"\n", &["line 2", "string", "integer"]);
        check_error("[generation]\ntop_p = 0\n", &["line 2", "generation.top_p"]);
        check_error("[generation]\ntemperature = nan\n", &["generation.temperature"]);
        check_error("[generation]\nmax_tokens = 0\n", &["generation.max_tokens"]);
        check_error("[generation\n", &["line 1"]);
        check_error("[model]\nmmap = 1\n", &["model.mmap", "true or false"]);
        check_error("[backend]\nfallback = [1]\n", &["backend.fallback"]);
    }

    #[test]
    fn lenient_turns_unknown_keys_into_warnings_only() {
        let layers = load("[generation]\nx = 1\ntop_k = 3\n[y]\nz = 1\n", &[], &[], true).unwrap();
        assert_eq!(layers.warnings().len(), 2);
        assert_eq!(layers.settings().generation.top_k, 3);
        assert!(load("[generation]\ntop_k = -3\n", &[], &[], true).is_err());
    }

    #[test]
    fn a_named_config_must_exist() {
        let env = |_: &str| None;
        let sources = Sources { config: Some(Path::new("/nonexistent/c.toml")), lenient: false, env: &env, flags: &[] };
        assert_eq!(Layers::load(&sources).map(|_| ()).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn config_paths_start_at_the_config() {
        let layers = load("[model]\npath = \"m.gguf\"\n", &[], &[], false).unwrap();
        let path = layers.settings().model.path.clone().unwrap();
        assert!(path.is_absolute() && path.ends_with("m.gguf"));
    }

    #[test]
    fn lists_from_the_environment() {
        let env = [("RUSTORCH_GENERATION_STOP", "[\"a\", \"b\"]"), ("RUSTORCH_BACKEND_FALLBACK", "opencl,cpu")];
        let layers = load("", &env, &[], false).unwrap();
        assert_eq!(layers.settings().generation.stop, ["a", "b"]);
        assert_eq!(layers.settings().backend.fallback, ["opencl", "cpu"]);
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("日本", "日", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
