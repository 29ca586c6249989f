//! The conversation in memory: a tree of messages with one active path, and the system prompt beside it.
//!
//! Nothing is ever deleted from the tree: `/undo` and `/regen` move the head, and what is no longer on the path from the
//! root to the head stays in the file. What belongs elsewhere: reading and writing files (`history`, `store`), rendering
//! for the model (the chat template).

use jiff::Zoned;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
pub(crate) use text::Role;

/// Number of a message within its conversation; grows, never reused.
pub(crate) type MessageId = u64;

/// A moment as RFC 3339 with the offset of the place where it was taken; kept as written so that a file round-trips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Stamp(String);

impl Stamp {
    /// This moment, milliseconds, local offset.
    pub(crate) fn now() -> Stamp {
        Stamp::of(&Zoned::now())
    }

    /// That moment.
    pub(crate) fn of(moment: &Zoned) -> Stamp {
        Stamp(moment.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string())
    }

    /// Accepts any RFC 3339 time; `None` when it is not one.
    pub(crate) fn parse(text: &str) -> Option<Stamp> {
        text.parse::<jiff::Timestamp>().ok().map(|_| Stamp(text.to_owned()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One turn of one speaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Message {
    /// Number within the conversation.
    pub(crate) id: MessageId,
    /// The message it answers; none at a root.
    pub(crate) parent: Option<MessageId>,
    /// Who speaks.
    pub(crate) role: Role,
    /// The text, exactly as typed or generated.
    pub(crate) content: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ts: Option<Stamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ts_end: Option<Stamp>,
    /// Tokens of the content (generated tokens for an answer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    /// Why an answer ended: `stop`, `length`, `context`, `interrupted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finish_reason: Option<String>,
    /// The seed the answer was drawn with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// The generation settings of the answer, by setting name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) params: Map<String, Value>,
    /// File name of the model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// Hash of the chat template the answer was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template_hash: Option<String>,
    /// False for a turn that left the context window; it stays in the file.
    #[serde(skip_serializing_if = "is_true")]
    pub(crate) in_context: bool,
    /// Fields of the file that this version does not know, kept as they were.
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
    /// Whether the message is already in the archive file (`history.max_entries`) and no longer in the session's own.
    #[serde(skip)]
    pub(crate) archived: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Message {
    /// A message of now, without number or parent (the conversation gives both).
    pub(crate) fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            id: 0,
            parent: None,
            role,
            content: content.into(),
            ts: Some(Stamp::now()),
            ts_end: None,
            tokens: None,
            finish_reason: None,
            seed: None,
            params: Map::new(),
            model: None,
            template_hash: None,
            in_context: true,
            extra: Map::new(),
            archived: false,
        }
    }
}

/// Which model a conversation was held with; for the warning of `/load`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelStamp {
    /// File name.
    pub(crate) name: String,
    /// Hash of the chat template.
    pub(crate) template_hash: String,
}

/// A conversation: the tree, the head, and the system prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    /// Identifier, also the name of the session's own file.
    pub(crate) id: String,
    /// When it began.
    pub(crate) created: Stamp,
    /// The model it is held with.
    pub(crate) model: Option<ModelStamp>,
    /// The system prompt; its id is 0.
    pub(crate) system: Option<Message>,
    /// Unknown fields of the file.
    pub(crate) extra: Map<String, Value>,
    messages: Vec<Message>,
    index: HashMap<MessageId, usize>,
    head: Option<MessageId>,
    last_id: MessageId,
}

impl Conversation {
    /// An empty conversation that begins now.
    pub(crate) fn new() -> Conversation {
        Conversation {
            id: new_id(),
            created: Stamp::now(),
            model: None,
            system: None,
            extra: Map::new(),
            messages: Vec::new(),
            index: HashMap::new(),
            head: None,
            last_id: 0,
        }
    }

    /// Builds a conversation from messages read from a file. Ids must be unique and a parent must come before its
    /// children; a parent that is not in the list at all was archived, and its child becomes a root.
    ///
    /// # Errors
    /// A sentence naming the message.
    pub(crate) fn assemble(&mut self, messages: Vec<Message>, head: Option<MessageId>) -> Result<(), String> {
        let mut index = HashMap::with_capacity(messages.len());
        let all: std::collections::HashSet<MessageId> = messages.iter().map(|m| m.id).collect();
        for (at, message) in messages.iter().enumerate() {
            if let Some(parent) = message.parent
                && !index.contains_key(&parent)
                && all.contains(&parent)
            {
                return Err(format!("message {} answers message {parent}, which does not come before it", message.id));
            }
            if index.insert(message.id, at).is_some() {
                return Err(format!("two messages have the id {}", message.id));
            }
        }
        if let Some(head) = head
            && !index.contains_key(&head)
        {
            return Err(format!("\"head\" names message {head}, which is not in the file"));
        }
        self.head = head;
        self.last_id = messages.iter().map(|m| m.id).max().unwrap_or(0);
        self.messages = messages;
        self.index = index;
        Ok(())
    }

    /// Every message of the tree, oldest first.
    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// For the archive: marks messages as moved there.
    pub(crate) fn messages_mut(&mut self) -> &mut [Message] {
        &mut self.messages
    }

    /// The message of that id.
    pub(crate) fn get(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(*self.index.get(&id)?)
    }

    /// The message of that id, to change it.
    pub(crate) fn get_mut(&mut self, id: MessageId) -> Option<&mut Message> {
        self.messages.get_mut(*self.index.get(&id)?)
    }

    /// The end of the active path.
    pub(crate) fn head(&self) -> Option<MessageId> {
        self.head
    }

    /// Moves the head. `None` empties the path; an id that is not there is ignored.
    pub(crate) fn set_head(&mut self, head: Option<MessageId>) {
        if head.is_none_or(|id| self.index.contains_key(&id)) {
            self.head = head;
        }
    }

    /// The active path, root first, without the system prompt.
    pub(crate) fn path(&self) -> Vec<&Message> {
        let mut path = Vec::new();
        let mut at = self.head;
        // A parent always stands before its child (checked when read, so when pushed), hence the walk ends.
        while let Some(message) = at.and_then(|id| self.get(id)) {
            path.push(message);
            at = message.parent;
        }
        path.reverse();
        path
    }

    /// Whether the active path holds no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Questions on the active path.
    pub(crate) fn n_turns(&self) -> usize {
        self.path().iter().filter(|m| m.role == Role::User).count()
    }

    /// Appends below the head and moves the head to it; returns its id.
    pub(crate) fn push(&mut self, mut message: Message) -> MessageId {
        let id = self.last_id.saturating_add(1);
        self.last_id = id;
        message.id = id;
        message.parent = self.head;
        self.index.insert(id, self.messages.len());
        self.messages.push(message);
        self.head = Some(id);
        id
    }

    /// Where the head was before the last question of the path: the place to go back to for `/undo`. `None` when there
    /// is no question on the path.
    pub(crate) fn before_last_turn(&self) -> Option<Option<MessageId>> {
        self.path().iter().rev().find(|m| m.role == Role::User).map(|m| m.parent)
    }

    /// The text of the system prompt.
    pub(crate) fn system_text(&self) -> Option<&str> {
        self.system.as_ref().map(|m| m.content.as_str())
    }

    /// Replaces the system prompt in place, or removes it.
    pub(crate) fn set_system(&mut self, text: Option<String>) {
        self.system = text.map(|text| Message::new(Role::System, text));
    }

    /// What the chat template is given: the system prompt, then the messages of the path that are in the context.
    pub(crate) fn for_template(&self) -> Vec<&Message> {
        self.system.iter().chain(self.path().into_iter().filter(|m| m.in_context)).collect()
    }

    /// The hash of a chat template, as stored with each answer: FNV-1a, 64 bits. Tells templates apart; proves nothing.
    pub(crate) fn template_hash(source: &str) -> String {
        let hash = source
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("fnv1a64:{hash:016x}")
    }
}

/// A name no other session has: local time to the microsecond, and the process.
fn new_id() -> String {
    let now = Zoned::now();
    format!("{}-{:x}", now.strftime("%Y%m%d-%H%M%S-%6f"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(n: usize) -> Conversation {
        let mut conversation = Conversation::new();
        for turn in 0..n {
            conversation.push(Message::new(Role::User, format!("question {turn}")));
            conversation.push(Message::new(Role::Assistant, format!("answer {turn}")));
        }
        conversation
    }

    fn contents(conversation: &Conversation) -> Vec<String> {
        conversation.path().iter().map(|m| m.content.clone()).collect()
    }

    #[test]
    fn moving_the_head_back_keeps_the_tree() {
        let mut conversation = talk(2);
        let before = conversation.before_last_turn().unwrap();
        conversation.set_head(before);
        assert_eq!(contents(&conversation), ["question 0", "answer 0"]);
        conversation.push(Message::new(Role::User, "another"));
        assert_eq!(contents(&conversation), ["question 0", "answer 0", "another"]);
        assert_eq!(conversation.messages().len(), 5);
    }

    #[test]
    fn before_the_first_turn_the_path_is_empty() {
        let mut conversation = talk(1);
        let before = conversation.before_last_turn().unwrap();
        assert_eq!(before, None);
        conversation.set_head(before);
        assert!(conversation.is_empty());
        assert_eq!(conversation.before_last_turn(), None);
    }

    #[test]
    fn turns_out_of_the_context_are_not_rendered() {
        let mut conversation = talk(2);
        conversation.set_system(Some("be brief".into()));
        conversation.get_mut(1).unwrap().in_context = false;
        conversation.get_mut(2).unwrap().in_context = false;
        let rendered: Vec<&str> = conversation.for_template().iter().map(|m| m.content.as_str()).collect();
        assert_eq!(rendered, ["be brief", "question 1", "answer 1"]);
    }

    #[test]
    fn stamps_are_rfc_3339_with_offset() {
        let stamp = Stamp::now();
        assert!(Stamp::parse(stamp.as_str()).is_some(), "{}", stamp.as_str());
        for (text, good) in [
            ("2026-11-22T22:53:13.123+09:00", true),
            ("2026-11-22T13:53:13Z", true),
            ("yesterday", false),
            ("2026-11-22", false),
            ("", false),
        ] {
            assert_eq!(Stamp::parse(text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn template_hash_is_stable() {
        assert_eq!(Conversation::template_hash(""), "fnv1a64:cbf29ce484222325");
        assert_eq!(Conversation::template_hash("a"), "fnv1a64:af63dc4c8601ec8c");
    }
}
