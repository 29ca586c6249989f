//! rustorch-cli: chat with a local language model.
//!
//! `main` reads the command line, settles the settings, and hands over to one mode; every error comes back here to be
//! printed once and become the exit code. What a mode does is in `tool`, `repl`, `loading`; who prints is `output`.

#![forbid(unsafe_code)]

mod adapters;
mod backends;
mod causes;
mod command;
mod control_group;
mod demo;
mod disk;
mod encode;
mod exit;
mod fitting;
mod integrity;
mod interrupt;
mod loading;
mod logging;
mod messages;
mod output;
mod paths;
mod quantized;
mod repl;
mod safe_write;
mod session;
mod settings;
mod stores;
mod terminal_filter;
mod tool;
mod version;

use exit::{Exit, Failure, Result};
use messages::Language;
use settings::{
    Layers, Settings,
    arguments::{self, Values},
    help,
    layers::Origin,
    table,
};
use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    messages::set_language(arguments::early_language(&words));
    output::init("auto");
    std::panic::set_hook(Box::new(report_panic));
    // The hook has told the user; what is left is to end with the right code.
    let result = std::panic::catch_unwind(|| run(words)).unwrap_or_else(|_| Err(Failure::silent(Exit::Runtime)));
    let exit = match result {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            output::failure(&failure);
            failure.exit
        }
    };
    ExitCode::from(exit.code())
}

fn run(words: Vec<OsString>) -> Result<()> {
    let given = arguments::parse(words)?;
    if given.has("help") {
        let text = match given.tool() {
            Some(tool) => help::tool(tool),
            None if given.short_help => help::short(),
            None => help::long(),
        };
        return output::answer(&text);
    }
    if given.has("version") {
        return if given.has("json") {
            output::answer_line(&version::json().to_string())
        } else {
            output::answer(&version::text())
        };
    }
    if let Some(result) = given.config_init() {
        return result;
    }
    let invocation = given.settle()?;
    let settings = invocation.layers.settings();
    start(settings);
    for warning in invocation.layers.warnings() {
        output::warning(warning);
    }
    match &invocation.tool {
        Some((tool, values)) => (tool.run)(&invocation.layers, values),
        None => talk(&invocation.layers, &invocation.run),
    }
}

/// A chat, or one answer (specification S4).
fn talk(layers: &Layers, run: &Values) -> Result<()> {
    let settings = layers.settings();
    refuse_contradictions(layers, run)?;
    let raw = run.has("raw");
    let script = run.path("script")?;
    let prompt = run.text("prompt")?;
    if script.is_none() && (prompt.is_some() || !output::stdin_is_terminal()) {
        // Without a model nothing else matters, and stdin would be read in vain.
        if settings.model.path.is_none() {
            return loading::open(settings).map(drop);
        }
        let prompt = tool::one_shot::prompt(prompt, raw)?;
        return tool::one_shot::run(settings, &tool::one_shot::OneShot { prompt, raw });
    }
    if settings.interface.output != "text" {
        return Err(Failure::new(Exit::Usage, messages::output_needs_prompt(settings.interface.output)));
    }
    interrupt::watch();
    let mut loaded = loading::load(settings, &interrupt::wanted)?;
    let mut settings = settings.clone();
    settings.follow(&loaded.suggestions);
    if raw {
        loaded.forget_template();
    } else {
        loaded.template()?;
    }
    repl::run(loaded, settings, script.as_deref())
}

/// Refuses flags of which one would silently take the effect of the other.
fn refuse_contradictions(layers: &Layers, run: &Values) -> Result<()> {
    let flagged = |key| table::find(key).is_some_and(|row| matches!(layers.origin(row), Origin::Flag(_)));
    let rows = [
        (run.has("script") && run.has("prompt"), "--script", "--prompt"),
        (run.has("raw") && flagged("history.load"), "--raw", "--load-history"),
        (run.has("raw") && flagged("generation.system"), "--raw", "--system"),
        (run.has("raw") && flagged("model.template"), "--raw", "--template"),
        (layers.settings().history.ephemeral && flagged("history.save"), "--ephemeral", "--save-history"),
    ];
    match rows.iter().find(|(contradiction, ..)| *contradiction) {
        Some((_, one, other)) => Err(Failure::new(Exit::Usage, arguments::conflict(one, other))),
        None => Ok(()),
    }
}

/// Puts language, looks and log into effect.
fn start(settings: &Settings) {
    messages::set_language(Language::choose(settings.interface.language));
    output::init(settings.interface.color);
    let options = settings.log_options();
    if let Some(error) = logging::start(&options) {
        let path = options.file.as_deref().map(paths::display).unwrap_or_default();
        output::warning(&messages::log_unwritable(path, error));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
}

/// One clean message for a bug, a usable terminal, and the details in the log.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    output::restore_terminal();
    let text = info.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
    let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    output::failure(
        &Failure::new(Exit::Runtime, messages::panicked())
            .because(format!("{text}{place}"))
            .hint(messages::panicked_hint()),
    );
    tracing::debug!("{}", std::backtrace::Backtrace::force_capture());
}
