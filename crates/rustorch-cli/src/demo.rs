//! The model that is part of the program: `--model demo`, for a first conversation without a download and for tests.
//!
//! It lies in `model/` as `tools/demo-model` made it, beside its card and its licence. What does not belong here: opening
//! (`checkpoint`), and every other model.

use checkpoint::Checkpoint;
use sha2::{Digest, Sha256};
use std::{ffi::OsStr, path::Path, sync::Arc};
use tensor::SharedBytes;

crate::messages::messages! {
    /// What it is, and what to do next.
    notice() {
        "This is the demo model inside the program. It knows the commands and options of\n\
         rustorch-cli, in English and Japanese, and nothing else; it can be wrong.\n\
         Your own: --model FILE (GGUF, Safetensors, …); `rustorch-cli models` lists more.",
        "プログラム内蔵のデモモデルです。rustorch-cli のコマンドとオプションだけを\n\
         英語と日本語で答えます。間違えることもあります。\n\
         手元のモデルは --model FILE(GGUF、Safetensors など)。一覧は `rustorch-cli models`。"
    }
}

/// What it is asked for by. A file of this name is reached as `./demo`.
pub(crate) const NAME: &str = "demo";

/// The file's name among published ones.
pub(crate) const FILE_NAME: &str = "rustorch-demo.gguf";

/// Tensors begin where a kernel likes to read.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../model/rustorch-demo.gguf"));

/// Whether a path, as it was given, asks for it.
pub(crate) fn is(path: &Path) -> bool {
    path.as_os_str() == OsStr::new(NAME)
}

/// Opens it: no file is read.
pub(crate) fn open() -> checkpoint::Result<Checkpoint> {
    Checkpoint::from_memory(Path::new(NAME), SharedBytes::new(Arc::new(&FILE.0)))
}

/// The SHA-256 of its file.
pub(crate) fn sha256() -> String {
    Sha256::digest(&FILE.0).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bare_word_means_it() {
        for (path, expected) in
            [("demo", true), ("./demo", false), ("demo/", false), ("/tmp/demo", false), ("Demo", false), ("", false)]
        {
            assert_eq!(is(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn it_opens_and_suits_a_chat() {
        let model = open().unwrap();
        assert_eq!(model.metadata().str("general.name").unwrap(), Some("rustorch-demo"));
        assert!(model.files().is_empty() && model.file_bytes() <= 4 << 20);
        assert!(text::ChatTemplate::from_checkpoint(&model).unwrap().is_some());
    }
}
