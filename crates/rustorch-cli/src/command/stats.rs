//! `/stats`: what the last turn and the session cost.

use super::{Command, Completes, Flow, Text, flags, wrong_arguments};
use crate::{exit::Result, output, repl::Chat};

/// The row.
pub(super) const STATS: Command = Command {
    name: "stats",
    aliases: &[],
    arguments: "[--json]",
    help: Text { en: "show times, tokens and memory", ja: "時間、トークン数、メモリを表示する" },
    effect: Text { en: "none", ja: "なし" },
    example: "/stats",
    completes: Completes::Nothing,
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let (set, names) = flags(&STATS, rest, &["--json"])?;
    if !names.is_empty() {
        return Err(wrong_arguments(&STATS));
    }
    let report = chat.report();
    if set.is_empty() {
        output::note(&report.to_string());
    } else {
        output::answer_line(&report.json().to_string())?;
    }
    Ok(Flow::Next)
}
