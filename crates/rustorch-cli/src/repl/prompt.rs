//! From messages to tokens: the template, the exact count, and what has to leave when the window is too small (S10).

use super::words;
use crate::{
    exit::{Exit, Failure, Result},
    session::{Message, MessageId, Role},
};
use serde_json::{Map, Value};
use text::{ChatTemplate, EncodeOptions, RenderInput, Tokenizer};

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
        let mut text = match self.template {
            Some(template) => self.render(template, messages)?,
            None => messages.iter().map(|message| self.tokenizer.protect(&message.content)).collect(),
        };
        if let Some(begun) = begun {
            text.push_str(&self.tokenizer.protect(begun));
        }
        Ok(self.tokenizer.encode_rendered(&text))
    }

    fn render(&self, template: &ChatTemplate, messages: &[&Message]) -> Result<String> {
        let input = RenderInput {
            messages: messages.iter().map(|message| self.to_json(message)).collect(),
            add_generation_prompt: true,
            bos_token: self.control_text(self.tokenizer.bos()),
            eos_token: self.control_text(self.tokenizer.eos()),
            ..RenderInput::default()
        };
        template.render(&input).map_err(|error| {
            Failure::new(Exit::Runtime, words::cannot_render()).because_of(&error).hint(words::cannot_render_hint())
        })
    }

    /// A message as the template sees it. What people and files say never becomes a control token.
    fn to_json(&self, message: &Message) -> Value {
        let mut object = Map::new();
        object.insert("role".into(), message.role.as_str().into());
        object.insert("content".into(), self.tokenizer.protect(&message.content).into());
        Value::Object(object)
    }

    fn control_text(&self, id: Option<u32>) -> String {
        id.map(|id| String::from_utf8_lossy(&self.tokenizer.token_bytes(id)).into_owned()).unwrap_or_default()
    }

    /// Tokens of a text by itself.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.tokenizer.encode(text, EncodeOptions { bos_eos: false, special: false }).len()
    }
}

/// Tokens kept free for the answer: what it may take, but at most a quarter of the window.
pub(crate) fn reserve(max_tokens: Option<usize>, context: usize) -> usize {
    max_tokens.unwrap_or(usize::MAX).min(context / 4)
}

/// A prompt that fits, and what had to leave for it.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// The whole prompt.
    pub(crate) tokens: Vec<u32>,
    /// Messages that leave the window.
    pub(crate) leaving: Vec<MessageId>,
}

/// Why nothing fits.
#[derive(Debug)]
pub(crate) enum Misfit {
    /// The template failed.
    Failed(Failure),
    /// Even without all earlier turns: tokens needed.
    TooLong(usize),
}

/// Finds the longest recent part of a conversation that fits into the window with the reserve. The system prompt and what
/// begins with the last question always stay; whole turns leave, oldest first.
pub(crate) fn fit(
    messages: &[&Message],
    context: usize,
    reserve: usize,
    mut tokens_of: impl FnMut(&[&Message]) -> Result<Vec<u32>>,
) -> std::result::Result<Fitted, Misfit> {
    let turns = turns(messages);
    let mut attempt = |n_leaving: usize| -> Result<Vec<u32>> {
        let kept: Vec<&Message> = turns_kept(messages, &turns, n_leaving);
        tokens_of(&kept)
    };
    let limit = context.saturating_sub(reserve);
    let all = attempt(0).map_err(Misfit::Failed)?;
    if all.len() <= limit {
        return Ok(Fitted { tokens: all, leaving: Vec::new() });
    }
    // Fewer turns never need more tokens, so the smallest number that fits is found by halving.
    let most = turns.len().saturating_sub(1);
    let last = attempt(most).map_err(Misfit::Failed)?;
    if last.len() > limit {
        // The last question alone may use the reserve down to one token of answer.
        if last.len() >= context {
            return Err(Misfit::TooLong(last.len()));
        }
        return Ok(Fitted { tokens: last, leaving: leaving(messages, &turns, most) });
    }
    let (mut low, mut high, mut best) = (0, most, last);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let tokens = attempt(middle).map_err(Misfit::Failed)?;
        if tokens.len() <= limit {
            (high, best) = (middle, tokens);
        } else {
            low = middle;
        }
    }
    Ok(Fitted { tokens: best, leaving: leaving(messages, &turns, high) })
}

/// Where each turn begins: at a question. What stands before the first question belongs to the first turn.
fn turns(messages: &[&Message]) -> Vec<usize> {
    let body = messages.iter().take_while(|m| m.role == Role::System).count();
    let mut begins: Vec<usize> =
        (body..messages.len()).filter(|at| messages.get(*at).is_some_and(|m| m.role == Role::User)).collect();
    match begins.first_mut() {
        Some(first) => *first = body,
        None => begins.push(body),
    }
    begins
}

fn turns_kept<'a>(messages: &[&'a Message], turns: &[usize], n_leaving: usize) -> Vec<&'a Message> {
    let body = turns.first().copied().unwrap_or(0);
    let from = turns.get(n_leaving).copied().unwrap_or(body);
    messages.iter().enumerate().filter(|(at, _)| *at < body || *at >= from).map(|(_, m)| *m).collect()
}

fn leaving(messages: &[&Message], turns: &[usize], n_leaving: usize) -> Vec<MessageId> {
    let body = turns.first().copied().unwrap_or(0);
    let from = turns.get(n_leaving).copied().unwrap_or(body);
    messages.iter().skip(body).take(from - body).map(|m| m.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation whose messages have the given lengths in tokens; `s` system, `u` user, `a` assistant.
    fn talk(spec: &[(char, usize)]) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        for (id, (role, tokens)) in spec.iter().enumerate() {
            let role = match role {
                's' => Role::System,
                'u' => Role::User,
                _ => Role::Assistant,
            };
            let mut message = Message::new(role, "x".repeat(*tokens));
            message.id = id as MessageId;
            messages.push(message);
        }
        messages
    }

    fn check(
        spec: &[(char, usize)],
        context: usize,
        reserve: usize,
        expected: std::result::Result<&[MessageId], usize>,
    ) {
        let messages = talk(spec);
        let messages: Vec<&Message> = messages.iter().collect();
        let count = |kept: &[&Message]| Ok(vec![0; kept.iter().map(|m| m.content.len()).sum()]);
        match (fit(&messages, context, reserve, count), expected) {
            (Ok(fitted), Ok(leaving)) => {
                assert_eq!(fitted.leaving, leaving, "{spec:?}");
                assert!(fitted.tokens.len() < context);
            }
            (Err(Misfit::TooLong(need)), Err(expected)) => assert_eq!(need, expected),
            (other, expected) => panic!("{spec:?}: {other:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn oldest_turns_leave_and_the_system_prompt_stays() {
        let spec = [('s', 10), ('u', 10), ('a', 10), ('u', 10), ('a', 10), ('u', 10)];
        check(&spec, 100, 20, Ok(&[]));
        check(&spec, 79, 20, Ok(&[1, 2]));
        check(&spec, 60, 20, Ok(&[1, 2]));
        check(&spec, 59, 20, Ok(&[1, 2, 3, 4]));
        check(&spec, 30, 20, Ok(&[1, 2, 3, 4]));
        check(&spec, 20, 5, Err(20));
        check(&[('u', 50)], 40, 10, Err(50));
        check(&[('u', 35)], 40, 10, Ok(&[]));
        check(&[('a', 30), ('u', 10), ('a', 10), ('u', 5)], 40, 5, Ok(&[0, 1, 2]));
    }

    #[test]
    fn the_reserve_is_a_quarter_at_most() {
        assert_eq!(reserve(Some(100), 4096), 100);
        assert_eq!(reserve(Some(2048), 4096), 1024);
        assert_eq!(reserve(None, 4096), 1024);
    }
}
