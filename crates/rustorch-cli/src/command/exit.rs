//! `/exit`: ends the program.

use super::{Command, Completes, Flow, Text, no_arguments};
use crate::{exit::Result, messages::messages, output, repl::Chat};

messages! {
    /// Leaving would lose the conversation.
    unsaved() {
        "the conversation is not saved: /save FILE keeps it, /exit again leaves without saving",
        "会話は保存されていません。/save ファイル名 で保存、もう一度 /exit で保存せずに終了します"
    }
}

/// The row.
pub(super) const EXIT: Command = Command {
    name: "exit",
    aliases: &["quit", "bye"],
    arguments: "",
    help: Text { en: "end the program", ja: "プログラムを終了する" },
    effect: Text {
        en: "the conversation is saved if automatic saving is on; otherwise the first /exit only warns and the second leaves (Ctrl-D leaves at once)",
        ja: "自動保存が有効なら会話は保存される。無効なら最初の /exit は警告のみで、二度目で終了する(Ctrl-D はすぐに終了)",
    },
    example: "/exit",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&EXIT, rest)?;
    if chat.interactive && chat.unsaved && !chat.asked_to_leave && !chat.settings.history.ephemeral {
        chat.asked_to_leave = true;
        output::warning(&unsaved());
        return Ok(Flow::Next);
    }
    Ok(Flow::Exit)
}
