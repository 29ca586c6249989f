//! Where fixture files are: `fixtures/` of the repository, or the shared ones beside it.

use std::path::{Path, PathBuf};

/// The fixture `name`, or `None` after saying that it is absent. In CI an absent fixture is a failure, unless it is one
/// that the repository never holds.
#[track_caller]
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [root.join("../../fixtures").join(name), root.join("../../../shared/fixtures").join(name)];
    let found = places.into_iter().find(|place| place.exists());
    if found.is_none() {
        println!("skipped: fixture {name} is absent");
        let in_repository = !name.starts_with("stories260K");
        assert!(!in_repository || std::env::var("CI").as_deref() != Ok("true"), "fixture {name} is absent");
    }
    found
}
