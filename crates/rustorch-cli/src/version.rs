//! What this program is: version, commit, target, backends, instruction set, the model inside, and that it has no network
//! code (R17).

use crate::{backends::BACKENDS, demo};

/// The facts as JSON.
pub(crate) fn json() -> serde_json::Value {
    serde_json::json!({
        "name": "rustorch-cli",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "target": target(),
        "backends": backends(),
        "isa": isa(),
        "demo_model": { "file": demo::FILE_NAME, "sha256": demo::sha256() },
        "network": false,
    })
}

/// The facts for people; the first line is `rustorch-cli VERSION`.
pub(crate) fn text() -> String {
    let commit = commit().map(|commit| format!(" ({commit})")).unwrap_or_default();
    format!(
        "rustorch-cli {}{commit}\ntarget: {}\nbackends: {}\ninstruction set: {}\ndemo model: {} (SHA-256 {})\nnetwork code linked: no\n",
        env!("CARGO_PKG_VERSION"),
        target(),
        backends().join(", "),
        isa(),
        demo::FILE_NAME,
        demo::sha256(),
    )
}

fn commit() -> Option<&'static str> {
    Some(env!("BUILD_COMMIT")).filter(|commit| !commit.is_empty())
}

/// The compiler's name of the system that this was built for.
fn target() -> &'static str {
    env!("BUILD_TARGET")
}

/// The best instruction set of this machine that there are kernels for.
fn isa() -> &'static str {
    compute::cpu::Isa::best().name()
}

fn backends() -> Vec<&'static str> {
    BACKENDS.iter().filter(|backend| backend.is_built()).map(|backend| backend.name).collect()
}
