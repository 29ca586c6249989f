//! What fits into the context window: exact accounting, and which turns would have to leave. Policy (ask, stop, shift)
//! is the caller's; nothing here drops a turn by itself.
//!
//! Exact means: counted on the rendered and encoded prompt, never estimated. Whole turns leave, oldest first. The system
//! prompt and everything from the last user message on stay.

use crate::Result;
use std::ops::Range;
use text::{ChatTemplate, Message, RenderInput, Role, Tokenizer};

/// The window of one sequence, and what of it is kept free for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens that a sequence may have, prompt and answer.
    pub context: usize,
    /// Tokens kept free for the answer.
    pub reserve: usize,
}

impl Window {
    /// Reserves what the answer may take, but at most a quarter of the window.
    pub fn new(context: usize, max_tokens: Option<usize>) -> Self {
        Window { context, reserve: max_tokens.unwrap_or(usize::MAX).min(context / 4) }
    }

    /// Tokens that a prompt may have so that the reserve stays free.
    pub fn prompt_limit(&self) -> usize {
        self.context.saturating_sub(self.reserve)
    }
}

/// Turns messages into the tokens of a prompt.
pub struct Renderer<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat template; without one the texts follow each other.
    pub template: Option<&'a ChatTemplate>,
    /// Variables, tools and clock for the template; its `messages` and its tokens' texts are filled in here.
    pub input: RenderInput,
}

impl<'a> Renderer<'a> {
    /// Ready for an answer, with the defaults of the template.
    pub fn new(tokenizer: &'a Tokenizer, template: Option<&'a ChatTemplate>) -> Self {
        let spelled = |id: Option<u32>| {
            id.map(|id| String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned()).unwrap_or_default()
        };
        let input = RenderInput {
            add_generation_prompt: true,
            bos_token: spelled(tokenizer.bos()),
            eos_token: spelled(tokenizer.eos()),
            ..RenderInput::default()
        };
        Renderer { tokenizer, template, input }
    }

    /// The prompt of these turns: who speaks, and what. `begun` is the part of the answer that is there already. What the
    /// turns say never becomes a control token.
    ///
    /// # Errors
    /// The template refuses or fails.
    pub fn tokens<'t>(
        &self,
        turns: impl IntoIterator<Item = (Role, &'t str)>,
        begun: Option<&str>,
    ) -> Result<Vec<u32>> {
        let safe = turns.into_iter().map(|(role, content)| Message::new(role, self.tokenizer.protect(content)));
        let mut prompt = match self.template {
            Some(template) => {
                let messages = safe.map(|message| message.to_json()).collect();
                template.render(&RenderInput { messages, ..self.input.clone() }).map_err(Box::new)?
            }
            None => safe.map(|message| message.content).collect(),
        };
        if let Some(begun) = begun {
            prompt.push_str(&self.tokenizer.protect(begun));
        }
        Ok(self.tokenizer.encode_rendered(&prompt))
    }

    /// Finds the longest recent part of a conversation that fits; see [`fit`].
    ///
    /// # Errors
    /// Those of [`Renderer::tokens`].
    pub fn fit(&self, turns: &[(Role, &str)], begun: Option<&str>, window: Window) -> Result<Fit> {
        let roles: Vec<Role> = turns.iter().map(|turn| turn.0).collect();
        fit(&roles, window, |kept| self.tokens(kept.iter().filter_map(|&at| turns.get(at).copied()), begun))
    }
}

/// What [`fit`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// A prompt that fits.
    Fits(Fitted),
    /// Even the system prompt and the last question alone do not fit.
    TooLong {
        /// Tokens that they need.
        prompt: usize,
    },
}

/// A prompt that fits, and what had to leave for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The whole prompt.
    pub tokens: Vec<u32>,
    /// Indices of the messages that leave the window; empty when everything fits.
    pub leaving: Range<usize>,
    /// Tokens that the whole conversation would have needed.
    pub wanted: usize,
}

/// Finds the smallest number of oldest turns that have to leave so that the prompt leaves the window's reserve free.
/// `roles` are those of the messages; `tokens_of` makes the prompt of the messages with these indices. When only the
/// last question is left, it may use the reserve, down to one token of answer.
///
/// # Errors
/// What `tokens_of` returns.
pub fn fit<E>(
    roles: &[Role],
    window: Window,
    mut tokens_of: impl FnMut(&[usize]) -> std::result::Result<Vec<u32>, E>,
) -> std::result::Result<Fit, E> {
    let turns = turns(roles);
    let leaving = |n_leaving: usize| match (turns.first(), turns.get(n_leaving)) {
        (Some(&body), Some(&from)) => body..from,
        _ => 0..0,
    };
    let mut attempt = |n_leaving: usize| {
        let gone = leaving(n_leaving);
        let kept: Vec<usize> = (0..roles.len()).filter(|at| !gone.contains(at)).collect();
        tokens_of(&kept)
    };
    let all = attempt(0)?;
    let (wanted, limit) = (all.len(), window.prompt_limit());
    if wanted <= limit {
        return Ok(Fit::Fits(Fitted { tokens: all, leaving: 0..0, wanted }));
    }
    let most = turns.len().saturating_sub(1);
    let last = if most == 0 { all } else { attempt(most)? };
    if last.len() >= window.context {
        return Ok(Fit::TooLong { prompt: last.len() });
    }
    if last.len() > limit {
        return Ok(Fit::Fits(Fitted { tokens: last, leaving: leaving(most), wanted }));
    }
    // Fewer turns never need more tokens, so halving finds the smallest number that fits: few renderings of long texts.
    let (mut low, mut high, mut best) = (0, most, last);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let tokens = attempt(middle)?;
        if tokens.len() <= limit {
            (high, best) = (middle, tokens);
        } else {
            low = middle;
        }
    }
    Ok(Fit::Fits(Fitted { tokens: best, leaving: leaving(high), wanted }))
}

/// Where each turn begins: at a user message. What stands between the system prompt and the first one belongs to the
/// first turn.
fn turns(roles: &[Role]) -> Vec<usize> {
    let body = roles.iter().take_while(|&&role| role == Role::System).count();
    let mut begins: Vec<usize> = (body..roles.len()).filter(|&at| roles[at] == Role::User).collect();
    match begins.first_mut() {
        Some(first) => *first = body,
        None => begins.push(body),
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A conversation as letters and lengths: `s` system, `u` user, `a` assistant, `t` tool. The prompt is as long as
    /// its messages, one token more each, and one for the answer's opening.
    fn check(talk: &[(char, usize)], window: Window, expected: std::result::Result<Range<usize>, usize>) {
        let role = |&(letter, _): &(char, usize)| match letter {
            's' => Role::System,
            'u' => Role::User,
            't' => Role::Tool,
            _ => Role::Assistant,
        };
        let roles: Vec<Role> = talk.iter().map(role).collect();
        let prompt = |kept: &[usize]| vec![0u32; kept.iter().map(|&at| talk[at].1 + 1).sum::<usize>() + 1];
        match (fit::<Infallible>(&roles, window, |kept| Ok(prompt(kept))), expected) {
            (Ok(Fit::Fits(fitted)), Ok(leaving)) => {
                let kept: Vec<usize> = (0..talk.len()).filter(|at| !leaving.contains(at)).collect();
                assert_eq!(fitted.leaving, leaving, "{talk:?} {window:?}");
                assert_eq!(fitted.tokens, prompt(&kept));
                assert_eq!(fitted.wanted, prompt(&(0..talk.len()).collect::<Vec<_>>()).len());
            }
            (Ok(Fit::TooLong { prompt }), Err(needed)) => assert_eq!(prompt, needed, "{talk:?}"),
            (found, expected) => panic!("{talk:?} {window:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn oldest_turns_leave() {
        let talk = [('s', 9), ('u', 9), ('a', 9), ('u', 9), ('a', 9), ('u', 9)]; // 61 in all, 10 each
        let at = |context, reserve| Window { context, reserve };
        check(&talk, at(100, 25), Ok(0..0));
        check(&talk, at(61, 0), Ok(0..0));
        check(&talk, at(80, 20), Ok(1..3));
        check(&talk, at(41, 0), Ok(1..3));
        check(&talk, at(40, 0), Ok(1..5));
        check(&talk, at(24, 4), Ok(1..5)); // the last question may use the reserve
        check(&talk, at(22, 4), Ok(1..5));
        check(&talk, at(21, 4), Err(21)); // but leaves a token of answer
    }

    #[test]
    fn odd_conversations() {
        let at = |context, reserve| Window { context, reserve };
        check(&[], at(10, 2), Ok(0..0));
        check(&[('u', 30)], at(10, 2), Err(32));
        check(&[('s', 30)], at(10, 2), Err(32));
        // An answer before the first question belongs to the first turn; tool results to theirs.
        check(&[('a', 9), ('u', 9), ('a', 9), ('t', 9), ('a', 9), ('u', 9)], at(15, 0), Ok(0..5));
        // A begun answer stays with its question.
        check(&[('u', 9), ('a', 9), ('u', 9), ('a', 9)], at(25, 0), Ok(0..2));
    }

    #[test]
    fn reserve_is_a_quarter_at_most() {
        assert_eq!(Window::new(4096, Some(2048)).reserve, 1024);
        assert_eq!(Window::new(4096, Some(100)).prompt_limit(), 3996);
        assert_eq!(Window::new(4096, None).reserve, 1024);
    }
}
