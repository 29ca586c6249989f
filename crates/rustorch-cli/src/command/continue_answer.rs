//! `/continue`: the last answer goes on where it stopped.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    repl::Chat,
    session::Role,
};

messages! {
    /// There is no answer.
    nothing() { "there is no answer to continue", "続ける回答がありません" }
}

/// The row.
pub(super) const CONTINUE: Command = Command {
    name: "continue",
    aliases: &[],
    arguments: "",
    help: Text { en: "let the last answer go on", ja: "最後の回答の続きを生成する" },
    effect: Text {
        en: "the last answer grows (the shorter one stays in the history file); nothing else changes",
        ja: "最後の回答が伸びる(短い方は履歴ファイルに残る)。ほかは変わらない",
    },
    example: "/continue",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&CONTINUE, rest)?;
    match chat.session.conversation().path().last() {
        Some(message) if message.role == Role::Assistant => Ok(Flow::Continue),
        _ => Err(Failure::new(Exit::Runtime, nothing())),
    }
}
