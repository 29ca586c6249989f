//! What `rustorch-cli docs-json` says.

use super::matrix::Matrix;
use serde::Deserialize;

/// All tables.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tables {
    pub(super) groups: Vec<Group>,
    pub(super) settings: Vec<Setting>,
    /// The command line: the program's own options first, then one entry per sub-command.
    pub(super) tools: Vec<Tool>,
    pub(super) commands: Vec<SlashCommand>,
    pub(super) exits: Vec<ExitCode>,
    pub(super) formats: Vec<String>,
    pub(super) backends: Vec<Backend>,
    pub(super) families: Vec<Family>,
    pub(super) dtypes: Vec<String>,
    /// The types that can be made from floats.
    pub(super) written: Vec<String>,
    pub(super) templates: Vec<String>,
    /// Not the program's: what tests compare.
    #[serde(skip)]
    pub(super) matrix: Matrix,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) is_built: bool,
    pub(super) needs_en: String,
    pub(super) needs_ja: String,
    /// The quantized types that it multiplies in a layout of its own.
    pub(super) own_forms: Vec<String>,
}

/// A heading under which settings stand.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) en: String,
    pub(super) ja: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Setting {
    pub(super) group: String,
    /// `section.key`
    pub(super) key: String,
    /// Without dashes; of a switch, the spelling that changes its default.
    pub(super) flag: String,
    pub(super) short: Option<char>,
    /// Name of the value; empty for a switch.
    pub(super) value: String,
    pub(super) variable: String,
    pub(super) default: String,
    /// The values it takes; empty when anything goes.
    pub(super) range: String,
    pub(super) en: String,
    pub(super) ja: String,
}

/// The program itself (empty name) or one of its sub-commands.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) en: String,
    pub(super) ja: String,
    /// Options that are not settings.
    pub(super) options: Vec<ToolOption>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ToolOption {
    /// As typed: `--messages FILE.json`, `-p TEXT`.
    pub(super) usage: String,
    pub(super) en: String,
    pub(super) ja: String,
}

/// A command of the chat.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SlashCommand {
    /// As typed, the slash included: `/save [FILE]`.
    pub(super) usage: String,
    /// Other names, the slash included.
    pub(super) aliases: Vec<String>,
    pub(super) en: String,
    pub(super) ja: String,
    /// What it does to the state of the chat.
    pub(super) effect_en: String,
    pub(super) effect_ja: String,
    pub(super) example: String,
}

/// A family of models.
#[derive(Debug, Deserialize)]
pub(super) struct Family {
    /// As files name it.
    pub(super) name: String,
    /// As people do.
    pub(super) models: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExitCode {
    pub(super) code: u8,
    pub(super) en: String,
    pub(super) ja: String,
}
