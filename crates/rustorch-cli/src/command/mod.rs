//! The commands that begin with a slash: one file and one row each.
//!
//! `/help`, completion, the documentation and the dispatch are made from [`COMMANDS`]. A command changes the state of the
//! chat completely or not at all; its failure is printed and the chat goes on (specification S9, S11).

mod backend;
mod clear;
mod context;
mod continue_answer;
mod exit;
mod help;
mod history;
mod load;
mod lora;
mod model;
mod multi;
mod params;
pub(crate) mod parse;
mod regen;
mod save;
mod set;
mod stats;
mod system;
mod undo;

pub(crate) use set::live_rows;

use crate::{
    exit::{Exit, Failure, Result},
    messages::{Language, messages},
    paths,
    repl::Chat,
};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::PathBuf};

/// What happens after a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next line.
    Next,
    /// The program ends.
    Exit,
    /// Another answer to the last question.
    Regenerate,
    /// The last answer goes on.
    Continue,
    /// The next input may have several lines; Ctrl-D sends it.
    Multi,
}

/// What Tab offers behind the command.
#[derive(Clone, Copy)]
pub(crate) enum Completes {
    /// Nothing.
    Nothing,
    /// Files and folders.
    Path,
    /// Files, folders and names of models that are no files.
    Model,
    /// Words.
    Words(fn() -> Vec<String>),
    /// One of some words, and behind it file names.
    WordThenPath(&'static [&'static str]),
}

/// A text in both languages.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// English.
    pub(crate) en: &'static str,
    /// Japanese.
    pub(crate) ja: &'static str,
}

impl Text {
    /// The text in a language.
    pub(crate) fn get(&self, language: Language) -> &'static str {
        language.pick(self.en, self.ja)
    }
}

/// One command.
pub(crate) struct Command {
    /// Its word, without the slash.
    pub(crate) name: &'static str,
    /// Other words for it.
    pub(crate) aliases: &'static [&'static str],
    /// Its arguments as written in the help.
    pub(crate) arguments: &'static str,
    /// What it does, in one line.
    pub(crate) help: Text,
    /// What it does to the system prompt, the messages, the settings, the KV cache and the model.
    pub(crate) effect: Text,
    /// A line to try.
    pub(crate) example: &'static str,
    /// What Tab offers.
    pub(crate) completes: Completes,
    /// Does it. The text is what stands behind the word.
    pub(crate) run: fn(&mut Chat, &str) -> Result<Flow>,
}

/// Every command, in the order of `/help`.
pub(crate) const COMMANDS: &[&Command] = &[
    &help::HELP,
    &exit::EXIT,
    &clear::CLEAR,
    &system::SYSTEM,
    &regen::REGEN,
    &continue_answer::CONTINUE,
    &undo::UNDO,
    &multi::MULTI,
    &save::SAVE,
    &load::LOAD,
    &history::HISTORY,
    &context::CONTEXT,
    &stats::STATS,
    &params::PARAMS,
    &set::SET,
    &model::MODEL,
    &lora::LORA,
    &backend::BACKEND,
];

messages! {
    /// The file has no name that can be used.
    bad_path(path) { "cannot use the path {path}", "パス {path} は使えません" }
    /// A word that is no command.
    unknown_command(name) { "there is no command /{name}", "/{name} というコマンドはありません" }
    /// A command that is spelled much like it.
    did_you_mean(name) { "did you mean /{name}? (//… sends a message that begins with /)", "/{name} ではありませんか?(/ で始まる文は // と入力すると送信されます)" }
    /// No command is spelled like it.
    see_help() { "/help lists the commands; //… sends a message that begins with /", "/help で一覧を表示します。/ で始まる文は // と入力すると送信されます" }
    /// A quote that is not closed.
    open_quote(quote) { "the quote {quote} is not closed", "引用符 {quote} が閉じられていません" }
    /// Arguments that a command does not take.
    usage(name) { "wrong arguments for /{name}", "/{name} の引数が正しくありません" }
    /// How a command is written.
    usage_hint(name, arguments) { "usage: /{name} {arguments}", "書式: /{name} {arguments}" }
}

/// Every word that begins a command.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| std::iter::once(command.name).chain(command.aliases.iter().copied()))
}

/// The command of that word.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().copied().find(|command| command.name == name || command.aliases.contains(&name))
}

/// The commands as data, for the documentation.
pub(crate) fn docs() -> Value {
    let rows = COMMANDS.iter().map(|command| {
        json!({
            "usage": format!("/{} {}", command.name, command.arguments).trim_end(),
            "aliases": command.aliases.iter().map(|alias| format!("/{alias}")).collect::<Vec<_>>(),
            "en": command.help.en,
            "ja": command.help.ja,
            "effect_en": command.effect.en,
            "effect_ja": command.effect.ja,
            "example": command.example,
        })
    });
    rows.collect()
}

/// Runs a command line.
///
/// # Errors
/// The command's own, or that there is none of that name.
pub(crate) fn run(chat: &mut Chat, name: &str, rest: &str) -> Result<Flow> {
    match find(name) {
        Some(command) => (command.run)(chat, rest),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Failure {
    let short: String = name.chars().take(40).collect();
    let hint = parse::nearest(name, names()).map_or_else(see_help, did_you_mean);
    Failure::new(Exit::Usage, unknown_command(short)).hint(hint)
}

/// The arguments of a command line, split.
fn arguments(rest: &str) -> Result<Vec<String>> {
    parse::arguments(rest).map_err(|quote| Failure::new(Exit::Usage, open_quote(quote)))
}

/// The file that an argument names.
fn path(name: &str) -> Result<PathBuf> {
    paths::expand(OsStr::new(name), None).map_err(|error| Failure::new(Exit::Usage, bad_path(name)).because(error))
}

/// The failure for arguments that do not fit.
fn wrong_arguments(command: &Command) -> Failure {
    Failure::new(Exit::Usage, usage(command.name)).hint(usage_hint(command.name, command.arguments))
}

/// Refuses arguments for a command that takes none.
fn no_arguments(command: &Command, rest: &str) -> Result<()> {
    if rest.is_empty() { Ok(()) } else { Err(wrong_arguments(command)) }
}

/// Takes the flags out of split arguments: those of `known` that are there, and what remains.
fn flags(command: &Command, rest: &str, known: &[&'static str]) -> Result<(Vec<&'static str>, Vec<String>)> {
    let mut set = Vec::new();
    let mut others = Vec::new();
    for argument in arguments(rest)? {
        match known.iter().find(|flag| **flag == argument) {
            Some(flag) => set.push(*flag),
            None if argument.starts_with("--") => return Err(wrong_arguments(command)),
            None => others.push(argument),
        }
    }
    Ok((set, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_is_complete_and_unique() {
        let mut seen = HashSet::new();
        for command in COMMANDS {
            for name in std::iter::once(&command.name).chain(command.aliases) {
                assert!(seen.insert(*name), "{name} twice");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
            }
            for text in [&command.help, &command.effect] {
                assert!(!text.en.is_empty() && !text.ja.is_ascii(), "{}", command.name);
            }
            assert!(command.example.starts_with(&format!("/{}", command.name)), "{}", command.name);
        }
        for required in ["exit", "quit", "bye", "clear", "help", "save", "load", "model", "backend", "stats", "system"]
        {
            assert!(find(required).is_some(), "{required}");
        }
    }

    #[test]
    fn words_are_exact() {
        for name in ["exiting", "ex", "EXIT", ""] {
            assert!(find(name).is_none(), "{name}");
            let failure = unknown(name);
            assert!(failure.hint.is_some());
        }
        assert!(unknown("exiting").hint.unwrap().contains("/exit"));
        assert!(unknown("sytem").hint.unwrap().contains("/system"));
    }
}
