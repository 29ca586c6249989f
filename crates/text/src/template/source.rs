//! Where a checkpoint keeps its chat templates.
//!
//! GGUF has them in the metadata: one, and others under names of their own. A Hugging Face directory has one in
//! `chat_template.jinja` or in `tokenizer_config.json` (or several with names there, of which `default` is the one for
//! chat), in `chat_template.json` of processors, and others as files of a folder.

use std::borrow::Cow;

use checkpoint::Checkpoint;

use crate::error::{Error, Result};

const HOUSE_KEY: &str = "tokenizer.chat_template";
const FILE: &str = "chat_template.jinja";
const KEY: &str = "tokenizer_config.chat_template";
const PROCESSOR_FILE: &str = "chat_template.json";
const SUFFIX: &str = ".jinja";
/// The name of the template for chat among several.
const DEFAULT: &str = "default";

/// The source of the template of `checkpoint`; the first place that has one.
pub(super) fn find(checkpoint: &Checkpoint) -> Result<Option<Cow<'_, str>>> {
    let metadata = checkpoint.metadata();
    if let Some(source) = metadata.str(HOUSE_KEY)? {
        return Ok(Some(Cow::Borrowed(source)));
    }
    if let Some(bytes) = checkpoint.sidecar(FILE)? {
        return text(FILE, &bytes).map(|source| Some(Cow::Owned(source)));
    }
    if let Some(source) = metadata.str(KEY)? {
        return Ok(Some(Cow::Borrowed(source)));
    }
    if let Some((_, source)) = listed(checkpoint)?.into_iter().find(|(name, _)| *name == DEFAULT) {
        return Ok(Some(Cow::Borrowed(source)));
    }
    #[derive(serde::Deserialize)]
    struct Processor {
        #[serde(default)]
        chat_template: Option<String>,
    }
    let Some(bytes) = checkpoint.sidecar(PROCESSOR_FILE)? else { return Ok(None) };
    let processor: Processor = serde_json::from_slice(&bytes)
        .map_err(|error| Error::TemplateFile { file: PROCESSOR_FILE.to_owned(), problem: error.to_string() })?;
    Ok(processor.chat_template.map(Cow::Owned))
}

/// All templates that have names, with them: the first of each name, sorted by it. The one that [`find`] finds is among them
/// only if it has one.
pub(super) fn named(checkpoint: &Checkpoint) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, source: String| {
        if !name.is_empty() && all.iter().all(|(known, _)| known != name) {
            all.push((name.to_owned(), source));
        }
    };
    let metadata = checkpoint.metadata();
    for (key, value) in metadata.iter() {
        let name = key.strip_prefix(HOUSE_KEY).and_then(|rest| rest.strip_prefix('.'));
        if let (Some(name), Some(source)) = (name, value.as_str()) {
            add(name, source.to_owned());
        }
    }
    let files: Vec<String> = checkpoint.sidecars().map(str::to_owned).collect();
    for file in &files {
        let Some(name) = file.split_once('/').and_then(|(_, name)| name.strip_suffix(SUFFIX)) else { continue };
        if let Some(bytes) = checkpoint.sidecar(file)? {
            add(name, text(file, &bytes)?);
        }
    }
    for (name, source) in listed(checkpoint)? {
        add(name, source.to_owned());
    }
    all.sort();
    Ok(all)
}

/// The list of templates in the tokenizer's configuration.
fn listed(checkpoint: &Checkpoint) -> Result<Vec<(&str, &str)>> {
    let metadata = checkpoint.metadata();
    let mut all = Vec::new();
    for index in 0.. {
        let Some(name) = metadata.str(&format!("{KEY}.{index}.name"))? else { break };
        if let Some(source) = metadata.str(&format!("{KEY}.{index}.template"))? {
            all.push((name, source));
        }
    }
    Ok(all)
}

fn text(file: &str, bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(Error::TemplateFile { file: file.to_owned(), problem: format!("it is not UTF-8: {error}") }),
    }
}
