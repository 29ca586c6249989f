//! A directory as the Hugging Face Hub has it: weights in one file or in shards with an index, and beside them the files
//! that say what model it is and how its text is made.
//!
//! The layout is that of the `transformers` and `huggingface_hub` packages. Files may be symbolic links, as in the Hub's
//! cache; shards must have plain file names, so that an index cannot reach outside its directory. `config.json` and its
//! like become metadata under `config.…`; tokenizers and templates are handed out as they are.

use super::{Directory, mlx, names_in, pytorch, quantized, safetensors};
use crate::{
    Error, Metadata, OpenOptions, Result, TensorInfo,
    checkpoint::Contents,
    error::quoted,
    file::ModelFile,
    json::{self, Json},
    limits,
    value::{Text, Value},
};
use std::{
    collections::{BTreeSet, HashSet},
    path::{Component, Path, PathBuf},
};
use tensor::SharedBytes;

/// How a format's weights are called in a directory.
pub(super) struct Weights {
    /// The format's name.
    pub(super) format: &'static str,
    /// The file that holds all of them.
    whole: &'static str,
    /// What says which shard holds which tensor.
    index: &'static str,
    /// How names of weights end.
    suffixes: &'static [&'static str],
    /// Files with such an ending that a training run leaves behind, and that hold no weights.
    others: &'static [&'static str],
    /// Endings of other weights that a file of an unusual name gives way to, unless this format is wanted.
    unless: &'static [&'static str],
    read: fn(ModelFile) -> Result<Part>,
}

pub(super) static SAFETENSORS: Weights = Weights {
    format: safetensors::NAME,
    whole: "model.safetensors",
    index: "model.safetensors.index.json",
    suffixes: &[".safetensors"],
    others: &[],
    unless: &[],
    read: safetensors::read,
};

pub(super) static PYTORCH: Weights = Weights {
    format: pytorch::NAME,
    whole: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    suffixes: &[".bin", ".pt", ".pth"],
    others: &["optimizer.pt", "optimizer.bin", "rng_state", "scaler.pt", "scheduler.pt", "training_args.bin"],
    unless: &[".safetensors", ".gguf", ".onnx"],
    read: pytorch::read,
};

/// One file of weights.
pub(super) struct Part {
    pub(super) file: ModelFile,
    pub(super) tensors: Vec<TensorInfo>,
    /// What the writer says about the file, by key.
    pub(super) texts: Vec<(String, String)>,
    /// Remarks for the user.
    pub(super) notes: Vec<String>,
}

pub(super) const CONFIG: &str = "config.json";
/// What stands for it beside weights in Meta's layout.
const PARAMS: &str = "params.json";
/// What some quantized models have in place of a part of it.
const QUANTIZE_CONFIG: &str = "quantize_config.json";

/// What stands for it beside graphs that ONNX Runtime's model builder wrote.
pub(super) const GENAI: &str = "genai_config.json";

/// What says how the weights of an adapter are meant, beside them (the `peft` and `mlx-lm` packages).
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// How such weights are called in a directory.
const ADAPTER_WEIGHTS: &[&str] = &["adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors"];

/// Small JSON files that become metadata, and the prefix of their keys.
const DESCRIPTIONS: &[(&str, &str)] = &[
    (CONFIG, "config"),
    ("generation_config.json", "generation_config"),
    ("tokenizer_config.json", "tokenizer_config"),
    ("special_tokens_map.json", "special_tokens_map"),
    (PARAMS, "params"),
    (GENAI, "genai_config"),
    (QUANTIZE_CONFIG, "quantize_config"),
    (ADAPTER_CONFIG, "adapter_config"),
];
/// Objects in them with an entry per token, which are for the tokenizer's reader to take from the file itself.
const SKIPPED: &[&str] = &["added_tokens_decoder"];

/// Files that are handed out as they are; those ending in [`SIDECAR_SUFFIX`] as well.
const SIDECARS: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
const SIDECAR_SUFFIX: &str = ".tiktoken";
/// Folders beside the weights whose files of this ending are handed out with the folder's name before them.
const TEMPLATE_FOLDERS: &[&str] = &["additional_chat_templates", "chat_templates"];
const TEMPLATE_SUFFIX: &str = ".jinja";

/// Whether `name` is that of the weights of an adapter.
pub(super) fn is_adapter(name: &str) -> bool {
    ADAPTER_WEIGHTS.contains(&name)
}

/// The weights of the adapter in the directory `path`. Error: it has none.
pub(super) fn adapter_in(path: &Path) -> Result<PathBuf> {
    let names = super::names_in(path)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let fail = |detail: String| Err(Error::Directory { path: path.to_owned(), detail });
    match ADAPTER_WEIGHTS.iter().find(|name| has(name)) {
        Some(weights) if has(ADAPTER_CONFIG) => Ok(path.join(weights)),
        Some(weights) => fail(format!("it has {weights} and no {ADAPTER_CONFIG}, which says how they are meant")),
        None => match names.iter().find(|name| name.ends_with(".gguf")) {
            Some(gguf) => fail(format!("name the adapter file in it, for example {}", quoted(gguf))),
            None => fail(format!("it holds no adapter ({} and {ADAPTER_CONFIG})", ADAPTER_WEIGHTS.join(" or "))),
        },
    }
}

/// The directory that the file `path` is in.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl Weights {
    /// Whether `directory` holds such weights under their usual name.
    pub(super) fn are_usual_in(&self, directory: &Directory<'_>) -> bool {
        directory.has(self.whole) || directory.has(self.index)
    }

    /// Whether `directory` seems to hold such weights.
    pub(super) fn are_in(&self, directory: &Directory<'_>, is_wanted: bool) -> bool {
        let gives_way = || directory.names.iter().any(|name| self.unless.iter().any(|suffix| name.ends_with(suffix)));
        self.are_usual_in(directory) || !self.names(directory.names).is_empty() && (is_wanted || !gives_way())
    }

    /// Opens the model in `directory`, where such weights are.
    pub(super) fn open_in(&self, directory: &Directory<'_>, options: &OpenOptions) -> Result<Contents> {
        let path = directory.path;
        let parts = match self.names(directory.names).as_slice() {
            _ if directory.has(self.whole) => vec![self.open(&path.join(self.whole), options)?],
            _ if directory.has(self.index) => self.read_shards(path, options)?,
            [one] => vec![self.open(&path.join(one), options)?],
            several => {
                let ends = several.first().zip(several.last());
                let list = ends.map(|(first, last)| format!(", {} to {}", quoted(first), quoted(last)));
                let list = list.unwrap_or_default();
                return directory
                    .fail(format!("several files of weights{list}, and no {}: name the one to open", self.index));
            }
        };
        if !directory.has(CONFIG) {
            return directory.fail(format!("it has weights and no {CONFIG}, which says what model they are"));
        }
        self.assemble(path, directory.names, parts, options)
    }

    /// Those of `names` that are weights of this kind.
    fn names<'n>(&self, names: &'n [String]) -> Vec<&'n str> {
        let ours = |name: &&str| {
            let ends = self.suffixes.iter().any(|suffix| name.ends_with(suffix));
            ends && !is_adapter(name) && !self.others.iter().any(|other| name.starts_with(other))
        };
        names.iter().map(String::as_str).filter(ours).collect()
    }

    /// Opens the model that the weight file `file` belongs to: itself, or all shards of the index beside it.
    pub(super) fn open_file(&self, file: ModelFile, options: &OpenOptions) -> Result<Contents> {
        let path = file.path().to_owned();
        let directory = directory_of(&path);
        let names = super::names_in(&directory)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_shard = name != self.whole
            && names.iter().any(|n| n == self.index)
            && Index::read(&directory.join(self.index))?.shards.contains(name);
        let parts = if is_shard { self.read_shards(&directory, options)? } else { vec![(self.read)(file)?] };
        self.assemble(&directory, &names, parts, options)
    }

    /// Opens one file of weights.
    pub(super) fn open(&self, path: &Path, options: &OpenOptions) -> Result<Part> {
        (self.read)(ModelFile::open(path, options.mmap)?)
    }

    /// All shards of the index in `directory`, in order of their names.
    fn read_shards(&self, directory: &Path, options: &OpenOptions) -> Result<Vec<Part>> {
        let index = Index::read(&directory.join(self.index))?;
        // Every shard must be there before the first is read: a missing one is the usual mistake.
        if let Some(missing) = index.shards.iter().find(|shard| std::fs::metadata(directory.join(shard)).is_err()) {
            let problem = format!("the shard {} is missing", quoted(missing));
            return Err(Error::Split { path: index.path, problem });
        }
        let open = |shard: &String| self.open(&directory.join(shard), options);
        let parts = index.shards.iter().map(open).collect::<Result<Vec<_>>>()?;
        index.check(&parts)?;
        Ok(parts)
    }

    /// Weights and the files beside them.
    pub(super) fn assemble(
        &self,
        directory: &Path,
        names: &[String],
        parts: Vec<Part>,
        options: &OpenOptions,
    ) -> Result<Contents> {
        let beside = Beside::read(directory, names, options)?;
        let Beside { mut metadata, sidecars, mut notes } = beside;
        let mut files = Vec::new();
        let mut tensors = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let texts = if index == 0 { part.texts } else { Vec::new() };
            for (key, text) in texts {
                let text = Value::String(Text(SharedBytes::from_vec(text.into_bytes())));
                add(&mut metadata, part.file.path(), format!("{}.{key}", self.format), text)?;
            }
            notes.extend(part.notes);
            tensors.extend(part.tensors.into_iter().map(|tensor| tensor.in_part(index)));
            if tensors.len() as u64 > limits::TENSORS {
                let problem = format!("the shards hold more than {} tensors, which is too many", limits::TENSORS);
                return Err(Error::Split { path: part.file.path().to_owned(), problem });
            }
            files.push(part.file);
        }
        let kind = mlx::is(&metadata).then_some(mlx::NAME);
        if kind.is_some() {
            mlx::turn_kernels(&mut tensors);
        }
        let tensors = quantized::join(&mut metadata, &files, tensors)?;
        Ok(Contents { sidecars, notes, kind, ..Contents::new(files, metadata, tensors) })
    }
}

/// Which shards a model has, and which tensors must be in them.
struct Index {
    path: PathBuf,
    /// Tensor and shard.
    tensors: Vec<(String, String)>,
    shards: BTreeSet<String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        let bytes = read_small(path, limits::INDEX_BYTES)?;
        let json = parse(path, &bytes)?;
        let bad = |problem: &str| Error::Malformed {
            path: path.to_owned(),
            field: "weight_map".to_owned(),
            problem: problem.to_owned(),
        };
        let Some(Json::Object(entries)) = json.get("weight_map") else {
            return Err(bad("missing, or no object of tensors and their shards"));
        };
        let pairs = entries.iter().map(|(tensor, shard)| Some((tensor.clone(), shard.as_text()?.to_owned())));
        let tensors = pairs.collect::<Option<Vec<_>>>().ok_or_else(|| bad("a shard's name is no string"))?;
        let shards: BTreeSet<String> = tensors.iter().map(|(_, shard)| shard.clone()).collect();
        let split = |problem| Error::Split { path: path.to_owned(), problem };
        if shards.is_empty() || shards.len() > limits::SHARDS {
            return Err(split(format!("{} shards (1 to {} are possible)", shards.len(), limits::SHARDS)));
        }
        if let Some(shard) = shards.iter().find(|shard| !is_plain_name(shard)) {
            return Err(split(format!("the shard name {} is not a plain file name", quoted(shard))));
        }
        Ok(Self { path: path.to_owned(), tensors, shards })
    }

    /// Error when a shard lacks a tensor that the index places there.
    fn check(&self, parts: &[Part]) -> Result<()> {
        let found: HashSet<(&str, &str)> = self
            .shards
            .iter()
            .zip(parts)
            .flat_map(|(shard, part)| part.tensors.iter().map(|tensor| (tensor.name.as_str(), shard.as_str())))
            .collect();
        match self.tensors.iter().find(|(tensor, shard)| !found.contains(&(tensor.as_str(), shard.as_str()))) {
            Some((tensor, shard)) => {
                let problem = format!("the tensor {} is missing in the shard {}", quoted(tensor), quoted(shard));
                Err(Error::Split { path: self.path.clone(), problem })
            }
            None => Ok(()),
        }
    }
}

/// Whether `name` names a file of the directory it is joined to, on every system.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !name.contains(['/', '\\', ':', '\0'])
}

/// What lies beside the weights.
pub(super) struct Beside {
    pub(super) metadata: Metadata,
    pub(super) sidecars: Vec<(String, ModelFile)>,
    pub(super) notes: Vec<String>,
}

impl Beside {
    /// Reads the descriptions in `directory`, which holds `names`, and opens the sidecars.
    pub(super) fn read(directory: &Path, names: &[String], options: &OpenOptions) -> Result<Self> {
        let mut metadata = Metadata::new(directory);
        let mut notes = Vec::new();
        for (name, prefix) in DESCRIPTIONS.iter().filter(|(name, _)| names.iter().any(|n| n == name)) {
            let path = directory.join(name);
            let json = parse(&path, &read_small(&path, limits::CONFIG_BYTES)?)?;
            json::flatten(json, prefix, SKIPPED, &mut |key, value| add(&mut metadata, &path, key, value))?;
        }
        if metadata.iter().any(|(key, _)| key.starts_with("config.auto_map.")) {
            notes.push("the model brings Python code of its own (auto_map), which is never run".to_owned());
        }
        if !names.iter().any(|name| [CONFIG, PARAMS, ADAPTER_CONFIG].contains(&name.as_str())) {
            notes.push(format!("there is no {CONFIG} beside the weights"));
        }
        let is_sidecar = |name: &&String| SIDECARS.contains(&name.as_str()) || name.ends_with(SIDECAR_SUFFIX);
        let mut chosen: Vec<String> = names.iter().filter(is_sidecar).cloned().collect();
        for folder in names.iter().filter(|name| TEMPLATE_FOLDERS.contains(&name.as_str())) {
            let path = directory.join(folder);
            let inside = if path.is_dir() { names_in(&path)? } else { Vec::new() };
            let templates = inside.iter().filter(|name| name.ends_with(TEMPLATE_SUFFIX));
            chosen.extend(templates.take(limits::TEMPLATES).map(|name| format!("{folder}/{name}")));
        }
        let mut sidecars = Vec::new();
        for name in chosen {
            let file = ModelFile::open(&directory.join(&name), options.mmap)?;
            check_len(&file, limits::SIDECAR_BYTES)?;
            sidecars.push((name, file));
        }
        Ok(Self { metadata, sidecars, notes })
    }
}

/// Adds a value that a file of `path` holds. Error: twice, or too many.
fn add(metadata: &mut Metadata, path: &Path, key: String, value: Value) -> Result<()> {
    let fail = |key: &str, problem: String| {
        let field = format!("key {}", quoted(key));
        Err(Error::Malformed { path: path.to_owned(), field, problem })
    };
    if metadata.len() as u64 >= limits::KEYS {
        return fail(&key, format!("more than {} keys are too many", limits::KEYS));
    }
    if key.len() > limits::JSON_KEY_BYTES {
        let most = limits::JSON_KEY_BYTES;
        return fail(&key, format!("the key is too long with those it is nested in (at most {most} bytes)"));
    }
    if metadata.get(&key).is_some() {
        return fail(&key, "duplicate: the key occurs twice".to_owned());
    }
    metadata.insert(key, value);
    Ok(())
}

fn check_len(file: &ModelFile, most: u64) -> Result<()> {
    if file.len() <= most {
        return Ok(());
    }
    let problem = format!("the file has {} bytes, which is too large (at most {most})", file.len());
    Err(Error::Malformed { path: file.path().to_owned(), field: "size".to_owned(), problem })
}

/// All bytes of a small file.
fn read_small(path: &Path, most: u64) -> Result<SharedBytes> {
    let file = ModelFile::open(path, false)?;
    check_len(&file, most)?;
    file.bytes(0, file.len(), || "the file".to_owned())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Json> {
    let json = json::parse(bytes).map_err(|problem| Error::Malformed {
        path: path.to_owned(),
        field: "JSON".to_owned(),
        problem,
    })?;
    match json {
        Json::Object(_) => Ok(json),
        _ => Err(Error::Malformed {
            path: path.to_owned(),
            field: "JSON".to_owned(),
            problem: "an object was expected".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names_stay_in_their_directory() {
        #[track_caller]
        fn check(name: &str, expected: bool) {
            assert_eq!(is_plain_name(name), expected, "{name:?}");
        }
        check("model-00001-of-00002.safetensors", true);
        check("..a", true);
        for bad in ["", ".", "..", "../a", "a/b", "a/", "/a", "./a", "a\\b", "C:a", "a\0"] {
            check(bad, false);
        }
    }
}
