//! `/history`: the conversation so far.

use super::{Command, Completes, Flow, Text, flags, wrong_arguments};
use crate::{
    exit::Result,
    messages::messages,
    output::{self, Channel, Look},
    repl::Chat,
    terminal_filter::visible,
};

messages! {
    /// Nothing was said.
    empty() { "the conversation is empty", "会話は空です" }
    /// Behind a turn that the model does not see.
    out_of_context() { "not in the context", "コンテキスト外" }
}

/// The row.
pub(super) const HISTORY: Command = Command {
    name: "history",
    aliases: &[],
    arguments: "[-t]",
    help: Text { en: "show the conversation (-t: with times)", ja: "会話を表示する(-t: 時刻付き)" },
    effect: Text { en: "none", ja: "なし" },
    example: "/history -t",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let (set, names) = flags(&HISTORY, rest, &["-t"])?;
    if !names.is_empty() {
        return Err(wrong_arguments(&HISTORY));
    }
    let conversation = chat.session.conversation();
    let path = conversation.path();
    if path.is_empty() && conversation.system.is_none() {
        output::note(&empty());
        return Ok(Flow::Next);
    }
    for (number, message) in conversation.system.iter().chain(path).enumerate() {
        let mut facts = Vec::new();
        if !set.is_empty() {
            let times: Vec<&str> =
                message.ts.iter().chain(&message.ts_end).map(crate::session::Stamp::as_str).collect();
            facts.extend((!times.is_empty()).then(|| times.join(" – ")));
        }
        facts.extend(message.finish_reason.as_deref().filter(|reason| *reason != "stop").map(visible));
        facts.extend((!message.in_context).then(out_of_context));
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        let head = output::paint(Channel::Err, Look::Dim, &format!("[{number}] {}{facts}", message.role.as_str()));
        output::note(&format!("{head}\n{}", visible(&message.content)));
    }
    Ok(Flow::Next)
}
