//! `/context`: what fills the window, in exact tokens.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{exit::Result, output, repl::Chat};

/// The row.
pub(super) const CONTEXT: Command = Command {
    name: "context",
    aliases: &[],
    arguments: "",
    help: Text {
        en: "show what fills the context window, in tokens", ja: "コンテキストの内訳をトークン数で表示する"
    },
    effect: Text { en: "none", ja: "なし" },
    example: "/context",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&CONTEXT, rest)?;
    output::note(&chat.ledger()?.to_string());
    Ok(Flow::Next)
}
