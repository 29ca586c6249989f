//! `/system`: shows, replaces or removes the system prompt.

use super::{Command, Completes, Flow, Text};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    output, paths,
    repl::Chat,
    session::store,
    terminal_filter::visible,
};
use std::ffi::OsStr;

messages! {
    /// There is no system prompt.
    none() { "there is no system prompt", "システムプロンプトはありません" }
    /// It was removed.
    removed() { "the system prompt is removed", "システムプロンプトを削除しました" }
    /// It was replaced.
    replaced(tokens) {
        "system prompt set ({tokens} tokens); the conversation is read again from the start at the next turn",
        "システムプロンプトを設定しました({tokens} トークン)。次の発言で会話全体を読み直します"
    }
    /// A file cannot be read.
    unreadable(path) { "cannot read the system prompt from {path}", "システムプロンプトを {path} から読み込めません" }
    /// Removed where there was none, or empty.
    no_role() {
        "the chat template of this model takes no system prompt; it may be ignored or refused",
        "このモデルのチャットテンプレートはシステムプロンプトに対応していません。無視または拒否される場合があります"
    }
}

/// The row.
pub(super) const SYSTEM: Command = Command {
    name: "system",
    aliases: &[],
    arguments: "[TEXT | @FILE | --none]",
    help: Text {
        en: "show, set or remove the system prompt", ja: "システムプロンプトを表示、設定、削除する"
    },
    effect: Text {
        en: "system prompt replaced in place; messages, settings and model kept; the KV cache is rebuilt at the next turn",
        ja: "システムプロンプトをその場で置き換える。メッセージ、設定、モデルは保持。KV キャッシュは次の発言で作り直す",
    },
    example: "/system You answer in one sentence.",
    completes: Completes::Path,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let text = match rest {
        "" => {
            output::note(&chat.session.conversation().system_text().map_or_else(none, visible));
            return Ok(Flow::Next);
        }
        "--none" => None,
        _ => Some(text_of(rest)?),
    };
    // Rendered once before it counts: a template that refuses it leaves the old one in place.
    let mut changed = chat.session.conversation().clone();
    changed.set_system(text.clone());
    if !changed.is_empty() {
        chat.prompt_of(&changed.for_template())?;
    }
    let note = match &text {
        Some(text) => replaced(chat.count_tokens(text)),
        None => removed(),
    };
    if text.is_some() && !chat.template_has_system_role() {
        output::warning(&no_role());
    }
    chat.session.conversation_mut().set_system(text);
    chat.unsaved = true;
    chat.persist();
    output::note(&note);
    Ok(Flow::Next)
}

/// What is meant: the text, without quotes around the whole of it, or the content of a file.
fn text_of(rest: &str) -> Result<String> {
    if let Some(name) = rest.strip_prefix('@') {
        let names = super::arguments(name)?;
        let name = names.first().filter(|_| names.len() == 1).ok_or_else(|| super::wrong_arguments(&SYSTEM))?;
        let cannot = |cause: &dyn std::fmt::Display| Failure::new(Exit::Runtime, unreadable(name)).because(cause);
        let path = paths::expand(OsStr::new(name), None).map_err(|error| cannot(&error))?;
        let text = store::read_text(&path).map_err(|error| cannot(&error))?;
        return Ok(text.trim_end().to_owned());
    }
    let quoted = rest.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).filter(|inner| !inner.contains('"'));
    Ok(quoted.unwrap_or(rest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (typed, expected) in [
            ("Be brief.", "Be brief."),
            ("\"Be brief.\"", "Be brief."),
            ("Say \"hi\"", "Say \"hi\""),
            ("\"a\" and \"b\"", "\"a\" and \"b\""),
            ("two\nlines", "two\nlines"),
        ] {
            assert_eq!(text_of(typed).unwrap(), expected);
        }
        assert!(text_of("@/nonexistent/file").is_err());
        assert!(text_of("@a b").is_err());
    }
}
