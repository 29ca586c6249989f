//! One row per setting. The command line, the environment variables, the keys of the config file, the help in both
//! languages, `config show`, `config init`, the man page and the docs are made from these rows and from nothing else.
//!
//! What belongs here: the rows, one table however long it grows. What does not: how a value is read and shown (`row.rs`), which
//! layer wins (`layers.rs`), the data that the rows fill (`mod.rs`).

use super::{
    Settings,
    row::{Group, Kind, Row},
};
use crate::{exit, paths};
use std::ffi::OsStr;

const MAX_TOKENS: u64 = 1 << 24;

/// The backends that a user may name; what each needs is in `backends`.
pub(crate) const BACKENDS: &[&str] = &["cpu", "cuda", "metal", "opencl", "hybrid", "hybrid-f32"];

/// What weights may be quantized to while they are loaded.
pub(crate) const QUANTIZE: &[&str] = &[
    "auto", "none", "BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q3_K_L",
    "Q3_K_M", "Q3_K_S", "Q2_K",
];

/// Every setting.
pub(crate) const SETTINGS: &[Row] = &[
    Row {
        section: "model",
        key: "path",
        flag: "model",
        short: Some('m'),
        value: "FILE|demo",
        kind: Kind::PathOr(|s| &mut s.model.path, crate::demo::NAME),
        default: "",
        group: Group::Model,
        daily: true,
        en: "model: a file or folder, a name that `models` lists, or demo (built in)",
        ja: "モデル: ファイルまたはフォルダ、`models` が示す名前、または内蔵モデルの demo",
    },
    Row {
        section: "model",
        key: "arch",
        flag: "arch",
        short: None,
        value: "FILE",
        kind: Kind::Path(|s| &mut s.model.arch),
        default: "",
        group: Group::Model,
        daily: false,
        en: "TOML file that describes a family of models the program does not know",
        ja: "プログラムが知らないモデル系列を記述した TOML ファイル",
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
        en: "which format of a folder that holds several; a model of another format is refused (told by the content)",
        ja: "複数の形式があるフォルダでどれを使うか。異なる形式のモデルは拒否する(内容から判定)",
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
        en: "chat template instead of the model's own: one of its others by name, a built-in name or a Jinja file",
        ja: "モデル付属の代わりに使うチャットテンプレート(モデルにある別の名前、組み込み名、または Jinja ファイル)",
    },
    Row {
        section: "model",
        key: "lora",
        flag: "lora",
        short: None,
        value: "FILE[:SCALE]",
        kind: Kind::Adapters(|s| &mut s.model.lora),
        default: "",
        group: Group::Model,
        daily: false,
        en: "adapter (LoRA) added to the model: folder of PEFT or mlx-lm, its weights file, or a GGUF file, and how much of it counts; may be repeated",
        ja: "モデルに加えるアダプタ(LoRA): PEFT・mlx-lm のフォルダかその重みファイル、または GGUF ファイルと倍率。複数指定可",
    },
    Row {
        section: "model",
        key: "quantize",
        flag: "quantize",
        short: None,
        value: "TYPE",
        kind: Kind::Choice(|s| &mut s.model.quantize, QUANTIZE),
        default: "auto",
        group: Group::Model,
        daily: false,
        en: "type to quantize unquantized weights to while loading; auto: only if they do not fit, to the best that does",
        ja: "非量子化の重みを読み込み時に量子化する型。auto: 収まらないときだけ、収まる最良の型にする",
    },
    Row {
        section: "model",
        key: "quantize_cache",
        flag: "quantize-cache",
        short: None,
        value: "SIZE",
        kind: Kind::BytesOr(|s| &mut s.model.quantize_cache, "off"),
        default: "off",
        group: Group::Model,
        daily: false,
        en: "keep what is quantized while loading for the next time, in at most this much of ~/.rustorch/cache",
        ja: "読み込み時に量子化した重みを ~/.rustorch/cache にこの大きさまで保存し、次回に使う",
    },
    Row {
        section: "model",
        key: "lock",
        flag: "model-lock",
        short: None,
        value: "",
        kind: Kind::Switch(|s| &mut s.model.lock),
        default: "true",
        group: Group::Model,
        daily: false,
        en: "remember models when first used, and refuse those that changed since",
        ja: "初回使用時のモデルを記録し、その後変わったモデルを拒否する",
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
        default: "512",
        group: Group::Backend,
        daily: false,
        en: "prompt tokens computed in one pass",
        ja: "一度に計算するプロンプトのトークン数",
    },
    Row {
        section: "backend",
        key: "memory_budget",
        flag: "memory-budget",
        short: None,
        value: "SIZE",
        kind: Kind::BytesOr(|s| &mut s.backend.memory_budget, "auto"),
        default: "auto",
        group: Group::Backend,
        daily: false,
        en: "memory that weights, KV cache and scratch may take together; auto: most of what is free",
        ja: "重み・KV キャッシュ・作業領域の合計メモリの上限。auto: 空きメモリの大部分",
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
        en: "number type of the KV cache; auto: f16, but f32 with --precision f32 or when the cache takes 64 MiB at most",
        ja: "KV キャッシュの数値型。auto は f16(--precision f32 のとき、またはキャッシュが 64 MiB 以下なら f32)",
    },
    Row {
        section: "context",
        key: "prefix_cache",
        flag: "prefix-cache",
        short: None,
        value: "MIB",
        kind: Kind::CountOr(|s| &mut s.context.prefix_cache, 0..=1 << 20, "auto"),
        default: "auto",
        group: Group::Context,
        daily: false,
        en: "MiB of KV cache beside the window for earlier conversations and branches, so that returning to them reads nothing again; auto: what the window takes, at most 512, if memory allows",
        ja: "以前の会話や分岐を残す KV キャッシュ(コンテキストとは別、MiB)。戻ったとき読み直さない。auto はコンテキストと同量で最大 512、メモリに余裕がある範囲",
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
        ja: "会話がコンテキストを超えるとき: ask は確認、stop は中止、shift は古い発言を外す。一度だけ回答するとき(-p)は常に中止",
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
        section: "generation",
        key: "speculate",
        flag: "speculate",
        short: None,
        value: "N",
        kind: Kind::Guess(|s| &mut s.generation.speculate),
        default: "auto",
        group: Group::Generation,
        daily: false,
        en: "guess up to N tokens ahead from the text so far and check them in one pass: faster where text repeats; auto: where it pays; exact up to 2; from 3 on, with --precision fast, equal but for rounding (auto stays at 2 with --seed or temperature 0)",
        ja: "これまでの文章から最大 N トークンを予測し、1 回の計算でまとめて検証する。繰り返しの多い文章で速くなる。auto は効果がある場合のみ。2 個までは結果が完全に同じ。3 個以上では --precision fast のとき丸め誤差のみ異なる(--seed または temperature 0 では auto は 2 個まで)",
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
        key: "control_characters",
        flag: "control-characters",
        short: None,
        value: "WHAT",
        kind: Kind::Choice(|s| &mut s.interface.control_characters, &["show", "pass"]),
        default: "show",
        group: Group::Interface,
        daily: false,
        en: "control characters in answers: show them as pictures, or pass them on (only for output that no terminal shows)",
        ja: "回答中の制御文字。show は可視化、pass はそのまま出力(端末に表示しない出力にだけ使う)",
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
        ja: "一度だけの回答(-p)を標準出力に書く形式",
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
        en: "write nothing: no history, line history, log, record of models or cache (not with --save-history)",
        ja: "何も書き込まない(履歴、入力履歴、ログ、モデルの記録、キャッシュなし。--save-history とは併用不可)",
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
    use super::{super::row::GROUPS, *};
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
        check("generation.speculate", "auto", Some("\"auto\""));
        check("generation.speculate", "off", Some("\"off\""));
        check("generation.speculate", "15", Some("15"));
        check("generation.speculate", "0", None);
        check("generation.speculate", "16", None);
        check("generation.speculate", "on", None);
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
        check("context.prefix_cache", "auto", Some("\"auto\""));
        check("context.prefix_cache", "0", Some("0"));
        check("context.prefix_cache", "1048577", None);
        check("context.prefix_cache", "64MB", None);
        check("backend.default", "CUDA", None);
        check("backend.default", "hybrid-f32", Some("\"hybrid-f32\""));
        check("backend.fallback", "opencl, cpu", Some("[\"opencl\", \"cpu\"]"));
        check("backend.fallback", "gpu", None);
        check("backend.threads", "auto", Some("\"auto\""));
        check("backend.threads", "0", None);
        check("model.quantize_cache", "off", Some("\"off\""));
        check("model.quantize_cache", "20GiB", Some("21474836480"));
        check("model.quantize_cache", "auto", None);
        check("model.mmap", "off", Some("false"));
        check("model.mmap", "perhaps", None);
        check("logging.file", "", Some("\"\""));
        check("interface.prompt_user", "あなた> ", Some("\"あなた> \""));
    }
}
