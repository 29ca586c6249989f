//! The session: the conversation in memory, its files, and the way back (`/undo`).
//!
//! What a turn, `/clear`, `/load`, `/undo` and `/regen` do to the conversation is here, free of terminal and engine, so
//! that it can be checked against a simple model in memory. A change is complete or has not happened.

pub(crate) mod autosave;
pub(crate) mod conversation;
pub(crate) mod history;
pub(crate) mod store;
mod words;

pub(crate) use autosave::Autosave;
pub(crate) use conversation::{Conversation, Message, MessageId, ModelStamp, Role, Stamp};

/// One step that `/undo` takes back.
#[derive(Debug)]
enum UndoStep {
    /// A turn: the head moves back.
    Head(Option<MessageId>),
    /// `/clear` or `/load`: the conversation before returns.
    Conversation(Box<Conversation>),
}

/// What `/undo` did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// The last turn left the path; this was its question.
    Turn(Option<String>),
    /// The answer before `/regen` or `/continue` is back.
    Answer,
    /// The conversation before `/clear` or `/load` is back.
    Conversation,
}

/// The conversation and the steps back.
#[derive(Debug)]
pub(crate) struct Session {
    conversation: Conversation,
    undo: Vec<UndoStep>,
}

impl Session {
    /// A session that begins with a conversation.
    pub(crate) fn new(conversation: Conversation) -> Session {
        Session { conversation, undo: Vec::new() }
    }

    /// The conversation.
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The conversation, for the system prompt, the archive marks and the context marks.
    pub(crate) fn conversation_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }

    /// Appends a finished turn: question and answer. Both are there afterwards.
    pub(crate) fn push_turn(&mut self, question: Message, answer: Message) {
        self.undo.push(UndoStep::Head(self.conversation.head()));
        self.conversation.push(question);
        self.conversation.push(answer);
    }

    /// Appends another answer below `question`, beside the one that is there.
    pub(crate) fn push_answer(&mut self, question: MessageId, answer: Message) {
        self.undo.push(UndoStep::Head(self.conversation.head()));
        self.conversation.set_head(Some(question));
        self.conversation.push(answer);
    }

    /// Replaces the answer at the head by a longer version of itself (`/continue`); the shorter one stays in the tree.
    pub(crate) fn extend_answer(&mut self, longer: Message) {
        self.undo.push(UndoStep::Head(self.conversation.head()));
        let parent = self.conversation.head().and_then(|id| self.conversation.get(id)).and_then(|m| m.parent);
        self.conversation.set_head(parent);
        self.conversation.push(longer);
    }

    /// Begins an empty conversation with the same system prompt and model; the old one can be brought back.
    pub(crate) fn clear(&mut self) {
        let mut fresh = Conversation::new();
        fresh.system.clone_from(&self.conversation.system);
        fresh.model.clone_from(&self.conversation.model);
        self.replace(fresh);
    }

    /// Goes on with another conversation; the old one can be brought back.
    pub(crate) fn replace(&mut self, conversation: Conversation) {
        let old = std::mem::replace(&mut self.conversation, conversation);
        self.undo.push(UndoStep::Conversation(Box::new(old)));
    }

    /// Takes back the last step; without one, the last turn of a loaded conversation. `None`: nothing to take back.
    pub(crate) fn undo(&mut self) -> Option<Undone> {
        let asked = self.conversation.path().iter().rev().find(|m| m.role == Role::User).map(|m| m.content.clone());
        match self.undo.pop() {
            Some(UndoStep::Head(head)) => {
                let turns = self.conversation.n_turns();
                self.conversation.set_head(head);
                let same = self.conversation.n_turns() == turns;
                Some(if same { Undone::Answer } else { Undone::Turn(asked) })
            }
            Some(UndoStep::Conversation(old)) => {
                self.conversation = *old;
                Some(Undone::Conversation)
            }
            None => {
                let head = self.conversation.before_last_turn()?;
                self.conversation.set_head(head);
                Some(Undone::Turn(asked))
            }
        }
    }

    /// The question the head answers (or the question at the head), for `/regen`.
    pub(crate) fn last_question(&self) -> Option<&Message> {
        self.conversation.path().into_iter().rev().find(|m| m.role == Role::User)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a person can do to a session.
    #[derive(Clone, Debug)]
    enum Act {
        Turn(String),
        Regen,
        Clear,
        System(Option<String>),
        Undo,
        Save(usize),
        Load(usize),
        Reload,
    }

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => any::<String>().prop_map(Act::Turn),
            1 => Just(Act::Regen),
            1 => Just(Act::Clear),
            1 => any::<Option<String>>().prop_map(Act::System),
            2 => Just(Act::Undo),
            1 => (0..3_usize).prop_map(Act::Save),
            1 => (0..3_usize).prop_map(Act::Load),
            1 => Just(Act::Reload),
        ]
    }

    /// The simple model: what the visible conversation is, and the states before.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Visible {
        system: Option<String>,
        texts: Vec<String>,
    }

    fn visible(session: &Session) -> Visible {
        Visible {
            system: session.conversation().system_text().map(str::to_owned),
            texts: session.conversation().path().iter().map(|m| m.content.clone()).collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn any_sequence_equals_a_simple_model(acts in proptest::collection::vec(any_act(), 0..24)) {
            let dir = tempfile::tempdir().unwrap();
            let file = |n: usize| dir.path().join(format!("{n}.json"));
            let mut session = Session::new(Conversation::new());
            let mut now = Visible::default();
            // Before each step: the texts, and the system prompt where the step replaced the whole conversation.
            let mut before: Vec<(Vec<String>, Option<Option<String>>)> = Vec::new();
            let mut files: [Option<Visible>; 3] = Default::default();
            for act in acts {
                match act {
                    Act::Turn(text) => {
                        before.push((now.texts.clone(), None));
                        let answer = format!("answer to {text}");
                        session.push_turn(Message::new(Role::User, text.clone()), Message::new(Role::Assistant, answer.clone()));
                        now.texts.extend([text, answer]);
                    }
                    Act::Regen => {
                        if let Some(id) = session.last_question().map(|m| m.id) {
                            before.push((now.texts.clone(), None));
                            session.push_answer(id, Message::new(Role::Assistant, "again"));
                            *now.texts.last_mut().unwrap() = "again".into();
                        }
                    }
                    Act::Clear => {
                        before.push((std::mem::take(&mut now.texts), Some(now.system.clone())));
                        session.clear();
                    }
                    Act::System(text) => {
                        now.system.clone_from(&text);
                        session.conversation_mut().set_system(text);
                    }
                    Act::Undo => {
                        session.undo();
                        if let Some((texts, system)) = before.pop() {
                            now.texts = texts;
                            if let Some(system) = system { now.system = system; }
                        } else {
                            let n = now.texts.len();
                            now.texts.truncate(n.saturating_sub(2));
                        }
                    }
                    Act::Save(n) => {
                        store::may_replace(&file(n), store::Replace::Ours, &[]).unwrap();
                        store::save(&file(n), session.conversation(), true).unwrap();
                        files[n] = Some(now.clone());
                    }
                    Act::Load(n) => match &files[n] {
                        Some(saved) => {
                            before.push((now.texts.clone(), Some(now.system.clone())));
                            session.replace(store::read(&file(n)).unwrap().conversation);
                            now = saved.clone();
                        }
                        None => prop_assert!(store::read(&file(n)).is_err()),
                    },
                    Act::Reload => {
                        // As after a crash: the state comes back from the file, the steps back are gone.
                        let path = dir.path().join("latest.json");
                        store::save(&path, session.conversation(), false).unwrap();
                        session = Session::new(store::read(&path).unwrap().conversation);
                        before.clear();
                    }
                }
                prop_assert_eq!(visible(&session), now.clone());
            }
        }
    }

    #[test]
    fn clear_can_be_taken_back() {
        let mut session = Session::new(Conversation::new());
        session.conversation_mut().set_system(Some("s".into()));
        session.push_turn(Message::new(Role::User, "q"), Message::new(Role::Assistant, "a"));
        session.clear();
        assert!(session.conversation().is_empty());
        assert_eq!(session.conversation().system_text(), Some("s"));
        assert_eq!(session.undo(), Some(Undone::Conversation));
        assert_eq!(session.conversation().n_turns(), 1);
        assert_eq!(session.undo(), Some(Undone::Turn(Some("q".into()))));
        assert_eq!(session.undo(), None);
    }

    #[test]
    fn a_longer_answer_replaces_the_shorter_on_the_path() {
        let mut session = Session::new(Conversation::new());
        session.push_turn(Message::new(Role::User, "q"), Message::new(Role::Assistant, "a"));
        session.extend_answer(Message::new(Role::Assistant, "a b"));
        let path: Vec<&str> = session.conversation().path().iter().map(|m| m.content.as_str()).collect();
        assert_eq!(path, ["q", "a b"]);
        assert_eq!(session.conversation().messages().len(), 3);
        assert_eq!(session.undo(), Some(Undone::Answer));
        assert_eq!(session.conversation().path()[1].content, "a");
    }
}
