//! Chat templates: a conversation rendered into the one string the model was trained on.
//!
//! What belongs here: making a [`ChatTemplate`] from a model's own source or from a built-in one, and rendering it within
//! the bounds of [`crate::limits`]. What does not: which template a model should use when it has none (the program's
//! settings), and turning the result into ids ([`crate::Tokenizer::encode_rendered`]).
//!
//! The reference is the renderer of the `transformers` library: jinja2's immutable sandbox with `trim_blocks`,
//! `lstrip_blocks`, the loop-control extension, `{% generation %}` blocks, `raise_exception`, `strftime_now` and its own
//! `tojson`. The engine is minijinja; [`environment`] makes it agree. A template has no way to files, environment or
//! network: nothing of the kind is in the engine's reach.

mod builtin;
mod environment;
mod json;
mod methods;
mod object;
mod pystr;
mod render;
mod rewrite;
mod source;

use std::sync::Arc;

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::error::Result;

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct RenderInput {
    /// The turns, oldest first: objects with at least `role` and `content` (see [`crate::Message::to_json`]).
    pub messages: Vec<Value>,
    /// The tools on offer as JSON, `None` when there are none.
    pub tools: Option<Vec<Value>>,
    /// Further variables of the template (`enable_thinking` and the like). They win over everything but the above.
    pub vars: Map<String, Value>,
    /// Whether to end with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The text of the model's beginning-of-text token, empty when it has none.
    pub bos_token: String,
    /// The text of the model's end-of-text token, empty when it has none.
    pub eos_token: String,
    /// The time `strftime_now` tells; `None` is the real one.
    pub now: Option<jiff::civil::DateTime>,
}

/// A chat template, parsed and ready to render. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source_bytes", &self.source.len()).finish()
    }
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// [`crate::Error::TemplateSyntax`], or [`crate::Error::TemplateLimit`] for a source too long or too deep.
    pub fn from_source(source: &str) -> Result<ChatTemplate> {
        let environment = render::parse(source)?;
        Ok(ChatTemplate { source: source.into(), environment: Arc::new(environment) })
    }

    /// The built-in template called `name`, or `None` when there is no such one.
    pub fn builtin(name: &str) -> Option<ChatTemplate> {
        let row = builtin::TEMPLATES.iter().find(|row| row.name == name)?;
        ChatTemplate::from_source(row.source).ok()
    }

    /// The names [`ChatTemplate::builtin`] knows.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::TEMPLATES.iter().map(|row| row.name)
    }

    /// The template the checkpoint carries, `None` when it carries none: `tokenizer.chat_template` of its metadata, or the
    /// files beside the weights.
    ///
    /// # Errors
    /// A template that is not text or does not parse.
    pub fn from_checkpoint(checkpoint: &checkpoint::Checkpoint) -> Result<Option<ChatTemplate>> {
        source::find(checkpoint)?.map(|source| ChatTemplate::from_source(&source)).transpose()
    }

    /// The source of the template that the checkpoint carries, as it is there: it need not be one that works.
    ///
    /// # Errors
    /// A template that is not text.
    pub fn source_in(checkpoint: &checkpoint::Checkpoint) -> Result<Option<String>> {
        Ok(source::find(checkpoint)?.map(std::borrow::Cow::into_owned))
    }

    /// The templates that the checkpoint has under names (for tools, for retrieval), as they are there: names and sources.
    ///
    /// # Errors
    /// A template that is not text.
    pub fn named_in(checkpoint: &checkpoint::Checkpoint) -> Result<Vec<(String, String)>> {
        source::named(checkpoint)
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template has a place for a system turn: it renders one, and the text of it is in the result.
    pub fn has_system_role(&self) -> bool {
        const MARK: &str = "system-role-probe";
        let turn = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        let input = RenderInput {
            messages: vec![turn("system", MARK), turn("user", "hello")],
            add_generation_prompt: true,
            ..RenderInput::default()
        };
        self.render(&input).is_ok_and(|text| text.contains(MARK))
    }

    /// Renders the conversation.
    ///
    /// # Errors
    /// [`crate::Error::TemplateRaised`] when the template refuses, [`crate::Error::TemplateRender`] when it fails on this input, and
    /// [`crate::Error::TemplateLimit`] when it wants too much.
    pub fn render(&self, input: &RenderInput) -> Result<String> {
        render::render(&self.environment, input)
    }
}

#[cfg(test)]
mod tests;
