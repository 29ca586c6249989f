//! Parsing and rendering under the limits: on a thread with a stack of known size, against fuel, bytes and a clock.

use std::cell::Cell;
use std::io;
use std::sync::mpsc;
use std::time::Instant;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use super::{RenderInput, environment, object, rewrite};
use crate::error::{Error, Result};
use crate::limits;

/// The name the one template of an environment has; it shows in no message.
const NAME: &str = "chat_template";

thread_local! {
    /// When the rendering on this thread has to end. `None` outside a rendering.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Fails when the rendering on this thread is past its time. Called wherever the engine calls back.
pub(super) fn check_clock() -> std::result::Result<(), minijinja::Error> {
    match DEADLINE.get() {
        Some(deadline) if Instant::now() > deadline => Err(over_limit(Limit::Time)),
        _ => Ok(()),
    }
}

/// The limits that are found inside the engine, carried through it as the source of its error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Limit {
    #[error("time")]
    Time,
    #[error("string")]
    String,
    #[error("output")]
    Output,
}

impl From<Limit> for Error {
    fn from(limit: Limit) -> Error {
        match limit {
            Limit::Time => too_much("the rendering time", format!("{} s", limits::TEMPLATE_TIME.as_secs())),
            Limit::String => too_much("one string", mebibytes(limits::TEMPLATE_STRING_BYTES)),
            Limit::Output => too_much("the output", mebibytes(limits::TEMPLATE_OUTPUT_BYTES)),
        }
    }
}

/// The engine's error for a limit reached.
pub(super) fn over_limit(limit: Limit) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, "limit reached").with_source(limit)
}

/// A template's own refusal, carried through the engine as the source of its error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

fn too_much(what: &'static str, limit: String) -> Error {
    Error::TemplateLimit { what, limit }
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Parses `source` into an environment that holds it as its only template.
pub(super) fn parse(source: &str) -> Result<Environment<'static>> {
    if source.len() > limits::TEMPLATE_SOURCE_BYTES {
        return Err(too_much("the source", mebibytes(limits::TEMPLATE_SOURCE_BYTES)));
    }
    let source = rewrite::rewrite(source)?;
    on_big_stack(move || {
        let mut environment = environment::new();
        environment.add_template_owned(NAME, source).map_err(own_error)?;
        Ok(environment)
    })
}

/// Renders the environment's template.
pub(super) fn render(environment: &Environment<'static>, input: &RenderInput) -> Result<String> {
    let mut environment = environment.clone();
    let input = input.clone();
    on_big_stack(move || {
        let (context, input_bytes) = context(input);
        let fuel = limits::TEMPLATE_FUEL_PER_INPUT_BYTE.saturating_mul(input_bytes);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL.saturating_add(fuel)));
        let mut output = Capped { bytes: Vec::new() };
        let template = environment.get_template(NAME).map_err(own_error)?;
        template.render_captured_to(context, &mut output).map_err(own_error)?;
        // The engine writes whole strings only, so this never replaces anything.
        Ok(String::from_utf8(output.bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    })
}

/// The template's variables, and about how many bytes of data are in them.
fn context(input: RenderInput) -> (Value, u64) {
    let now = input.now;
    let tools = input.tools.map_or(serde_json::Value::Null, serde_json::Value::Array);
    let mut variables: Vec<(String, Value)> = vec![
        ("strftime_now".into(), environment::strftime_now(now)),
        ("bos_token".into(), Value::from(input.bos_token)),
        ("eos_token".into(), Value::from(input.eos_token)),
        ("documents".into(), Value::from(())),
    ];
    let mut bytes = 0u64;
    variables.extend(input.vars.into_iter().map(|(name, value)| (name, object::from_json(value, &mut bytes))));
    variables.push(("messages".into(), object::from_json(serde_json::Value::Array(input.messages), &mut bytes)));
    variables.push(("tools".into(), object::from_json(tools, &mut bytes)));
    variables.push(("add_generation_prompt".into(), Value::from(input.add_generation_prompt)));
    (Value::from_pairs(variables), bytes)
}

/// Runs `work` on a thread with the stack that [`limits::TEMPLATE_STACK_BYTES`] gives, for at most
/// [`limits::TEMPLATE_TIME`].
///
/// Work that does not end in time is left to end by its fuel: the engine cannot be stopped from outside. Its thread holds
/// nothing of ours.
fn on_big_stack<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let (sender, receiver) = mpsc::sync_channel(1);
    let body = move || {
        DEADLINE.set(Some(Instant::now() + limits::TEMPLATE_TIME));
        // The receiver may have given up waiting.
        let _ = sender.send(work());
    };
    std::thread::Builder::new()
        .name("chat-template".into())
        .stack_size(limits::TEMPLATE_STACK_BYTES)
        .spawn(body)
        .map_err(Error::TemplateThread)?;
    // Twice the time: the thread's own clock normally ends it, and says more.
    match receiver.recv_timeout(limits::TEMPLATE_TIME * 2) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Limit::Time.into()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(Error::TemplateRender { line: 0, problem: "the template engine failed".into() })
        }
    }
}

/// The engine's error as ours.
fn own_error(error: minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        // What a writer fails with hides inside its error.
        let written = inner.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<Limit>());
        if let Some(limit) = inner.downcast_ref::<Limit>().or(written) {
            return (*limit).into();
        }
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return Error::TemplateRaised(shortened(message));
        }
        if inner.downcast_ref::<minijinja::Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return too_much("the work (fuel)", format!("{} steps", limits::TEMPLATE_FUEL));
        }
        cause = inner.source();
    }
    let line = error.line().unwrap_or(0);
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::SyntaxError | ErrorKind::BadEscape => {
            Error::TemplateSyntax { line, problem: shortened(if detail.is_empty() { "bad escape" } else { detail }) }
        }
        kind if detail.is_empty() => Error::TemplateRender { line, problem: kind.to_string() },
        kind => Error::TemplateRender { line, problem: shortened(&format!("{kind}: {detail}")) },
    }
}

/// `text` cut to the longest message we carry.
fn shortened(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).find(|&at| at > limits::TEMPLATE_ERROR_BYTES) {
        Some(end) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// An output that refuses to grow over [`limits::TEMPLATE_OUTPUT_BYTES`].
struct Capped {
    bytes: Vec<u8>,
}

impl io::Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(data.len()) > limits::TEMPLATE_OUTPUT_BYTES {
            return Err(io::Error::other(Limit::Output));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
