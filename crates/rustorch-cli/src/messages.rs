//! Every sentence the program says, English and Japanese side by side, and the choice between them.
//!
//! `messages!` makes one function per row whose arguments both languages must use or ignore knowingly; the compiler
//! checks the placeholders. A module with many sentences of its own (the REPL, the settings) keeps its rows beside its
//! code with the same macro. Nothing is printed here.

use std::sync::atomic::{AtomicU8, Ordering};

/// A language of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// English.
    English,
    /// Japanese.
    Japanese,
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The language in use.
pub(crate) fn language() -> Language {
    if CURRENT.load(Ordering::Relaxed) == 1 { Language::Japanese } else { Language::English }
}

/// Changes the language in use.
pub(crate) fn set_language(language: Language) {
    CURRENT.store(u8::from(language == Language::Japanese), Ordering::Relaxed);
}

impl Language {
    /// What `interface.language` names: `en`, `ja`, or `auto` for the locale of the environment.
    pub(crate) fn choose(setting: &str) -> Language {
        match setting {
            "en" => Language::English,
            "ja" => Language::Japanese,
            _ => Language::from_locale(|name| std::env::var(name).ok()),
        }
    }

    /// The first of `LC_ALL`, `LC_MESSAGES`, `LANG` that is set and not empty decides (POSIX, Environment Variables).
    fn from_locale(variable: impl Fn(&str) -> Option<String>) -> Language {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
        match locale {
            Some(locale) if locale == "ja" || locale.starts_with("ja_") || locale.starts_with("ja.") => {
                Language::Japanese
            }
            _ => Language::English,
        }
    }

    /// One of two texts.
    pub(crate) fn pick<'a>(self, en: &'a str, ja: &'a str) -> &'a str {
        match self {
            Language::English => en,
            Language::Japanese => ja,
        }
    }
}

/// Makes one function per row: `name(arguments) -> String` in the language in use. Placeholders name the arguments.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),*) { $en:literal, $ja:literal })*) => {$(
        $(#[$doc])*
        #[allow(unused_variables)] // a language may need fewer of the facts than the other
        pub(crate) fn $name($($argument: impl std::fmt::Display),*) -> String {
            match $crate::messages::language() {
                $crate::messages::Language::English => format!($en),
                $crate::messages::Language::Japanese => format!($ja),
            }
        }
    )*};
}
pub(crate) use messages;

messages! {
    /// The word before what failed.
    label_error() { "error", "エラー" }
    /// The word before why.
    label_cause() { "cause", "原因" }
    /// The word before what to do next.
    label_hint() { "hint", "ヒント" }
    /// The word before something that goes on regardless.
    label_warning() { "warning", "警告" }

    /// A bug.
    panicked() { "this is a bug in rustorch-cli", "rustorch-cli の不具合です" }
    /// What to do about a bug.
    panicked_hint() {
        "run again with --log-level debug and send the log file with a report",
        "--log-level debug を付けて再実行し、ログファイルを添えて報告してください"
    }

    /// Stdout failed.
    cannot_write_stdout() { "cannot write to stdout", "標準出力に書き込めません" }

    /// The log goes nowhere.
    log_unwritable(path, why) { "cannot write the log file {path}: {why}", "ログファイル {path} に書き込めません: {why}" }

    /// JSON without a prompt.
    output_needs_prompt(form) { "--output {form} needs a prompt: -p TEXT or stdin", "--output {form} にはプロンプト(-p TEXT または標準入力)が必要です" }

    /// Neither flag nor config names a model.
    no_model() { "no model is named", "モデルが指定されていません" }
    /// What to do about it.
    no_model_hint(config) {
        "give --model FILE, or set model.path in {config}; --model demo tries the small model inside this program",
        "--model FILE を指定するか、{config} の model.path を設定してください。--model demo で内蔵の小さなモデルを試せます"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], expected: Language) {
        let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(Language::from_locale(variable), expected, "{set:?}");
    }

    #[test]
    fn the_locale_decides() {
        check(&[], Language::English);
        check(&[("LANG", "ja_JP.UTF-8")], Language::Japanese);
        check(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "C")], Language::English);
        check(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "")], Language::Japanese);
        check(&[("LANG", "en_US.UTF-8"), ("LC_MESSAGES", "ja")], Language::Japanese);
        check(&[("LANG", "jam_JM")], Language::English);
    }
}
