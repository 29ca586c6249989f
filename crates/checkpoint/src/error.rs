//! What can go wrong with a model file: each error names the file and the field.
//!
//! Text that comes from the file goes through [`quoted`] first, so that a message stays short and cannot drive a
//! terminal.

use crate::limits;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about a model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", quoted_path(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "open", "read", "map into memory".
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Not a regular file: a directory, pipe, device or socket.
    #[error("{} is {kind}, not a regular file", quoted_path(.path))]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// "a FIFO (named pipe)" and the like.
        kind: &'static str,
    },
    /// A directory that is no model we can open.
    #[error("{} is a directory: {detail}", quoted_path(.path))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What it seems to hold, and what to do.
        detail: String,
    },
    /// A model format that is known but cannot be read.
    #[error(
        "{} is in the format {format}, which is not supported yet (supported: GGUF, safetensors, MLX, PyTorch, ONNX)",
        quoted_path(.path)
    )]
    UnsupportedFormat {
        /// The file or directory.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
    },
    /// Nothing that looks like a model.
    #[error("{} is not a model file: {detail}", quoted_path(.path))]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A version or byte order of the format that cannot be read.
    #[error("{}: {detail}", quoted_path(.path))]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Which version, and which are supported.
        detail: String,
    },
    /// A field of the file that contradicts the format or the rest of the file.
    #[error("{} is damaged: {field}: {problem}", quoted_path(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field: "metadata key …", "tensor …", "header".
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A graph that is not one of a model that is known.
    #[error("{}: the graph is not recognised: {detail}", quoted_path(.path))]
    Graph {
        /// The file.
        path: PathBuf,
        /// Which node, and why.
        detail: String,
    },
    /// A file that asks for more than plain data. Nothing of it was run, and there is no way to allow it.
    #[error("{} is refused: {detail} (only plain tensors are read, nothing is ever executed)", quoted_path(.path))]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// What it asks for, and where.
        detail: String,
    },
    /// A tensor in a type that cannot be decoded.
    #[error("{}: tensor {tensor} has type {type_name}, which is not supported", quoted_path(.path))]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The tensor's name, quoted.
        tensor: String,
        /// Number and, where known, name of the type.
        type_name: String,
    },
    /// Parts of a split model that are missing or do not belong together.
    #[error("{}: split model: {problem}", quoted_path(.path))]
    Split {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A metadata value of another type, or out of range, than the caller needs.
    #[error("{}: metadata key {key}: expected {expected}, found {found}", quoted_path(.path))]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, quoted.
        key: String,
        /// What the caller asked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A tensor that the file does not have.
    #[error("{}: tensor {tensor} is missing", quoted_path(.path))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The name asked for, quoted.
        tensor: String,
    },
    /// A file that cannot be written the way it is asked for.
    #[error("{what} cannot be written: {problem}")]
    Unwritable {
        /// The tensor or key.
        what: String,
        /// Why.
        problem: String,
    },
    /// The file is not what it was when it was opened.
    #[error("{} changed while it was in use: {detail}", quoted_path(.path))]
    Changed {
        /// The file.
        path: PathBuf,
        /// What changed.
        detail: String,
    },
    /// Memory for a tensor or a head that is not to be had.
    #[error("{}: not enough memory for {bytes} bytes of {what}", quoted_path(.path))]
    Memory {
        /// The file.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
        /// For what.
        what: String,
    },
    /// Bytes and shape of a tensor that do not fit each other.
    #[error("{}: tensor {tensor}: {source}", quoted_path(.path))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name, quoted.
        tensor: String,
        /// What does not fit.
        source: tensor::Error,
    },
}

/// Whether a character could act on a terminal or hide text: controls, and Unicode's invisible and direction marks.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One character as a message shows it.
fn escaped_char(c: char) -> String {
    match c {
        '\\' => "\\\\".to_owned(),
        c if acts_on_terminal(c) => format!("\\u{{{:x}}}", u32::from(c)),
        c => c.to_string(),
    }
}

/// Text with escapes, at most `limit` characters long with them.
fn escape(bytes: &[u8], limit: usize) -> String {
    let pieces = bytes.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        chunk.valid().chars().map(escaped_char).chain(invalid)
    });
    let mut out = String::new();
    let mut budget = limit;
    for piece in pieces {
        match budget.checked_sub(piece.chars().count()) {
            Some(left) => budget = left,
            None => return out + "…",
        }
        out.push_str(&piece);
    }
    out
}

/// Untrusted text for a message: in backquotes, short, with control and invisible characters shown as escapes.
pub(crate) fn quoted(text: impl AsRef<[u8]>) -> String {
    format!("`{}`", escape(text.as_ref(), limits::QUOTED_CHARS))
}

/// Text of another library that may quote untrusted text: short and without control characters.
pub(crate) fn harmless(text: &str) -> String {
    escape(text.as_bytes(), limits::QUOTED_PATH_CHARS)
}

/// A path for a message, the end of it kept when it is very long.
fn quoted_path(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let cut = bytes.len().saturating_sub(limits::QUOTED_PATH_CHARS);
    let tail = bytes.get(cut..).unwrap_or_default();
    format!("`{}{}`", if cut > 0 { "…" } else { "" }, escape(tail, limits::QUOTED_PATH_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_visible_and_short() {
        #[track_caller]
        fn check(input: &[u8], expected: &str) {
            assert_eq!(quoted(input), expected);
        }
        check(b"blk.0.attn_k.weight", "`blk.0.attn_k.weight`");
        check(b"\x1b[31mred\x07", "`\\u{1b}[31mred\\u{7}`");
        check(b"\xff\xfe", "`\\xff\\xfe`");
        check("日本\u{202e}".as_bytes(), "`日本\\u{202e}`");
        check(b"a\\b", "`a\\\\b`");
        check(&[7; 500], &format!("`{}…`", "\\u{7}".repeat(24)));
        check(&[b'x'; 500], &format!("`{}…`", "x".repeat(120)));
    }

    #[test]
    fn long_paths_keep_their_end() {
        let path = PathBuf::from(format!("{}/model.gguf", "d".repeat(5000)));
        let shown = quoted_path(&path);
        assert!(shown.len() < 500 && shown.ends_with("/model.gguf`"), "{shown}");
    }
}
