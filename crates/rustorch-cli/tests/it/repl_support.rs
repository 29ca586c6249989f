//! What the tests of the chat share: the model and how to run the program.

use std::path::{Path, PathBuf};

/// The stories model; `None` with a visible line where the fixtures are not there.
pub(crate) fn model() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let name = "stories260K/gguf/stories260K-f16.gguf";
    let found = ["fixtures", "../shared/fixtures"].iter().map(|dir| root.join(dir).join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Some(path.canonicalize().unwrap()),
        None => {
            println!("skipped: {name} is not there");
            None
        }
    }
}

/// A tall screen: nothing that a test looks for scrolls away.
pub(crate) fn screen_size() -> portable_pty::PtySize {
    portable_pty::PtySize { rows: 200, cols: 100, pixel_width: 0, pixel_height: 0 }
}
