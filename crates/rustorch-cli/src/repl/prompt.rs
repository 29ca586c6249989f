//! From messages to tokens: `engine::window` over the messages of a session, with its errors in the words of the program.

use super::words;
use crate::{
    exit::{Exit, Failure, Result},
    session::Message,
};
use engine::window::{self, Fit, Window};
use text::{ChatTemplate, Role, Tokenizer};

/// What turns messages into tokens.
pub(crate) struct Renderer<'a> {
    /// The tokenizer.
    pub(crate) tokenizer: &'a Tokenizer,
    /// The chat template; without one the texts simply follow each other.
    pub(crate) template: Option<&'a ChatTemplate>,
}

impl Renderer<'_> {
    /// The tokens of a conversation, ready for an answer; `begun` is the part of the answer that is there already.
    ///
    /// # Errors
    /// The template refuses or fails.
    pub(crate) fn tokens(&self, messages: &[&Message], begun: Option<&str>) -> Result<Vec<u32>> {
        self.window().tokens(turns(messages), begun).map_err(|error| cannot_render(&error))
    }

    /// The longest recent part of a conversation that fits into the window.
    ///
    /// # Errors
    /// The template refuses or fails.
    pub(crate) fn fit(&self, messages: &[&Message], begun: Option<&str>, window: Window) -> Result<Fit> {
        self.window().fit(&turns(messages), begun, window).map_err(|error| cannot_render(&error))
    }

    fn window(&self) -> window::Renderer<'_> {
        window::Renderer::new(self.tokenizer, self.template)
    }

    /// Tokens of a text by itself.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.tokenizer.encode(text, text::EncodeOptions { bos_eos: false, special: false }).len()
    }
}

fn turns<'m>(messages: &[&'m Message]) -> Vec<(Role, &'m str)> {
    messages.iter().map(|message| (message.role, message.content.as_str())).collect()
}

fn cannot_render(error: &engine::Error) -> Failure {
    Failure::new(Exit::Runtime, words::cannot_render()).because_of(error).hint(words::cannot_render_hint())
}

/// Tokens kept free for the answer: what it may take, but at most a quarter of the window.
pub(crate) fn reserve(max_tokens: Option<usize>, context: usize) -> usize {
    Window::new(context, max_tokens).reserve
}
