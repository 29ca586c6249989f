//! `/help`: the commands, or one of them.

use super::{COMMANDS, Command, Completes, Flow, Text, find, unknown};
use crate::{
    exit::Result,
    messages::{language, messages},
    output,
    repl::Chat,
};
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

messages! {
    /// Keys, under the list.
    keys() {
        "Enter sends. Several lines: end a line with \\, begin with \"\"\", or /multi; Ctrl-D sends them.\nCtrl-C stops an answer; Ctrl-D on an empty line ends the program. /help COMMAND tells more.",
        "Enter で送信。複数行は行末の \\、\"\"\" で始める、または /multi。Ctrl-D で送信。\nCtrl-C で回答を中断、空行での Ctrl-D で終了。/help コマンド名 で詳細を表示します。"
    }
    /// The heading of the effect.
    effect_label() { "effect", "影響" }
    /// The heading of the example.
    example_label() { "example", "例" }
    /// The heading of other words.
    alias_label() { "also", "別名" }
}

/// The row.
pub(super) const HELP: Command = Command {
    name: "help",
    aliases: &[],
    arguments: "[COMMAND]",
    help: Text {
        en: "list the commands, or explain one", ja: "コマンドの一覧、または 1 つの説明を表示する"
    },
    effect: Text { en: "none", ja: "なし" },
    example: "/help load",
    completes: Completes::Words(|| super::names().map(str::to_owned).collect()),
    run,
};

fn run(_: &mut Chat, rest: &str) -> Result<Flow> {
    if rest.is_empty() {
        output::note(&list());
    } else {
        let name = rest.strip_prefix('/').unwrap_or(rest);
        output::note(&describe(find(name).ok_or_else(|| unknown(name))?));
    }
    Ok(Flow::Next)
}

fn heads() -> impl Iterator<Item = (String, &'static Command)> {
    COMMANDS.iter().map(|command| {
        let mut head = format!("/{}", command.name);
        for alias in command.aliases {
            let _ = write!(head, " /{alias}");
        }
        if !command.arguments.is_empty() {
            let _ = write!(head, " {}", command.arguments);
        }
        (head, *command)
    })
}

fn list() -> String {
    let width = heads().map(|(head, _)| head.width()).max().unwrap_or(0).min(34);
    let mut out = String::new();
    for (head, command) in heads() {
        let pad = width.saturating_sub(head.width());
        let _ = writeln!(out, "  {head}{:pad$}  {}", "", command.help.get(language()));
    }
    out + &keys()
}

fn describe(command: &Command) -> String {
    let mut out = format!("/{} {}\n  {}\n", command.name, command.arguments, command.help.get(language()));
    if !command.aliases.is_empty() {
        let _ = writeln!(out, "  {}: /{}", alias_label(), command.aliases.join(" /"));
    }
    let _ = writeln!(out, "  {}: {}", effect_label(), command.effect.get(language()));
    let _ = write!(out, "  {}: {}", example_label(), command.example);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_with_its_words() {
        let list = list();
        for name in super::super::names() {
            assert!(list.contains(&format!("/{name}")), "{name}");
        }
        for command in COMMANDS {
            assert!(describe(command).contains(command.example), "{}", command.name);
        }
    }
}
