//! The history file: a versioned JSON schema, a superset of a list of OpenAI chat messages.
//!
//! ```json
//! {"format": "rustorch-chat", "version": 1, "id": "…", "created": "…", "model": {"name": "…", "template_hash": "…"},
//!  "head": 4, "messages": [{"role": "system", "content": "…"}, {"id": 1, "parent": null, "role": "user", …}]}
//! ```
//! `messages` alone is what other programs understand. Fields this version does not know are kept and written back.
//! A plain list of messages, or any object with a `messages` list, is imported as one straight conversation. Reading is
//! pure over bytes; files are the business of `store`. Every error says where: line and column.

use super::conversation::{Conversation, Message, MessageId, ModelStamp, Role, Stamp};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// The value of `format` in our files.
pub(crate) const FORMAT: &str = "rustorch-chat";
/// The newest version this program writes and reads.
pub(crate) const VERSION: u64 = 1;
/// Larger files are refused before they are read.
pub(crate) const MAX_FILE_BYTES: u64 = 256 << 20;
/// More messages than this are refused.
pub(crate) const MAX_MESSAGES: usize = 1 << 20;

/// Why bytes are not a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// The bytes are not text.
    #[error("not UTF-8 text: byte {at} is not valid")]
    NotText {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Not JSON, or not of the right shape.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// The messages contradict each other.
    #[error("{0}")]
    Tree(String),
    /// A later version of this program wrote it.
    #[error(
        "it was written by a newer rustorch-cli (history version {0}; this one reads up to {VERSION}); \
         nothing was changed, open it with that version"
    )]
    Newer(u64),
}

/// A conversation read from a file, and what is worth saying about it.
#[derive(Debug)]
pub(crate) struct Read {
    /// The conversation.
    pub(crate) conversation: Conversation,
    /// Whether it was a plain list of messages and not a file of ours.
    pub(crate) imported: bool,
}

/// Reads a history.
///
/// # Errors
/// [`Damage`], with the place.
pub(crate) fn parse(bytes: &[u8]) -> Result<Read, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|error| Damage::NotText { at: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file: File = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    let ours = file.format.as_deref() == Some(FORMAT);
    if ours && let Some(version) = file.version.filter(|version| *version > VERSION) {
        return Err(Damage::Newer(version));
    }
    assemble(file, ours)
}

fn syntax(error: &serde_json::Error) -> Damage {
    // serde_json appends " at line L column C" to its sentence; the numbers are ours to place.
    let whole = error.to_string();
    let what = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(what, _)| what);
    Damage::Syntax { line: error.line(), column: error.column(), what: what.to_owned() }
}

fn assemble(file: File, ours: bool) -> Result<Read, Damage> {
    let mut conversation = Conversation::new();
    if ours {
        if let Some(id) = file.id.filter(|id| is_plain_name(id)) {
            conversation.id = id;
        }
        if let Some(created) = file.created {
            conversation.created = created;
        }
        conversation.model = file.model;
    }
    conversation.extra = file.extra;
    let mut messages = file.messages;
    if messages.first().is_some_and(|m| m.message.role == Role::System && m.message.parent.is_none()) {
        let mut system = messages.remove(0).message;
        system.id = 0;
        conversation.system = Some(system);
    }
    let numbered = ours && messages.iter().all(|m| m.id.is_some());
    let mut previous = None;
    for (number, read) in messages.iter_mut().enumerate() {
        if numbered {
            read.message.id = read.id.unwrap_or(0);
        } else {
            // A straight conversation: each message answers the one before.
            read.message.id = number as MessageId + 1;
            read.message.parent = previous;
            previous = Some(read.message.id);
        }
    }
    let messages: Vec<Message> = messages.into_iter().map(|m| m.message).collect();
    let head = match file.head {
        Some(head) if numbered => head,
        _ => messages.last().map(|m| m.id),
    };
    conversation.assemble(messages, head).map_err(Damage::Tree)?;
    Ok(Read { conversation, imported: !ours })
}

/// Whether a string can be a file name of ours: the id of a hostile file must not name another folder.
fn is_plain_name(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Writes a history: every message that is not in the archive, or all of them when `whole`.
pub(crate) fn render(conversation: &Conversation, whole: bool) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Model<'a> {
        name: &'a str,
        template_hash: &'a str,
    }
    #[derive(Serialize)]
    struct Out<'a> {
        format: &'static str,
        version: u64,
        id: &'a str,
        created: &'a Stamp,
        updated: Stamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Model<'a>>,
        head: Option<MessageId>,
        #[serde(flatten)]
        extra: &'a Map<String, Value>,
        messages: Vec<&'a Message>,
    }
    let kept = conversation.messages().iter().filter(|m| whole || !m.archived);
    let out = Out {
        format: FORMAT,
        version: VERSION,
        id: &conversation.id,
        created: &conversation.created,
        updated: Stamp::now(),
        model: conversation.model.as_ref().map(|m| Model { name: &m.name, template_hash: &m.template_hash }),
        head: conversation.head(),
        extra: &conversation.extra,
        messages: conversation.system.iter().chain(kept).collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&out)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Whether bytes begin like a file of ours: then it may be replaced by a newer state.
pub(crate) fn is_ours(head: &[u8]) -> bool {
    let head = head.get(..head.len().min(256)).unwrap_or(head);
    let squeezed: Vec<u8> = head.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    squeezed.starts_with(format!("{{\"format\":\"{FORMAT}\"").as_bytes())
}

// --- reading with positions -----------------------------------------------------------------------------------------
// Hand-written visitors, because serde's `flatten` buffers the fields and with that loses line and column.

struct File {
    format: Option<String>,
    version: Option<u64>,
    id: Option<String>,
    created: Option<Stamp>,
    model: Option<ModelStamp>,
    head: Option<Option<MessageId>>,
    messages: Vec<ReadMessage>,
    extra: Map<String, Value>,
}

/// A message as read: its id may be missing.
struct ReadMessage {
    id: Option<MessageId>,
    message: Message,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<File, D::Error> {
        deserializer.deserialize_any(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a conversation: an object with \"messages\", or a list of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<File, A::Error> {
        let messages = Messages.visit_seq(seq)?;
        Ok(File {
            format: None,
            version: None,
            id: None,
            created: None,
            model: None,
            head: None,
            messages,
            extra: Map::new(),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let mut file = File {
            format: None,
            version: None,
            id: None,
            created: None,
            model: None,
            head: None,
            messages: Vec::new(),
            extra: Map::new(),
        };
        let mut seen = false;
        let mut ours = false;
        while let Some(key) = map.next_key::<String>()? {
            // The keys below mean something only in a file of ours, whose first key says so; elsewhere any value goes.
            match key.as_str() {
                "format" => {
                    file.format = text_or_nothing(map.next_value()?);
                    ours = file.format.as_deref() == Some(FORMAT);
                }
                "messages" if seen => return Err(de::Error::duplicate_field("messages")),
                "messages" => {
                    file.messages = map.next_value_seed(Messages)?;
                    seen = true;
                }
                "version" if ours => {
                    let version: u64 = map.next_value()?;
                    if version > VERSION {
                        // What follows may mean anything; only the number is reported.
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        file.version = Some(version);
                        return Ok(file);
                    }
                    file.version = Some(version);
                }
                "id" if ours => file.id = Some(map.next_value()?),
                "created" if ours => file.created = Some(map.next_value()?),
                "updated" if ours => {
                    map.next_value::<IgnoredAny>()?;
                }
                "model" if ours => file.model = map.next_value::<Option<ModelStamp>>()?,
                "head" if ours => file.head = Some(map.next_value()?),
                _ => {
                    file.extra.insert(key, map.next_value()?);
                }
            }
        }
        if !seen {
            return Err(de::Error::missing_field("messages"));
        }
        Ok(file)
    }
}

fn text_or_nothing(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

struct Messages;

impl<'de> DeserializeSeed<'de> for Messages {
    type Value = Vec<ReadMessage>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Messages {
    type Value = Vec<ReadMessage>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::new();
        while let Some(message) = seq.next_element::<ReadMessage>()? {
            if messages.len() >= MAX_MESSAGES {
                return Err(de::Error::custom(format!("more than {MAX_MESSAGES} messages")));
            }
            messages.push(message);
        }
        Ok(messages)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Stamp::parse(&text).ok_or_else(|| de::Error::custom("not a time of the form 2026-11-22T13:53:13+09:00"))
    }
}

impl<'de> Deserialize<'de> for ModelStamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelStamp, D::Error> {
        #[derive(Deserialize)]
        struct In {
            #[serde(default)]
            name: String,
            #[serde(default)]
            template_hash: String,
        }
        In::deserialize(deserializer).map(|m| ModelStamp { name: m.name, template_hash: m.template_hash })
    }
}

impl<'de> Deserialize<'de> for ReadMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReadMessage, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = ReadMessage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message: {\"role\": …, \"content\": …}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadMessage, A::Error> {
        let mut message = Message { ts: None, ..Message::new(Role::User, "") };
        let (mut id, mut role, mut content) = (None, false, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "role" if role => return Err(de::Error::duplicate_field("role")),
                "content" if content => return Err(de::Error::duplicate_field("content")),
                "role" => {
                    let name: String = map.next_value()?;
                    message.role = role_of(&name).ok_or_else(|| unknown_role(&name))?;
                    role = true;
                }
                "content" => {
                    message.content = content_text(map.next_value()?).map_err(de::Error::custom)?;
                    content = true;
                }
                "id" => match map.next_value::<Value>()? {
                    Value::Number(number) if number.is_u64() => id = number.as_u64(),
                    other => {
                        message.extra.insert("imported_id".into(), other);
                    }
                },
                "parent" => message.parent = map.next_value()?,
                "ts" => message.ts = map.next_value()?,
                "ts_end" => message.ts_end = map.next_value()?,
                "tokens" => message.tokens = map.next_value()?,
                "finish_reason" => message.finish_reason = map.next_value()?,
                "seed" => message.seed = map.next_value()?,
                "params" => message.params = map.next_value()?,
                "model" => message.model = map.next_value()?,
                "template_hash" => message.template_hash = map.next_value()?,
                "in_context" => message.in_context = map.next_value()?,
                _ => {
                    message.extra.insert(key, map.next_value()?);
                }
            }
        }
        if !role {
            return Err(de::Error::missing_field("role"));
        }
        if !content && message.extra.is_empty() {
            return Err(de::Error::missing_field("content"));
        }
        Ok(ReadMessage { id, message })
    }
}

/// The role of that spelling.
fn role_of(name: &str) -> Option<Role> {
    [Role::System, Role::User, Role::Assistant, Role::Tool].into_iter().find(|role| role.as_str() == name)
}

fn unknown_role<E: de::Error>(name: &str) -> E {
    let short: String = name.chars().take(40).collect();
    de::Error::custom(format!("unknown role {short:?}; roles are system, user, assistant and tool"))
}

/// The text of a `content` value: a string, nothing, or a list of text parts.
fn content_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        Value::Array(parts) => parts
            .into_iter()
            .map(|part| match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                (Some("text" | "input_text" | "output_text") | None, Some(text)) => Ok(text.to_owned()),
                (kind, _) => Err(format!("a content part of type {:?}; only text parts are read", kind.unwrap_or("?"))),
            })
            .collect(),
        _ => Err("\"content\" must be a string or a list of text parts".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_damage(text: &str, expected: &str) {
        let error = parse(text.as_bytes()).expect_err("damage");
        let start: String = text.chars().take(200).collect();
        assert!(error.to_string().contains(expected), "{start}\n  said: {error}\n  not:  {expected}");
    }

    #[test]
    fn damaged_files_say_where() {
        for (text, expected) in [
            ("", "line 1, column 0"),
            ("{", "line 1, column 1"),
            ("{\"messages\": [\n{\"role\": \"user\", \"content\": \"hi\"},\n{\"role\": \"us", "line 3"),
            ("7", "a conversation: an object"),
            ("{}", "missing field `messages`"),
            ("{\"messages\": {}}", "a list of messages"),
            ("[{\"role\": \"user\"}]", "missing field `content`"),
            ("[{\"content\": \"x\"}]", "missing field `role`"),
            ("[{\"role\": \"wizard\", \"content\": \"x\"}]", "line 1, column 18: unknown role \"wizard\""),
            ("[{\"role\": \"user\", \"content\": 5}]", "must be a string"),
            ("[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", "only text parts"),
            ("[{\"role\": \"user\", \"role\": \"user\", \"content\": \"\"}]", "duplicate field `role`"),
            ("{\"messages\": [], \"messages\": []}", "duplicate field"),
            ("[{\"role\": \"user\", \"content\": \"x\", \"ts\": \"noon\"}]", "not a time"),
            (
                "{\"format\": \"rustorch-chat\", \"version\": 1, \"head\": 9, \"messages\": [{\"id\": 1, \"role\": \"user\", \"content\": \"\"}]}",
                "head",
            ),
            (
                "{\"format\": \"rustorch-chat\", \"version\": 1, \"messages\": [{\"id\": 1, \"role\": \"user\", \"content\": \"\"}, {\"id\": 1, \"role\": \"user\", \"content\": \"\"}]}",
                "two messages have the id 1",
            ),
            (
                "{\"format\": \"rustorch-chat\", \"version\": 1, \"messages\": [{\"id\": 1, \"parent\": 1, \"role\": \"user\", \"content\": \"\"}]}",
                "does not come before",
            ),
            (
                "{\"format\": \"rustorch-chat\", \"version\": 2, \"messages\": 5}",
                "newer rustorch-cli (history version 2",
            ),
        ] {
            check_damage(text, expected);
        }
        assert_eq!(parse(b"[\"\xff\"]").unwrap_err(), Damage::NotText { at: 2 });
        check_damage(&format!("[{{\"role\": \"user\", \"x\": {}", "[".repeat(100_000)), "recursion limit");
    }

    #[test]
    fn a_plain_list_is_imported() {
        let text = r#"[{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}], "id": "msg_1"}, {"role": "assistant", "content": "c", "name": "bot"}]"#;
        let read = parse(text.as_bytes()).unwrap();
        assert!(read.imported);
        assert_eq!(read.conversation.system_text(), Some("be kind"));
        let path = read.conversation.path();
        assert_eq!(path.iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), ["ab", "c"]);
        assert_eq!(path[1].extra["name"], "bot");
        assert_eq!(path[0].extra["imported_id"], "msg_1");
    }

    #[test]
    fn an_archived_parent_makes_a_root() {
        let text = r#"{"format": "rustorch-chat", "version": 1, "head": 8, "messages": [
            {"id": 7, "parent": 6, "role": "user", "content": "q"}, {"id": 8, "parent": 7, "role": "assistant", "content": "a"}]}"#;
        let read = parse(text.as_bytes()).unwrap();
        assert_eq!(read.conversation.path().len(), 2);
        assert_eq!(read.conversation.path()[0].parent, Some(6));
    }

    #[test]
    fn a_hostile_id_does_not_name_a_file() {
        for (id, kept) in [("../../etc/x", false), ("", false), ("20261122-1-a", true)] {
            let text = format!("{{\"format\": \"rustorch-chat\", \"version\": 1, \"id\": {id:?}, \"messages\": []}}");
            assert_eq!(parse(text.as_bytes()).unwrap().conversation.id == id, kept, "{id}");
        }
    }

    #[test]
    fn every_cut_of_a_file_is_refused() {
        let mut conversation = Conversation::new();
        conversation.push(Message::new(Role::User, "héllo"));
        let bytes = render(&conversation, true).unwrap();
        for n in 0..bytes.len() - 2 {
            assert!(parse(&bytes[..n]).is_err(), "cut at {n}");
        }
        assert!(is_ours(&bytes));
        assert!(!is_ours(b"{\"messages\": []}"));
    }

    fn any_message() -> impl Strategy<Value = Message> {
        (any::<bool>(), any::<String>(), any::<Option<u64>>(), any::<bool>(), "[x-z]{1,3}", any::<String>()).prop_map(
            |(user, content, seed, in_context, key, value)| {
                let mut message = Message::new(if user { Role::User } else { Role::Assistant }, content);
                message.seed = seed;
                message.in_context = in_context;
                message.extra.insert(key, Value::String(value));
                message.params.insert("temperature".into(), Value::from(0.7));
                message
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_read_back(
            messages in proptest::collection::vec((any_message(), any::<proptest::sample::Index>()), 0..12),
            system in any::<Option<String>>(),
        ) {
            let mut conversation = Conversation::new();
            conversation.set_system(system);
            conversation.extra.insert("future".into(), serde_json::json!({"kept": [1, null]}));
            for (message, at) in messages {
                let n = conversation.messages().len();
                let head = (n > 0).then(|| conversation.messages()[at.index(n)].id);
                conversation.set_head(head);
                conversation.push(message);
            }
            let read = parse(&render(&conversation, true).unwrap()).unwrap();
            prop_assert!(!read.imported);
            prop_assert_eq!(read.conversation, conversation);
        }

        #[test]
        fn any_bytes_are_an_error_or_a_conversation(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
