//! `/backend`: lists the backends, or moves the model to one.

use super::{Command, Completes, Flow, Text, arguments, parse, wrong_arguments};
use crate::{
    backends::BACKENDS,
    exit::{Exit, Failure, Result},
    messages::messages,
    output,
    repl::Chat,
};

messages! {
    /// No such backend.
    unknown(name) { "there is no backend {name}", "{name} というバックエンドはありません" }
    /// A backend that is spelled much like it.
    did_you_mean(name) { "did you mean {name}? /backend lists them", "{name} ではありませんか?/backend で一覧を表示します" }
    /// All of them.
    list() { "/backend lists them", "/backend で一覧を表示します" }
    /// The one in use.
    in_use() { "in use", "使用中" }
    /// One that works.
    available() { "available", "使用可能" }
    /// One that is not in this build.
    missing(needs) { "not in this build; it will need {needs}", "このビルドは未対応。必要なもの: {needs}" }
}

/// The row.
pub(super) const BACKEND: Command = Command {
    name: "backend",
    aliases: &[],
    arguments: "[NAME]",
    help: Text {
        en: "list the backends, or run the model on another",
        ja: "バックエンドを一覧表示する、または切り替える",
    },
    effect: Text {
        en: "the model is loaded again there; messages, system prompt and settings kept; the KV cache is rebuilt at the next \
             turn; if it is not available, everything stays as it was",
        ja: "モデルをそこへ読み込み直す。メッセージ、システムプロンプト、設定は保持。KV キャッシュは次の発言で作り直す。\
             使えなければ何も変わらない",
    },
    example: "/backend cpu",
    completes: Completes::Words(|| BACKENDS.iter().map(|backend| backend.name.to_owned()).collect()),
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let names = arguments(rest)?;
    match names.as_slice() {
        [] => {
            let device = chat.device();
            for backend in BACKENDS {
                let state = if backend.name == device.backend {
                    format!("{}: {}, {}, {} threads", in_use(), device.name, device.isa, device.threads)
                } else if backend.is_built() {
                    available()
                } else {
                    missing(backend.needs())
                };
                output::note(&format!("  {:<11} {state}", backend.name));
            }
        }
        [name] => {
            let backend = BACKENDS.iter().find(|backend| backend.name == *name).ok_or_else(|| {
                let hint = parse::nearest(name, BACKENDS.iter().map(|b| b.name)).map_or_else(list, did_you_mean);
                Failure::new(Exit::Usage, unknown(name)).hint(hint)
            })?;
            let mut settings = chat.settings.clone();
            settings.backend.default = backend.name;
            settings.backend_is_explicit = true;
            chat.reload(settings)?;
        }
        _ => return Err(wrong_arguments(&BACKEND)),
    }
    Ok(Flow::Next)
}
