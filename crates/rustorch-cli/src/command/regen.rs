//! `/regen`: another answer to the last question.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    repl::Chat,
};

messages! {
    /// There is no question.
    nothing() { "there is no question to answer again", "回答し直す質問がありません" }
}

/// The row.
pub(super) const REGEN: Command = Command {
    name: "regen",
    aliases: &[],
    arguments: "",
    help: Text { en: "answer the last question again", ja: "最後の質問に回答し直す" },
    effect: Text {
        en: "the new answer takes the place of the last one, which stays in the history file (/undo returns to it); the KV \
             cache of everything before is reused",
        ja: "新しい回答が最後の回答に代わる(前の回答は履歴ファイルに残り、/undo で戻せる)。それ以前の KV キャッシュは再利用",
    },
    example: "/regen",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&REGEN, rest)?;
    match chat.session.last_question() {
        Some(_) => Ok(Flow::Regenerate),
        None => Err(Failure::new(Exit::Runtime, nothing())),
    }
}
