//! `/clear`: a new conversation with the same system prompt.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{exit::Result, messages::messages, output, repl::Chat};

messages! {
    /// Done.
    cleared(count) {
        "cleared {count} messages; the system prompt and the settings stay, /undo brings the conversation back",
        "{count} 件のメッセージを消しました。システムプロンプトと設定はそのままです。/undo で元に戻せます"
    }
}

/// The row.
pub(super) const CLEAR: Command = Command {
    name: "clear",
    aliases: &[],
    arguments: "",
    help: Text { en: "begin a new conversation", ja: "新しい会話を始める" },
    effect: Text {
        en: "messages emptied (the old conversation keeps its file; /undo brings it back), system prompt, settings and \
             model kept, the KV cache keeps what the system prompt needs",
        ja: "メッセージは空になる(元の会話のファイルは残り、/undo で戻せる)。システムプロンプト、設定、モデルは保持。\
             KV キャッシュはシステムプロンプトの分を再利用",
    },
    example: "/clear",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&CLEAR, rest)?;
    let count = chat.session.conversation().path().len();
    chat.session.clear();
    output::note(&cleared(count));
    Ok(Flow::Next)
}
