//! One row per setting. The command line, the environment variables, the keys of the config file, the help in both
//! languages, `config show`, `config init`, the man page and the docs are made from these rows and from nothing else.

use super::Settings;
use crate::{exit, messages::Language, paths};
use std::{
    ffi::OsStr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Where a setting belongs in help and docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Which model.
    Model,
    /// Where it runs.
    Backend,
    /// How much it remembers.
    Context,
    /// How it answers.
    Generation,
    /// How it looks.
    Interface,
    /// What is kept of conversations.
    History,
    /// What is logged.
    Logging,
    /// Only for this run: no key, no variable.
    Run,
}

/// All groups in the order of the help, with their headings.
pub(crate) const GROUPS: &[(Group, &str, &str)] = &[
    (Group::Run, "This run", "今回の実行"),
    (Group::Model, "Model", "モデル"),
    (Group::Backend, "Backend", "バックエンド"),
    (Group::Context, "Context", "コンテキスト"),
    (Group::Generation, "Generation", "生成"),
    (Group::Interface, "Interface", "表示"),
    (Group::History, "History", "履歴"),
    (Group::Logging, "Logging", "ログ"),
];

/// Access to one field of the settings.
type At<T> = fn(&mut Settings) -> &mut T;

/// What values a setting takes and where they go. A `word` stands for "none".
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `true` or `false`; on the command line `--flag` and `--no-flag`.
    Switch(At<bool>),
    /// A count.
    Count(At<usize>, RangeInclusive<u64>),
    /// A count or a word.
    CountOr(At<Option<usize>>, RangeInclusive<u64>, &'static str),
    /// A 64-bit number or a word.
    NumberOr(At<Option<u64>>, &'static str),
    /// A number within bounds; `true`: the lower one is not allowed itself.
    Real(At<f32>, RangeInclusive<f32>, bool),
    /// One of several words.
    Choice(At<&'static str>, &'static [&'static str]),
    /// Any text.
    Text(At<String>),
    /// Any text; empty: none.
    TextOr(At<Option<String>>),
    /// A path; empty: none.
    Path(At<Option<PathBuf>>),
    /// Several texts: the flag repeats, a variable is a TOML array or one text.
    List(At<Vec<String>>),
    /// Several of several words, separated by commas in a flag or variable.
    Choices(At<Vec<String>>, &'static [&'static str]),
}

/// One setting.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// TOML table.
    pub(crate) section: &'static str,
    /// TOML key.
    pub(crate) key: &'static str,
    /// Flag, without dashes.
    pub(crate) flag: &'static str,
    /// One-letter flag.
    pub(crate) short: Option<char>,
    /// Name of the value in help; empty for switches.
    pub(crate) value: &'static str,
    /// Values and field.
    pub(crate) kind: Kind,
    /// Built-in default, as one would type it.
    pub(crate) default: &'static str,
    /// Where it is listed.
    pub(crate) group: Group,
    /// Listed by `-h` too.
    pub(crate) daily: bool,
    /// What it does, English.
    pub(crate) en: &'static str,
    /// What it does, Japanese.
    pub(crate) ja: &'static str,
}

const MAX_TOKENS: u64 = 1 << 24;

/// The backends that a user may name; what each needs is in `backends`.
pub(crate) const BACKENDS: &[&str] = &["cpu", "cuda", "metal", "opencl", "hybrid", "hybrid-f32"];

/// Every setting.
pub(crate) const SETTINGS: &[Row] = &[
    Row {
        section: "model",
        key: "path",
        flag: "model",
        short: Some('m'),
        value: "FILE",
        kind: Kind::Path(|s| &mut s.model.path),
        default: "",
        group: Group::Model,
        daily: true,
        en: "model file (GGUF; the first part of a split one)",
        ja: "モデルファイル(GGUF。分割時は最初のファイル)",
    },
    Row {
        section: "model",
        key: "format",
        flag: "model-format",
        short: None,
        value: "FORMAT",
        kind: Kind::Choice(|s| &mut s.model.format, &["auto", "gguf", "safetensors", "onnx", "mlx", "pytorch"]),
        default: "auto",
        group: Group::Model,
        daily: false,
        en: "refuse a model file of another format (the format itself is told by the content)",
        ja: "指定と異なる形式のモデルを拒否する(形式自体は内容から判定)",
    },
    Row {
        section: "model",
        key: "mmap",
        flag: "mmap",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.model.mmap),
        default: "true",
        group: Group::Model,
        daily: false,
        en: "map the model file into memory instead of reading it",
        ja: "モデルファイルを読み込まずメモリマップする",
    },
    Row {
        section: "model",
        key: "template",
        flag: "template",
        short: None,
        value: "NAME|FILE",
        kind: Kind::TextOr(|s| &mut s.model.template),
        default: "",
        group: Group::Model,
        daily: false,
        en: "chat template instead of the model's own: a built-in name or a Jinja file",
        ja: "モデル付属の代わりに使うチャットテンプレート(組み込み名または Jinja ファイル)",
    },
    Row {
        section: "backend",
        key: "default",
        flag: "backend",
        short: None,
        value: "NAME",
        kind: Kind::Choice(|s| &mut s.backend.default, BACKENDS),
        default: "cpu",
        group: Group::Backend,
        daily: true,
        en: "where the model runs",
        ja: "モデルを実行する場所",
    },
    Row {
        section: "backend",
        key: "fallback",
        flag: "fallback",
        short: None,
        value: "NAMES",
        kind: Kind::Choices(|s| &mut s.backend.fallback, BACKENDS),
        default: "",
        group: Group::Backend,
        daily: false,
        en: "tried in order when a backend from the config file or environment is not available",
        ja: "設定ファイルや環境変数のバックエンドが使えないとき順に試す",
    },
    Row {
        section: "backend",
        key: "allow_fallback",
        flag: "allow-fallback",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.backend.allow_fallback),
        default: "false",
        group: Group::Backend,
        daily: false,
        en: "fall back from an explicit --backend too",
        ja: "--backend で明示したときもフォールバックを許す",
    },
    Row {
        section: "backend",
        key: "threads",
        flag: "threads",
        short: Some('t'),
        value: "N",
        kind: Kind::CountOr(|s| &mut s.backend.threads, 1..=4096, "auto"),
        default: "auto",
        group: Group::Backend,
        daily: true,
        en: "worker threads",
        ja: "計算スレッド数",
    },
    Row {
        section: "backend",
        key: "precision",
        flag: "precision",
        short: None,
        value: "MODE",
        kind: Kind::Choice(|s| &mut s.backend.precision, &["fast", "f32"]),
        default: "fast",
        group: Group::Backend,
        daily: false,
        en: "arithmetic: fast (integer products on quantized weights) or f32 (the exact reference)",
        ja: "演算精度: fast(量子化重みの整数積)または f32(厳密な基準)",
    },
    Row {
        section: "backend",
        key: "prefill_chunk",
        flag: "prefill-chunk",
        short: None,
        value: "N",
        kind: Kind::Count(|s| &mut s.backend.prefill_chunk, 1..=65536),
        default: "128",
        group: Group::Backend,
        daily: false,
        en: "prompt tokens computed in one pass",
        ja: "一度に計算するプロンプトのトークン数",
    },
    Row {
        section: "context",
        key: "size",
        flag: "ctx",
        short: Some('c'),
        value: "N",
        kind: Kind::CountOr(|s| &mut s.context.size, 1..=MAX_TOKENS, "auto"),
        default: "auto",
        group: Group::Context,
        daily: true,
        en: "tokens of the context window; auto: the model's, or what memory holds",
        ja: "コンテキストのトークン数。auto はモデルの値かメモリに収まる値",
    },
    Row {
        section: "context",
        key: "kv_type",
        flag: "kv-type",
        short: None,
        value: "TYPE",
        kind: Kind::Choice(|s| &mut s.context.kv_type, &["auto", "f16", "f32", "q8_0"]),
        default: "auto",
        group: Group::Context,
        daily: false,
        en: "number type of the KV cache; auto: f16, with --precision f32 f32",
        ja: "KV キャッシュの数値型。auto は f16(--precision f32 では f32)",
    },
    Row {
        section: "context",
        key: "overflow",
        flag: "overflow",
        short: None,
        value: "HOW",
        kind: Kind::Choice(|s| &mut s.context.overflow, &["ask", "stop", "shift"]),
        default: "ask",
        group: Group::Context,
        daily: false,
        en: "when a chat outgrows the window: ask, stop, or let the oldest turns leave (shift); a one-shot answer always stops",
        ja: "会話がコンテキストを超えるとき: ask は確認、stop は中止、shift は古い発言を外す。一回実行では常に中止",
    },
    Row {
        section: "generation",
        key: "max_tokens",
        flag: "max-tokens",
        short: Some('n'),
        value: "N",
        kind: Kind::CountOr(|s| &mut s.generation.max_tokens, 1..=MAX_TOKENS, "-1"),
        default: "2048",
        group: Group::Generation,
        daily: true,
        en: "most tokens of one answer; -1: until the model ends or the window is full",
        ja: "1 回の回答の最大トークン数。-1 は終端かコンテキストの限界まで",
    },
    Row {
        section: "generation",
        key: "temperature",
        flag: "temperature",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.temperature, 0.0..=5.0, false),
        default: "0.7",
        group: Group::Generation,
        daily: true,
        en: "how freely tokens are chosen; 0: always the most probable",
        ja: "サンプリング温度。0 は常に最も確率の高いトークン",
    },
    Row {
        section: "generation",
        key: "top_p",
        flag: "top-p",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.top_p, 0.0..=1.0, true),
        default: "0.9",
        group: Group::Generation,
        daily: true,
        en: "keep the most probable tokens up to this probability; 1: off",
        ja: "累積確率がこの値になるまでの上位トークンを残す。1 は無効",
    },
    Row {
        section: "generation",
        key: "top_k",
        flag: "top-k",
        short: None,
        value: "N",
        kind: Kind::Count(|s| &mut s.generation.top_k, 0..=MAX_TOKENS),
        default: "40",
        group: Group::Generation,
        daily: false,
        en: "keep this many of the most probable tokens; 0: off",
        ja: "上位この個数のトークンを残す。0 は無効",
    },
    Row {
        section: "generation",
        key: "min_p",
        flag: "min-p",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.min_p, 0.0..=1.0, false),
        default: "0",
        group: Group::Generation,
        daily: false,
        en: "drop tokens less probable than this share of the best; 0: off",
        ja: "最良トークンの確率に対しこの割合未満を捨てる。0 は無効",
    },
    Row {
        section: "generation",
        key: "repeat_penalty",
        flag: "repeat-penalty",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.repeat_penalty, 0.0..=10.0, true),
        default: "1",
        group: Group::Generation,
        daily: false,
        en: "make recent tokens less probable; 1: off",
        ja: "最近のトークンの確率を下げる。1 は無効",
    },
    Row {
        section: "generation",
        key: "repeat_last_n",
        flag: "repeat-last-n",
        short: None,
        value: "N",
        kind: Kind::Count(|s| &mut s.generation.repeat_last_n, 0..=MAX_TOKENS),
        default: "64",
        group: Group::Generation,
        daily: false,
        en: "how many tokens the penalties look back",
        ja: "ペナルティが参照する直近のトークン数",
    },
    Row {
        section: "generation",
        key: "frequency_penalty",
        flag: "frequency-penalty",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.frequency_penalty, -2.0..=2.0, false),
        default: "0",
        group: Group::Generation,
        daily: false,
        en: "subtract this for every recent occurrence of a token; 0: off",
        ja: "直近の出現回数ごとに差し引く値。0 は無効",
    },
    Row {
        section: "generation",
        key: "presence_penalty",
        flag: "presence-penalty",
        short: None,
        value: "X",
        kind: Kind::Real(|s| &mut s.generation.presence_penalty, -2.0..=2.0, false),
        default: "0",
        group: Group::Generation,
        daily: false,
        en: "subtract this from every token that occurred recently; 0: off",
        ja: "直近に出現したトークンから差し引く値。0 は無効",
    },
    Row {
        section: "generation",
        key: "seed",
        flag: "seed",
        short: Some('s'),
        value: "N",
        kind: Kind::NumberOr(|s| &mut s.generation.seed, "random"),
        default: "random",
        group: Group::Generation,
        daily: true,
        en: "seed of the random choices: same seed, same answer",
        ja: "乱数の種。同じ種なら同じ回答",
    },
    Row {
        section: "generation",
        key: "system",
        flag: "system",
        short: None,
        value: "TEXT",
        kind: Kind::TextOr(|s| &mut s.generation.system),
        default: "",
        group: Group::Generation,
        daily: true,
        en: "system prompt",
        ja: "システムプロンプト",
    },
    Row {
        section: "generation",
        key: "stop",
        flag: "stop",
        short: None,
        value: "TEXT",
        kind: Kind::List(|s| &mut s.generation.stop),
        default: "",
        group: Group::Generation,
        daily: false,
        en: "end the answer before this text; may be given several times",
        ja: "この文字列の直前で回答を終える(複数指定可)",
    },
    Row {
        section: "interface",
        key: "prompt_user",
        flag: "prompt-user",
        short: None,
        value: "TEXT",
        kind: Kind::Text(|s| &mut s.interface.prompt_user),
        default: "You> ",
        group: Group::Interface,
        daily: false,
        en: "what stands before your line in a chat",
        ja: "チャットで入力行の前に表示する文字列",
    },
    Row {
        section: "interface",
        key: "prompt_assistant",
        flag: "prompt-assistant",
        short: None,
        value: "TEXT",
        kind: Kind::Text(|s| &mut s.interface.prompt_assistant),
        default: "Assistant> ",
        group: Group::Interface,
        daily: false,
        en: "what stands before the answer in a chat",
        ja: "チャットで回答の前に表示する文字列",
    },
    Row {
        section: "interface",
        key: "show_progress",
        flag: "show-progress",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.interface.show_progress),
        default: "true",
        group: Group::Interface,
        daily: false,
        en: "progress bars while loading and reading the prompt",
        ja: "読み込みとプロンプト処理の進捗バー",
    },
    Row {
        section: "interface",
        key: "stream",
        flag: "stream",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.interface.stream),
        default: "true",
        group: Group::Interface,
        daily: false,
        en: "print the answer while it is made",
        ja: "生成しながら回答を表示する",
    },
    Row {
        section: "interface",
        key: "color",
        flag: "color",
        short: None,
        value: "WHEN",
        kind: Kind::Choice(|s| &mut s.interface.color, &["auto", "always", "never"]),
        default: "auto",
        group: Group::Interface,
        daily: false,
        en: "styles on the terminal (NO_COLOR is honoured)",
        ja: "端末の装飾(NO_COLOR に従う)",
    },
    Row {
        section: "interface",
        key: "language",
        flag: "language",
        short: None,
        value: "LANG",
        kind: Kind::Choice(|s| &mut s.interface.language, &["auto", "en", "ja"]),
        default: "auto",
        group: Group::Interface,
        daily: false,
        en: "language of the program (auto: LC_ALL, LC_MESSAGES, LANG)",
        ja: "表示言語(auto は LC_ALL、LC_MESSAGES、LANG)",
    },
    Row {
        section: "interface",
        key: "output",
        flag: "output",
        short: Some('o'),
        value: "FORM",
        kind: Kind::Choice(|s| &mut s.interface.output, &["text", "json", "stream-json"]),
        default: "text",
        group: Group::Interface,
        daily: true,
        en: "form of a one-shot answer on stdout",
        ja: "一回実行の回答を標準出力に書く形式",
    },
    Row {
        section: "history",
        key: "auto_save",
        flag: "auto-save",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.history.auto_save),
        default: "true",
        group: Group::History,
        daily: false,
        en: "write the conversation after every turn",
        ja: "発言ごとに会話を自動保存する",
    },
    Row {
        section: "history",
        key: "file",
        flag: "history-file",
        short: None,
        value: "FILE",
        kind: Kind::Path(|s| &mut s.history.file),
        default: "~/.rustorch/history/latest.json",
        group: Group::History,
        daily: false,
        en: "where auto-save keeps the last session",
        ja: "自動保存で最後のセッションを置くファイル",
    },
    Row {
        section: "history",
        key: "max_entries",
        flag: "history-max-entries",
        short: None,
        value: "N",
        kind: Kind::Count(|s| &mut s.history.max_entries, 2..=10_000_000),
        default: "1000",
        group: Group::History,
        daily: false,
        en: "messages kept in a session file",
        ja: "セッションファイルに残すメッセージ数",
    },
    Row {
        section: "history",
        key: "save",
        flag: "save-history",
        short: None,
        value: "FILE",
        kind: Kind::Path(|s| &mut s.history.save),
        default: "",
        group: Group::History,
        daily: true,
        en: "write the conversation to this file after every turn",
        ja: "発言ごとに会話をこのファイルへ保存する",
    },
    Row {
        section: "history",
        key: "load",
        flag: "load-history",
        short: None,
        value: "FILE",
        kind: Kind::Path(|s| &mut s.history.load),
        default: "",
        group: Group::History,
        daily: true,
        en: "start from the conversation in this file",
        ja: "このファイルの会話から始める",
    },
    Row {
        section: "history",
        key: "force",
        flag: "force",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.history.force),
        default: "false",
        group: Group::History,
        daily: false,
        en: "let --save-history replace a file that is not a history",
        ja: "履歴でないファイルへの --save-history の上書きを許す",
    },
    Row {
        section: "history",
        key: "ephemeral",
        flag: "ephemeral",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.history.ephemeral),
        default: "false",
        group: Group::History,
        daily: false,
        en: "write nothing: no history, no line history, no log",
        ja: "何も書き込まない(履歴、入力履歴、ログなし)",
    },
    Row {
        section: "logging",
        key: "level",
        flag: "log-level",
        short: None,
        value: "LEVEL",
        kind: Kind::Choice(|s| &mut s.logging.level, &["trace", "debug", "info", "warn", "error"]),
        default: "info",
        group: Group::Logging,
        daily: false,
        en: "how much is logged",
        ja: "ログの詳しさ",
    },
    Row {
        section: "logging",
        key: "file",
        flag: "log-file",
        short: None,
        value: "FILE",
        kind: Kind::Path(|s| &mut s.logging.file),
        default: "~/.rustorch/logs/cli.log",
        group: Group::Logging,
        daily: false,
        en: "the log file; empty: none",
        ja: "ログファイル。空ならなし",
    },
    Row {
        section: "logging",
        key: "keep",
        flag: "log-keep",
        short: None,
        value: "N",
        kind: Kind::Count(|s| &mut s.logging.keep, 0..=1000),
        default: "5",
        group: Group::Logging,
        daily: false,
        en: "older log files kept (a new one begins each day and every 5 MiB)",
        ja: "残す古いログファイル数(毎日および 5 MiB ごとに切り替え)",
    },
    Row {
        section: "logging",
        key: "stderr",
        flag: "log-stderr",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.logging.stderr),
        default: "false",
        group: Group::Logging,
        daily: false,
        en: "log to stderr too",
        ja: "標準エラーにもログを出す",
    },
];

/// A setting by its full key, `section.key`.
pub(crate) fn find(full_key: &str) -> Option<&'static Row> {
    let (section, key) = full_key.split_once('.')?;
    SETTINGS.iter().find(|row| row.section == section && row.key == key)
}

impl Row {
    /// `section.key`
    pub(crate) fn full_key(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// `RUSTORCH_SECTION_KEY`
    pub(crate) fn env_name(&self) -> String {
        format!("RUSTORCH_{}_{}", self.section, self.key).to_uppercase()
    }

    /// What it does.
    pub(crate) fn help(&self, language: Language) -> &'static str {
        language.pick(self.en, self.ja)
    }

    /// The values it takes, for people: `a|b|c`, `0 to 5`; empty if anything goes.
    pub(crate) fn range(&self) -> String {
        let counts = |range: &RangeInclusive<u64>| format!("{}..{}", range.start(), range.end());
        match &self.kind {
            Kind::Switch(_) => "true|false".into(),
            Kind::Count(_, range) => counts(range),
            Kind::CountOr(_, range, word) => format!("{word}|{}", counts(range)),
            Kind::NumberOr(_, word) => format!("{word}|0..{}", u64::MAX),
            Kind::Real(_, range, open) => {
                format!("{}{}..{}", if *open { "above " } else { "" }, range.start(), range.end())
            }
            Kind::Choice(_, words) | Kind::Choices(_, words) => words.join("|"),
            Kind::Text(_) | Kind::TextOr(_) | Kind::Path(_) | Kind::List(_) => String::new(),
        }
    }

    /// Whether it is a switch.
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch(_))
    }

    /// The spelling of the flag worth showing: the one that changes the default.
    pub(crate) fn shown_flag(&self) -> String {
        if self.is_switch() && self.default == "true" { format!("no-{}", self.flag) } else { self.flag.to_owned() }
    }

    /// Sets it from text as typed on the command line, in a variable or in `/set`. Relative paths start at `base`.
    pub(crate) fn set_text(&self, settings: &mut Settings, text: &OsStr, base: Option<&Path>) -> Result<(), String> {
        if let Kind::Path(at) = &self.kind {
            *at(settings) = if text.is_empty() {
                None
            } else if text == "-" {
                Some(PathBuf::from(text)) // a standard stream, where that makes sense
            } else {
                Some(paths::expand(text, base).map_err(|error| error.to_string())?)
            };
            return Ok(());
        }
        let text = text.to_str().ok_or("the value is not valid Unicode")?;
        self.set_str(settings, text)
    }

    fn set_str(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let expected = || format!("`{}` is not valid here; expected {}", text.escape_default(), self.range());
        let count = |range: &RangeInclusive<u64>| -> Result<usize, String> {
            let n: u64 = text.trim().parse().map_err(|_| expected())?;
            if !range.contains(&n) {
                return Err(expected());
            }
            usize::try_from(n).map_err(|_| expected())
        };
        match &self.kind {
            Kind::Switch(at) => *at(settings) = switch(text).ok_or_else(expected)?,
            Kind::Count(at, range) => *at(settings) = count(range)?,
            Kind::CountOr(at, range, word) => *at(settings) = if text == *word { None } else { Some(count(range)?) },
            Kind::NumberOr(at, word) => {
                *at(settings) = if text == *word { None } else { Some(text.trim().parse().map_err(|_| expected())?) };
            }
            Kind::Real(at, range, open) => {
                let x: f32 = text.trim().parse().map_err(|_| expected())?;
                // NaN is in no range.
                if !range.contains(&x) || (*open && x == *range.start()) {
                    return Err(expected());
                }
                *at(settings) = x;
            }
            Kind::Choice(at, words) => {
                *at(settings) = words.iter().find(|word| **word == text).ok_or_else(expected)?;
            }
            Kind::Text(at) => *at(settings) = text.to_owned(),
            Kind::TextOr(at) => *at(settings) = (!text.is_empty()).then(|| text.to_owned()),
            Kind::Path(at) => *at(settings) = (!text.is_empty()).then(|| PathBuf::from(text)),
            Kind::List(at) => *at(settings) = if text.is_empty() { Vec::new() } else { vec![text.to_owned()] },
            Kind::Choices(at, words) => {
                let mut chosen = Vec::new();
                for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    if !words.contains(&word) {
                        return Err(expected());
                    }
                    chosen.push(word.to_owned());
                }
                *at(settings) = chosen;
            }
        }
        Ok(())
    }

    /// Sets a list setting from several values.
    pub(crate) fn set_list(&self, settings: &mut Settings, values: &[String]) -> Result<(), String> {
        match &self.kind {
            Kind::List(at) => {
                if values.iter().any(String::is_empty) {
                    return Err("an empty text is not allowed here".into());
                }
                *at(settings) = values.to_vec();
                Ok(())
            }
            Kind::Choices(..) => self.set_str(settings, &values.join(",")),
            _ => Err(format!("expected one value, not a list{}", self.range_note())),
        }
    }

    /// `; values: …` or nothing.
    fn range_note(&self) -> String {
        let range = self.range();
        if range.is_empty() { range } else { format!(" ({range})") }
    }

    /// The value as a TOML value: what `config show` prints and a config file could hold.
    pub(crate) fn show(&self, settings: &Settings) -> String {
        // The accessors lend mutably so that one function serves reading and writing.
        let mut copy = settings.clone();
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let list = |items: &[String]| format!("[{}]", items.iter().map(|i| quoted(i)).collect::<Vec<_>>().join(", "));
        match &self.kind {
            Kind::Switch(at) => at(&mut copy).to_string(),
            Kind::Count(at, _) => at(&mut copy).to_string(),
            Kind::CountOr(at, _, word) => match at(&mut copy) {
                Some(n) => n.to_string(),
                None if word.parse::<i64>().is_ok() => (*word).to_owned(),
                None => quoted(word),
            },
            Kind::NumberOr(at, word) => at(&mut copy).map_or_else(|| quoted(word), |n| n.to_string()),
            Kind::Real(at, ..) => format!("{:?}", at(&mut copy)),
            Kind::Choice(at, _) => quoted(at(&mut copy)),
            Kind::Text(at) => quoted(at(&mut copy)),
            Kind::TextOr(at) => quoted(at(&mut copy).as_deref().unwrap_or_default()),
            Kind::Path(at) => {
                quoted(&at(&mut copy).as_deref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
            }
            Kind::List(at) | Kind::Choices(at, _) => list(at(&mut copy)),
        }
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The built-in defaults. A default path without a home directory is none.
pub(crate) fn defaults() -> exit::Result<Settings> {
    let mut settings = Settings::default();
    for row in SETTINGS {
        if matches!(row.kind, Kind::Path(_)) && paths::home().is_none() {
            continue;
        }
        row.set_text(&mut settings, OsStr::new(row.default), None).map_err(|error| {
            exit::Failure::new(exit::Exit::Usage, format!("default of {}", row.full_key())).because(error)
        })?;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_is_complete_and_unique() {
        let mut names = HashSet::new();
        for row in SETTINGS {
            assert!(names.insert(row.full_key()), "{} twice", row.full_key());
            assert!(names.insert(row.env_name()) && names.insert(format!("--{}", row.flag)), "{}", row.full_key());
            assert!(row.short.is_none_or(|c| names.insert(format!("-{c}"))), "{}", row.full_key());
            assert!(!row.en.is_empty() && !row.ja.is_ascii(), "{}: help in both languages", row.full_key());
            assert_eq!(row.value.is_empty(), row.is_switch(), "{}: value name", row.full_key());
            assert!(GROUPS.iter().any(|(group, ..)| *group == row.group));
            assert_eq!(find(&row.full_key()).map(Row::env_name), Some(row.env_name()));
        }
    }

    #[test]
    fn defaults_are_valid_and_survive_showing() {
        let settings = defaults().unwrap();
        assert_eq!(settings.generation.max_tokens, Some(2048));
        assert_eq!(settings.generation.temperature, 0.7);
        assert_eq!(settings.interface.prompt_user, "You> ");
        for row in SETTINGS {
            let text = format!("x = {}", row.show(&settings));
            assert!(text.parse::<toml::Table>().is_ok(), "{}: {text}", row.full_key());
        }
    }

    fn check(key: &str, text: &str, expected: Option<&str>) {
        let row = find(key).unwrap();
        let mut settings = defaults().unwrap();
        let result = row.set_text(&mut settings, OsStr::new(text), None);
        assert_eq!(result.ok().map(|()| row.show(&settings)).as_deref(), expected, "{key} = {text}");
    }

    #[test]
    fn ranges() {
        check("generation.max_tokens", "0", None);
        check("generation.max_tokens", "-1", Some("-1"));
        check("generation.max_tokens", "-2", None);
        check("generation.max_tokens", "7", Some("7"));
        check("generation.max_tokens", "99999999999999999999", None);
        check("generation.temperature", "0", Some("0.0"));
        check("generation.temperature", "5", Some("5.0"));
        check("generation.temperature", "5.1", None);
        check("generation.temperature", "-0.1", None);
        check("generation.temperature", "NaN", None);
        check("generation.temperature", "inf", None);
        check("generation.top_p", "0", None);
        check("generation.top_p", "1", Some("1.0"));
        check("generation.top_p", "1.01", None);
        check("generation.top_k", "0", Some("0"));
        check("generation.top_k", "-1", None);
        check("generation.repeat_penalty", "0", None);
        check("generation.seed", "18446744073709551615", Some("18446744073709551615"));
        check("generation.seed", "random", Some("\"random\""));
        check("backend.default", "CUDA", None);
        check("backend.default", "hybrid-f32", Some("\"hybrid-f32\""));
        check("backend.fallback", "opencl, cpu", Some("[\"opencl\", \"cpu\"]"));
        check("backend.fallback", "gpu", None);
        check("backend.threads", "auto", Some("\"auto\""));
        check("backend.threads", "0", None);
        check("model.mmap", "off", Some("false"));
        check("model.mmap", "perhaps", None);
        check("logging.file", "", Some("\"\""));
        check("interface.prompt_user", "あなた> ", Some("\"あなた> \""));
    }
}
