//! Conversation files: reading with limits, saving so that nothing is lost.
//!
//! A save writes the whole new state beside the old one, syncs it, keeps the old one as `NAME.bak`, and renames
//! (`safe_write`): a crash leaves the old file or the new. A file that is not ours is replaced only with `force`, a model
//! file never. What the bytes mean is the business of `history`.

use super::{
    conversation::{Conversation, Message},
    history::{self, MAX_FILE_BYTES, Read},
    words,
};
use crate::{
    exit::{Exit, Failure, Result},
    paths, safe_write,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Which existing file a save may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// A conversation of ours, or an empty file.
    Ours,
    /// Any regular file that is not a model.
    Any,
}

/// Opens a regular file for reading; never waits for the other end of a pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other(words::is_directory()));
    }
    if !kind.is_file() {
        return Err(io::Error::other(words::not_regular()));
    }
    Ok(file)
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(words::too_large(MAX_FILE_BYTES)));
    }
    Ok(bytes)
}

/// Reads a conversation file.
///
/// # Errors
/// Names the file and the place in it.
pub(crate) fn read(path: &Path) -> Result<Read> {
    let cannot = || Failure::new(Exit::History, words::cannot_read(paths::display(path)));
    if path.extension().is_some_and(|e| e == "age") {
        return Err(cannot().because(words::no_encryption()));
    }
    let bytes = read_bytes(path).map_err(|error| cannot().because(error))?;
    history::parse(&bytes).map_err(|damage| cannot().because(damage).hint(words::damaged_hint()))
}

/// Reads any text file within the limit (`/system @file`).
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|error| io::Error::other(history::Damage::NotText { at: error.utf8_error().valid_up_to() }))
}

/// Whether two paths are one existing file.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Refuses what must not be replaced.
///
/// # Errors
/// Says why, with the way out.
pub(crate) fn may_replace(path: &Path, replace: Replace, model_files: &[PathBuf]) -> Result<()> {
    let cannot = || Failure::new(Exit::History, words::cannot_save(paths::display(path)));
    if path.extension().is_some_and(|e| e == "age") {
        return Err(cannot().because(words::no_encryption()));
    }
    if model_files.iter().any(|file| same_file(file, path)) {
        return Err(cannot().because(words::is_model()));
    }
    let mut head = Vec::new();
    match open_regular(path).and_then(|file| file.take(256).read_to_end(&mut head)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot().because(error)),
        Ok(_) if head.starts_with(b"GGUF") => Err(cannot().because(words::is_model())),
        Ok(0) => Ok(()),
        Ok(_) if replace == Replace::Any || history::is_ours(&head) => Ok(()),
        Ok(_) => Err(cannot().because(words::foreign()).hint(words::foreign_hint())),
    }
}

/// The name with `.bak` behind.
fn backup_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

/// Keeps the present file under its `.bak` name. The present name keeps existing all the while.
fn keep_backup(path: &Path) -> io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if !target.is_file() {
        return Ok(());
    }
    let backup = backup_path(&target);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".rustorch-").suffix(".tmp").tempdir_in(dir)?;
    let link = temporary.path().join("bak");
    // A second name costs nothing; where the file system knows none, a copy does it.
    if std::fs::hard_link(&target, &link).is_err() {
        std::fs::copy(&target, &link)?;
    }
    std::fs::rename(&link, &backup)
}

/// Saves a conversation; returns the bytes written. The caller asked [`may_replace`] before.
///
/// # Errors
/// The old file stays as it was.
pub(crate) fn save(path: &Path, conversation: &Conversation, whole: bool) -> Result<u64> {
    let cannot = || Failure::new(Exit::History, words::cannot_save(paths::display(path)));
    let bytes = history::render(conversation, whole).map_err(|error| cannot().because(error))?;
    keep_backup(path)
        .and_then(|()| safe_write::replace(path, |file| file.write_all(&bytes)))
        .map_err(|error: io::Error| cannot().because(error))?;
    Ok(bytes.len() as u64)
}

/// Appends messages to an archive file, one JSON object per line, and syncs it.
///
/// # Errors
/// Then the messages must stay where they are.
pub(crate) fn append_archive<'a>(path: &Path, messages: impl Iterator<Item = &'a Message>) -> Result<()> {
    let cannot =
        |error: io::Error| Failure::new(Exit::History, words::cannot_save(paths::display(path))).because(error);
    let mut lines = Vec::new();
    for message in messages {
        serde_json::to_writer(&mut lines, message).map_err(|error| cannot(error.into()))?;
        lines.push(b'\n');
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(cannot)?;
    file.write_all(&lines).and_then(|()| file.sync_all()).map_err(cannot)
}

/// Moves a file that cannot be read as a conversation out of the way, under a name that is free.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..10_000 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = PathBuf::from(name);
        if aside.symlink_metadata().is_err() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other("no free name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::conversation::Role;

    fn talk(text: &str) -> Conversation {
        let mut conversation = Conversation::new();
        conversation.push(Message::new(Role::User, text));
        conversation
    }

    #[test]
    fn saving_keeps_the_state_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new dir/チャット.json");
        for text in ["one", "two", "three"] {
            may_replace(&path, Replace::Ours, &[]).unwrap();
            save(&path, &talk(text), true).unwrap();
        }
        assert_eq!(read(&path).unwrap().conversation.path()[0].content, "three");
        assert_eq!(read(&backup_path(&path)).unwrap().conversation.path()[0].content, "two");
        let names: Vec<_> =
            std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, content: &[u8], replace, expected: bool| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            assert_eq!(may_replace(&path, replace, &[dir.path().join("model.bin")]).is_ok(), expected, "{name}");
        };
        check("notes.txt", b"dear diary", Replace::Ours, false);
        check("notes.txt", b"dear diary", Replace::Any, true);
        check("empty.json", b"", Replace::Ours, true);
        check("openai.json", b"[{\"role\": \"user\"}]", Replace::Ours, false);
        check("m.gguf", b"GGUF\x03\0\0\0", Replace::Any, false);
        check("model.bin", b"weights", Replace::Any, false);
        check("x.age", b"", Replace::Any, false);
        assert!(may_replace(dir.path(), Replace::Any, &[]).is_err(), "a directory");
        assert!(may_replace(&dir.path().join("absent.json"), Replace::Ours, &[]).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: no mkfifo");
            return;
        }
        assert!(read(&path).is_err());
        assert!(may_replace(&path, Replace::Any, &[]).is_err());
    }

    #[test]
    fn damage_is_reported_and_the_file_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latest.json");
        std::fs::write(&path, b"{\"format\": \"rustorch-chat\", \"ver").unwrap();
        let failure = read(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::History);
        assert!(failure.cause.unwrap().contains("line 1, column"));
        let aside = set_aside(&path).unwrap();
        assert!(aside.to_string_lossy().ends_with("latest.json.damaged-1"));
        assert!(!path.exists());
    }
}
