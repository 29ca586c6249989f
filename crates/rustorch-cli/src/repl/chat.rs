//! The state of a chat, and what commands and turns do with it: the model in use, the settings, the session, the figures.

use super::{
    prompt::{self, Renderer},
    report::{Facts, Report, Totals},
    turn::first_words,
    words,
};
use crate::{
    adapters::{InUse, Named},
    command::live_rows,
    exit::{Exit, Failure, Result},
    interrupt,
    loading::{self, Loaded},
    output::{self, Channel, Look},
    paths,
    session::{Autosave, Conversation, Message, ModelStamp, Role, Session, history},
    settings::Settings,
    terminal_filter::visible_line,
};
use engine::{AdapterChange, Engine};
use serde_json::{Map, Value};
use std::{ffi::OsStr, fmt, path::PathBuf};
use text::ChatTemplate;

/// A running chat.
pub(crate) struct Chat {
    loaded: Loaded,
    /// The settings in force.
    pub(crate) settings: Settings,
    /// The conversation.
    pub(crate) session: Session,
    /// Where it is kept.
    pub(crate) autosave: Autosave,
    /// Figures for `/stats`.
    pub(crate) totals: Totals,
    /// A person types at a terminal.
    pub(crate) interactive: bool,
    /// There is something that no file holds.
    pub(crate) unsaved: bool,
    /// `/exit` was answered with a warning.
    pub(crate) asked_to_leave: bool,
    /// What the last save had to say, so that it is said once.
    said: Vec<String>,
}

impl Chat {
    /// A chat with a loaded model.
    pub(crate) fn new(loaded: Loaded, settings: Settings, conversation: Conversation, interactive: bool) -> Chat {
        Chat {
            loaded,
            settings,
            session: Session::new(conversation),
            autosave: Autosave::default(),
            totals: Totals::default(),
            interactive,
            unsaved: false,
            asked_to_leave: false,
            said: Vec::new(),
        }
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.loaded.engine
    }

    /// What turns messages into tokens.
    pub(crate) fn renderer(&self) -> Renderer<'_> {
        Renderer { tokenizer: &self.loaded.tokenizer, template: self.template() }
    }

    /// The chat template, if there is one.
    pub(crate) fn template(&self) -> Option<&ChatTemplate> {
        self.loaded.template().ok().flatten()
    }

    /// Tokens of the window.
    pub(crate) fn context(&self) -> usize {
        self.loaded.engine.context()
    }

    /// The device the model runs on.
    pub(crate) fn device(&self) -> compute::DeviceInfo {
        self.loaded.engine.info().device.clone()
    }

    /// The files of the model: never overwritten.
    pub(crate) fn model_files(&self) -> Vec<PathBuf> {
        self.loaded.files.clone()
    }

    /// The model's file name.
    pub(crate) fn model_name(&self) -> String {
        self.loaded.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What the conversation records about the model.
    pub(crate) fn model_stamp(&self) -> ModelStamp {
        let source = self.template().map(ChatTemplate::source).unwrap_or_default();
        ModelStamp { name: self.model_name(), template_hash: Conversation::template_hash(source) }
    }

    /// Whether a system prompt reaches the model as one.
    pub(crate) fn template_has_system_role(&self) -> bool {
        self.template().is_none_or(ChatTemplate::has_system_role)
    }

    /// Tokens of a text by itself.
    pub(crate) fn count_tokens(&self, text: &str) -> usize {
        self.renderer().count(text)
    }

    /// The tokens of a conversation as the model reads it.
    ///
    /// # Errors
    /// The template refuses it.
    pub(crate) fn prompt_of(&self, messages: &[&Message]) -> Result<Vec<u32>> {
        self.renderer().tokens(messages, None)
    }

    /// `You> ` with its fields filled in.
    pub(crate) fn user_prompt(&self) -> String {
        self.fill(&self.settings.interface.prompt_user)
    }

    /// `Assistant> ` with its fields filled in, in its colour.
    pub(crate) fn assistant_prompt(&self) -> String {
        output::paint(Channel::Err, Look::Assistant, &self.fill(&self.settings.interface.prompt_assistant))
    }

    fn fill(&self, prompt: &str) -> String {
        let turn = self.session.conversation().n_turns() + 1;
        let filled = prompt
            .replace("{model}", &self.model_name())
            .replace("{ctx_used}", &self.totals.context_used().to_string())
            .replace("{turn}", &turn.to_string());
        visible_line(&filled)
    }

    /// The generation settings as they are stored with an answer.
    pub(crate) fn params(&self) -> Map<String, Value> {
        live_rows()
            .map(|row| {
                let shown = row.show(&self.settings);
                (row.key.to_owned(), serde_json::from_str(&shown).unwrap_or(Value::String(shown)))
            })
            .collect()
    }

    /// Takes over the generation settings of the last answer on the path.
    ///
    /// # Errors
    /// A value that is not valid; nothing was changed.
    pub(crate) fn take_params(&mut self) -> Result<()> {
        let params = self.last_params();
        let mut settings = self.settings.clone();
        for row in live_rows() {
            let done = match params.get(row.key) {
                None => Ok(()),
                Some(Value::Array(items)) => {
                    let texts: Vec<String> = items.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect();
                    row.set_list(&mut settings, &texts, None)
                }
                Some(Value::String(text)) => row.set_text(&mut settings, OsStr::new(text), None),
                Some(other) => row.set_text(&mut settings, OsStr::new(&other.to_string()), None),
            };
            done.map_err(|error| Failure::new(Exit::History, words::bad_param(row.key)).because(error))?;
        }
        self.settings = settings;
        Ok(())
    }

    fn last_params(&self) -> Map<String, Value> {
        let path = self.session.conversation().path();
        path.iter().rev().find(|m| !m.params.is_empty()).map(|m| m.params.clone()).unwrap_or_default()
    }

    /// Goes on with a conversation that was read; returns what there is to say about it.
    ///
    /// # Errors
    /// The messages cannot be put behind the present ones; nothing was changed.
    pub(crate) fn adopt(
        &mut self,
        read: history::Read,
        shown: &str,
        keep_system: bool,
        append: bool,
    ) -> Result<String> {
        let theirs = read.conversation;
        let (n_messages, n_turns) = (theirs.path().len(), theirs.n_turns());
        let their_model = theirs.model.clone();
        let mut next = if append { self.session.conversation().clone() } else { theirs.clone() };
        // The file keeps what it holds; this session is written under a name of its own.
        next.id = Conversation::new().id;
        if append {
            for message in theirs.path() {
                next.push(message.clone());
            }
        }
        if keep_system || append {
            next.system.clone_from(&self.session.conversation().system);
        }
        let new_system =
            next.system_text().is_some() && next.system_text() != self.session.conversation().system_text();
        self.session.replace(next);
        self.unsaved = true;

        let mut notes = vec![words::loaded(shown, n_messages, n_turns)];
        notes.extend(read.imported.then(words::imported));
        let now = self.model_stamp();
        if let Some(theirs) = their_model {
            if theirs.name != now.name {
                notes.push(words::loaded_other_model(visible_line(&theirs.name)));
            } else if theirs.template_hash != now.template_hash {
                notes.push(words::loaded_other_template());
            }
        }
        notes.extend(new_system.then(words::loaded_system));
        notes.extend(self.fit_note());
        let params = self.last_params();
        if !append && !params.is_empty() && params != self.params() {
            let current = self.params();
            let changed: Vec<String> = params
                .iter()
                .filter(|(key, value)| current.get(*key).is_some_and(|now| now != *value))
                .map(|(key, value)| format!("{key} {}", visible_line(&value.to_string())))
                .collect();
            notes.extend((!changed.is_empty()).then(|| words::loaded_params(changed.join(", "))));
        }
        Ok(notes.join("\n  "))
    }

    /// How many tokens the conversation takes, or why that cannot be told.
    fn fit_note(&self) -> Vec<String> {
        let conversation = self.session.conversation();
        if conversation.is_empty() {
            return Vec::new();
        }
        match self.prompt_of(&conversation.for_template()) {
            Ok(tokens) => {
                let mut notes = vec![words::loaded_tokens(tokens.len(), self.context())];
                notes.extend((tokens.len() >= self.context()).then(words::loaded_too_long));
                notes
            }
            Err(failure) => vec![format!("{}: {}", failure.error, failure.cause.unwrap_or_default())],
        }
    }

    /// Writes the conversation wherever it is kept; what cannot be written is a warning, said once.
    pub(crate) fn persist(&mut self) {
        let conversation = self.session.conversation_mut();
        if !self.autosave.is_on() || conversation.messages().is_empty() {
            return;
        }
        let saved = self.autosave.write(conversation);
        for note in saved.notes.iter().filter(|note| !self.said.contains(note)) {
            output::warning(note);
        }
        self.unsaved &= !saved.complete;
        self.said = saved.notes;
    }

    /// Loads the model anew with other settings: another file, another backend. The old one works until the new one does,
    /// unless memory holds only one of them: then the old one goes first, and comes back if the new one cannot be loaded.
    ///
    /// # Errors
    /// The old model and the old settings stay.
    pub(crate) fn reload(&mut self, mut settings: Settings) -> Result<()> {
        interrupt::reset();
        let loaded = match loading::load(&settings, &interrupt::wanted) {
            Err(failure) if failure.exit == Exit::Memory => self.load_alone(&settings)?,
            result => result.map_err(|failure| say_also(failure, words::old_stays()))?,
        };
        let seconds = loaded.load_s;
        settings.follow(&loaded.suggestions);
        self.loaded = loaded;
        self.settings = settings;
        output::note(&words::now_using(visible_line(&self.model_name()), format!("{seconds:.2}")));
        if self.template().is_none() {
            output::warning(&loading::no_template(loading::builtin_names()));
        }
        if self.session.conversation().system.is_some() && !self.template_has_system_role() {
            output::warning(&words::no_system_role());
        }
        for note in self.fit_note() {
            output::note(&format!("  {note}"));
        }
        Ok(())
    }

    /// Gives the old model's memory back before loading.
    fn load_alone(&mut self, settings: &Settings) -> Result<Loaded> {
        output::note(&words::old_goes_first());
        self.loaded.engine.stop();
        loading::load(settings, &interrupt::wanted).map_err(|failure| {
            interrupt::reset();
            match loading::load(&self.settings, &interrupt::wanted) {
                Ok(old) => {
                    self.loaded = old;
                    say_also(failure, words::old_is_back())
                }
                Err(second) => say_also(failure, words::no_model_now(&second.error)),
            }
        })
    }

    /// The adapters in use.
    pub(crate) fn adapters(&self) -> &[InUse] {
        &self.loaded.adapters
    }

    /// Changes them, and what the settings say of them in the same way.
    ///
    /// # Errors
    /// The engine's: nothing changed.
    pub(crate) fn change_adapters(
        &mut self,
        change: AdapterChange,
        settings: impl FnOnce(&mut Vec<Named>),
    ) -> engine::Result<()> {
        let infos = self.loaded.engine.adapt(change)?;
        settings(&mut self.settings.model.lora);
        let named = self.settings.model.lora.iter().zip(infos);
        self.loaded.adapters = named.map(|(named, info)| InUse { path: named.path.clone(), info }).collect();
        Ok(())
    }

    /// The model in use, in words.
    pub(crate) fn describe_model(&self) -> String {
        let device = self.device();
        format!(
            "{}\n  {}",
            paths::display(&self.loaded.path),
            words::banner(visible_line(&self.model_name()), self.context(), device.backend)
        )
    }

    /// Everything `/stats` shows.
    pub(crate) fn report(&self) -> Report {
        let info = self.loaded.engine.info();
        let (rss_bytes, peak_rss_bytes) = super::memory::resident();
        Report {
            facts: Facts {
                model: visible_line(&self.model_name()),
                file_bytes: self.loaded.file_bytes,
                weights_bytes: info.weights_bytes,
                kv_bytes: info.kv_bytes,
                scratch_bytes: info.scratch_bytes,
                adapters: self.adapters().to_vec(),
                load_s: self.loaded.load_s,
                context: self.context(),
                backend: info.device.backend,
                isa: info.device.isa,
                threads: info.device.threads,
                rss_bytes: rss_bytes.unwrap_or(0),
                peak_rss_bytes: peak_rss_bytes.or(rss_bytes).unwrap_or(0),
                usage: self.loaded.engine.usage(),
            },
            totals: self.totals.clone(),
        }
    }

    /// What fills the window.
    ///
    /// # Errors
    /// The template refuses the conversation.
    pub(crate) fn ledger(&self) -> Result<Ledger> {
        let conversation = self.session.conversation();
        let messages = conversation.for_template();
        let renderer = self.renderer();
        let mut ledger = Ledger {
            context: self.context(),
            reserve: prompt::reserve(self.settings.generation.max_tokens, self.context()),
            out: conversation.path().iter().filter(|m| !m.in_context).count(),
            ..Ledger::default()
        };
        if messages.is_empty() {
            return Ok(ledger);
        }
        let tokens = renderer.tokens(&messages, None)?;
        ledger.used = tokens.len();
        ledger.cached = self.engine().cached_prefix(&tokens).unwrap_or(0);
        for message in messages {
            let n_tokens = renderer.count(&message.content);
            match (message.role, ledger.turns.last_mut()) {
                (Role::System, _) => ledger.system += n_tokens,
                (Role::User, _) | (_, None) => ledger.turns.push((first_words(&message.content), n_tokens)),
                (_, Some((_, sum))) => *sum += n_tokens,
            }
        }
        Ok(ledger)
    }
}

/// The exact account of the window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    context: usize,
    used: usize,
    system: usize,
    turns: Vec<(String, usize)>,
    cached: usize,
    reserve: usize,
    out: usize,
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", words::ledger_head(self.used, self.context, self.context.saturating_sub(self.used)))?;
        if self.system > 0 {
            write!(f, "\n{}", words::ledger_system(self.system))?;
        }
        for (at, (text, tokens)) in self.turns.iter().enumerate() {
            write!(f, "\n{}", words::ledger_turn(at + 1, tokens, text))?;
        }
        let texts: usize = self.system + self.turns.iter().map(|(_, tokens)| tokens).sum::<usize>();
        write!(f, "\n{}", words::ledger_template(self.used.saturating_sub(texts)))?;
        write!(f, "\n{}", words::ledger_cached(self.cached))?;
        write!(f, "\n{}", words::ledger_reserve(self.reserve))?;
        if self.out > 0 {
            write!(f, "\n{}", words::ledger_out(self.out))?;
        }
        if self.turns.len() > 1 {
            write!(f, "\n{}", words::ledger_next(1))?;
        }
        Ok(())
    }
}
/// A failure with one more thing to know.
fn say_also(mut failure: Failure, what: String) -> Failure {
    if failure.error.is_empty() {
        // Interrupted: there is no error to hang a hint on.
        output::note(&what);
    }
    failure.hint = Some(match failure.hint.take() {
        Some(hint) => format!("{hint}; {what}"),
        None => what,
    });
    failure
}
