//! The chat: reads lines, runs commands, shows answers (specification S4, S6, S7, S11).
//!
//! On a terminal lines come from the editor; from a script or a pipe they come as they are, without prompts. The loop ends
//! at `/exit`, at the end of the input, at a second Ctrl-C, and when the program is asked to terminate; whatever ends it,
//! the conversation is saved first. A failed command or answer is printed, and the loop goes on.

mod chat;
mod editor;

mod lines;
pub(crate) mod memory;
pub(crate) mod prompt;
mod report;
mod turn;
mod words;

pub(crate) use chat::Chat;

use crate::{
    command::{self, Flow, parse, parse::Line},
    exit::{Exit, Failure, Result},
    interrupt,
    loading::{self, Loaded},
    output::{self, Channel, Look},
    paths,
    session::{
        Autosave, Conversation, history,
        store::{self, Replace},
    },
    settings::Settings,
    terminal_filter::visible_line,
};
use editor::{Input, LineEditor};
use lines::Lines;
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use turn::{Ask, TurnEnd};

/// A second Ctrl-C within this time of the first ends the program.
const SECOND_PRESS: Duration = Duration::from_secs(2);

/// Where lines come from.
pub(crate) enum Reader {
    /// The editor of a terminal.
    Editor(Box<LineEditor>),
    /// A script, a pipe, a terminal that can only print.
    Lines(Lines),
}

impl Reader {
    fn read(&mut self, chat: &Chat, draft: &str, multi: bool) -> Result<Input> {
        let prompt = if multi { String::new() } else { chat.user_prompt() };
        match self {
            Reader::Editor(editor) => {
                let styled = output::paint(Channel::Out, Look::User, &prompt);
                editor
                    .read(&prompt, &styled, draft, multi)
                    .map_err(|error| Failure::new(Exit::Runtime, words::cannot_read_input()).because(error))
            }
            Reader::Lines(lines) => lines.read(&prompt, multi),
        }
    }

    /// Asks a question beside the conversation; nothing typed is an empty answer.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String> {
        match self {
            Reader::Editor(editor) => editor
                .ask(question)
                .map_err(|error| Failure::new(Exit::Runtime, words::cannot_read_input()).because(error)),
            Reader::Lines(lines) => match lines.read(question, false)? {
                Input::Text(text) => Ok(text),
                _ => Ok(String::new()),
            },
        }
    }
}

/// Runs the chat until it ends. `script`: lines of a file instead of stdin.
///
/// # Errors
/// What ends the program with another code than 0.
pub(crate) fn run(loaded: Loaded, settings: Settings, script: Option<&Path>) -> Result<()> {
    interrupt::watch();
    let interactive = script.is_none() && output::stdin_is_terminal() && output::is_terminal(Channel::Out);
    let ephemeral = settings.history.ephemeral;
    let kept = settings.history.auto_save && !ephemeral;
    let line_history = settings.history.file.as_deref().and_then(Path::parent).map(|dir| dir.join("lines.history"));
    let mut reader = match script {
        Some(path) => Reader::Lines(Lines::new(open_script(path)?, false)?),
        None if interactive && !output::dumb() => {
            let editor = LineEditor::new(line_history.filter(|_| kept))
                .map_err(|error| Failure::new(Exit::Runtime, words::cannot_read_input()).because(error))?;
            Reader::Editor(Box::new(editor))
        }
        None => Reader::Lines(Lines::new(std::io::stdin(), interactive)?),
    };

    let mut conversation = Conversation::new();
    conversation.set_system(settings.generation.system.clone());
    let mut chat = Chat::new(loaded, settings, conversation, interactive);
    if interactive {
        welcome(&chat);
    }
    open_history(&mut chat)?;
    let result = converse(&mut chat, &mut reader);
    chat.persist();
    finish(&chat)?;
    result
}

fn open_script(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: {}", words::cannot_read_input(), paths::display(path))).because(error)
    })
}

fn welcome(chat: &Chat) {
    let device = chat.device();
    let banner = words::banner(visible_line(&chat.model_name()), chat.context(), device.backend);
    output::note(&output::paint(Channel::Err, Look::Dim, &banner));
}

/// Loads `--load-history`, and gets the files ready that the conversation is written to.
fn open_history(chat: &mut Chat) -> Result<()> {
    if chat.template().is_none() {
        output::warning(&loading::no_template(loading::builtin_names()));
    }
    if let Some(path) = chat.settings.history.load.clone() {
        let read = store::read(&path)?;
        let keep_system = chat.settings.generation.system.is_some();
        let note = chat.adopt(read, &paths::display(&path), keep_system, false)?;
        output::note(&note);
    }
    if chat.settings.history.ephemeral {
        return Ok(());
    }
    let also = save_file(&chat.settings);
    if let Some(path) = &also {
        let replace = if chat.settings.history.force { Replace::Any } else { Replace::Ours };
        store::may_replace(path, replace, &chat.model_files())?;
    }
    let latest = chat.settings.history.file.clone().filter(|_| chat.settings.history.auto_save);
    let (autosave, notes) =
        Autosave::start(latest.as_deref(), also, chat.settings.history.max_entries, chat.session.conversation());
    chat.autosave = autosave;
    for note in notes {
        output::warning(&note);
    }
    Ok(())
}

/// `--save-history`, unless it means stdout.
fn save_file(settings: &Settings) -> Option<PathBuf> {
    settings.history.save.clone().filter(|path| path.as_os_str() != "-")
}

/// What is left to do when the chat ends.
fn finish(chat: &Chat) -> Result<()> {
    let conversation = chat.session.conversation();
    if chat.settings.history.save.as_deref().is_some_and(|path| path.as_os_str() == "-") {
        let bytes =
            history::render(conversation, true).map_err(|error| Failure::new(Exit::History, error.to_string()))?;
        output::answer_bytes(&bytes)?;
    }
    if chat.interactive
        && !conversation.messages().is_empty()
        && let Some(path) = chat.autosave.own_file(conversation)
    {
        output::note(&output::paint(Channel::Err, Look::Dim, &words::kept_in(paths::display(&path))));
    }
    Ok(())
}

fn converse(chat: &mut Chat, reader: &mut Reader) -> Result<()> {
    let mut draft = String::new();
    let mut multi = false;
    let mut pressed: Option<Instant> = None;
    loop {
        if interrupt::terminated() {
            return Err(Failure::silent(Exit::Terminated));
        }
        interrupt::reset();
        let was_multi = std::mem::take(&mut multi);
        let input = match reader.read(chat, &std::mem::take(&mut draft), was_multi) {
            Ok(input) => input,
            Err(failure) if matches!(reader, Reader::Editor(_)) => return Err(failure),
            Err(failure) => {
                output::failure(&failure);
                continue;
            }
        };
        let line = match input {
            Input::End if was_multi && chat.interactive => continue,
            Input::End => return Ok(()),
            Input::Interrupt { .. } if interrupt::terminated() => return Err(Failure::silent(Exit::Terminated)),
            Input::Interrupt { .. } if !chat.interactive => return Err(Failure::silent(Exit::Interrupted)),
            Input::Interrupt { empty } => {
                if empty && !was_multi {
                    if pressed.is_some_and(|at| at.elapsed() < SECOND_PRESS) {
                        return Err(Failure::silent(Exit::Interrupted));
                    }
                    pressed = Some(Instant::now());
                    output::note(&words::press_again());
                }
                continue;
            }
            Input::Block(text) if text.trim().is_empty() => Line::Empty,
            Input::Block(text) => Line::Message(text),
            Input::Text(text) => parse::line(&text),
        };
        pressed = None;
        let ask = match line {
            Line::Empty => continue,
            Line::Message(text) => Ask::New(text),
            Line::Command { name, rest } => {
                let left_before = chat.asked_to_leave;
                let flow = match command::run(chat, &name, &rest) {
                    Ok(flow) => flow,
                    // A reader of stdout that went away ends the program quietly.
                    Err(failure) if failure.error.is_empty() && failure.exit == Exit::Ok => return Err(failure),
                    Err(failure) => {
                        output::failure(&failure);
                        Flow::Next
                    }
                };
                chat.asked_to_leave &= !left_before;
                match flow {
                    Flow::Next => continue,
                    Flow::Exit => return Ok(()),
                    Flow::Multi => {
                        multi = true;
                        continue;
                    }
                    Flow::Regenerate => match chat.session.last_question().map(|m| m.id) {
                        Some(id) => Ask::Again(id),
                        None => continue,
                    },
                    Flow::Continue => Ask::GoOn,
                }
            }
        };
        let end = turn::answer(chat, reader, &ask);
        if !matches!(end, Ok(TurnEnd::Kept))
            && let Ask::New(text) = &ask
        {
            draft.clone_from(text);
        }
        match end {
            Ok(TurnEnd::Kept | TurnEnd::Nothing) => {}
            Ok(TurnEnd::Leave) => return Err(Failure::silent(Exit::Interrupted)),
            // A reader of stdout that went away ends the program quietly.
            Err(failure) if failure.error.is_empty() => return Err(failure),
            Err(mut failure) => {
                if chat.interactive && matches!(ask, Ask::New(_)) {
                    failure.hint = Some(match failure.hint.take() {
                        Some(hint) => format!("{hint}\n{}", words::draft_hint()),
                        None => words::draft_hint(),
                    });
                }
                output::failure(&failure);
            }
        }
    }
}
