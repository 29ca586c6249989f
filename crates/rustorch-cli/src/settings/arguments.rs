//! The command line, made of three tables: settings (`table`), arguments of this run ([`RUN`]) and tools (`tool::TOOLS`).
//!
//! Arguments are taken as the system gives them (a path need not be Unicode). First the words are sorted into flags
//! ([`parse`]), then `layers` judges the values, so that a flag, a variable and a key are held to the same rules.

use super::{
    Layers, Row, SETTINGS,
    layers::{FlagValue, Sources},
    row::{Group, Kind},
};
use crate::{
    exit::{Exit, Failure, Result},
    messages::{Language, language},
    paths,
    tool::{TOOLS, Tool},
};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::OsStringValueParser, error::ContextKind, error::ErrorKind};
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

crate::messages::messages! {
    /// An argument that does not exist.
    unknown_argument(argument) { "unknown argument `{argument}`", "不明な引数 `{argument}`" }
    /// One that does.
    did_you_mean(argument) { "did you mean `{argument}`?", "`{argument}` ではありませんか?" }
    /// Where the list is.
    see_help() { "`rustorch-cli --help` lists all arguments", "`rustorch-cli --help` で全引数を表示します" }
    /// A flag without its value.
    value_missing(argument) { "`{argument}` needs a value", "`{argument}` には値が必要です" }
    /// A required argument.
    argument_missing(argument) { "`{argument}` is required", "`{argument}` は必須です" }
    /// Two that exclude each other.
    conflict(argument, other) { "`{argument}` cannot be used with `{other}`", "`{argument}` は `{other}` と同時に使えません" }
    /// A value for a switch.
    no_value_taken(argument) { "`{argument}` takes no value", "`{argument}` は値を取りません" }
    /// The rest.
    wrong_arguments() { "the arguments are not understood", "引数を解釈できません" }
    /// A setting that a tool has no use for.
    unused_setting(flag, tool) { "--{flag} has no effect on `{tool}`", "--{flag} は `{tool}` では効果がありません" }
    /// Not text.
    not_unicode(argument) { "`{argument}` is not valid Unicode", "`{argument}` は正しい Unicode ではありません" }
}

/// An argument of one run or of a tool: no key, no variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument {
    /// Flag, without dashes; or the name of a positional argument.
    pub(crate) flag: &'static str,
    /// One-letter flag.
    pub(crate) short: Option<char>,
    /// Name of the value in help; empty for switches.
    pub(crate) value: &'static str,
    /// Default as typed; empty: none.
    pub(crate) default: &'static str,
    /// Must be given.
    pub(crate) required: bool,
    /// Given by place, not by flag.
    pub(crate) positional: bool,
    /// Listed by `-h` too.
    pub(crate) daily: bool,
    /// What it does, English.
    pub(crate) en: &'static str,
    /// What it does, Japanese.
    pub(crate) ja: &'static str,
}

/// A plain optional argument, for `..ARGUMENT`.
pub(crate) const ARGUMENT: Argument = Argument {
    flag: "",
    short: None,
    value: "",
    default: "",
    required: false,
    positional: false,
    daily: false,
    en: "",
    ja: "",
};

/// Arguments of a chat or a one-shot answer.
pub(crate) const RUN: &[Argument] = &[
    Argument {
        flag: "prompt",
        short: Some('p'),
        value: "TEXT",
        daily: true,
        en: "answer once and end; piped stdin is attached; `-p -`: stdin is the prompt",
        ja: "一度だけ答えて終了。パイプ入力は添付、`-p -` は標準入力がプロンプト",
        ..ARGUMENT
    },
    Argument {
        flag: "raw",
        en: "plain continuation of the prompt, without a chat template (stdin is not attached)",
        ja: "チャットテンプレートなしで入力の続きを生成(標準入力は添付しない)",
        ..ARGUMENT
    },
    Argument {
        flag: "script",
        value: "FILE",
        en: "run the chat from the lines of a file; commands work",
        ja: "ファイルの各行でチャットを実行(コマンドも使用可)",
        ..ARGUMENT
    },
    Argument {
        flag: "config",
        value: "FILE",
        daily: true,
        en: "config file (default: ~/.rustorch/config.toml, if it exists)",
        ja: "設定ファイル(既定: あれば ~/.rustorch/config.toml)",
        ..ARGUMENT
    },
    Argument {
        flag: "lenient-config",
        en: "warn about unknown keys in the config file instead of refusing them",
        ja: "設定ファイルの不明なキーをエラーでなく警告にする",
        ..ARGUMENT
    },
    Argument {
        flag: "help",
        short: Some('h'),
        daily: true,
        en: "help; -h fits one screen",
        ja: "ヘルプ(-h は一画面)",
        ..ARGUMENT
    },
    Argument {
        flag: "version",
        short: Some('V'),
        daily: true,
        en: "version and build",
        ja: "バージョンとビルド情報",
        ..ARGUMENT
    },
    Argument { flag: "json", en: "with --version: as JSON", ja: "--version を JSON で出力", ..ARGUMENT },
];

/// Arguments that every tool has too.
const SHARED: &[&str] = &["config", "lenient-config", "help"];

/// What the command line asked for, before any value was judged.
#[derive(Debug)]
pub(crate) struct Given {
    flags: Vec<FlagValue>,
    run: Values,
    tool: Option<(&'static Tool, Values)>,
    /// `-h` was given rather than `--help`.
    pub(crate) short_help: bool,
}

/// Values of plain arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(Vec<(&'static str, OsString)>);

impl Values {
    /// Whether it was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|(name, _)| *name == flag)
    }

    /// Its value as the system gave it.
    pub(crate) fn raw(&self, flag: &str) -> Option<&OsStr> {
        self.0.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_os_str())
    }

    /// Its value as text.
    pub(crate) fn text(&self, flag: &str) -> Result<Option<&str>> {
        self.raw(flag)
            .map(|value| {
                value.to_str().ok_or_else(|| Failure::new(Exit::Usage, not_unicode(format!("--{flag}")).as_str()))
            })
            .transpose()
    }

    /// Its value as a path.
    pub(crate) fn path(&self, flag: &'static str) -> Result<Option<PathBuf>> {
        self.raw(flag)
            .map(|value| {
                paths::expand(value, None)
                    .map_err(|error| Failure::new(Exit::Usage, super::layers::flag_value(flag)).because(error))
            })
            .transpose()
    }

    /// Its value as a count within bounds.
    pub(crate) fn count(&self, flag: &'static str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(text) = self.text(flag)? else { return Ok(None) };
        match text.trim().parse::<usize>() {
            Ok(n) if range.contains(&n) => Ok(Some(n)),
            _ => Err(Failure::new(Exit::Usage, super::layers::flag_value(flag)).because(format!(
                "`{}` is not in {}..{}",
                text.escape_default(),
                range.start(),
                range.end()
            ))),
        }
    }
}

/// The settled command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// Settings with their origins.
    pub(crate) layers: Layers,
    /// Arguments of this run.
    pub(crate) run: Values,
    /// The tool asked for and its arguments.
    pub(crate) tool: Option<(&'static Tool, Values)>,
}

impl Given {
    /// Whether a plain argument of the run was given, before the settings are settled.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.run.has(flag)
    }

    /// The tool asked for.
    pub(crate) fn tool(&self) -> Option<&'static Tool> {
        self.tool.as_ref().map(|(tool, _)| *tool)
    }

    /// Does `config init`, if that was asked for: it must work while the present file is missing or wrong.
    pub(crate) fn config_init(&self) -> Option<Result<()>> {
        let (tool, values) = self.tool.as_ref()?;
        let init = |config: Option<PathBuf>| crate::tool::config::init(config.as_deref(), values.has("replace"));
        crate::tool::config::is_init(tool, values).then(|| self.run.path("config").and_then(init))
    }

    /// Puts all layers of settings together.
    pub(crate) fn settle(self) -> Result<Invocation> {
        let config = self.run.path("config")?;
        let layers = Layers::load(&Sources {
            config: config.as_deref(),
            lenient: self.run.has("lenient-config"),
            env: &|name| std::env::var_os(name),
            flags: &self.flags,
        })?;
        Ok(Invocation { layers, run: self.run, tool: self.tool })
    }
}

/// The language that the arguments themselves ask for, read before they are understood, so that even their errors and
/// the help are in it.
pub(crate) fn early_language(arguments: &[OsString]) -> Language {
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    let mut flag = None;
    while let Some(word) = words.next() {
        if word == "--language" {
            flag = words.next();
        } else if let Some(value) = word.strip_prefix("--language=") {
            flag = Some(value);
        }
    }
    let env = std::env::var("RUSTORCH_INTERFACE_LANGUAGE").ok();
    Language::choose(flag.or(env.as_deref()).unwrap_or("auto"))
}

/// Sorts the words of the command line.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Given> {
    // Only the first of these is asked for by clap itself; short help is told apart by its spelling.
    let matches = command_of(true).try_get_matches_from(&arguments).map_err(|error| explain(&error))?;
    let mut given = Given { flags: Vec::new(), run: Values::default(), tool: None, short_help: false };
    collect(&matches, SETTINGS.iter().collect(), RUN, &mut given.flags, &mut given.run);
    if let Some((name, inner)) = matches.subcommand()
        && let Some(tool) = TOOLS.iter().find(|tool| tool.name == name)
    {
        if let Some(flag) = given.flags.iter().find(|flag| !tool.takes(flag.row)) {
            return Err(Failure::new(Exit::Usage, unused_setting(flag.row.flag, tool.name)).hint(see_help()));
        }
        let mut values = Values::default();
        let mut flags = Vec::new();
        collect(inner, tool.settings(), tool.arguments, &mut flags, &mut values);
        collect(inner, Vec::new(), RUN, &mut Vec::new(), &mut given.run);
        // What stands behind the tool's name counts more.
        given.flags.retain(|old| !flags.iter().any(|new| new.row.flag == old.row.flag));
        given.flags.append(&mut flags);
        given.tool = Some((tool, values));
    }
    given.short_help = given.run.has("help")
        && !arguments.iter().any(|word| word == "--help")
        && arguments.iter().any(|word| word.to_str().is_some_and(|word| word.starts_with('-') && word.contains('h')));
    Ok(given)
}

fn collect(
    matches: &ArgMatches,
    rows: Vec<&'static Row>,
    arguments: &'static [Argument],
    flags: &mut Vec<FlagValue>,
    values: &mut Values,
) {
    for row in rows {
        let present = |id: &str| matches.try_contains_id(id).unwrap_or(false);
        if row.is_switch() {
            let on = |id: &str| present(id) && matches.get_flag(id);
            let value = if on(row.flag) {
                "true"
            } else if on(&format!("no-{}", row.flag)) {
                "false"
            } else {
                continue;
            };
            flags.push(FlagValue { row, values: vec![value.into()] });
        } else if present(row.flag) {
            let given = matches.get_many::<OsString>(row.flag).into_iter().flatten().cloned().collect();
            flags.push(FlagValue { row, values: given });
        }
    }
    for argument in arguments {
        if !matches.try_contains_id(argument.flag).unwrap_or(false) {
            continue;
        }
        if argument.value.is_empty() {
            if matches.get_flag(argument.flag) {
                values.0.push((argument.flag, OsString::new()));
            }
        } else {
            for value in matches.get_many::<OsString>(argument.flag).into_iter().flatten() {
                values.0.push((argument.flag, value.clone()));
            }
        }
    }
}

/// The command line as clap knows it, for completions and the man page.
pub(crate) fn command() -> Command {
    command_of(false)
}

/// The command line as clap knows it, with or without the tools that are not for people.
fn command_of(all: bool) -> Command {
    let mut root = Command::new("rustorch-cli")
        .version(env!("CARGO_PKG_VERSION"))
        .about(language().pick("Chat with a local language model", "ローカル言語モデルとチャットする"))
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .subcommand_negates_reqs(true)
        .args(SETTINGS.iter().flat_map(setting_arguments))
        .args(RUN.iter().map(plain_argument));
    for tool in TOOLS.iter().filter(|tool| all || !tool.hidden) {
        let command = Command::new(tool.name)
            .about(tool.help(language()))
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args_override_self(true)
            .args(tool.settings().into_iter().flat_map(setting_arguments))
            .args(tool.arguments.iter().map(plain_argument))
            .args(RUN.iter().filter(|argument| SHARED.contains(&argument.flag)).map(plain_argument));
        // Who asks what arguments there are need not give them; usage and man page still name them as required.
        root = root.subcommand(match all {
            true => command.mut_args(|arg| match arg.is_required_set() {
                true => arg.required(false).required_unless_present("help"),
                false => arg,
            }),
            false => command,
        });
    }
    root
}

fn setting_arguments(row: &'static Row) -> Vec<Arg> {
    let help = row.help(language());
    let heading = heading(row.group);
    if row.is_switch() {
        let negative = format!("no-{}", row.flag);
        let off = Arg::new(negative.clone())
            .long(negative.clone())
            .action(ArgAction::SetTrue)
            .overrides_with(row.flag)
            .hide(row.default == "false")
            .help(super::help::turn_off(help))
            .help_heading(heading);
        let on = Arg::new(row.flag)
            .long(row.flag)
            .action(ArgAction::SetTrue)
            .overrides_with(negative)
            .hide(row.default == "true")
            .help(help)
            .help_heading(heading);
        return vec![on, off];
    }
    let mut arg = Arg::new(row.flag)
        .long(row.flag)
        .value_name(row.value)
        .value_parser(OsStringValueParser::new())
        .help(format!("{help} [{}; {}; {}]", row.default_for_people(), row.env_name(), row.full_key()))
        .help_heading(heading)
        .action(if row.repeats() { ArgAction::Append } else { ArgAction::Set });
    arg = match &row.kind {
        Kind::Path(_) | Kind::PathOr(..) | Kind::Adapters(_) => arg.value_hint(clap::ValueHint::FilePath),
        Kind::Text(_) | Kind::TextOr(_) | Kind::List(_) => arg.allow_hyphen_values(true),
        _ => arg.allow_negative_numbers(true),
    };
    match row.short {
        Some(short) => vec![arg.short(short)],
        None => vec![arg],
    }
}

fn plain_argument(argument: &'static Argument) -> Arg {
    let mut arg = Arg::new(argument.flag).help(argument.help(language())).required(argument.required);
    if !argument.positional {
        arg = arg.long(argument.flag);
    }
    if let Some(short) = argument.short {
        arg = arg.short(short);
    }
    if argument.value.is_empty() {
        return arg.action(ArgAction::SetTrue);
    }
    arg = arg.value_name(argument.value).value_parser(OsStringValueParser::new()).action(ArgAction::Set);
    if argument.value.contains("FILE") {
        arg = arg.value_hint(clap::ValueHint::FilePath);
    }
    if argument.flag == "prompt" { arg.allow_hyphen_values(true) } else { arg }
}

/// The heading of a group in the language in use.
pub(crate) fn heading(group: Group) -> &'static str {
    super::row::GROUPS.iter().find(|(other, ..)| *other == group).map_or("", |(_, en, ja)| language().pick(en, ja))
}

impl Argument {
    /// What it does.
    pub(crate) fn help(&self, language: Language) -> &'static str {
        language.pick(self.en, self.ja)
    }
}

/// What clap found wrong, in our words.
fn explain(error: &clap::Error) -> Failure {
    let context = |kind| error.get(kind).map(ToString::to_string).filter(|text| !text.is_empty());
    let argument = context(ContextKind::InvalidArg).or_else(|| context(ContextKind::InvalidSubcommand));
    let argument = argument.unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => unknown_argument(&argument),
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => value_missing(&argument),
        ErrorKind::MissingRequiredArgument => argument_missing(&argument),
        ErrorKind::TooManyValues => no_value_taken(&argument),
        ErrorKind::ArgumentConflict => conflict(&argument, context(ContextKind::PriorArg).unwrap_or_default()),
        ErrorKind::InvalidUtf8 => not_unicode(&argument),
        _ => return Failure::new(Exit::Usage, wrong_arguments()).because(error).hint(see_help()),
    };
    let suggestion = context(ContextKind::SuggestedArg).or_else(|| context(ContextKind::SuggestedSubcommand));
    Failure::new(Exit::Usage, what).hint(suggestion.map_or_else(see_help, did_you_mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Given> {
        parse(std::iter::once("rustorch-cli").chain(words.iter().copied()).map(OsString::from).collect())
    }

    #[test]
    fn clap_accepts_the_tables() {
        command_of(true).debug_assert();
    }

    #[test]
    fn flags_become_values() {
        let given = given(&[
            "--model",
            "m",
            "--max-tokens",
            "-1",
            "--stop",
            "a",
            "--stop",
            "--b",
            "--no-mmap",
            "-p",
            "-x-",
            "--raw",
        ])
        .unwrap();
        let value = |flag: &str| given.flags.iter().find(|value| value.row.flag == flag).map(|v| v.values.clone());
        assert_eq!(value("max-tokens"), Some(vec!["-1".into()]));
        assert_eq!(value("stop"), Some(vec!["a".into(), "--b".into()]));
        assert_eq!(value("mmap"), Some(vec!["false".into()]));
        assert_eq!(value("stream"), None);
        assert_eq!(given.run.text("prompt").unwrap(), Some("-x-"));
        assert!(given.run.has("raw") && !given.run.has("script"));
    }

    #[test]
    fn the_last_spelling_counts() {
        let given = given(&["--no-mmap", "--mmap", "--seed", "1", "--seed", "2"]).unwrap();
        let value = |flag: &str| given.flags.iter().find(|value| value.row.flag == flag).map(|v| v.values.clone());
        assert_eq!(value("mmap"), Some(vec!["true".into()]));
        assert_eq!(value("seed"), Some(vec!["2".into()]));
    }

    #[test]
    fn tools_take_their_settings_before_and_behind() {
        let given_tool = given(&["--model", "a", "tokenize", "--model", "b", "--no-bos"]).unwrap();
        assert_eq!(given_tool.flags.len(), 1);
        assert_eq!(given_tool.flags[0].values, ["b"]);
        assert!(given_tool.tool.unwrap().1.has("no-bos"));
        assert!(given(&["--temperature", "1", "tokenize"]).is_err());
        assert!(given(&["tokenize", "--temperature", "1"]).is_err());
    }

    #[test]
    fn mistakes_are_explained() {
        for words in [&["--modle", "x"][..], &["--model"], &["nonsense"], &["logits", "--last"], &["--raw=1"]] {
            let failure = given(words).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{words:?}");
            assert!(!failure.error.is_empty() && failure.hint.is_some(), "{words:?} {failure:?}");
        }
        assert!(given(&["--modle", "x"]).unwrap_err().hint.unwrap().contains("--model"));
    }

    #[test]
    fn every_argument_has_both_languages() {
        for argument in RUN.iter().chain(TOOLS.iter().flat_map(|tool| tool.arguments)) {
            assert!(!argument.en.is_empty() && !argument.ja.is_ascii(), "{}", argument.flag);
        }
        for tool in TOOLS {
            assert!(!tool.help(Language::English).is_empty() && !tool.help(Language::Japanese).is_ascii());
        }
    }
}
