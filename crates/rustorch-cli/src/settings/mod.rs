//! Settings: plain data after every layer was applied and every value checked.
//!
//! `table` has one row per setting (flag = environment variable = TOML key = help in two languages), `row` knows how a
//! value is read, checked and shown, `layers` puts flag over environment over file over default, `arguments` makes the
//! command line of the rows. Nothing here opens a model.

pub(crate) mod arguments;
pub(crate) mod help;
pub(crate) mod layers;
pub(crate) mod row;
pub(crate) mod table;

pub(crate) use layers::Layers;
pub(crate) use row::Row;
pub(crate) use table::SETTINGS;

use crate::adapters::Named;
use std::{ffi::OsStr, path::PathBuf};

/// All settings, validated. Made by [`Layers::settings`]; single values change through [`Row::set_text`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// `[model]`
    pub(crate) model: ModelSettings,
    /// `[backend]`
    pub(crate) backend: BackendSettings,
    /// `[context]`
    pub(crate) context: ContextSettings,
    /// `[generation]`
    pub(crate) generation: GenerationSettings,
    /// `[interface]`
    pub(crate) interface: InterfaceSettings,
    /// `[logging]`
    pub(crate) logging: LoggingSettings,
    /// `[history]`
    pub(crate) history: HistorySettings,
    /// Keys of `[generation]` that nobody has set: a model's own suggestion takes the place of the default.
    pub(crate) unset: Vec<&'static str>,
    /// Whether `backend.default` was asked for on the command line or by `/backend`: then it is never replaced
    /// by a fallback (R46).
    pub(crate) backend_is_explicit: bool,
}

/// `[model]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelSettings {
    /// The file.
    pub(crate) path: Option<PathBuf>,
    /// Describes a family that is not built in.
    pub(crate) arch: Option<PathBuf>,
    /// Only a check: `auto` or the format that the file must have.
    pub(crate) format: &'static str,
    /// Map the file instead of reading it.
    pub(crate) mmap: bool,
    /// `auto`, `none` or the type that unquantized weights are quantized to while they are loaded.
    pub(crate) quantize: &'static str,
    /// Bytes that results of quantizing while loading may take on disk; none: they are not kept.
    pub(crate) quantize_cache: Option<u64>,
    /// Remember models and refuse those that changed.
    pub(crate) lock: bool,
    /// Adapters, in order.
    pub(crate) lora: Vec<Named>,
    /// A built-in chat template's name, or a file; none: the model's own.
    pub(crate) template: Option<String>,
}

/// `[backend]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BackendSettings {
    /// The backend asked for.
    pub(crate) default: &'static str,
    /// Tried in order when that is not available (see R46).
    pub(crate) fallback: Vec<String>,
    /// Fall back even from an explicit `--backend`.
    pub(crate) allow_fallback: bool,
    /// Worker threads; none: one per core.
    pub(crate) threads: Option<usize>,
    /// `fast` or `f32`.
    pub(crate) precision: &'static str,
    /// Prompt tokens in one pass.
    pub(crate) prefill_chunk: usize,
    /// Bytes that the model may take; none: most of what is free.
    pub(crate) memory_budget: Option<u64>,
}

/// `[context]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContextSettings {
    /// Tokens of the window; none: as many as the model has and memory holds.
    pub(crate) size: Option<usize>,
    /// `f16`, `f32`, `q8_0`, or `auto` for what suits the precision.
    pub(crate) kv_type: &'static str,
    /// MiB of the KV cache beside the window, for saved prefixes; none: see [`Settings::prefix_cache_bytes`].
    pub(crate) prefix_cache: Option<usize>,
    /// `ask`, `stop` or `shift`: what a chat does that outgrows the window.
    pub(crate) overflow: &'static str,
}

/// `[generation]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GenerationSettings {
    /// Tokens of one answer; none: until the model ends or the window is full.
    pub(crate) max_tokens: Option<usize>,
    /// 0 takes the most probable token.
    pub(crate) temperature: f32,
    /// Most probable tokens kept; 0: all.
    pub(crate) top_k: usize,
    /// Probability mass kept; 1: all.
    pub(crate) top_p: f32,
    /// Least probability relative to the best; 0: off.
    pub(crate) min_p: f32,
    /// 1: off.
    pub(crate) repeat_penalty: f32,
    /// Tokens that the penalties look back.
    pub(crate) repeat_last_n: usize,
    /// 0: off.
    pub(crate) frequency_penalty: f32,
    /// 0: off.
    pub(crate) presence_penalty: f32,
    /// None: a new one for each answer.
    pub(crate) seed: Option<u64>,
    /// System prompt.
    pub(crate) system: Option<String>,
    /// Texts that end an answer.
    pub(crate) stop: Vec<String>,
    /// Whether to guess ahead.
    pub(crate) speculate: engine::Speculation,
}

/// `[interface]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct InterfaceSettings {
    /// Before the user's line.
    pub(crate) prompt_user: String,
    /// Before the answer.
    pub(crate) prompt_assistant: String,
    /// Bars while loading and reading the prompt.
    pub(crate) show_progress: bool,
    /// Print tokens as they come.
    pub(crate) stream: bool,
    /// `auto`, `always` or `never`.
    pub(crate) color: &'static str,
    /// What becomes of control characters in answers: `show` or `pass`.
    pub(crate) control_characters: &'static str,
    /// `auto`, `en` or `ja`.
    pub(crate) language: &'static str,
    /// `text`, `json` or `stream-json`.
    pub(crate) output: &'static str,
}

/// `[logging]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoggingSettings {
    /// Least important level written.
    pub(crate) level: &'static str,
    /// The file.
    pub(crate) file: Option<PathBuf>,
    /// Older files kept.
    pub(crate) keep: usize,
    /// Also on stderr.
    pub(crate) stderr: bool,
}

/// `[history]`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HistorySettings {
    /// Write the conversation after every turn.
    pub(crate) auto_save: bool,
    /// The last session.
    pub(crate) file: Option<PathBuf>,
    /// Messages kept in a session file.
    pub(crate) max_entries: usize,
    /// Another file to write after every turn; `-`: stdout at the end.
    pub(crate) save: Option<PathBuf>,
    /// A file to start from.
    pub(crate) load: Option<PathBuf>,
    /// Overwrite a file that is not a history.
    pub(crate) force: bool,
    /// Nothing is written anywhere: no history, no line history, no log.
    pub(crate) ephemeral: bool,
}

/// Saved prefixes may take this much unless a setting says otherwise.
const AUTO_PREFIX_CACHE_BYTES: u64 = 512 << 20;

/// A KV cache up to this size is kept in single precision: rounding it would save nothing that anybody notices.
const SMALL_KV_BYTES: u64 = 64 << 20;

/// The name of a type of KV cache, as `--kv-type` takes it.
pub(crate) fn kv_type_name(kv_type: compute::KvType) -> &'static str {
    match kv_type {
        compute::KvType::F32 => "f32",
        compute::KvType::F16 => "f16",
        compute::KvType::Q8_0 => "q8_0",
    }
}

impl Settings {
    /// Arithmetic of the device.
    pub(crate) fn precision(&self) -> compute::Precision {
        if self.backend.precision == "f32" { compute::Precision::F32 } else { compute::Precision::Fast }
    }

    /// Element type of a KV cache that would take `f32_bytes` in single precision.
    pub(crate) fn kv_type(&self, f32_bytes: u64) -> compute::KvType {
        use compute::KvType;
        match self.context.kv_type {
            "f32" => KvType::F32,
            "q8_0" => KvType::Q8_0,
            "auto" if self.precision() == compute::Precision::F32 || f32_bytes <= SMALL_KV_BYTES => KvType::F32,
            _ => KvType::F16,
        }
    }

    /// Bytes of the KV cache beside a window of `window_bytes` when `spare_bytes` of memory are left: what was asked for,
    /// or as much as the window takes within bounds.
    pub(crate) fn prefix_cache_bytes(&self, window_bytes: u64, spare_bytes: u64) -> u64 {
        match self.context.prefix_cache {
            Some(mib) => (mib as u64).saturating_mul(1 << 20),
            None => window_bytes.min(AUTO_PREFIX_CACHE_BYTES).min(spare_bytes),
        }
    }

    /// Takes over what a model suggests where nobody has set anything; what an earlier model suggested goes back to the
    /// default.
    pub(crate) fn follow(&mut self, suggestions: &[crate::loading::Suggestion]) {
        let unset = self.unset.clone();
        for row in unset.iter().filter_map(|key| table::find(&format!("generation.{key}"))) {
            let suggested = suggestions.iter().find(|(key, _)| *key == row.key);
            let text = suggested.map_or(row.default, |(_, text)| text.as_str());
            // Both were accepted before: a default by a test, a suggestion when it was read.
            let _ = row.set_text(self, OsStr::new(text), None);
        }
        self.unset = unset;
    }

    /// Whether a key of `[generation]` takes this value.
    pub(crate) fn accepts_suggestion(key: &str, text: &str) -> bool {
        let row = table::find(&format!("generation.{key}"));
        row.is_some_and(|row| row.set_text(&mut Settings::default(), OsStr::new(text), None).is_ok())
    }

    /// How tokens are chosen.
    pub(crate) fn sampling(&self) -> engine::Sampling {
        let g = &self.generation;
        engine::Sampling {
            temperature: g.temperature,
            top_k: g.top_k,
            top_p: g.top_p,
            min_p: g.min_p,
            repeat_penalty: g.repeat_penalty,
            repeat_last_n: g.repeat_last_n,
            frequency_penalty: g.frequency_penalty,
            presence_penalty: g.presence_penalty,
            seed: g.seed,
        }
    }

    /// Where the log goes; nowhere when nothing may be written.
    pub(crate) fn log_options(&self) -> crate::logging::LogOptions {
        crate::logging::LogOptions {
            level: self.logging.level,
            file: self.logging.file.clone().filter(|_| !self.history.ephemeral),
            keep: self.logging.keep,
            stderr: self.logging.stderr,
        }
    }
}
