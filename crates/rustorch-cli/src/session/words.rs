//! The sentences of the session module, English and Japanese.

use crate::messages::messages;

messages! {
    /// A history that cannot be read.
    cannot_read(path) { "cannot read the conversation {path}", "会話 {path} を読み込めません" }
    /// A history that cannot be written.
    cannot_save(path) { "cannot save the conversation to {path}", "会話を {path} に保存できません" }
    /// A directory where a file is needed.
    is_directory() { "it is a directory", "ディレクトリです" }
    /// A pipe, a socket, a device.
    not_regular() { "it is not a regular file", "通常のファイルではありません" }
    /// A file beyond the limit.
    too_large(limit) { "it is larger than {limit} bytes", "{limit} バイトを超えています" }
    /// A file of another program.
    foreign() {
        "the file exists and is not a conversation of rustorch-cli",
        "既存のファイルで、rustorch-cli の会話ではありません"
    }
    /// What to do about it.
    foreign_hint() {
        "choose another name, or add --force to replace it (the old file is kept with .bak)",
        "別の名前を選ぶか、--force で置き換えてください(元のファイルは .bak として残ります)"
    }
    /// A file of the loaded model.
    is_model() { "it is a model file; it is never overwritten", "モデルファイルです。上書きはしません" }
    /// The wish for an encrypted file.
    no_encryption() {
        "encrypted histories (.age) are not supported in this version",
        "暗号化された履歴(.age)はこのバージョンでは未対応です"
    }
    /// What to do with a damaged history.
    damaged_hint() {
        "the file was not changed; the state before the last save may be in the same name with .bak",
        "ファイルは変更していません。直前の保存の内容が同じ名前の .bak に残っている場合があります"
    }
    /// Another instance holds `latest.json`.
    latest_locked(latest, own) {
        "another rustorch-cli uses {latest}; this session is saved to {own} only",
        "別の rustorch-cli が {latest} を使用中です。このセッションは {own} にのみ保存します"
    }
    /// A damaged `latest.json` was moved.
    set_aside(path, aside, why) {
        "{path} is not a readable conversation ({why}); it was kept as {aside}",
        "{path} は会話として読めません({why})。{aside} として残しました"
    }
    /// Oldest messages moved to the archive.
    archived(count, path) {
        "history.max_entries reached: the {count} oldest messages are now kept in {path}",
        "history.max_entries に達しました。古い {count} 件のメッセージを {path} に移しました"
    }
}
