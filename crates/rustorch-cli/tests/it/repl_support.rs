//! What the tests of the chat share: the model and the size of the screen.

use crate::support::fixture;
use std::path::PathBuf;

/// The stories model; `None` with a visible line where the fixtures are not there.
pub(crate) fn model() -> Option<PathBuf> {
    fixture("stories260K/gguf/stories260K-f16.gguf")
}

/// A tall screen: nothing that a test looks for scrolls away.
pub(crate) fn screen_size() -> portable_pty::PtySize {
    portable_pty::PtySize { rows: 200, cols: 100, pixel_width: 0, pixel_height: 0 }
}
