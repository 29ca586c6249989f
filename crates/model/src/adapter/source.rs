//! What a file of adapters holds: as `peft` (Hugging Face) or Apple's tools write it, whose `adapter_config.json` says how, or in
//! the house's convention, which is that of the adapters in GGUF files.
//!
//! What is no plain LoRA is refused by name: an adapter applied in part would be another model than its author's.

use crate::convention::Convention;
use crate::{Architecture, Error, Result};
use checkpoint::{Checkpoint, Metadata, TensorInfo, Value};

/// Before every number of `adapter_config.json`.
const CONFIG: &str = "adapter_config.";
/// Before the numbers of an adapter whose matrices lie the other way round, as Apple's tools have them.
const TURNED: &str = "adapter_config.lora_parameters.";
/// What `peft` puts before the names of the model it wraps.
const WRAPPER: &str = "base_model.model.";
/// Where the house's files say what they are.
const TYPE_KEY: &str = "general.type";

/// A pair of matrices for one tensor of a model.
#[derive(Debug, PartialEq)]
pub(super) struct Pair {
    /// The tensor it is for, as files of this convention call it.
    pub(super) target: String,
    /// The name of `a`, `[rank, n_in]`.
    pub(super) a: String,
    /// The name of `b`, `[n_out, rank]`.
    pub(super) b: String,
    /// It is for a table of rows: `a` is `[n_rows, rank]`.
    pub(super) is_table: bool,
    /// `a` and `b` lie transposed in the file, as far as they are single matrices.
    pub(super) turned: [bool; 2],
    /// `alpha / rank`, or whatever the file says.
    pub(super) scale: f32,
}

/// All pairs of a file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) convention: Convention,
    pub(super) pairs: Vec<Pair>,
}

/// Whether the metadata are those of an adapter, in either convention.
pub(crate) fn is_adapter(metadata: &Metadata) -> bool {
    metadata.get(TYPE_KEY).and_then(Value::as_str) == Some("adapter") || is_peft(metadata) || is_turned(metadata)
}

fn is_turned(metadata: &Metadata) -> bool {
    metadata.iter().any(|(key, _)| key.starts_with(TURNED))
}

fn is_peft(metadata: &Metadata) -> bool {
    metadata.get("adapter_config.peft_type").is_some_and(|kind| !matches!(kind, Value::Null))
}

/// Reads which pairs there are. Error: no adapter, one of another kind or for another family, a tensor that is not part
/// of a pair.
pub(super) fn read(checkpoint: &Checkpoint, architecture: &Architecture) -> Result<Source> {
    let metadata = checkpoint.metadata();
    let source = if metadata.get(TYPE_KEY).and_then(Value::as_str) == Some("adapter") {
        Source { convention: Convention::House, pairs: house(checkpoint, architecture)? }
    } else if is_peft(metadata) {
        Source { convention: Convention::HuggingFace, pairs: peft(checkpoint)? }
    } else if is_turned(metadata) {
        Source { convention: Convention::HuggingFace, pairs: turned(checkpoint)? }
    } else if metadata.iter().any(|(key, _)| key.starts_with(CONFIG)) {
        return Err(unsupported("an adapter whose adapter_config.json has no peft_type".to_owned()));
    } else {
        return Err(Error::NotAnAdapter);
    };
    if source.pairs.is_empty() {
        return Err(Error::EmptyAdapter);
    }
    Ok(source)
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { what }
}

/// An untrusted name for a message.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_debug).collect()
}

/// The pairs of a file of the house's convention.
fn house(checkpoint: &Checkpoint, architecture: &Architecture) -> Result<Vec<Pair>> {
    let metadata = checkpoint.metadata();
    match metadata.str("adapter.type")? {
        Some("lora") => {}
        Some(other) => return Err(unsupported(format!("an adapter of the type {:?}", shown(other)))),
        None => return Err(Error::MissingKey { key: "adapter.type".to_owned() }),
    }
    if metadata.get("adapter.alora.invocation_tokens").is_some() {
        return Err(unsupported("an adapter that is switched on by tokens (aLoRA)".to_owned()));
    }
    let family = metadata.str("general.architecture")?.unwrap_or_default();
    if family != architecture.name {
        return Err(Error::AdapterFamily { adapter: shown(family), model: architecture.name });
    }
    let alpha = metadata.f32("adapter.lora.alpha")?.unwrap_or(0.0);
    finite("adapter.lora.alpha", alpha)?;
    let mut pairs = Vec::new();
    for info in checkpoint.tensors() {
        if let Some(target) = info.name.strip_suffix(".lora_a") {
            let b = find(checkpoint, &info.name, format!("{target}.lora_b"))?;
            let scale = if alpha == 0.0 { 1.0 } else { alpha / rank_of(b) as f32 };
            let is_table = target == "token_embd.weight";
            let (target, a, b) = (target.to_owned(), info.name.clone(), b.name.clone());
            pairs.push(Pair { target, a, b, is_table, turned: [false; 2], scale });
        } else if let Some(target) = info.name.strip_suffix(".lora_b") {
            find(checkpoint, &info.name, format!("{target}.lora_a"))?;
        } else {
            return Err(unsupported(format!("the tensor {} in an adapter", shown(&info.name))));
        }
    }
    Ok(pairs)
}

/// The other half of a pair.
fn find<'c>(checkpoint: &'c Checkpoint, of: &str, name: String) -> Result<&'c TensorInfo> {
    let missing = || Error::AdapterHalf { tensor: shown(of), missing: shown(&name) };
    checkpoint.tensor(&name).ok_or_else(missing)
}

/// The rank that `b` says: its rows' length.
fn rank_of(b: &TensorInfo) -> usize {
    b.shape.row_len().max(1)
}

fn finite(key: &str, value: f32) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::BadKey { key: key.to_owned(), value: value.to_string(), why: "it must be a finite number".to_owned() })
}

/// How names end that belong to a pair, and whether of a table. Files written without `peft`'s own function keep the
/// adapter's name, which is `default` as a rule.
const HALVES: &[(&str, &str, bool)] = &[
    (".lora_A.weight", ".lora_B.weight", false),
    (".lora_A.default.weight", ".lora_B.default.weight", false),
    (".lora_embedding_A", ".lora_embedding_B", true),
    (".lora_embedding_A.default", ".lora_embedding_B.default", true),
];

/// Parts of names that are more than LoRA, and what they are.
const OTHERS: &[(&str, &str)] = &[
    (".lora_magnitude_vector", "DoRA"),
    (".lora_B.bias", "lora_bias"),
    (".ia3_", "IA³"),
    (".token_adapter.", "trainable_token_indices"),
    (".bias", "trained biases (bias)"),
];

/// The pairs of a file of `peft`'s convention.
fn peft(checkpoint: &Checkpoint) -> Result<Vec<Pair>> {
    let config = PeftConfig::read(checkpoint.metadata())?;
    let mut pairs = Vec::new();
    for info in checkpoint.tensors() {
        let name = info.name.as_str();
        let half = HALVES.iter().find_map(|(a, b, table)| Some((name.strip_suffix(a)?, *b, *table)));
        if let Some((base, b_end, is_table)) = half {
            let b = find(checkpoint, name, format!("{base}{b_end}"))?;
            let module = base.strip_prefix(WRAPPER).unwrap_or(base);
            let scale = config.scale(module, rank_of(b))?;
            let (a, b) = (name.to_owned(), b.name.clone());
            pairs.push(Pair { target: format!("{module}.weight"), a, b, is_table, turned: [is_table, false], scale });
        } else if let Some((base, a_end)) = HALVES.iter().find_map(|(a, b, _)| Some((name.strip_suffix(b)?, *a))) {
            find(checkpoint, name, format!("{base}{a_end}"))?;
        } else {
            let what = OTHERS.iter().find(|(part, _)| name.contains(part)).map(|&(_, what)| what);
            let what = what.unwrap_or("a whole trained module (modules_to_save)");
            return Err(unsupported(format!("{what}: the tensor {} in an adapter", shown(name))));
        }
    }
    Ok(pairs)
}

/// The pairs of a file whose products are `x · a · b`, so that single matrices lie the other way round; stacks
/// of experts do not. One scale is for all.
fn turned(checkpoint: &Checkpoint) -> Result<Vec<Pair>> {
    let metadata = checkpoint.metadata();
    let kind = metadata.str("adapter_config.fine_tune_type")?.unwrap_or("lora");
    if kind != "lora" {
        return Err(unsupported(format!("an adapter of the type {:?}", shown(kind))));
    }
    let key = format!("{TURNED}scale");
    let scale = number(metadata, &key)?.ok_or(Error::MissingKey { key })?;
    let mut pairs = Vec::new();
    for info in checkpoint.tensors() {
        if let Some(module) = info.name.strip_suffix(".lora_a") {
            let b = find(checkpoint, &info.name, format!("{module}.lora_b"))?.name.clone();
            let (target, a) = (format!("{module}.weight"), info.name.clone());
            pairs.push(Pair { target, a, b, is_table: false, turned: [true; 2], scale });
        } else if let Some(module) = info.name.strip_suffix(".lora_b") {
            find(checkpoint, &info.name, format!("{module}.lora_a"))?;
        } else {
            return Err(unsupported(format!("the tensor {} in an adapter", shown(&info.name))));
        }
    }
    Ok(pairs)
}

/// What `adapter_config.json` says about scales.
struct PeftConfig {
    alpha: f32,
    /// Scales are `alpha / √rank` (Kalajdzievski 2023, "rsLoRA").
    is_rank_stabilized: bool,
    /// Ends of module names that have an alpha of their own, in the order of the file.
    alphas: Vec<(String, f32)>,
}

/// Switches that change the arithmetic in a way that is not built, and what they are.
const SWITCHES: &[(&str, &str)] = &[
    ("use_dora", "DoRA (use_dora)"),
    ("use_qalora", "QALoRA (use_qalora)"),
    ("lora_bias", "a bias of the additions (lora_bias)"),
];

/// Lists or objects that must be empty, and what they are.
const EMPTY: &[(&str, &str)] = &[
    ("modules_to_save", "whole trained modules (modules_to_save)"),
    ("layer_replication", "repeated layers (layer_replication)"),
    ("trainable_token_indices", "trained tokens (trainable_token_indices)"),
    ("alora_invocation_tokens", "an adapter that is switched on by tokens (aLoRA)"),
    ("arrow_config", "routed adapters (arrow_config)"),
];

/// Beginnings that leave the model's own weights alone; the others (`pissa`, `olora`, `loftq` …) change them.
const BEGINNINGS: &[&str] = &["gaussian", "eva", "orthogonal"];

impl PeftConfig {
    fn read(metadata: &Metadata) -> Result<Self> {
        let key = |name: &str| format!("{CONFIG}{name}");
        let kind = metadata.str(&key("peft_type"))?.unwrap_or_default();
        if kind != "LORA" {
            return Err(unsupported(format!("an adapter of the type {:?}", shown(kind))));
        }
        for (name, what) in SWITCHES {
            if metadata.bool(&key(name))? == Some(true) {
                return Err(unsupported((*what).to_owned()));
            }
        }
        for (name, what) in EMPTY {
            let below = key(&format!("{name}."));
            let is_set = match metadata.get(&key(name)) {
                None | Some(Value::Null | Value::Bool(false)) => false,
                Some(Value::Array(list)) => !list.is_empty(),
                Some(_) => true,
            };
            if is_set || metadata.iter().any(|(key, _)| key.starts_with(&below)) {
                return Err(unsupported((*what).to_owned()));
            }
        }
        if let Some(bias) = metadata.str(&key("bias"))?.filter(|bias| *bias != "none") {
            return Err(unsupported(format!("trained biases (bias = {:?})", shown(bias))));
        }
        if let Some(beginning) = metadata.get(&key("init_lora_weights")).and_then(Value::as_str)
            && !BEGINNINGS.contains(&beginning)
        {
            let what = format!("init_lora_weights = {:?}, which changes the model's own weights,", shown(beginning));
            return Err(unsupported(what));
        }
        let alpha = number(metadata, &key("lora_alpha"))?;
        let alpha = alpha.ok_or_else(|| Error::MissingKey { key: key("lora_alpha") })?;
        let is_rank_stabilized = metadata.bool(&key("use_rslora"))?.unwrap_or(false);
        let prefix = key("alpha_pattern.");
        let mut alphas = Vec::new();
        for (key, _) in metadata.iter() {
            let Some(pattern) = key.strip_prefix(&prefix) else { continue };
            let alpha = number(metadata, key)?.unwrap_or(alpha);
            alphas.push((plain_pattern(pattern)?, alpha));
        }
        Ok(Self { alpha, is_rank_stabilized, alphas })
    }

    /// The scale of a module's addition of `rank`.
    fn scale(&self, module: &str, rank: usize) -> Result<f32> {
        let alpha = self.alphas.iter().find(|(end, _)| is_end(end, module)).map_or(self.alpha, |&(_, alpha)| alpha);
        let rank = rank as f32;
        let scale = alpha / if self.is_rank_stabilized { rank.sqrt() } else { rank };
        finite(&format!("{CONFIG}lora_alpha"), scale)?;
        Ok(scale)
    }
}

/// A number of any type.
fn number(metadata: &Metadata, key: &str) -> Result<Option<f32>> {
    let value = match metadata.get(key).and_then(Value::as_integer) {
        Some(integer) => Some(integer as f32),
        None => metadata.f32(key)?,
    };
    value.map_or(Ok(()), |value| finite(key, value))?;
    Ok(value)
}

/// A key of a pattern, which is a regular expression for the end of a module's name; those in use are plain names.
fn plain_pattern(pattern: &str) -> Result<String> {
    let plain = pattern.replace("\\.", ".");
    let plain = plain.strip_prefix('^').map_or(plain.clone(), |rest| format!("^{rest}"));
    let letters = plain.strip_prefix('^').unwrap_or(&plain);
    if letters.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return Ok(plain);
    }
    Err(unsupported(format!("the regular expression {:?} in alpha_pattern", shown(pattern))))
}

/// Whether the module's name is `end`, or ends with it behind a dot; `^`: it must be the whole name.
fn is_end(end: &str, module: &str) -> bool {
    match end.strip_prefix('^') {
        Some(whole) => whole == module,
        None => module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_ends_of_names() {
        #[track_caller]
        fn check(pattern: &str, module: &str, expected: bool) {
            assert_eq!(is_end(&plain_pattern(pattern).unwrap(), module), expected);
        }
        check("q_proj", "model.layers.0.self_attn.q_proj", true);
        check("q_proj", "q_proj", true);
        check("q_proj", "model.layers.0.self_attn.xq_proj", false);
        check("model.layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj", true);
        check("layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj", false);
        check("layers\\.1\\.mlp", "model.layers.1.mlp", true);
        check("^q_proj", "model.q_proj", false);
        assert!(plain_pattern("layers.[0-9].q_proj").is_err());
    }
}
