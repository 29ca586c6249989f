//! Exit codes (specification S5) and the one error type of the program.
//!
//! Every layer below has its own error; here each becomes a [`Failure`]: what failed, why, what to do next, and the exit
//! code. Nothing is printed here (see `output`).

use crate::{
    causes,
    messages::{Language, language},
};
use std::fmt::Display;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Ok,
    /// An error while running.
    Runtime,
    /// A flag, a setting or the config file is wrong.
    Usage,
    /// The model is missing, corrupt or not supported.
    Model,
    /// The backend is not available.
    Backend,
    /// The model does not fit in memory.
    Memory,
    /// A one-shot prompt does not fit in the context window.
    Context,
    /// The history could not be read or written.
    History,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

/// One exit code with its meaning.
pub(crate) struct ExitRow {
    /// Which.
    pub(crate) exit: Exit,
    /// The number the shell sees.
    pub(crate) code: u8,
    /// Meaning, English.
    pub(crate) en: &'static str,
    /// Meaning, Japanese.
    pub(crate) ja: &'static str,
}

/// All exit codes, in order: `help exit-codes`, the man page and the tests are made from it.
pub(crate) const EXITS: &[ExitRow] = &[
    ExitRow { exit: Exit::Ok, code: 0, en: "success", ja: "成功" },
    ExitRow { exit: Exit::Runtime, code: 1, en: "error while running", ja: "実行中のエラー" },
    ExitRow { exit: Exit::Usage, code: 2, en: "wrong flag or setting", ja: "オプションまたは設定の誤り" },
    ExitRow {
        exit: Exit::Model,
        code: 3,
        en: "model missing, corrupt or not supported",
        ja: "モデルがない、壊れている、または未対応",
    },
    ExitRow { exit: Exit::Backend, code: 4, en: "backend not available", ja: "バックエンドが使えない" },
    ExitRow { exit: Exit::Memory, code: 5, en: "does not fit in memory", ja: "メモリに収まらない" },
    ExitRow {
        exit: Exit::Context,
        code: 6,
        en: "prompt does not fit in the context window (one-shot)",
        ja: "プロンプトがコンテキストに収まらない(一度だけ回答するとき)",
    },
    ExitRow {
        exit: Exit::History, code: 7, en: "history cannot be read or written", ja: "履歴を読み書きできない"
    },
    ExitRow { exit: Exit::Interrupted, code: 130, en: "interrupted (Ctrl-C)", ja: "中断(Ctrl-C)" },
    ExitRow { exit: Exit::Terminated, code: 143, en: "terminated (SIGTERM)", ja: "終了要求(SIGTERM)" },
];

impl Exit {
    /// The number the shell sees.
    pub(crate) fn code(self) -> u8 {
        EXITS.iter().find(|row| row.exit == self).map_or(1, |row| row.code)
    }
}

impl ExitRow {
    /// Meaning in a language.
    pub(crate) fn meaning(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.en,
            Language::Japanese => self.ja,
        }
    }
}

/// An error of a lower floor, or of the system.
pub(crate) type Cause = dyn std::error::Error + 'static;

/// Shorthand for results of this crate.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What failed, why, and what to do next. Texts may quote untrusted input: `output` filters them when printing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code, should it end the program.
    pub(crate) exit: Exit,
    /// What failed. Empty: end without a word (a closed pipe, an interrupt that was already announced).
    pub(crate) error: String,
    /// Why.
    pub(crate) cause: Option<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure with an exit code.
    pub(crate) fn new(exit: Exit, error: impl Into<String>) -> Failure {
        Failure { exit, error: error.into(), cause: None, hint: None }
    }

    /// A failure that says nothing.
    pub(crate) fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// Adds why.
    pub(crate) fn because(mut self, cause: impl Display) -> Failure {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds why from an error and everything behind it that its own text does not say already, in the language in use
    /// where the table has it.
    pub(crate) fn because_of(self, error: &Cause) -> Failure {
        if let Some(text) = causes::words(error, language()) {
            return self.because(text);
        }
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let more = source.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            next = source.source();
        }
        self.because(text)
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_specification() {
        let codes: Vec<u8> = EXITS.iter().map(|row| row.code).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130, 143]);
        for row in EXITS {
            assert_eq!(row.exit.code(), row.code);
            assert!(!row.meaning(Language::English).is_empty() && !row.meaning(Language::Japanese).is_empty());
        }
    }

    #[test]
    fn causes_are_chained_without_repeating() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::new(Exit::Model, "x").because_of(&Outer(std::io::Error::other("inner")));
        assert_eq!(failure.cause.as_deref(), Some("outer: inner"));
    }
}
