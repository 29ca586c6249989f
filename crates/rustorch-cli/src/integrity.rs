//! Models as they were when first used (requirement row R85): `models.lock` in the data folder remembers size, time, checksums
//! and a digest of each tensor, and a model that is not what it was is refused, naming what changed.
//!
//! Trust on first use: nothing is known of a model before. Loading compares sizes and times, which costs nothing; digests are
//! compared when those differ, and by `verify`. A large model's digests are made by `verify` alone: reading all of it takes
//! longer than loading it. What does not belong here: whether a file is well-formed (`checkpoint`).

use crate::{
    exit::{Exit, Failure, Result},
    loading, output, paths, safe_write,
    settings::Settings,
    terminal_filter::visible_line,
};
use checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

crate::messages::messages! {
    /// Not what it was.
    model_changed(path) { "the model {path} is not what it was when it was first used", "モデル {path} は初回使用時から変わっています" }
    /// What to do about it.
    model_changed_hint(path) {
        "if you replaced it yourself: `rustorch-cli verify --accept {path}`",
        "自分で置き換えた場合は `rustorch-cli verify --accept {path}`"
    }
    /// Tensors that differ.
    tensors_changed(names) { "changed tensors: {names}", "変わったテンソル: {names}" }
    /// And so on.
    and_more(names, n) { "{names} and {n} more", "{names} ほか {n} 個" }
    /// The template differs.
    template_changed() { "the chat template changed", "チャットテンプレートが変わりました" }
    /// Names, types or shapes differ.
    directory_changed() { "names, types or shapes of tensors changed", "テンソルの名前・型・形が変わりました" }
    /// The files differ.
    files_changed(was, now) { "the files had {was} in all and have {now}", "ファイルの合計が {was} から {now} に変わりました" }
    /// Metadata outside of tensors.
    bytes_changed(path) { "the checksum of {path} changed, outside of its tensors", "{path} のチェックサムが変わりました(テンソル以外の部分)" }
    /// The lock file is of no use.
    lock_unusable(path, why) { "cannot use {path}: {why}; models are not compared", "{path} を使えません: {why}。モデルの照合をしません" }
    /// The lock file could not be written.
    lock_unwritable(path, why) { "cannot write {path}: {why}", "{path} に書き込めません: {why}" }
    /// Only the time differs, and there is nothing to compare.
    model_touched(path) {
        "{path} was written to since its first use, and no checksums are known; `rustorch-cli verify {path}` makes them",
        "{path} は初回使用後に書き込まれましたが、チェックサムの記録がありません。`rustorch-cli verify {path}` で記録できます"
    }
}

/// The version of the file's form.
const VERSION: u32 = 1;
/// A larger lock file is none.
const MAX_LOCK_BYTES: u64 = 256 << 20;
/// A model up to this size gets its digests when it is first used.
const DIGEST_AT_ONCE: u64 = 256 << 20;
/// Changed tensors named in a message.
const NAMED: usize = 5;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lock {
    version: u32,
    models: Vec<Entry>,
}

/// A model as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its path, all links followed.
    path: String,
    /// Its format; unknown in files of earlier versions.
    #[serde(default)]
    format: Option<String>,
    /// Formats that its folder held besides.
    #[serde(default)]
    beside: Vec<String>,
    /// Its files.
    files: Vec<Stamp>,
    /// Digest of names, types and shapes of all tensors.
    directory: String,
    /// Digest of the chat template.
    #[serde(default)]
    template: Option<String>,
    /// Digests of all tensors, where they were made.
    #[serde(default)]
    tensors: BTreeMap<String, String>,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: String,
    bytes: u64,
    /// Seconds and nanoseconds since 1970, where the system tells.
    #[serde(default)]
    modified: Option<(u64, u32)>,
    #[serde(default)]
    sha256: Option<String>,
}

/// Where models are remembered.
pub(crate) fn lock_file() -> Option<PathBuf> {
    paths::data_dir().map(|dir| dir.join("models.lock"))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file. `go_on` hears the bytes read and may stop it: then `None`.
pub(crate) fn file_digest(path: &Path, go_on: &mut dyn FnMut(u64) -> bool) -> std::io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(Some(hex(&hasher.finalize())));
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
        if !go_on(n as u64) {
            return Ok(None);
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Entry {
    /// The model without digests of its contents.
    fn new(checkpoint: &Checkpoint) -> Entry {
        let canonical = |path: &Path| shown(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()));
        let stamp = |path: &PathBuf| {
            let facts = std::fs::metadata(path).ok();
            let modified = facts.as_ref().and_then(|facts| facts.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            Stamp {
                path: canonical(path),
                bytes: facts.map_or(0, |facts| facts.len()),
                modified: modified.map(|since| (since.as_secs(), since.subsec_nanos())),
                sha256: None,
            }
        };
        let mut directory = Sha256::new();
        for tensor in checkpoint.tensors() {
            directory.update(format!("{:?} {} {}\n", tensor.name, tensor.dtype, tensor.shape));
        }
        let template = text::ChatTemplate::source_in(checkpoint).ok().flatten();
        Entry {
            path: canonical(checkpoint.path()),
            format: Some(checkpoint.format().to_owned()),
            beside: checkpoint.other_formats().iter().map(|format| (*format).to_owned()).collect(),
            files: checkpoint.files().iter().map(stamp).collect(),
            directory: hex(&directory.finalize()),
            template: template.map(|source| digest(source.as_bytes())),
            tensors: BTreeMap::new(),
        }
    }

    /// Adds the digests. `go_on` hears the bytes read and may stop it: then `None`.
    pub(crate) fn complete(checkpoint: &Checkpoint, go_on: &mut dyn FnMut(u64) -> bool) -> Result<Option<Entry>> {
        let mut entry = Entry::new(checkpoint);
        let failed = |error: &checkpoint::Error| loading::checkpoint_failure(checkpoint.path(), error);
        for tensor in checkpoint.tensors() {
            let loaded = checkpoint.load(&tensor.name).map_err(|error| failed(&error))?;
            entry.tensors.insert(tensor.name.clone(), digest(loaded.bytes()));
            let n = loaded.bytes().len() as u64;
            checkpoint.release(&loaded);
            if !go_on(n) {
                return Ok(None);
            }
        }
        for (stamp, path) in entry.files.iter_mut().zip(checkpoint.files()) {
            let sum = file_digest(path, go_on).map_err(|error| {
                Failure::new(Exit::Model, loading::model_failed(paths::display(path))).because(error)
            })?;
            let Some(sum) = sum else { return Ok(None) };
            stamp.sha256 = Some(sum);
        }
        Ok(Some(entry))
    }

    /// The files with their checksums, where they were made.
    pub(crate) fn sums(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|file| Some((file.path.as_str(), file.sha256.as_deref()?)))
    }

    fn total_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    fn has_format_of(&self, other: &Entry) -> bool {
        self.format.is_none() || self.format == other.format
    }

    fn has_digests(&self) -> bool {
        !self.tensors.is_empty()
    }

    /// Whether sizes and times are those of `other`.
    fn has_stamps_of(&self, other: &Entry) -> bool {
        let stamp = |file: &Stamp| (file.path.clone(), file.bytes, file.modified);
        self.files.iter().map(stamp).eq(other.files.iter().map(stamp))
    }

    /// What of this model is not in `now`, in words; only what both know is compared.
    pub(crate) fn differences(&self, now: &Entry) -> Vec<String> {
        let mut found = Vec::new();
        if self.template != now.template {
            found.push(template_changed());
        }
        if self.directory != now.directory {
            found.push(directory_changed());
        }
        let differs = |(name, digest): &(&String, &String)| now.tensors.get(*name).is_some_and(|d| d != *digest);
        let changed: Vec<String> = self.tensors.iter().filter(differs).map(|(name, _)| visible_line(name)).collect();
        if !changed.is_empty() {
            let names = changed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = changed.len().saturating_sub(NAMED);
            found.push(tensors_changed(if more > 0 { and_more(names, more) } else { names }));
        }
        let (was, is) = (self.total_bytes(), now.total_bytes());
        if was != is {
            found.push(files_changed(loading::size(was), loading::size(is)));
        }
        if found.is_empty() {
            let sums = self.files.iter().zip(&now.files);
            let differs = sums.filter(|(a, b)| a.sha256.is_some() && b.sha256.is_some() && a.sha256 != b.sha256);
            found.extend(differs.map(|(file, _)| bytes_changed(visible_line(&file.path))));
        }
        found
    }
}

/// The remembered models, and where they are kept.
pub(crate) struct Remembered {
    file: PathBuf,
    lock: Lock,
}

impl Remembered {
    /// Reads them; none when there is no place for them, or when the file is of no use, which is said.
    pub(crate) fn read() -> Option<Remembered> {
        let file = lock_file()?;
        let text = match safe_write::read_text(&file, MAX_LOCK_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Some(Remembered { file, lock: Lock { version: VERSION, models: Vec::new() } });
            }
            Err(error) => {
                output::warning(&lock_unusable(paths::display(&file), error));
                return None;
            }
        };
        match serde_json::from_str::<Lock>(&text) {
            Ok(lock) if lock.version == VERSION => Some(Remembered { file, lock }),
            Ok(lock) => {
                output::warning(&lock_unusable(paths::display(&file), format!("version {}", lock.version)));
                None
            }
            Err(error) => {
                output::warning(&lock_unusable(paths::display(&file), error));
                None
            }
        }
    }

    /// The entry of the model that `now` is. A format that a folder did not hold when it was first used is a change of
    /// what was used then; one that it held is another model.
    pub(crate) fn find(&self, now: &Entry) -> Option<&Entry> {
        let mut in_place = self.lock.models.iter().filter(|entry| entry.path == now.path);
        let of_format = in_place.clone().find(|entry| entry.has_format_of(now));
        of_format
            .or_else(|| in_place.find(|entry| now.format.as_ref().is_some_and(|format| !entry.beside.contains(format))))
    }

    /// Remembers `entry` in place of what was known of this model. A file that cannot be written is said and no error.
    pub(crate) fn keep(&mut self, entry: Entry) {
        self.lock.models.retain(|known| known.path != entry.path || !known.has_format_of(&entry));
        self.lock.models.push(entry);
        self.write();
    }

    fn write(&self) {
        let text = match serde_json::to_string_pretty(&self.lock) {
            Ok(text) => text,
            Err(error) => return output::warning(&lock_unwritable(paths::display(&self.file), error)),
        };
        let written = safe_write::replace(&self.file, |writer| std::io::Write::write_all(writer, text.as_bytes()));
        if let Err(error) = written.map_err(|error: std::io::Error| error) {
            output::warning(&lock_unwritable(paths::display(&self.file), error));
        }
    }
}

/// Forgets the model at `path`, which this program has just made anew.
pub(crate) fn forget(path: &Path, settings: &Settings) {
    if settings.history.ephemeral || !lock_file().is_some_and(|file| file.exists()) {
        return;
    }
    let Some(mut remembered) = Remembered::read() else { return };
    let canonical = shown(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()));
    if remembered.lock.models.iter().any(|entry| entry.path == canonical) {
        remembered.lock.models.retain(|entry| entry.path != canonical);
        remembered.write();
    }
}

/// Refuses a model that is not what it was; remembers one that is new.
///
/// # Errors
/// It changed; Ctrl-C while it was compared.
pub(crate) fn check(checkpoint: &Checkpoint, settings: &Settings, interrupted: &dyn Fn() -> bool) -> Result<()> {
    // What is part of the program cannot change behind its back.
    if !settings.model.lock || checkpoint.files().is_empty() {
        return Ok(());
    }
    let Some(mut remembered) = Remembered::read() else { return Ok(()) };
    let writes = !settings.history.ephemeral;
    let now = Entry::new(checkpoint);
    let complete = || Entry::complete(checkpoint, &mut |_| !interrupted());
    let stopped = || Failure::silent(Exit::Interrupted);
    let Some(known) = remembered.find(&now).cloned() else {
        if writes {
            let small = now.total_bytes() <= DIGEST_AT_ONCE;
            let entry = if small { complete()?.ok_or_else(stopped)? } else { now };
            remembered.keep(entry);
        }
        return Ok(());
    };
    if known.has_stamps_of(&now) && known.template == now.template {
        return Ok(());
    }
    let now = if known.has_digests() { complete()?.ok_or_else(stopped)? } else { now };
    let found = known.differences(&now);
    if !found.is_empty() {
        return Err(changed(checkpoint, &found));
    }
    if !known.has_digests() {
        output::warning(&model_touched(paths::display(checkpoint.path())));
    }
    if writes {
        remembered.keep(now);
    }
    Ok(())
}

/// The failure that names what changed.
pub(crate) fn changed(checkpoint: &Checkpoint, found: &[String]) -> Failure {
    let shown = paths::display(checkpoint.path());
    // A folder with several formats is the same model only in the same format.
    let named = match checkpoint.other_formats() {
        [] => shown.clone(),
        _ => format!("{shown} --model-format {}", checkpoint.format()),
    };
    Failure::new(Exit::Model, model_changed(&shown)).because(found.join("; ")).hint(model_changed_hint(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: u64, tensors: &[(&str, &str)]) -> Entry {
        Entry {
            path: "/m".into(),
            format: Some("gguf".into()),
            beside: Vec::new(),
            files: vec![Stamp { path: "/m".into(), bytes, modified: Some((1, 2)), sha256: Some("aa".into()) }],
            directory: "d".into(),
            template: Some("t".into()),
            tensors: tensors.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect(),
        }
    }

    #[test]
    fn what_changed_is_named() {
        let known = entry(10, &[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(known.differences(&known), Vec::<String>::new());
        let check = |now: Entry, expected: &[&str]| {
            let found = known.differences(&now).join("; ");
            for word in expected {
                assert!(found.contains(word), "{found} has not {word}");
            }
        };
        check(entry(10, &[("a", "1"), ("b", "9"), ("c", "3")]), &["changed tensors: b"]);
        check(entry(11, &[("a", "1"), ("b", "2"), ("c", "3")]), &["in all"]);
        check(Entry { template: None, ..known.clone() }, &["template"]);
        check(Entry { directory: "e".into(), ..known.clone() }, &["shapes"]);
        let mut other = known.clone();
        other.files[0].sha256 = Some("bb".into());
        check(other, &["checksum"]);
        let many: Vec<(String, String)> = (0..9).map(|i| (format!("t{i}"), "1".to_owned())).collect();
        let all = |digest: &str| entry(1, &many.iter().map(|(name, _)| (name.as_str(), digest)).collect::<Vec<_>>());
        assert!(all("1").differences(&all("2")).join("").contains("and 4 more"));
        // What one of them does not know is no difference.
        assert!(entry(1, &[]).differences(&all("2")).is_empty());
    }

    #[test]
    fn digests_are_sha256() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file_digest(file.path(), &mut |_| true).unwrap().as_deref(), Some(expected));
        assert_eq!(digest(b"abc"), expected);
        assert_eq!(file_digest(file.path(), &mut |_| false).unwrap(), None);
    }
}
