//! One turn of a conversation, as templates and history files know it.

use serde::{Deserialize, Serialize};

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name templates know the role by.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role` saying `content`.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }

    /// The turn as templates take it: `{"role": …, "content": …}`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("role".into(), self.role.as_str().into());
        object.insert("content".into(), self.content.as_str().into());
        serde_json::Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_serde_agree() {
        for role in [Role::System, Role::User, Role::Assistant, Role::Tool] {
            let message = Message::new(role, "ü\n");
            assert_eq!(message.to_json(), serde_json::to_value(&message).unwrap());
            assert_eq!(serde_json::from_value::<Message>(message.to_json()).unwrap(), message);
        }
    }
}
