//! The line editor (specification S7): keys, completion, line history, blocks of several lines.
//!
//! Enter sends. A line that ends in a backslash, a block begun with `"""`, Alt-Enter and `/multi` take more lines; Ctrl-D
//! sends what is there, and on an empty prompt ends the input. A bracketed paste is inserted and never sends.

use crate::command;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler, ExternalPrinter, Helper,
    Highlighter, Hinter, KeyCode, KeyEvent, Modifiers, RepeatCount, Validator,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    history::FileHistory,
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What came from the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line; one that begins with a slash is a command.
    Text(String),
    /// A block of `"""` or `/multi`: always a message.
    Block(String),
    /// Ctrl-C.
    Interrupt {
        /// The line was empty.
        empty: bool,
    },
    /// Ctrl-D on an empty line, or the end of the input.
    End,
}

/// What the block quotes look like.
const BLOCK: &str = "\"\"\"";

/// Takes the quotes off a block.
pub(crate) fn unquote_block(text: &str) -> &str {
    let Some(inner) = text.strip_prefix(BLOCK) else { return text };
    let inner = inner.strip_prefix('\n').unwrap_or(inner);
    let inner = inner.trim_end_matches(['\n', ' ']).strip_suffix(BLOCK).unwrap_or(inner);
    inner.strip_suffix('\n').unwrap_or(inner)
}

/// Whether a block was begun and is not yet closed.
pub(crate) fn block_is_open(text: &str) -> bool {
    text.strip_prefix(BLOCK).is_some_and(|inner| !inner.trim_end().ends_with(BLOCK))
}

/// State that key handlers and the editor share.
#[derive(Debug, Default)]
struct Shared {
    /// `/multi`: Enter makes a new line, only Ctrl-D sends.
    multi: AtomicBool,
    /// A line was continued by a backslash.
    continued: AtomicBool,
    /// Ctrl-C came on a line with text.
    had_text: AtomicBool,
}

#[derive(Clone)]
struct Enter(Arc<Shared>);

impl ConditionalEventHandler for Enter {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let line = context.line();
        if self.0.multi.load(Ordering::Relaxed) || block_is_open(line) {
            return Some(Cmd::Newline);
        }
        // A backslash at the very end asks for another line; it is taken out when the whole is there.
        if context.pos() == line.len() && line.ends_with('\\') {
            self.0.continued.store(true, Ordering::Relaxed);
            return Some(Cmd::Newline);
        }
        Some(Cmd::AcceptLine)
    }
}

#[derive(Clone)]
struct CtrlD(Arc<Shared>);

impl ConditionalEventHandler for CtrlD {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let line = context.line();
        let several = self.0.multi.load(Ordering::Relaxed) || line.contains('\n') || line.starts_with(BLOCK);
        several.then_some(Cmd::AcceptLine)
    }
}

#[derive(Clone)]
struct CtrlC(Arc<Shared>);

impl ConditionalEventHandler for CtrlC {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        self.0.had_text.store(!context.line().is_empty(), Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

#[derive(Helper, Highlighter, Hinter, Validator)]
struct ChatHelper {
    files: FilenameCompleter,
}

impl Completer for ChatHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Some(typed) = line.get(..pos) else { return Ok((pos, Vec::new())) };
        let Some(after) = typed.strip_prefix('/') else { return Ok((pos, Vec::new())) };
        let Some((name, rest)) = after.split_once(' ') else {
            let names = command::names().filter(|name| name.starts_with(after));
            return Ok((
                1,
                names.map(|name| Pair { display: format!("/{name}"), replacement: format!("{name} ") }).collect(),
            ));
        };
        let Some(command) = command::find(name) else { return Ok((pos, Vec::new())) };
        match command.completes {
            command::Completes::Nothing => Ok((pos, Vec::new())),
            command::Completes::Path => self.files.complete_path(line, pos),
            command::Completes::Model => {
                let (start, mut found) = self.files.complete_path(line, pos)?;
                if crate::demo::NAME.starts_with(rest) {
                    found.insert(0, offered(crate::demo::NAME.to_owned()));
                }
                Ok((start, found))
            }
            command::Completes::WordThenPath(_) if rest.contains(' ') => self.files.complete_path(line, pos),
            command::Completes::WordThenPath(words) => {
                Ok(complete_word(typed, rest, words.iter().map(|word| (*word).to_owned())))
            }
            command::Completes::Words(words) => Ok(complete_word(typed, rest, words().into_iter())),
        }
    }
}

/// A word that is offered, with the space behind it.
fn offered(word: String) -> Pair {
    Pair { replacement: format!("{word} "), display: word }
}

/// The candidates for the last word of `rest`, the end of what is typed, and where it begins.
fn complete_word(typed: &str, rest: &str, candidates: impl Iterator<Item = String>) -> (usize, Vec<Pair>) {
    let start = typed.len() - rest.rsplit(' ').next().unwrap_or(rest).len();
    let word = typed.get(start..).unwrap_or_default();
    let found = candidates.filter(|candidate| candidate.starts_with(word));
    (start, found.map(offered).collect())
}

/// The editor of a terminal session.
pub(crate) struct LineEditor {
    editor: Editor<ChatHelper, FileHistory>,
    shared: Arc<Shared>,
    history: Option<PathBuf>,
    /// Its being there makes the editor wait for keys and signals alike, so that a signal taken by another thread (see
    /// `interrupt`) wakes it. Nothing is printed through it.
    _wake: Option<Box<dyn ExternalPrinter + Send>>,
}

impl LineEditor {
    /// An editor whose line history is kept in `history` (`None`: in memory only).
    pub(crate) fn new(history: Option<PathBuf>) -> rustyline::Result<LineEditor> {
        let config = Config::builder()
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .max_history_size(1000)?
            .auto_add_history(false)
            .completion_type(rustyline::CompletionType::List)
            .bracketed_paste(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(ChatHelper { files: FilenameCompleter::new() }));
        let shared = Arc::new(Shared::default());
        let enter = || EventHandler::Conditional(Box::new(Enter(Arc::clone(&shared))));
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::NONE), enter());
        editor.bind_sequence(KeyEvent::ctrl('M'), enter());
        editor.bind_sequence(KeyEvent::ctrl('J'), enter());
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), EventHandler::Simple(Cmd::Newline));
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::SHIFT), EventHandler::Simple(Cmd::Newline));
        editor.bind_sequence(KeyEvent::ctrl('D'), EventHandler::Conditional(Box::new(CtrlD(Arc::clone(&shared)))));
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(CtrlC(Arc::clone(&shared)))));
        if let Some(path) = &history
            && path.is_file()
            && let Err(error) = editor.load_history(path)
        {
            tracing::warn!("line history {}: {error}", path.display());
        }
        let wake =
            editor.create_external_printer().ok().map(|printer| Box::new(printer) as Box<dyn ExternalPrinter + Send>);
        Ok(LineEditor { editor, shared, history, _wake: wake })
    }

    /// Reads one line or block. `raw` is the prompt as it counts for the cursor, `styled` as it looks; `draft` stands on
    /// the line to begin with.
    pub(crate) fn read(&mut self, raw: &str, styled: &str, draft: &str, multi: bool) -> rustyline::Result<Input> {
        self.shared.multi.store(multi, Ordering::Relaxed);
        self.shared.had_text.store(false, Ordering::Relaxed);
        self.shared.continued.store(false, Ordering::Relaxed);
        let result = self.editor.readline_with_initial(&(raw, styled), (draft, ""));
        self.shared.multi.store(false, Ordering::Relaxed);
        match result {
            Ok(text) => {
                self.remember(&text);
                let continued = self.shared.continued.load(Ordering::Relaxed);
                Ok(if multi {
                    Input::Block(text.strip_suffix('\n').unwrap_or(&text).to_owned())
                } else if continued {
                    Input::Text(text.replace("\\\n", "\n"))
                } else if text.starts_with(BLOCK) {
                    Input::Block(unquote_block(&text).to_owned())
                } else {
                    Input::Text(text)
                })
            }
            Err(ReadlineError::Interrupted) => {
                Ok(Input::Interrupt { empty: !self.shared.had_text.load(Ordering::Relaxed) })
            }
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(error),
        }
    }

    /// Asks a short question; Ctrl-C and Ctrl-D are an empty answer. Nothing is remembered.
    pub(crate) fn ask(&mut self, question: &str) -> rustyline::Result<String> {
        match self.editor.readline(question) {
            Ok(text) => Ok(text),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, text: &str) {
        if text.trim().is_empty() || !matches!(self.editor.add_history_entry(text), Ok(true)) {
            return;
        }
        let Some(path) = &self.history else { return };
        let made = match path.parent() {
            Some(dir) => crate::safe_write::create_dirs(dir),
            None => Ok(()),
        };
        let written = made.map_err(ReadlineError::from).and_then(|()| self.editor.append_history(path));
        if let Err(error) = written {
            // Said once: the session goes on with the history in memory.
            tracing::warn!("line history {}: {error}", path.display());
            self.history = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        for (text, open, inner) in [
            ("plain", false, "plain"),
            ("\"\"\"one", true, "one"),
            ("\"\"\"\none\ntwo\n\"\"\"", false, "one\ntwo"),
            ("\"\"\"one\"\"\"", false, "one"),
            ("\"\"\"\none\n", true, "one"),
            ("\"\"\"", true, ""),
            ("\"\"\"\n  indented\n\"\"\"  ", false, "  indented"),
            ("say \"\"\"x", false, "say \"\"\"x"),
        ] {
            assert_eq!(block_is_open(text), open, "{text:?}");
            assert_eq!(unquote_block(text), inner, "{text:?}");
        }
    }
}
