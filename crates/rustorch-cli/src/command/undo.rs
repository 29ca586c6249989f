//! `/undo`: one step back.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    output,
    repl::Chat,
    session::Undone,
    terminal_filter::visible_line,
};

messages! {
    /// Nothing to take back.
    nothing() { "there is nothing to take back", "取り消す操作がありません" }
    /// A turn is gone.
    turn(question) { "took back: {question}", "取り消しました: {question}" }
    /// The answer before is back.
    answer() { "the answer before is back", "前の回答に戻しました" }
    /// The conversation before is back.
    conversation(count) { "the conversation before is back ({count} messages)", "前の会話に戻しました({count} 件のメッセージ)" }
}

/// The row.
pub(super) const UNDO: Command = Command {
    name: "undo",
    aliases: &[],
    arguments: "",
    help: Text {
        en: "take back the last turn, /clear or /load", ja: "最後のやり取り、/clear、/load を取り消す"
    },
    effect: Text {
        en: "messages move back one step and stay in the history file; after /clear and /load the old conversation with its \
             system prompt returns; settings and model kept, the KV cache keeps the common part",
        ja: "メッセージが 1 段階戻る(履歴ファイルには残る)。/clear と /load の後は元の会話とシステムプロンプトが戻る。\
             設定とモデルは保持、KV キャッシュは共通部分を再利用",
    },
    example: "/undo",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&UNDO, rest)?;
    let undone = chat.session.undo().ok_or_else(|| Failure::new(Exit::Runtime, nothing()))?;
    chat.persist();
    output::note(&match undone {
        Undone::Turn(question) => {
            let question = visible_line(&question.unwrap_or_default());
            turn(question.chars().take(60).collect::<String>())
        }
        Undone::Answer => answer(),
        Undone::Conversation => conversation(chat.session.conversation().path().len()),
    });
    Ok(Flow::Next)
}
