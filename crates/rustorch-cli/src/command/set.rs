//! `/set`: changes a generation setting for the rest of the session.

use super::{Command, Completes, Flow, Text, arguments, parse, wrong_arguments};
use crate::{
    exit::{Exit, Failure, Result},
    messages::messages,
    output,
    repl::Chat,
    settings::{Row, SETTINGS},
};
use std::ffi::OsStr;

messages! {
    /// No such setting, or none that can change now.
    unknown(key) { "there is no live setting {key}", "{key} という変更可能な設定はありません" }
    /// What there is.
    nearest(key) { "did you mean {key}? /params lists them", "{key} ではありませんか?/params で一覧を表示します" }
    /// What there is.
    list() { "/params lists them", "/params で一覧を表示します" }
    /// A value that does not fit.
    wrong_value(key) { "wrong value for {key}", "{key} の値が正しくありません" }
    /// Done.
    changed(key, value) { "{key} = {value}", "{key} = {value}" }
}

/// The row.
pub(super) const SET: Command = Command {
    name: "set",
    aliases: &[],
    arguments: "KEY VALUE",
    help: Text { en: "change a generation setting", ja: "生成設定を変更する" },
    effect: Text {
        en: "that setting, from the next answer to the end of the session; nothing else",
        ja: "その設定のみ。次の回答からセッションの終わりまで有効",
    },
    example: "/set temperature 0.2",
    completes: Completes::Words(|| live_rows().map(|row| row.key.to_owned()).collect()),
    run,
};

/// The settings that an answer reads anew each time. The system prompt has a command of its own.
pub(crate) fn live_rows() -> impl Iterator<Item = &'static Row> {
    SETTINGS.iter().filter(|row| row.section == "generation" && row.key != "system")
}

fn find(key: &str) -> Option<&'static Row> {
    let key = key.strip_prefix("generation.").unwrap_or(key).replace('-', "_");
    live_rows().find(|row| row.key == key)
}

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let words = arguments(rest)?;
    let (key, values) = match words.as_slice() {
        [key, equals, values @ ..] if equals == "=" => (key, values),
        [key, values @ ..] => (key, values),
        [] => return Err(wrong_arguments(&SET)),
    };
    let row = find(key).ok_or_else(|| {
        let hint = parse::nearest(key, live_rows().map(|row| row.key)).map_or_else(list, nearest);
        Failure::new(Exit::Usage, unknown(key)).hint(hint)
    })?;
    let mut settings = chat.settings.clone();
    let done = match values {
        [] => return Err(wrong_arguments(&SET)),
        [value] => row.set_text(&mut settings, OsStr::new(value), None),
        values => row.set_list(&mut settings, values, None),
    };
    done.map_err(|error| Failure::new(Exit::Usage, wrong_value(row.key)).because(error))?;
    chat.settings = settings;
    output::note(&changed(row.key, row.show(&chat.settings)));
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (key, expected) in [
            ("temperature", true),
            ("top-p", true),
            ("generation.top_k", true),
            ("stop", true),
            ("system", false),
            ("path", false),
        ] {
            assert_eq!(find(key).is_some(), expected, "{key}");
        }
    }
}
