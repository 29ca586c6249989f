//! The only place that prints (specification S3): answers go to stdout, everything else to stderr.
//!
//! Styles are ANSI only where a terminal reads them: `--color` and `NO_COLOR` (no-color.org), `TERM=dumb` and redirected
//! streams are decided once, in [`init`]. A reader that went away is not an error: the program ends quietly.

#![allow(clippy::print_stderr, clippy::print_stdout)] // here and nowhere else

use crate::{
    exit::{Exit, Failure, Result},
    messages,
    terminal_filter::{TerminalFilter, is_hidden_control, visible, visible_line},
};
use anstyle::{AnsiColor, Style};
use std::{
    io::{ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicU8, Ordering},
};

/// One of the two channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Answers.
    Out,
    /// Everything else.
    Err,
}

/// What a piece of text is, for its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The word `error:`.
    Error,
    /// The word `warning:`.
    Warning,
    /// The words `cause:` and `hint:`.
    Label,
    /// A heading, a prompt.
    Strong,
    /// Facts beside the matter.
    Dim,
    /// The user's prompt.
    User,
    /// The assistant's prompt.
    Assistant,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Look::Error => AnsiColor::Red.on_default().bold(),
            Look::Warning => AnsiColor::Yellow.on_default().bold(),
            Look::Label | Look::Strong => Style::new().bold(),
            Look::Dim => Style::new().dimmed(),
            Look::User => AnsiColor::Green.on_default().bold(),
            Look::Assistant => AnsiColor::Cyan.on_default().bold(),
        }
    }
}

// Bit 0: colour on stdout; bit 1: colour on stderr.
static COLOR: AtomicU8 = AtomicU8::new(0);

/// Decides about colours: `choice` is `auto`, `always` or `never`.
pub(crate) fn init(choice: &str) {
    let wanted = |channel| match choice {
        "always" => true,
        "never" => false,
        _ => is_terminal(channel) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && !dumb(),
    };
    COLOR.store(u8::from(wanted(Channel::Out)) | u8::from(wanted(Channel::Err)) << 1, Ordering::Relaxed);
}

/// Whether the terminal can do nothing but print.
pub(crate) fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether a person reads the channel.
pub(crate) fn is_terminal(channel: Channel) -> bool {
    match channel {
        Channel::Out => std::io::stdout().is_terminal(),
        Channel::Err => std::io::stderr().is_terminal(),
    }
}

/// Whether a person types.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether text on the channel may carry styles.
pub(crate) fn colored(channel: Channel) -> bool {
    COLOR.load(Ordering::Relaxed) & if channel == Channel::Out { 1 } else { 2 } != 0
}

/// Whether stderr can show something that moves: bars and spinners.
pub(crate) fn can_animate() -> bool {
    is_terminal(Channel::Err) && !dumb()
}

/// The text with its looks, or as it is where styles are off.
pub(crate) fn paint(channel: Channel, look: Look, text: &str) -> String {
    if colored(channel) {
        let style = look.style();
        format!("{}{text}{}", style.render(), style.render_reset())
    } else {
        text.to_owned()
    }
}

/// Writes to stdout, exactly, and flushes.
pub(crate) fn answer(text: &str) -> Result<()> {
    answer_bytes(text.as_bytes())
}

/// Writes to stdout, exactly, with a line end.
pub(crate) fn answer_line(text: &str) -> Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    answer_bytes(line.as_bytes())
}

/// Writes bytes to stdout, exactly, and flushes.
pub(crate) fn answer_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // The reader has what it wanted.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Ok)),
        Err(error) => Err(Failure::new(Exit::Runtime, messages::cannot_write_stdout()).because(error)),
    }
}

/// The filter that answers go through, or none with `--control-characters pass`.
pub(crate) fn answer_filter(interface: &crate::settings::InterfaceSettings) -> Option<TerminalFilter> {
    let filter = if is_terminal(Channel::Out) { TerminalFilter::new() } else { TerminalFilter::for_pipe() };
    (interface.control_characters != "pass").then_some(filter)
}

/// Writes a JSON value as one line. Control characters beyond JSON's own escapes (C1, DEL, bidi) are escaped too: the
/// value is exact, and showing the line on a terminal is harmless.
pub(crate) fn answer_json(value: &serde_json::Value) -> Result<()> {
    let text = value.to_string();
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside strings JSON is ASCII, and all of these lie in the Basic Multilingual Plane.
        if is_hidden_control(c) { line.push_str(&format!("\\u{:04x}", u32::from(c))) } else { line.push(c) }
    }
    answer_line(&line)
}

/// A line of ours on stderr; the caller has filtered untrusted parts. A stderr that cannot be written loses the line.
pub(crate) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{text}");
}

/// Text on stderr without a line end: prompts, banners.
pub(crate) fn note_part(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// `warning: …` on stderr, made harmless.
pub(crate) fn warning(text: &str) {
    labelled(Look::Warning, &messages::label_warning(), text);
    tracing::warn!("{}", visible_line(text));
}

/// `error: …`, `cause: …`, `hint: …` on stderr, made harmless; a silent failure prints nothing.
pub(crate) fn failure(failure: &Failure) {
    if failure.error.is_empty() {
        return;
    }
    labelled(Look::Error, &messages::label_error(), &failure.error);
    if let Some(cause) = &failure.cause {
        labelled(Look::Label, &messages::label_cause(), cause);
    }
    if let Some(hint) = &failure.hint {
        labelled(Look::Label, &messages::label_hint(), hint);
    }
    tracing::error!(
        exit = failure.exit.code(),
        cause = failure.cause.as_deref().map(visible_line).unwrap_or_default(),
        "{}",
        visible_line(&failure.error)
    );
}

fn labelled(look: Look, label: &str, text: &str) {
    let label = paint(Channel::Err, look, &format!("{label}:"));
    note(&format!("{label} {}", visible(text).replace('\n', "\n  ")));
}

/// Makes a terminal usable again after a panic: cursor shown, bracketed paste off, styles off.
pub(crate) fn restore_terminal() {
    if can_animate() {
        note_part("\x1b[?25h\x1b[?2004l\x1b[0m");
    }
}

/// A progress bar on stderr, hidden where nothing can move; at most ten redraws a second.
/// `template` is indicatif's; the bar is erased by its owner when done.
pub(crate) fn progress(show: bool, total: u64, template: &str) -> indicatif::ProgressBar {
    let target = if show && can_animate() {
        indicatif::ProgressDrawTarget::stderr_with_hz(10)
    } else {
        indicatif::ProgressDrawTarget::hidden()
    };
    let bar = indicatif::ProgressBar::with_draw_target(Some(total), target);
    match indicatif::ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
