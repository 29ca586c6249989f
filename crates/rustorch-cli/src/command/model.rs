//! `/model`: shows the model in use, or loads another.

use super::{Command, Completes, Flow, Text, arguments, path, wrong_arguments};
use crate::{exit::Result, messages::messages, output, repl::Chat};

messages! {
    /// The old model's adapters.
    adapters_left(n) { "  adapters of the old model, no longer in use: {n}", "  元のモデルのアダプタ {n} 個は使わなくなりました" }
}

/// The row.
pub(super) const MODEL: Command = Command {
    name: "model",
    aliases: &[],
    arguments: "[FILE|demo]",
    help: Text {
        en: "show the model, or load another", ja: "モデルを表示する、または別のモデルを読み込む"
    },
    effect: Text {
        en: "messages, system prompt and settings kept and rendered with the new model's template; the KV cache is rebuilt at \
             the next turn; adapters are left out; if the new model cannot be loaded, the old one stays",
        ja: "メッセージ、システムプロンプト、設定は保持し、新しいモデルのテンプレートで使う。KV キャッシュは次の発言で作り直す。\
             アダプタは外れる。読み込めなければ元のモデルのまま",
    },
    example: "/model ~/models/other.gguf",
    completes: Completes::Model,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let names = arguments(rest)?;
    match names.as_slice() {
        [] => output::note(&chat.describe_model()),
        [name] => {
            let mut settings = chat.settings.clone();
            settings.model.path = Some(path(name)?);
            // They are for the model they were made for.
            let n_adapters = std::mem::take(&mut settings.model.lora).len();
            chat.reload(settings)?;
            if n_adapters > 0 {
                output::note(&adapters_left(n_adapters));
            }
        }
        _ => return Err(wrong_arguments(&MODEL)),
    }
    Ok(Flow::Next)
}
