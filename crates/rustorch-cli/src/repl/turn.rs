//! One answer: from the question to the message in the conversation (specification S6, S10, S11).
//!
//! Everything that can fail happens before the conversation changes. An interrupted answer is kept and marked; one that
//! never began, or failed, leaves the conversation as it was and the question on the input line.

use super::{Chat, Reader, words};
use crate::{
    exit::{Exit, Failure, Result},
    interrupt,
    output::{self, Channel, Look},
    session::{Message, MessageId, Role, Stamp},
    terminal_filter::{TerminalFilter, visible_line},
};
use engine::{
    Event, FinishReason, Request, Stats,
    window::{Fit, Window},
};
use indicatif::ProgressBar;
use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

/// What is to be answered.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// A new question.
    New(String),
    /// The question of that id once more.
    Again(MessageId),
    /// The answer at the head goes on.
    GoOn,
}

/// How the turn ended, for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// The answer is in the conversation.
    Kept,
    /// Nothing was generated; the question is a draft again.
    Nothing,
    /// Ctrl-C came twice: save and leave.
    Leave,
}

/// What came out of the engine.
struct Generated {
    text: String,
    reason: FinishReason,
    stats: Option<Stats>,
    token_seconds: Vec<f32>,
    n_tokens: usize,
    leave: bool,
}

/// Answers. The conversation changes only when there is an answer.
///
/// # Errors
/// Nothing was changed.
pub(crate) fn answer(chat: &mut Chat, reader: &mut Reader, ask: &Ask) -> Result<TurnEnd> {
    let question = match ask {
        Ask::New(text) => Some(Message::new(Role::User, text.clone())),
        Ask::Again(_) | Ask::GoOn => None,
    };
    let begun = match ask {
        Ask::GoOn => chat.session.conversation().path().last().map(|m| m.content.clone()),
        _ => None,
    };
    let messages = messages_for(chat, ask, question.as_ref());
    let context = chat.context();
    let window = Window::new(context, chat.settings.generation.max_tokens);
    let fitted = match chat.renderer().fit(&messages, begun.as_deref(), window)? {
        Fit::Fits(fitted) => fitted,
        Fit::TooLong { prompt } => {
            let failure = Failure::new(Exit::Context, words::too_long(prompt, context));
            return Err(failure.hint(words::overflow_hint()));
        }
    };
    let leaving: Vec<MessageId> =
        messages.get(fitted.leaving.clone()).unwrap_or_default().iter().map(|message| message.id).collect();
    if !leaving.is_empty() {
        let report = overflow_report(chat, &messages, &leaving);
        agree_to_drop(chat, reader, (fitted.wanted, window), &report)?;
    }
    drop(messages);

    let request = Request {
        tokens: fitted.tokens,
        sampling: chat.settings.sampling(),
        stop: chat.settings.generation.stop.clone(),
        max_tokens: chat.settings.generation.max_tokens,
        speculation: chat.settings.generation.speculate,
        ..Request::default()
    };
    let begin = Stamp::now();
    let generated = generate(chat, request)?;
    let leave = generated.leave;
    if generated.n_tokens == 0 && generated.reason == FinishReason::Interrupted {
        output::note(&output::paint(Channel::Err, Look::Dim, &words::nothing_generated()));
        return Ok(if leave { TurnEnd::Leave } else { TurnEnd::Nothing });
    }
    for id in &leaving {
        if let Some(message) = chat.session.conversation_mut().get_mut(*id) {
            message.in_context = false;
        }
    }
    remember(chat, ask, question, begun, begin, &generated);
    chat.unsaved = true;
    // What is said below to be over is on disk.
    chat.persist();
    close_line(chat, &generated, context);
    Ok(if leave { TurnEnd::Leave } else { TurnEnd::Kept })
}

/// The messages that the model is shown.
fn messages_for<'a>(chat: &'a Chat, ask: &Ask, question: Option<&'a Message>) -> Vec<&'a Message> {
    let conversation = chat.session.conversation();
    let mut messages = conversation.for_template();
    match ask {
        Ask::New(_) => messages.extend(question),
        Ask::Again(id) => {
            if let Some(at) = messages.iter().position(|m| m.id == *id && m.role == Role::User) {
                messages.truncate(at + 1);
            }
        }
        Ask::GoOn => {
            messages.pop();
        }
    }
    messages
}

/// The turns that would leave, one line each.
fn overflow_report(chat: &Chat, messages: &[&Message], leaving: &[MessageId]) -> Vec<String> {
    let renderer = chat.renderer();
    let mut lines: Vec<(String, usize)> = Vec::new();
    for message in messages.iter().filter(|m| m.role != Role::System && leaving.contains(&m.id)) {
        let tokens = renderer.count(&message.content);
        match lines.last_mut() {
            Some((_, sum)) if message.role != Role::User => *sum += tokens,
            _ => lines.push((first_words(&message.content), tokens)),
        }
    }
    lines.iter().enumerate().map(|(at, (text, tokens))| words::leaving_turn(at + 1, tokens, text)).collect()
}

/// The beginning of a text on one line.
pub(crate) fn first_words(text: &str) -> String {
    let line = visible_line(text);
    let mut short: String = line.chars().take(48).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

/// Says what has to leave, and decides by `context.overflow`; asking needs somebody who can answer.
fn agree_to_drop(chat: &Chat, reader: &mut Reader, sizes: (usize, Window), turns: &[String]) -> Result<()> {
    let (need, window) = sizes;
    let full = words::overflow(need, window.reserve, window.context);
    let list = std::iter::once(words::leaving(turns.len())).chain(turns.iter().cloned()).collect::<Vec<_>>().join("\n");
    match chat.settings.context.overflow {
        "shift" => {
            output::warning(&full);
            output::note(&list);
            Ok(())
        }
        "ask" if chat.interactive => {
            output::warning(&full);
            output::note(&list);
            let answer = reader.ask(&words::overflow_choice())?;
            if matches!(answer.trim().to_lowercase().as_str(), "d" | "drop") {
                return Ok(());
            }
            Err(Failure::new(Exit::Context, words::not_sent()).hint(words::overflow_hint()))
        }
        _ => Err(Failure::new(Exit::Context, full).because(list).hint(words::overflow_hint())),
    }
}

/// Puts the finished answer where it belongs.
fn remember(
    chat: &mut Chat,
    ask: &Ask,
    question: Option<Message>,
    begun: Option<String>,
    begin: Stamp,
    generated: &Generated,
) {
    let mut message = Message::new(Role::Assistant, begun.clone().unwrap_or_default() + &generated.text);
    message.ts = Some(begin.clone());
    message.ts_end = Some(Stamp::now());
    message.finish_reason = Some(generated.reason.name().to_owned());
    message.seed = generated.stats.as_ref().map(|stats| stats.seed);
    message.params = chat.params();
    let stamp = chat.model_stamp();
    message.model = Some(stamp.name.clone());
    message.template_hash = Some(stamp.template_hash.clone());
    message.tokens = Some(chat.renderer().count(&message.content) as u64);
    if begun.is_none() {
        message.tokens = Some(generated.n_tokens as u64);
    }
    match (ask, question) {
        (Ask::New(_), Some(mut question)) => {
            question.ts_end = Some(begin);
            question.tokens = Some(chat.renderer().count(&question.content) as u64);
            chat.session.push_turn(question, message);
        }
        (Ask::Again(id), _) => chat.session.push_answer(*id, message),
        _ => {
            if let Some(ts) = chat.session.conversation().path().last().and_then(|m| m.ts.clone()) {
                message.ts = Some(ts);
            }
            chat.session.extend_answer(message);
        }
    }
    chat.session.conversation_mut().model = Some(stamp);
    if let Some(stats) = &generated.stats {
        chat.totals.add(stats.clone(), generated.token_seconds.clone());
    }
}

/// Ends the line of the answer and says why it stopped where that is not its own end.
fn close_line(chat: &Chat, generated: &Generated, context: usize) {
    let note = match generated.reason {
        FinishReason::Length => words::cut_by_length(chat.settings.generation.max_tokens.unwrap_or(generated.n_tokens)),
        FinishReason::Context => words::cut_by_context(context),
        FinishReason::Interrupted => words::cut_by_interrupt(),
        FinishReason::Stop if generated.text.is_empty() => words::empty_answer(),
        FinishReason::Stop | FinishReason::Error => return,
    };
    output::note(&output::paint(Channel::Err, Look::Dim, &note));
}

/// Runs the request and shows what comes.
fn generate(chat: &Chat, request: Request) -> Result<Generated> {
    let mut stream = chat.engine().generate(request);
    let _armed = interrupt::arm(stream.canceller());
    let mut view = View::new(chat);
    let mut generated = Generated {
        text: String::new(),
        reason: FinishReason::Interrupted,
        stats: None,
        token_seconds: Vec::new(),
        n_tokens: 0,
        leave: false,
    };
    let mut last: Option<Instant> = None;
    loop {
        let event = match stream.recv_timeout(Duration::from_millis(50)) {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(RecvTimeoutError::Timeout) => {
                view.tick();
                if interrupt::presses() > 1 {
                    generated.leave = true;
                    break;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match event {
            Event::Prefill { done, total, cached } => view.prefill(done, total, cached),
            Event::Token { text, at, .. } => {
                generated.n_tokens += 1;
                generated.token_seconds.extend(last.map(|last| at.saturating_duration_since(last).as_secs_f32()));
                last = Some(at);
                generated.text.push_str(&text);
                view.token(&text, generated.n_tokens)?;
            }
            Event::Text { text } => {
                generated.text.push_str(&text);
                view.token(&text, generated.n_tokens)?;
            }
            Event::Done { reason, stats } => {
                generated.reason = reason;
                generated.stats = Some(stats);
                break;
            }
            Event::Error(error) => {
                view.finish(&generated.text)?;
                return Err(Failure::new(Exit::Runtime, words::generation_failed()).because_of(&error));
            }
        }
    }
    // Nobody types the next line of a script: its first Ctrl-C means all of it.
    if generated.reason == FinishReason::Interrupted && (interrupt::presses() > 1 || !chat.interactive) {
        generated.leave = true;
    }
    view.finish(&generated.text)?;
    Ok(generated)
}

/// What the terminal shows of one answer.
struct View {
    filter: Option<TerminalFilter>,
    stream: bool,
    show_progress: bool,
    label: Option<String>,
    bar: Option<ProgressBar>,
    begin: Instant,
    /// The last thing printed was not a line end.
    open_line: bool,
}

/// A prefill shorter than this shows no bar.
const BAR_AFTER: Duration = Duration::from_millis(400);

impl View {
    fn new(chat: &Chat) -> View {
        View {
            filter: output::answer_filter(&chat.settings.interface),
            stream: chat.settings.interface.stream,
            show_progress: chat.settings.interface.show_progress,
            label: chat.interactive.then(|| chat.assistant_prompt()),
            bar: None,
            begin: Instant::now(),
            open_line: false,
        }
    }

    /// Progress of reading the prompt.
    fn prefill(&mut self, done: usize, total: usize, cached: usize) {
        if self.begin.elapsed() < BAR_AFTER || done >= total {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = output::progress(
                self.show_progress,
                total.saturating_sub(cached) as u64,
                &format!("{{msg}} {}", words::progress_prefill("[{bar:24}]", "{pos}", "{len}", "{eta}")),
            );
            bar.set_message(words::reading_prompt());
            bar
        });
        bar.set_position(done.saturating_sub(cached) as u64);
    }

    fn tick(&mut self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        }
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn token(&mut self, text: &str, n_tokens: usize) -> Result<()> {
        if self.stream {
            self.clear_bar();
            return self.print(text);
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let bar = match &mut self.bar {
            Some(bar) if bar.length().is_none() => bar,
            slot => {
                if let Some(old) = slot.take() {
                    old.finish_and_clear();
                }
                let bar = output::progress(self.show_progress, 0, "{msg}");
                bar.unset_length();
                slot.insert(bar)
            }
        };
        bar.set_message(words::progress_answer(n_tokens, format!("{:.1}", n_tokens as f64 / seconds)));
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<()> {
        if let Some(label) = self.label.take() {
            output::note_part(&label);
            self.open_line = true;
        }
        if text.is_empty() {
            return Ok(());
        }
        match &mut self.filter {
            Some(filter) => output::answer(&filter.push(text))?,
            None => output::answer(text)?,
        }
        self.open_line = !text.ends_with('\n');
        Ok(())
    }

    /// Ends the answer with a line end; without streaming, prints all of it.
    fn finish(&mut self, text: &str) -> Result<()> {
        self.clear_bar();
        if !self.stream {
            self.print(text)?;
        }
        if let Some(filter) = &mut self.filter {
            let rest = filter.finish();
            if !rest.is_empty() {
                output::answer(&rest)?;
                self.open_line = true;
            }
        }
        if self.open_line {
            output::answer("\n")?;
            self.open_line = false;
        }
        Ok(())
    }
}
