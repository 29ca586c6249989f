//! The results of quantizing while loading, kept for the next time: one GGUF file per model and mixture below
//! `~/.rustorch/cache`, if the settings allow any room for them (requirement row R38).
//!
//! A file is found by the content of the model: the sizes and times of its files and samples of their bytes. It gets its
//! name when all of it is written; what was used longest ago makes room. Trouble with it is said and never stops a model
//! from loading. What does not belong here: quantizing (`encode`), deciding to (`fitting`), that a model is what it was
//! (`integrity`).

use crate::{disk, loading, output, paths, safe_write, settings::Settings};
use checkpoint::{Checkpoint, Layout, NewTensor, OpenOptions, Value};
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::HashSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::NamedTempFile;
use tensor::{DType, HostTensor, Mixture};

crate::messages::messages! {
    /// The weights come from there.
    quantized_kept(path) { "the quantized weights are those kept in {path}", "量子化済みの重みを {path} から使います" }
    /// They are there for the next time.
    quantized_stored(path, bytes) { "the quantized weights are kept for the next time: {path} ({bytes})", "量子化した重みを次回用に保存しました: {path}({bytes})" }
    /// They are not.
    quantized_no_room(bytes, room) {
        "the quantized weights are not kept: they take {bytes}, and {room} are allowed or free",
        "量子化した重みは保存しません: {bytes} 必要ですが、上限または空きは {room} です"
    }
    /// There is no place for them.
    quantized_no_home() {
        "the quantized weights are not kept: there is no home folder",
        "量子化した重みは保存しません: ホームフォルダがありません"
    }
    /// Something went wrong.
    quantized_unkept(path, error) { "the quantized weights cannot be kept in {path}: {error}", "量子化した重みを {path} に保存できません: {error}" }
}

/// Counts up when encoders or this file's layout change: older files are not found any more.
const VERSION: u32 = 1;
/// Pieces of a file that are looked at, and bytes of each.
const SAMPLES: u64 = 256;
const SAMPLE_BYTES: u64 = 4096;
/// The key of the text that makes the head as long as was left free for it.
const PADDING_KEY: &str = "rustorch.padding";
/// Bytes of an entry of the head besides the tensor's name, at most.
const ENTRY_BYTES: u64 = 128;

/// Where the files are.
pub(crate) fn folder() -> Option<PathBuf> {
    paths::data_dir().map(|dir| dir.join("cache").join("quantized"))
}

/// What is kept of one model in one mixture.
pub(crate) enum Kept {
    /// Nothing, and nothing will be.
    Nothing,
    /// All of it.
    Ready(Checkpoint),
    /// It is being made.
    Making(RefCell<Option<Maker>>),
}

/// A file in the making.
pub(crate) struct Maker {
    path: PathBuf,
    file: NamedTempFile,
    /// Bytes left free for the head.
    head_bytes: u64,
    tensors: Vec<NewTensor>,
    names: HashSet<String>,
}

impl Kept {
    /// What is kept of the model, `bytes` in all, or will be.
    pub(crate) fn open(checkpoint: &Checkpoint, settings: &Settings, mixture: &Mixture, bytes: u64) -> Kept {
        let room = settings.model.quantize_cache.filter(|_| !checkpoint.files().is_empty());
        let Some(room) = room else { return Kept::Nothing };
        let Some(folder) = folder() else {
            output::note(&quantized_no_home());
            return Kept::Nothing;
        };
        let failed = |error: &dyn std::fmt::Display| {
            output::warning(&quantized_unkept(paths::display(&folder), error));
            Kept::Nothing
        };
        let path = match key(checkpoint, mixture) {
            Ok(key) => folder.join(format!("{key}.gguf")),
            Err(error) => return failed(&error),
        };
        if path.exists() {
            match Checkpoint::open(&path, &OpenOptions::default()) {
                Ok(kept) => {
                    // What was used last stays longest.
                    let _ =
                        File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                    output::note(&quantized_kept(paths::display(&path)));
                    return Kept::Ready(kept);
                }
                // Made anew below.
                Err(error) => drop(failed(&error)),
            }
        }
        if settings.history.ephemeral {
            return Kept::Nothing;
        }
        if let Err(error) = safe_write::create_dirs(&folder) {
            return failed(&error);
        }
        let room = make_room(&folder, &path, room, bytes).min(disk::free_bytes(&folder).unwrap_or(u64::MAX));
        if room < bytes {
            output::note(&quantized_no_room(loading::size(bytes), loading::size(room)));
            return Kept::Nothing;
        }
        match Maker::new(checkpoint, path) {
            Ok(maker) => Kept::Making(RefCell::new(Some(maker))),
            Err(error) => failed(&error),
        }
    }

    /// The bytes of a tensor in another type: kept, or made and kept.
    pub(crate) fn get(
        &self,
        tensor: &HostTensor,
        to: DType,
        make: impl FnOnce() -> tensor::Result<Vec<u8>>,
    ) -> tensor::Result<Vec<u8>> {
        match self {
            Kept::Nothing => make(),
            Kept::Ready(kept) => {
                let known = kept.tensor(tensor.name()).filter(|info| info.dtype == to && info.shape == *tensor.shape());
                let Some(loaded) = known.and_then(|info| kept.load(&info.name).ok()) else { return make() };
                let bytes = loaded.bytes().to_vec();
                kept.release(&loaded);
                Ok(bytes)
            }
            Kept::Making(maker) => {
                let bytes = make()?;
                let mut maker = maker.borrow_mut();
                if let Some(Err(error)) = maker.as_mut().map(|maker| maker.add(tensor, to, &bytes)) {
                    Maker::give_up(&mut maker, &error);
                }
                Ok(bytes)
            }
        }
    }

    /// The model is loaded: what was made gets its name.
    pub(crate) fn finish(self) {
        let Kept::Making(maker) = self else { return };
        let Some(maker) = maker.into_inner() else { return };
        let shown = paths::display(&maker.path);
        match maker.finish() {
            Ok(bytes) => output::note(&quantized_stored(shown, loading::size(bytes))),
            Err(error) => output::warning(&quantized_unkept(shown, error)),
        }
    }
}

impl Maker {
    fn new(checkpoint: &Checkpoint, path: PathBuf) -> io::Result<Maker> {
        let entry = |name: &String| (name.len() as u64).saturating_add(ENTRY_BYTES);
        let head_bytes = checkpoint.tensors().iter().fold(4096, |sum: u64, t| sum.saturating_add(entry(&t.name)));
        let head_bytes = head_bytes.next_multiple_of(4096);
        let mut file = safe_write::temporary_in(&safe_write::folder_of(&path))?;
        file.as_file_mut().seek(SeekFrom::Start(head_bytes))?;
        Ok(Maker { path, file, head_bytes, tensors: Vec::new(), names: HashSet::new() })
    }

    fn add(&mut self, tensor: &HostTensor, dtype: DType, bytes: &[u8]) -> io::Result<()> {
        // What comes twice is kept once.
        if !self.names.insert(tensor.name().to_owned()) {
            return Ok(());
        }
        let new = NewTensor { name: tensor.name().to_owned(), dtype, shape: *tensor.shape() };
        self.file.as_file_mut().write_all(bytes)?;
        let aligned = bytes.len().next_multiple_of(Layout::GGUF_ALIGNMENT);
        self.file.as_file_mut().write_all(&vec![0; aligned - bytes.len()])?;
        self.tensors.push(new);
        Ok(())
    }

    fn give_up(maker: &mut Option<Maker>, error: &io::Error) {
        if let Some(maker) = maker.take() {
            output::warning(&quantized_unkept(paths::display(&maker.path), error));
        }
    }

    /// Writes the head and gives the file its name. Gives its bytes.
    fn finish(mut self) -> io::Result<u64> {
        let head = |padding: usize| {
            let fields = [
                ("general.type".to_owned(), Value::text("quantized weights")),
                (PADDING_KEY.to_owned(), Value::text(&" ".repeat(padding))),
            ];
            Layout::gguf(&fields, &self.tensors, None).map_err(io::Error::other)
        };
        let least = head(0)?.head().len() as u64;
        let padding = self.head_bytes.checked_sub(least).and_then(|n| usize::try_from(n).ok());
        let layout = head(padding.ok_or_else(|| io::Error::other("the head is longer than was left free for it"))?)?;
        if layout.head().len() as u64 != self.head_bytes {
            return Err(io::Error::other("the head is not as long as was left free for it"));
        }
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(layout.head())?;
        file.sync_all()?;
        safe_write::persist(self.file, &self.path)?;
        Ok(layout.file_bytes())
    }
}

/// What the model is, in few enough bytes to know it at once, and what becomes of it.
fn key(checkpoint: &Checkpoint, mixture: &Mixture) -> io::Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{VERSION} {}\n", mixture.name));
    for tensor in checkpoint.tensors() {
        hasher.update(format!("{:?} {} {}\n", tensor.name, tensor.dtype, tensor.shape));
    }
    let mut sample = Vec::new();
    for path in checkpoint.files() {
        let mut file = File::open(path)?;
        let facts = file.metadata()?;
        let modified = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hasher.update(format!("{} {modified:?}\n", facts.len()));
        let step = (facts.len() / SAMPLES).max(SAMPLE_BYTES);
        let starts = (0..SAMPLES).map(|i| i.saturating_mul(step)).take_while(|&start| start < facts.len());
        for start in starts.chain([facts.len().saturating_sub(SAMPLE_BYTES)]) {
            file.seek(SeekFrom::Start(start))?;
            sample.clear();
            Read::by_ref(&mut file).take(SAMPLE_BYTES).read_to_end(&mut sample)?;
            hasher.update(&sample);
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes what was used longest ago until `bytes` fit into `limit` beside the rest. Gives the bytes that fit.
fn make_room(folder: &Path, new: &Path, limit: u64, bytes: u64) -> u64 {
    if bytes > limit {
        return limit;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return limit };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "gguf") && entry.path() != new)
        .filter_map(|entry| {
            let facts = entry.metadata().ok()?;
            Some((facts.modified().unwrap_or(UNIX_EPOCH), facts.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut used = files.iter().fold(0u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    for (_, len, path) in files {
        if used.saturating_add(bytes) <= limit {
            break;
        }
        if std::fs::remove_file(&path).is_ok() {
            used = used.saturating_sub(len);
        }
    }
    limit.saturating_sub(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: usize, age: u64| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![0; bytes]).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        file("old.gguf", 40, 30);
        file("older.gguf", 40, 90);
        file("young.gguf", 40, 10);
        file("note.txt", 400, 99);
        let left = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names.join(" ")
        };
        let new = folder.path().join("new.gguf");
        assert_eq!(make_room(folder.path(), &new, 150, 151), 150);
        assert_eq!(left(), "note.txt old.gguf older.gguf young.gguf");
        assert_eq!(make_room(folder.path(), &new, 160, 40), 40);
        assert_eq!(make_room(folder.path(), &new, 150, 60), 70);
        assert_eq!(left(), "note.txt old.gguf young.gguf");
        assert_eq!(make_room(folder.path(), &new, 150, 150), 150);
        assert_eq!(left(), "note.txt");
    }
}
