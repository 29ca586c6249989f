//! The files that belong beside safetensors: what says what model the weights are, and how its text is made.

use crate::{
    exit::{Exit, Failure, Result},
    output, paths, safe_write,
};
use checkpoint::Checkpoint;
use std::path::Path;

crate::messages::messages! {
    /// What was copied.
    copied_beside(names) { "beside it: {names}", "同じフォルダにコピー: {names}" }
    /// A file that could not.
    cannot_copy(path) { "cannot copy {path}", "{path} をコピーできません" }
}

/// Files of a model's folder that are no weights and no tokenizer.
const DESCRIPTIONS: &[&str] = &["config.json", "generation_config.json", "params.json"];

/// Longer descriptions are none.
const MAX_BYTES: u64 = 64 << 20;

/// Copies those that the new file's folder does not have.
pub(super) fn copy(checkpoint: &Checkpoint, target: &Path) -> Result<()> {
    let source = checkpoint.path();
    let source = if source.is_dir() { source.to_path_buf() } else { safe_write::folder_of(source) };
    let folder = safe_write::folder_of(target);
    let mut copied = Vec::new();
    for name in DESCRIPTIONS.iter().copied().map(str::to_owned).chain(checkpoint.sidecars().map(str::to_owned)) {
        let (from, to) = (source.join(&name), folder.join(&name));
        if to.exists() || !from.is_file() {
            continue;
        }
        let fail = |error: &crate::exit::Cause| {
            Failure::new(Exit::Runtime, cannot_copy(paths::display(&from))).because_of(error)
        };
        let bytes = match checkpoint.sidecar(&name).map_err(|error| fail(&error))? {
            Some(bytes) => bytes.to_vec(),
            None => safe_write::read_text(&from, MAX_BYTES).map_err(|error| fail(&error))?.into_bytes(),
        };
        let written = safe_write::replace(&to, |writer| std::io::Write::write_all(writer, &bytes));
        written.map_err(|error: std::io::Error| fail(&error))?;
        copied.push(crate::terminal_filter::visible_line(&name));
    }
    if !copied.is_empty() {
        output::note(&copied_beside(copied.join(", ")));
    }
    Ok(())
}
