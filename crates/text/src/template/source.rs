//! Where a checkpoint keeps its chat template.
//!
//! GGUF has it in the metadata. A Hugging Face directory has it in `chat_template.jinja`, in `tokenizer_config.json` (one
//! template, or several with names, of which `default` is the one for chat), or in `chat_template.json` of processors.

use std::borrow::Cow;

use checkpoint::Checkpoint;

use crate::error::{Error, Result};

const FILE: &str = "chat_template.jinja";
const KEY: &str = "tokenizer_config.chat_template";
const PROCESSOR_FILE: &str = "chat_template.json";

/// The source of the template of `checkpoint`; the first place that has one.
pub(super) fn find(checkpoint: &Checkpoint) -> Result<Option<Cow<'_, str>>> {
    let metadata = checkpoint.metadata();
    if let Some(source) = metadata.str("tokenizer.chat_template")? {
        return Ok(Some(Cow::Borrowed(source)));
    }
    if let Some(bytes) = checkpoint.sidecar(FILE)? {
        return text(&bytes).map(|source| Some(Cow::Owned(source)));
    }
    if let Some(source) = metadata.str(KEY)? {
        return Ok(Some(Cow::Borrowed(source)));
    }
    for index in 0.. {
        let Some(name) = metadata.str(&format!("{KEY}.{index}.name"))? else { break };
        if name == "default" {
            return Ok(metadata.str(&format!("{KEY}.{index}.template"))?.map(Cow::Borrowed));
        }
    }
    #[derive(serde::Deserialize)]
    struct Processor {
        #[serde(default)]
        chat_template: Option<String>,
    }
    let Some(bytes) = checkpoint.sidecar(PROCESSOR_FILE)? else { return Ok(None) };
    let processor: Processor = serde_json::from_slice(&bytes)
        .map_err(|error| Error::TemplateFile { file: PROCESSOR_FILE, problem: error.to_string() })?;
    Ok(processor.chat_template.map(Cow::Owned))
}

fn text(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(Error::TemplateFile { file: FILE, problem: format!("it is not UTF-8: {error}") }),
    }
}
