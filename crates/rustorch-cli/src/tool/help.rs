//! `help [TOPIC]`: the long help, one tool's, or the exit codes.

use super::{TOOLS, Tool};
use crate::{
    exit::{Exit, Failure, Result},
    messages::language,
    output,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values, see_help, unknown_argument},
        help,
    },
};

pub(super) const TOOL: Tool = Tool {
    name: "help",
    synopsis: "[TOOL|exit-codes]",
    en: "help on a tool or on the exit codes",
    ja: "ツールまたは終了コードの説明",
    arguments: &[Argument {
        flag: "topic",
        value: "TOPIC",
        positional: true,
        en: "a tool's name or exit-codes",
        ja: "ツール名または exit-codes",
        ..ARGUMENT
    }],
    settings: &[],
    run,
    ..Tool::NEW
};

fn run(_: &Layers, values: &Values) -> Result<()> {
    let text = match values.text("topic")? {
        None => help::long(),
        Some("exit-codes") => help::exit_codes(language()),
        Some(name) => match TOOLS.iter().find(|tool| tool.name == name) {
            Some(tool) => help::tool(tool),
            None => return Err(Failure::new(Exit::Usage, unknown_argument(name)).hint(see_help())),
        },
    };
    output::answer(&text)
}
