//! `/save`: writes the conversation to a file.

use super::{Command, Completes, Flow, Text, flags, path, wrong_arguments};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    output, paths,
    repl::Chat,
    session::store::{self, Replace},
};

messages! {
    /// Done.
    saved(path, messages, bytes) {
        "saved {messages} messages to {path} ({bytes} bytes)",
        "{messages} 件のメッセージを {path} に保存しました({bytes} バイト)"
    }
    /// No file is named and the session has none.
    no_name() {
        "name a file: automatic saving is off, so this session has none",
        "ファイル名を指定してください。自動保存が無効のため、このセッションのファイルはありません"
    }
    /// Nothing may be written.
    ephemeral() { "--ephemeral writes nothing", "--ephemeral では何も書き込みません" }
}

/// The row.
pub(super) const SAVE: Command = Command {
    name: "save",
    aliases: &[],
    arguments: "[FILE] [--force]",
    help: Text { en: "save the conversation as JSON", ja: "会話を JSON で保存する" },
    effect: Text {
        en: "none; without FILE the session's own file is written; a file that is not a conversation is replaced only with \
             --force (kept as .bak), a model file never",
        ja: "なし。ファイル名がなければセッション自身のファイルに書く。会話でないファイルは --force のときだけ置き換える\
             (.bak に残す)。モデルファイルは決して上書きしない",
    },
    example: "/save \"my chat.json\"",
    completes: Completes::Path,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let (set, names) = flags(&SAVE, rest, &["--force"])?;
    if chat.settings.history.ephemeral {
        return Err(Failure::new(Exit::History, ephemeral()));
    }
    let path = match names.as_slice() {
        [] => {
            chat.autosave.own_file(chat.session.conversation()).ok_or_else(|| Failure::new(Exit::Usage, no_name()))?
        }
        [name] => path(name)?,
        _ => return Err(wrong_arguments(&SAVE)),
    };
    let replace = if set.is_empty() { Replace::Ours } else { Replace::Any };
    store::may_replace(&path, replace, &chat.model_files())?;
    let conversation = chat.session.conversation();
    let bytes = store::save(&path, conversation, true)?;
    output::note(&saved(paths::display(&path), conversation.messages().len(), bytes));
    chat.unsaved = false;
    Ok(Flow::Next)
}
