//! What this program is: version, commit, target, backends, instruction set, and that it has no network code (R17).

use crate::backends::BACKENDS;

/// The facts as JSON.
pub(crate) fn json() -> serde_json::Value {
    serde_json::json!({
        "name": "rustorch-cli",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "target": target(),
        "backends": backends(),
        "isa": isa(),
        "network": false,
    })
}

/// The facts for people; the first line is `rustorch-cli VERSION`.
pub(crate) fn text() -> String {
    let commit = commit().map(|commit| format!(" ({commit})")).unwrap_or_default();
    format!(
        "rustorch-cli {}{commit}\ntarget: {}\nbackends: {}\ninstruction set: {}\nnetwork code linked: no\n",
        env!("CARGO_PKG_VERSION"),
        target(),
        backends().join(", "),
        isa()
    )
}

fn commit() -> Option<&'static str> {
    option_env!("GIT_COMMIT")
}

fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The best instruction set of this machine that there are kernels for.
fn isa() -> &'static str {
    compute::cpu::Isa::best().name()
}

fn backends() -> Vec<&'static str> {
    BACKENDS.iter().filter(|backend| backend.is_built()).map(|backend| backend.name).collect()
}
