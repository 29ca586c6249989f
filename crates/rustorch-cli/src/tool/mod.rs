//! The tools beside the chat: one file each, one row each in [`TOOLS`], from which parsing, help, completions and the man
//! page are made. Interfaces for scripts: stdout carries the result and nothing else.

mod bench;
mod completions;
pub(crate) mod config;
mod convert;
mod docs_json;
mod help;
mod imatrix;
mod inspect;
mod logits;
mod man;
pub(crate) mod models;
pub(crate) mod one_shot;
mod paths;
mod perplexity;
mod template;
mod tokenize;
mod verify;

use crate::{
    exit::Result,
    messages::Language,
    settings::{
        Layers, Row, SETTINGS,
        arguments::{Argument, Values},
    },
};

/// One tool.
pub(crate) struct Tool {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What follows the name, for the help.
    pub(crate) synopsis: &'static str,
    /// What it does, English.
    pub(crate) en: &'static str,
    /// What it does, Japanese.
    pub(crate) ja: &'static str,
    /// Its own arguments.
    pub(crate) arguments: &'static [Argument],
    /// The settings that act on it: full keys, or sections ending in a dot.
    pub(crate) settings: &'static [&'static str],
    /// Not for people: left out of help and completions.
    pub(crate) hidden: bool,
    /// Does it.
    pub(crate) run: fn(&Layers, &Values) -> Result<()>,
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Settings that act on every tool.
const EVERYWHERE: &[&str] = &["interface.language", "interface.color", "logging.", "history.ephemeral"];

/// Every tool, in the order of the help.
pub(crate) const TOOLS: &[&Tool] = &[
    &tokenize::TOKENIZE,
    &tokenize::DETOKENIZE,
    &template::TOOL,
    &logits::TOOL,
    &perplexity::TOOL,
    &bench::TOOL,
    &inspect::TOOL,
    &convert::TOOL,
    &imatrix::TOOL,
    &verify::TOOL,
    &models::TOOL,
    &config::TOOL,
    &paths::TOOL,
    &completions::TOOL,
    &man::TOOL,
    &help::TOOL,
    &docs_json::TOOL,
];

/// The settings that act on tools which run a model without sampling.
const ENGINE_SETTINGS: &[&str] = &[
    "model.path",
    "model.arch",
    "model.format",
    "model.mmap",
    "model.quantize",
    "model.quantize_cache",
    "model.lock",
    "model.lora",
    "backend.",
    "context.size",
    "context.kv_type",
    "interface.show_progress",
];

/// The tools that people use.
pub(crate) fn listed() -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().copied().filter(|tool| !tool.hidden)
}

impl Tool {
    /// For `..Tool::NEW`.
    const NEW: Tool = Tool {
        name: "",
        synopsis: "",
        en: "",
        ja: "",
        arguments: &[],
        settings: &[],
        hidden: false,
        run: |_, _| Ok(()),
    };

    /// Whether a setting acts on it.
    pub(crate) fn takes(&self, row: &Row) -> bool {
        let full = row.full_key();
        self.settings
            .iter()
            .chain(EVERYWHERE)
            .any(|key| *key == full || *key == "*" || (key.ends_with('.') && full.starts_with(key)))
    }

    /// The settings that act on it.
    pub(crate) fn settings(&self) -> Vec<&'static Row> {
        SETTINGS.iter().filter(|row| self.takes(row)).collect()
    }

    /// What it does.
    pub(crate) fn help(&self, language: Language) -> &'static str {
        language.pick(self.en, self.ja)
    }
}
