//! `/load`: goes on with the conversation of a file.

use super::{Command, Completes, Flow, Text, flags, path, wrong_arguments};
use crate::{exit::Result, output, paths, repl::Chat, session::store};

/// The row.
pub(super) const LOAD: Command = Command {
    name: "load",
    aliases: &[],
    arguments: "FILE [--keep-system] [--append] [--with-params]",
    help: Text { en: "go on with the conversation of a file", ja: "ファイルの会話を読み込んで続ける" },
    effect: Text {
        en: "messages replaced (--append: added behind), system prompt from the file (--keep-system: kept); settings kept, the \
             file's are shown and used with --with-params; model kept; the KV cache keeps the common part; /undo returns",
        ja: "メッセージを置き換える(--append: 後ろに追加)。システムプロンプトはファイルのもの(--keep-system: 保持)。設定は保持し、\
             ファイルの値は表示のみ(--with-params で適用)。モデルは保持、KV キャッシュは共通部分を再利用。/undo で戻せる",
    },
    example: "/load chat.json",
    completes: Completes::Path,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let (set, names) = flags(&LOAD, rest, &["--keep-system", "--append", "--with-params"])?;
    let [name] = names.as_slice() else { return Err(wrong_arguments(&LOAD)) };
    let path = path(name)?;
    let read = store::read(&path)?;
    // The present conversation is on disk before another takes its place.
    chat.persist();
    let shown = paths::display(&path);
    let note = chat.adopt(read, &shown, set.contains(&"--keep-system"), set.contains(&"--append"))?;
    if set.contains(&"--with-params") {
        chat.take_params()?;
    }
    output::note(&note);
    chat.persist();
    Ok(Flow::Next)
}
