//! `/params`: the generation settings in use.

use super::{Command, Completes, Flow, Text, no_arguments, set::live_rows};
use crate::{
    exit::Result,
    messages::{language, messages},
    output,
    repl::Chat,
};

messages! {
    /// The order of the sampler chain.
    order() {
        "order of the samplers: penalties, top_k, top_p, min_p, temperature; /set KEY VALUE changes one",
        "サンプラーの順序: ペナルティ、top_k、top_p、min_p、temperature。/set キー 値 で変更します"
    }
}

/// The row.
pub(super) const PARAMS: Command = Command {
    name: "params",
    aliases: &[],
    arguments: "",
    help: Text { en: "show the generation settings in use", ja: "現在の生成設定を表示する" },
    effect: Text { en: "none", ja: "なし" },
    example: "/params",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    no_arguments(&PARAMS, rest)?;
    let width = live_rows().map(|row| row.key.len()).max().unwrap_or(0);
    for row in live_rows() {
        output::note(&format!("  {:width$} = {:<10}  {}", row.key, row.show(&chat.settings), row.help(language())));
    }
    output::note(&order());
    Ok(Flow::Next)
}
