//! `/multi`: the next message has several lines.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{exit::Result, messages::messages, output, repl::Chat};

messages! {
    /// What to do now.
    instructions() { "several lines; Ctrl-D sends them, Ctrl-C drops them", "複数行入力です。Ctrl-D で送信、Ctrl-C で破棄します" }
}

/// The row.
pub(super) const MULTI: Command = Command {
    name: "multi",
    aliases: &[],
    arguments: "",
    help: Text {
        en: "type a message of several lines, ended by Ctrl-D",
        ja: "複数行のメッセージを入力する(Ctrl-D で送信)",
    },
    effect: Text { en: "only the next message", ja: "次のメッセージのみ" },
    example: "/multi",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&MULTI, rest)?;
    if chat.interactive {
        output::note(&instructions());
    }
    Ok(Flow::Multi)
}
