//! One answer and out: `-p TEXT`, or a prompt on stdin (specification S3, S4, S10).
//!
//! The whole prompt is counted with the real template and tokenizer before anything is computed; one that does not fit
//! with room for an answer is refused (exit 6), never shortened. An answer that Ctrl-C cuts short is still given, marked.

use crate::{
    exit::{Exit, Failure, Result},
    interrupt,
    loading::{self, Loaded},
    output, paths,
    repl::prompt::{Renderer, reserve},
    safe_write,
    session::{Conversation, Message, ModelStamp, Role, Stamp, store},
    settings::Settings,
    terminal_filter::TerminalFilter,
};
use engine::{Event, FinishReason, Request, Stats, Stream};
use serde_json::json;
use std::{sync::mpsc::RecvTimeoutError, time::Duration};
use text::EncodeOptions;

crate::messages::messages! {
    /// Stdin cannot be read as text.
    stdin_unreadable() { "cannot read the prompt from stdin", "標準入力からプロンプトを読めません" }
    /// There is nothing to answer.
    prompt_empty() { "the prompt is empty", "プロンプトが空です" }
    /// How to give one.
    prompt_empty_hint() { "give one with -p TEXT or on stdin", "-p TEXT または標準入力で指定してください" }
    /// It does not fit.
    prompt_too_long(prompt, reserve, context) {
        "the prompt has {prompt} tokens; with {reserve} kept for the answer it does not fit into the window of {context}",
        "プロンプトは {prompt} トークンです。回答用の {reserve} を含めるとコンテキスト {context} に収まりません"
    }
    /// What to do about it.
    prompt_too_long_hint() { "shorten it, raise --ctx, or lower --max-tokens", "短くするか、--ctx を増やすか、--max-tokens を減らしてください" }
    /// The answer failed.
    answer_failed() { "the answer failed", "回答の生成に失敗しました" }
    /// Reading the prompt.
    reading() { "reading the prompt", "プロンプトを処理中" }
    /// Writing without showing.
    writing(n) { "{n} tokens", "{n} トークン" }
}

/// Text on stdin beyond this is refused.
const MAX_STDIN_BYTES: u64 = 64 << 20;

/// What is asked.
pub(crate) struct OneShot {
    /// The prompt, stdin included.
    pub(crate) prompt: String,
    /// Plain continuation.
    pub(crate) raw: bool,
}

/// Puts the prompt together: `-p`, with piped stdin attached in a fence; or stdin alone.
pub(crate) fn prompt(text: Option<&str>, raw: bool) -> Result<String> {
    let piped = !output::stdin_is_terminal();
    let prompt = match text {
        Some("-") | None => stdin()?,
        Some(text) if piped && !raw => attach(text, &stdin()?),
        Some(text) => text.to_owned(),
    };
    // `echo question | …`: the line end belongs to the shell, not to the question.
    let prompt = if raw { prompt } else { prompt.trim_end_matches(['\n', '\r']).to_owned() };
    if prompt.trim().is_empty() && !raw {
        return Err(Failure::new(Exit::Usage, prompt_empty()).hint(prompt_empty_hint()));
    }
    Ok(prompt)
}

fn stdin() -> Result<String> {
    safe_write::read_text_from(std::io::stdin().lock(), MAX_STDIN_BYTES)
        .map_err(|error| Failure::new(Exit::Usage, stdin_unreadable()).because(error))
}

/// The prompt with an attachment in a fence longer than any in it (CommonMark 0.31, fenced code blocks).
fn attach(prompt: &str, attachment: &str) -> String {
    if attachment.trim().is_empty() {
        return prompt.to_owned();
    }
    let longest = attachment.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let end = if attachment.ends_with('\n') { "" } else { "\n" };
    format!("{prompt}\n\n{fence}\n{attachment}{end}{fence}")
}

/// What came out.
struct Answer {
    text: String,
    ids: Vec<u32>,
    reason: FinishReason,
    stats: Stats,
}

/// Loads the model, answers, prints.
pub(crate) fn run(settings: &Settings, ask: &OneShot) -> Result<()> {
    // The history is read before the model: what is wrong with it shows at once.
    let mut conversation = begin(settings)?;
    interrupt::watch();
    let loaded = loading::load(settings, &interrupt::wanted)?;
    let mut settings = settings.clone();
    settings.follow(&loaded.suggestions);
    let settings = &settings;
    if !ask.raw && loaded.template()?.is_none() {
        output::warning(&loading::no_template(loading::builtin_names()));
    }
    if let Some(path) = &settings.history.save {
        let replace = if settings.history.force { store::Replace::Any } else { store::Replace::Ours };
        if path.as_os_str() != "-" {
            store::may_replace(path, replace, &loaded.files)?;
        }
    }
    let question = Message::new(Role::User, ask.prompt.clone());
    let tokens = tokens(&loaded, &conversation, &question, ask)?;
    check_room(&tokens, settings, loaded.context)?;
    let request = Request {
        tokens,
        sampling: settings.sampling(),
        stop: settings.generation.stop.clone(),
        max_tokens: settings.generation.max_tokens,
        speculation: settings.generation.speculate,
        ..Request::default()
    };
    let begun = Stamp::now();
    let answer = generate(&loaded, settings, request)?;
    finish(&loaded, settings, &answer)?;
    if let Some(path) = settings.history.save.as_deref().filter(|_| !settings.history.ephemeral) {
        remember(&mut conversation, &loaded, question, begun, &answer);
        if path.as_os_str() == "-" {
            let bytes = crate::session::history::render(&conversation, true)
                .map_err(|error| Failure::new(Exit::History, error.to_string()))?;
            output::answer_bytes(&bytes)?;
        } else {
            let bytes = store::save(path, &conversation, true)?;
            tracing::info!(path = %paths::display(path), bytes, "history saved");
        }
    }
    if answer.reason == FinishReason::Interrupted {
        return Err(Failure::silent(if interrupt::terminated() { Exit::Terminated } else { Exit::Interrupted }));
    }
    Ok(())
}

/// The conversation to go on with: that of `--load-history`, or a new one; with the system prompt.
fn begin(settings: &Settings) -> Result<Conversation> {
    let mut conversation = match &settings.history.load {
        Some(path) => store::read(path)?.conversation,
        None => Conversation::new(),
    };
    if settings.generation.system.is_some() {
        conversation.set_system(settings.generation.system.clone());
    }
    Ok(conversation)
}

fn tokens(loaded: &Loaded, conversation: &Conversation, question: &Message, ask: &OneShot) -> Result<Vec<u32>> {
    if ask.raw {
        return Ok(loaded.tokenizer.encode(&ask.prompt, EncodeOptions { bos_eos: false, special: false })).map(|ids| {
            let bos = loaded.tokenizer.bos().filter(|_| loaded.tokenizer.adds_bos());
            bos.into_iter().chain(ids).collect()
        });
    }
    let mut messages = conversation.for_template();
    messages.push(question);
    Renderer { tokenizer: &loaded.tokenizer, template: loaded.template()? }.tokens(&messages, None)
}

/// Refuses a prompt that leaves no room for an answer.
fn check_room(tokens: &[u32], settings: &Settings, context: usize) -> Result<()> {
    if tokens.is_empty() {
        return Err(Failure::new(Exit::Usage, prompt_empty()).hint(prompt_empty_hint()));
    }
    let reserve = reserve(settings.generation.max_tokens, context);
    if tokens.len().saturating_add(reserve) <= context {
        return Ok(());
    }
    Err(Failure::new(Exit::Context, prompt_too_long(tokens.len(), reserve, context)).hint(prompt_too_long_hint()))
}

/// What is shown while the answer comes.
struct View<'a> {
    settings: &'a Settings,
    filter: Option<TerminalFilter>,
    bar: Option<indicatif::ProgressBar>,
}

impl View<'_> {
    fn streams(&self) -> bool {
        self.settings.interface.output == "text" && self.settings.interface.stream
    }

    fn event(&mut self, event: serde_json::Value) -> Result<()> {
        if self.settings.interface.output == "stream-json" { output::answer_json(&event) } else { Ok(()) }
    }

    fn prefill(&mut self, done: usize, total: usize, cached: usize) -> Result<()> {
        let show = self.settings.interface.show_progress;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = output::progress(show, total as u64, "{msg} [{bar:24}] {pos}/{len} {eta}");
            bar.set_message(reading());
            bar
        });
        bar.set_position(done as u64);
        self.event(json!({"event": "prefill", "done": done, "total": total, "cached": cached}))
    }

    fn text(&mut self, text: &str, n_tokens: usize) -> Result<()> {
        if self.streams() {
            self.clear();
            return self.show(text);
        }
        let show = self.settings.interface.show_progress;
        match &self.bar {
            Some(bar) if bar.length().is_none() => bar.set_message(writing(n_tokens)),
            _ => {
                self.clear();
                let bar = output::progress(show, 0, "{spinner} {msg} {elapsed}");
                bar.unset_length();
                bar.set_message(writing(n_tokens));
                self.bar = Some(bar);
            }
        }
        Ok(())
    }

    fn show(&mut self, text: &str) -> Result<()> {
        match &mut self.filter {
            Some(filter) => output::answer(&filter.push(text)),
            None => output::answer(text),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn generate(loaded: &Loaded, settings: &Settings, request: Request) -> Result<Answer> {
    let mut stream = loaded.engine.generate(request);
    let _armed = interrupt::arm(stream.canceller());
    let filter = output::answer_filter(&settings.interface);
    let mut view = View { settings, filter, bar: None };
    let mut answer =
        Answer { text: String::new(), ids: Vec::new(), reason: FinishReason::Interrupted, stats: Stats::default() };
    while let Some(event) = next(&mut stream) {
        match event {
            Event::Prefill { done, total, cached } => view.prefill(done, total, cached)?,
            Event::Token { id, text, .. } => {
                answer.ids.push(id);
                answer.text.push_str(&text);
                view.event(json!({"event": "token", "id": id, "text": text}))?;
                view.text(&text, answer.ids.len())?;
            }
            Event::Text { text } => {
                answer.text.push_str(&text);
                view.event(json!({"event": "text", "text": text}))?;
                view.text(&text, answer.ids.len())?;
            }
            Event::Done { reason, stats } => (answer.reason, answer.stats) = (reason, stats),
            Event::Error(error) => {
                let failure = loading::engine_failure(&error);
                return Err(Failure { error: answer_failed(), ..failure });
            }
        }
    }
    view.clear();
    if settings.interface.output == "text" {
        if !view.streams() {
            view.show(&answer.text)?;
        }
        if let Some(rest) = view.filter.as_mut().map(TerminalFilter::finish) {
            output::answer(&rest)?;
        }
        if !answer.text.ends_with('\n') {
            output::answer("\n")?;
        }
    }
    Ok(answer)
}

/// The next event. A second Ctrl-C does not wait for the engine.
fn next(stream: &mut Stream) -> Option<Event> {
    loop {
        match stream.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => return event,
            Err(RecvTimeoutError::Timeout) if interrupt::presses() > 1 => return None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// The result as JSON, where that was asked for.
fn finish(loaded: &Loaded, settings: &Settings, answer: &Answer) -> Result<()> {
    let stats = &answer.stats;
    let mut result = json!({
        "text": answer.text,
        "token_ids": answer.ids,
        "finish_reason": answer.reason.name(),
        "usage": {
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "completion_tokens": stats.completion_tokens,
            "drafted_tokens": stats.drafted_tokens,
            "accepted_tokens": stats.accepted_tokens,
        },
        "timings": {
            "load_s": loaded.load_s,
            "prefill_tps": stats.prefill_tps(),
            "decode_tps": stats.decode_tps(),
            "ttft_s": stats.ttft_s,
        },
    });
    match (settings.interface.output, result.as_object_mut()) {
        ("json", _) => output::answer_json(&result),
        ("stream-json", Some(fields)) => {
            fields.shift_insert(0, "event".to_owned(), "done".into());
            output::answer_json(&result)
        }
        _ => Ok(()),
    }
}

fn remember(conversation: &mut Conversation, loaded: &Loaded, mut question: Message, begun: Stamp, answer: &Answer) {
    let name = loaded.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = loaded.template().ok().flatten().map(text::ChatTemplate::source).unwrap_or_default();
    let stamp = ModelStamp { name, template_hash: Conversation::template_hash(source) };
    question.ts_end = Some(begun.clone());
    conversation.push(question);
    let mut message = Message::new(Role::Assistant, answer.text.clone());
    message.ts = Some(begun);
    message.ts_end = Some(Stamp::now());
    message.tokens = Some(answer.ids.len() as u64);
    message.finish_reason = Some(answer.reason.name().to_owned());
    message.seed = Some(answer.stats.seed);
    message.model = Some(stamp.name.clone());
    message.template_hash = Some(stamp.template_hash.clone());
    conversation.push(message);
    conversation.model = Some(stamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_fenced() {
        let check = |attachment: &str, expected: &str| assert_eq!(attach("Q", attachment), expected);
        check("", "Q");
        check(" \n", "Q");
        check("a\n", "Q\n\n```\na\n```");
        check("a", "Q\n\n```\na\n```");
        check("```x```", "Q\n\n````\n```x```\n````");
    }
}
