//! The backends a user may name, what each needs, and the choice between them (requirement rows R2–R7, R46).

use crate::{
    exit::{Exit, Failure, Result},
    messages::{Language, language},
    output,
    settings::Settings,
};
use compute::{
    Device, WeightUse,
    cpu::{CpuDevice, CpuOptions},
};
use std::sync::Arc;
use tensor::{DType, Shape};

crate::messages::messages! {
    /// A backend that cannot be used.
    backend_unavailable(name) { "the backend `{name}` is not available", "バックエンド `{name}` は使えません" }
    /// What works instead.
    backend_hint() {
        "use --backend cpu, or --allow-fallback with backend.fallback in the config file",
        "--backend cpu を使うか、設定ファイルの backend.fallback と --allow-fallback を使ってください"
    }
    /// One hop of the fallback.
    backend_hop(from, to, cause) {
        "the backend `{from}` is not available ({cause}); using `{to}`",
        "バックエンド `{from}` は使えません({cause})。`{to}` を使います"
    }
    /// It is not in this program.
    not_built(needs) { "this build has no support for it yet; it will need {needs}", "このビルドは未対応です。必要なもの: {needs}" }
}

/// Opens a device as the settings say.
type Open = fn(&Settings) -> compute::Result<Arc<dyn Device>>;

/// One backend.
pub(crate) struct Backend {
    /// As the user writes it.
    pub(crate) name: &'static str,
    /// What it needs on the machine, English.
    needs_en: &'static str,
    /// What it needs on the machine, Japanese.
    needs_ja: &'static str,
    /// Opens it; none: not in this build.
    open: Option<Open>,
}

/// Every backend of the requirements.
pub(crate) const BACKENDS: &[Backend] = &[
    Backend { name: "cpu", needs_en: "nothing", needs_ja: "なし", open: Some(open_cpu) },
    Backend {
        name: "cuda", needs_en: "an NVIDIA GPU and its driver", needs_ja: "NVIDIA GPU とドライバー", open: None
    },
    Backend {
        name: "metal",
        needs_en: "macOS with a Metal 3 GPU",
        needs_ja: "Metal 3 対応 GPU を持つ macOS",
        open: None,
    },
    Backend {
        name: "opencl",
        needs_en: "an OpenCL 2.0 driver (ICD) and its device",
        needs_ja: "OpenCL 2.0 ドライバー(ICD)とデバイス",
        open: None,
    },
    Backend {
        name: "hybrid",
        needs_en: "a GPU backend to share the layers with",
        needs_ja: "層を分担する GPU バックエンド",
        open: None,
    },
    Backend {
        name: "hybrid-f32",
        needs_en: "a GPU backend to share the layers with",
        needs_ja: "層を分担する GPU バックエンド",
        open: None,
    },
];

fn open_cpu(settings: &Settings) -> compute::Result<Arc<dyn Device>> {
    let options = CpuOptions { threads: settings.backend.threads, precision: settings.precision(), isa: None };
    Ok(Arc::new(CpuDevice::new(options)?))
}

/// Bytes that the device of the settings keeps of a tensor, where these are not the file's. (All backends that can be
/// opened compute on the CPU.)
pub(crate) fn weight_bytes(settings: &Settings, dtype: DType, shape: &Shape, usage: WeightUse) -> Option<u64> {
    compute::cpu::weight_bytes(settings.precision(), dtype, shape, usage)
}

impl Backend {
    /// What it needs on the machine.
    pub(crate) fn needs(&self) -> &'static str {
        self.needs_in(language())
    }

    /// What it needs on the machine, in a language.
    pub(crate) fn needs_in(&self, language: Language) -> &'static str {
        language.pick(self.needs_en, self.needs_ja)
    }

    /// Whether this build has it.
    pub(crate) fn is_built(&self) -> bool {
        self.open.is_some()
    }

    /// Opens it, or says why not.
    pub(crate) fn try_open(&self, settings: &Settings) -> std::result::Result<Arc<dyn Device>, String> {
        match self.open {
            Some(open) => open(settings).map_err(|error| error.to_string()),
            None => Err(not_built(self.needs())),
        }
    }
}

/// Opens the backend of the settings. One that was asked for explicitly is opened or refused; one from the config file or
/// the environment is followed by the fallback list, each hop a line on stderr.
pub(crate) fn open(settings: &Settings) -> Result<Arc<dyn Device>> {
    let wanted = settings.backend.default;
    let mut cause = match try_open(wanted, settings) {
        Ok(device) => return Ok(device),
        Err(cause) => cause,
    };
    let first_cause = cause.clone();
    let mut from = wanted;
    if !settings.backend_is_explicit || settings.backend.allow_fallback {
        for name in settings.backend.fallback.iter().filter(|name| *name != wanted) {
            output::warning(&backend_hop(from, name, &cause));
            match try_open(name, settings) {
                Ok(device) => return Ok(device),
                Err(why) => cause = why,
            }
            from = name;
        }
    }
    Err(Failure::new(Exit::Backend, backend_unavailable(wanted)).because(first_cause).hint(backend_hint()))
}

fn try_open(name: &str, settings: &Settings) -> std::result::Result<Arc<dyn Device>, String> {
    match BACKENDS.iter().find(|backend| backend.name == name) {
        Some(backend) => backend.try_open(settings),
        None => Err(backend_unavailable(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_names_that_settings_accept() {
        let names: Vec<&str> = BACKENDS.iter().map(|backend| backend.name).collect();
        assert_eq!(names, crate::settings::table::BACKENDS);
    }

    fn check(default: &'static str, fallback: &[&str], explicit: bool, allow: bool, works: bool) {
        let mut settings = crate::settings::table::defaults().unwrap();
        settings.backend.default = default;
        settings.backend.fallback = fallback.iter().map(|name| (*name).to_owned()).collect();
        settings.backend.threads = Some(1);
        settings.backend_is_explicit = explicit;
        settings.backend.allow_fallback = allow;
        match open(&settings) {
            Ok(device) => assert!(works && device.info().backend == "cpu"),
            Err(failure) => assert!(!works && failure.exit == Exit::Backend && failure.cause.is_some()),
        }
    }

    #[test]
    fn fallback_only_where_it_is_allowed() {
        check("cpu", &[], true, false, true);
        check("metal", &["cpu"], false, false, true);
        check("metal", &["cuda", "cpu"], false, false, true);
        check("metal", &[], false, false, false);
        check("metal", &["cpu"], true, false, false);
        check("metal", &["cpu"], true, true, true);
        check("hybrid", &["cuda"], false, false, false);
    }
}
