//! Saving after every turn: `history.file` (the last session), the session's own file beside it, and `--save-history`.
//!
//! `latest.json` belongs to one running program at a time (a lock file beside it); a second one saves to its own session
//! file only and says so. What is found damaged is moved aside, never overwritten. A file that cannot be written is a
//! warning after the turn; the conversation goes on in memory and the next turn tries again.

use super::{
    conversation::Conversation,
    store::{self, Replace},
    words,
};
use crate::{exit::Failure, paths, safe_write};
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

/// Where the conversation is kept while it is held.
#[derive(Debug, Default)]
pub(crate) struct Autosave {
    /// The folder of the sessions' own files; none when `history.auto_save` is off.
    dir: Option<PathBuf>,
    /// `history.file`, when this program holds its lock.
    latest: Option<PathBuf>,
    /// `--save-history`.
    also: Option<PathBuf>,
    /// Messages kept in a session file; 0 for no limit.
    max_entries: usize,
    /// Held as long as `latest` is ours.
    _lock: Option<File>,
}

impl Autosave {
    /// Prepares automatic saving to `latest` (`None`: off) and to `also`. Sentences worth telling come back with it.
    pub(crate) fn start(
        latest: Option<&Path>,
        also: Option<PathBuf>,
        max_entries: usize,
        conversation: &Conversation,
    ) -> (Autosave, Vec<String>) {
        let mut notes = Vec::new();
        let mut autosave = Autosave { also, max_entries, ..Autosave::default() };
        let Some(latest) = latest else { return (autosave, notes) };
        let dir = latest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(error) = safe_write::create_dirs(dir) {
            notes.push(format!("{}: {error}", words::cannot_save(paths::display(dir))));
            return (autosave, notes);
        }
        autosave.dir = Some(dir.to_path_buf());
        match lock(latest) {
            Ok(Some(file)) => {
                autosave._lock = Some(file);
                match take_over(latest, dir) {
                    Ok(note) => {
                        notes.extend(note);
                        autosave.latest = Some(latest.to_path_buf());
                    }
                    Err(failure) => notes.push(sentence(&failure)),
                }
            }
            Ok(None) => {
                let own = autosave.own_file(conversation).unwrap_or_default();
                notes.push(words::latest_locked(paths::display(latest), paths::display(&own)));
            }
            Err(error) => notes.push(format!("{}: {error}", words::cannot_save(paths::display(latest)))),
        }
        (autosave, notes)
    }

    /// The session's own file.
    pub(crate) fn own_file(&self, conversation: &Conversation) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{}.json", conversation.id)))
    }

    /// Whether anything is written at all.
    pub(crate) fn is_on(&self) -> bool {
        self.dir.is_some() || self.also.is_some()
    }

    /// Writes the present state everywhere it belongs. An error in one place does not keep the others from being written.
    pub(crate) fn write(&self, conversation: &mut Conversation) -> Saved {
        let mut saved = Saved { notes: Vec::new(), complete: true };
        if let Some(own) = self.own_file(conversation) {
            match self.archive_oldest(conversation, &own) {
                Ok(note) => saved.notes.extend(note),
                Err(failure) => saved.failed(&failure),
            }
            for path in std::iter::once(&own).chain(&self.latest) {
                if let Err(failure) = store::save(path, conversation, false) {
                    saved.failed(&failure);
                }
            }
        }
        if let Some(also) = &self.also
            && let Err(failure) = store::save(also, conversation, true)
        {
            saved.failed(&failure);
        }
        saved
    }

    /// Moves the oldest messages beyond the limit to `ID.archive.jsonl`: written and synced there before they leave the
    /// session file. They stay in memory and in the context.
    fn archive_oldest(&self, conversation: &mut Conversation, own: &Path) -> Result<Option<String>, Failure> {
        let kept = conversation.messages().iter().filter(|m| !m.archived).count();
        let excess = if self.max_entries == 0 { 0 } else { kept.saturating_sub(self.max_entries) };
        if excess == 0 {
            return Ok(None);
        }
        let archive = own.with_extension("archive.jsonl");
        store::append_archive(&archive, conversation.messages().iter().filter(|m| !m.archived).take(excess))?;
        for message in conversation.messages_mut().iter_mut().filter(|m| !m.archived).take(excess) {
            message.archived = true;
        }
        Ok(Some(words::archived(excess, paths::display(&archive))))
    }
}

/// What a save has to say.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Sentences worth telling.
    pub(crate) notes: Vec<String>,
    /// Everything was written everywhere.
    pub(crate) complete: bool,
}

impl Saved {
    fn failed(&mut self, failure: &Failure) {
        self.complete = false;
        self.notes.push(sentence(failure));
    }
}

/// A failure in one line.
fn sentence(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.error),
        None => failure.error.clone(),
    }
}

/// Takes the lock of `latest`; `None` when another program has it.
fn lock(latest: &Path) -> std::io::Result<Option<File>> {
    let mut name = latest.as_os_str().to_owned();
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes sure that what `latest` holds survives being replaced: a session that has no file of its own gets one, and what
/// is not a conversation is moved aside.
fn take_over(latest: &Path, dir: &Path) -> Result<Option<String>, Failure> {
    if latest.symlink_metadata().is_err() {
        return Ok(None);
    }
    if !latest.is_file() {
        store::may_replace(latest, Replace::Ours, &[])?;
        return Ok(None);
    }
    let held = store::read(latest).and_then(|read| store::may_replace(latest, Replace::Ours, &[]).map(|()| read));
    match held {
        Ok(read) => {
            let own = dir.join(format!("{}.json", read.conversation.id));
            if !own.exists() && !read.conversation.messages().is_empty() {
                store::save(&own, &read.conversation, false)?;
            }
            Ok(None)
        }
        Err(failure) => {
            let aside = store::set_aside(latest).map_err(|error| {
                Failure::new(failure.exit, words::cannot_save(paths::display(latest))).because(error)
            })?;
            let why = failure.cause.unwrap_or_default();
            Ok(Some(words::set_aside(paths::display(latest), paths::display(&aside), why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::conversation::{Message, Role};

    fn talk(n: usize) -> Conversation {
        let mut conversation = Conversation::new();
        for number in 0..n {
            conversation.push(Message::new(Role::User, format!("m{number}")));
        }
        conversation
    }

    #[test]
    fn the_second_program_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("history/latest.json");
        let mut one = talk(1);
        let mut two = talk(2);
        let (first, notes) = Autosave::start(Some(&latest), None, 1000, &one);
        assert_eq!(notes, Vec::<String>::new());
        let (second, notes) = Autosave::start(Some(&latest), None, 1000, &two);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(first.write(&mut one).complete);
        assert!(second.write(&mut two).complete);
        assert_eq!(store::read(&latest).unwrap().conversation.id, one.id);
        assert_eq!(store::read(&second.own_file(&two).unwrap()).unwrap().conversation, two);
        drop(first);
        let (_third, notes) = Autosave::start(Some(&latest), None, 1000, &one);
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn oldest_messages_go_to_the_archive_and_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("latest.json");
        let mut conversation = talk(7);
        let (autosave, _) = Autosave::start(Some(&latest), None, 3, &conversation);
        assert_eq!(autosave.write(&mut conversation).notes.len(), 1);
        assert_eq!(autosave.write(&mut conversation).notes.len(), 0);
        conversation.push(Message::new(Role::User, "m7"));
        autosave.write(&mut conversation);
        assert_eq!(conversation.path().len(), 8);
        let read = store::read(&latest).unwrap().conversation;
        assert_eq!(read.path().iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), ["m5", "m6", "m7"]);
        let archive = autosave.own_file(&conversation).unwrap().with_extension("archive.jsonl");
        assert_eq!(std::fs::read_to_string(archive).unwrap().lines().count(), 5);
    }

    #[test]
    fn a_damaged_latest_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("latest.json");
        std::fs::write(&latest, "{\"format\": \"rustorch-chat\", \"mess").unwrap();
        let mut conversation = talk(1);
        let (autosave, notes) = Autosave::start(Some(&latest), None, 0, &conversation);
        assert!(notes[0].contains("damaged-1"), "{notes:?}");
        assert!(autosave.write(&mut conversation).notes.is_empty());
        assert!(dir.path().join("latest.json.damaged-1").exists());
        assert_eq!(store::read(&latest).unwrap().conversation, conversation);
    }

    #[test]
    fn the_session_in_latest_survives_without_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("latest.json");
        let old = talk(2);
        store::save(&latest, &old, true).unwrap();
        let mut new = talk(1);
        let (autosave, _) = Autosave::start(Some(&latest), None, 0, &new);
        autosave.write(&mut new);
        assert_eq!(store::read(&dir.path().join(format!("{}.json", old.id))).unwrap().conversation, old);
    }

    #[test]
    fn nothing_is_written_when_off() {
        let mut conversation = talk(1);
        let (autosave, notes) = Autosave::start(None, None, 0, &conversation);
        assert!(notes.is_empty() && !autosave.is_on());
        assert!(autosave.write(&mut conversation).notes.is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_told_and_the_rest_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("latest.json");
        let mut conversation = talk(1);
        let also = dir.path().join("blocked");
        let (autosave, _) = Autosave::start(Some(&latest), Some(also.clone()), 0, &conversation);
        // A folder has taken the name since.
        std::fs::create_dir(&also).unwrap();
        let saved = autosave.write(&mut conversation);
        assert!(!saved.complete && saved.notes.len() == 1, "{saved:?}");
        assert_eq!(store::read(&latest).unwrap().conversation, conversation);
    }
}
