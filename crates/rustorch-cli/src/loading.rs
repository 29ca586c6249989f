//! From settings to something that answers: file, plan, device, weights, tokenizer, template, engine.
//!
//! Nothing is allocated before the plan fits (requirement rows R42, R90). What is made is one [`Loaded`], which the chat
//! replaces as a whole for `/model` and `/backend`; a failure or Ctrl-C leaves nothing behind.

use crate::{
    adapters::{self, Adapter, InUse},
    backends, control_group, demo,
    encode::Conversion,
    exit::{Exit, Failure, Result},
    fitting::{self, Fitting},
    integrity, output, paths,
    quantized::Kept,
    settings::Settings,
    terminal_filter::visible_line,
    tool::models,
};
use checkpoint::{Checkpoint, OpenOptions, Value};
use engine::{Engine, EngineConfig};
use model::{Architecture, Decoder, HyperParams, LoadOptions, ObservedTensor, Retype};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};
use tensor::{DType, HostTensor};
use text::{ChatTemplate, Tokenizer};

crate::messages::messages! {
    /// The file is no model that can be used.
    model_failed(path) { "cannot load the model {path}", "モデル {path} を読み込めません" }
    /// The file that `--arch` names.
    description_unusable(path) {
        "cannot use {path} as the description of a family of models",
        "{path} をモデル系列の記述として使えません"
    }
    /// How it is written.
    description_hint() {
        "docs/en/families.md lists its keys",
        "使えるキーは docs/ja/families.md にあります"
    }
    /// A family without a record.
    unknown_family_hint() {
        "a family much like a known one can be described in a TOML file: `--arch FILE` (docs/en/families.md)",
        "既知の系列に近いものは TOML ファイルで記述できます: `--arch FILE`(docs/ja/families.md)"
    }
    /// What might help.
    model_failed_hint(path) {
        "`rustorch-cli inspect --model {path}` shows what is in the file",
        "`rustorch-cli inspect --model {path}` でファイルの内容を確認できます"
    }
    /// `model.format` says otherwise.
    wrong_format(path, found, wanted) {
        "{path} is a {found} model, but model.format is `{wanted}`",
        "{path} は {found} 形式ですが、model.format は `{wanted}` です"
    }
    /// What to do about it.
    wrong_format_hint() { "set model.format to \"auto\", or name another model", "model.format を \"auto\" にするか、別のモデルを指定してください" }
    /// A directory with several formats, when none was asked for.
    several_formats(path, used, others) {
        "{path} also holds the model as {others}: {used} is used (`--model-format` chooses)",
        "{path} には {others} 形式のモデルもあります。{used} を使います(`--model-format` で選べます)"
    }
    /// The progress bar's words.
    loading(name) { "loading {name}", "{name} を読み込み中" }
    /// A template that does not exist.
    no_such_template(name) { "there is no chat template `{name}`", "チャットテンプレート `{name}` はありません" }
    /// The ones that exist.
    template_names(names) { "a file, or one of: {names}", "ファイル、または次のいずれか: {names}" }
    /// A template file that cannot be used.
    template_unusable(name) { "the chat template {name} cannot be used", "チャットテンプレート {name} は使えません" }
    /// A model without a chat template.
    no_template(names) {
        "this model has no chat template: what you type is simply continued. --template NAME|FILE makes it a chat (built in: {names})",
        "このモデルにはチャットテンプレートがありません。入力の続きをそのまま生成します。--template 名前|ファイル でチャットにできます(組み込み: {names})"
    }
    /// What to do about it.
    template_missing_hint(names) {
        "--template NAME|FILE gives one (built in: {names}); --raw continues the prompt without",
        "--template NAME|FILE で指定するか(組み込み: {names})、--raw でテンプレートなしに続きを生成します"
    }
    /// A suggestion of the file that is of no use.
    bad_suggestion(key) {
        "the model's {key} is not a value for this setting: ignored",
        "モデルの {key} は設定値として使えないため無視します"
    }
    /// The engine refused.
    engine_failed() { "the engine cannot start", "エンジンを開始できません" }
}

/// A template file larger than this is none.
const MAX_TEMPLATE_BYTES: u64 = 4 << 20;

/// The same of a description of a family.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 10;

/// A model ready to answer, and what is worth knowing about it.
pub(crate) struct Loaded {
    /// The engine; dropping the last clone frees the model.
    pub(crate) engine: Engine,
    /// Its tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// Its chat template, or why there is none.
    template: Template,
    /// The numbers of the model.
    pub(crate) hyper: HyperParams,
    /// The file as named.
    pub(crate) path: PathBuf,
    /// All files.
    pub(crate) files: Vec<PathBuf>,
    /// Size of all files.
    pub(crate) file_bytes: u64,
    /// Tokens of the window.
    pub(crate) context: usize,
    /// The settings that the model would rather have.
    pub(crate) suggestions: Vec<Suggestion>,
    /// Adapters in use, in order.
    pub(crate) adapters: Vec<InUse>,
    /// Seconds from opening the file until the engine ran.
    pub(crate) load_s: f64,
}

impl Loaded {
    /// The chat template; none if the model has none, so that texts simply follow each other.
    ///
    /// # Errors
    /// The model has one that cannot be used.
    pub(crate) fn template(&self) -> Result<Option<&ChatTemplate>> {
        self.template.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// Texts shall simply follow each other, without a template.
    pub(crate) fn forget_template(&mut self) {
        self.template = Ok(None);
    }
}

/// A setting that a model would rather have than the built-in default: a key of `[generation]` and its value.
pub(crate) type Suggestion = (&'static str, String);

/// Keys of the metadata (those of llama.cpp) and the settings they suggest.
const SUGGESTED: &[(&str, &str)] = &[
    ("general.sampling.temp", "temperature"),
    ("general.sampling.top_k", "top_k"),
    ("general.sampling.top_p", "top_p"),
    ("general.sampling.min_p", "min_p"),
    ("general.sampling.penalty_repeat", "repeat_penalty"),
    ("general.sampling.penalty_last_n", "repeat_last_n"),
];

/// What the model's metadata suggests; a value that the setting cannot take is said and left out.
fn suggestions(checkpoint: &Checkpoint) -> Vec<Suggestion> {
    let mut found = Vec::new();
    for (key, setting) in SUGGESTED {
        let Some(value) = checkpoint.metadata().get(key) else { continue };
        let text = match (value, value.as_integer()) {
            (Value::F32(x), _) => x.to_string(),
            (Value::F64(x), _) => x.to_string(),
            (_, Some(n)) => n.to_string(),
            _ => String::new(),
        };
        if Settings::accepts_suggestion(setting, &text) {
            found.push((*setting, text));
        } else {
            output::warning(&bad_suggestion(key));
        }
    }
    found
}

/// Makes the family known that the settings describe.
fn learn_family(settings: &Settings) -> Result<()> {
    let Some(path) = &settings.model.arch else { return Ok(()) };
    let failed = |cause: &crate::exit::Cause| {
        Failure::new(Exit::Usage, description_unusable(paths::display(path))).because_of(cause).hint(description_hint())
    };
    let text = crate::safe_write::read_text(path, MAX_DESCRIPTION_BYTES).map_err(|error| failed(&error))?;
    Architecture::add(Architecture::from_description(&text).map_err(|error| failed(&error))?);
    Ok(())
}

/// Opens the model file of the settings.
pub(crate) fn open(settings: &Settings) -> Result<Checkpoint> {
    let Some(path) = &settings.model.path else {
        let config = paths::default_config().map_or_else(|| "config.toml".to_owned(), |path| paths::display(&path));
        return Err(Failure::new(Exit::Usage, crate::messages::no_model()).hint(crate::messages::no_model_hint(config)));
    };
    // What is no file may be a name that `models` lists.
    let is_name = !demo::is(path) && path.is_relative() && !path.exists();
    let listed = match path.to_str().filter(|_| is_name) {
        Some(name) => models::path_of(name)?,
        None => None,
    };
    let path = listed.as_ref().unwrap_or(path);
    learn_family(settings)?;
    let checkpoint = open_path(path, settings)?;
    say_choice(&checkpoint, settings);
    Ok(checkpoint)
}

/// Opens the model at `path`, or the one in the program if that is its name.
pub(crate) fn open_path(path: &Path, settings: &Settings) -> Result<Checkpoint> {
    let format = checkpoint::format_names().find(|name| *name == settings.model.format);
    let options = OpenOptions { mmap: settings.model.mmap, format };
    let opened = if demo::is(path) { demo::open() } else { Checkpoint::open(path, &options) };
    let checkpoint = opened.map_err(|error| checkpoint_failure(path, &error))?;
    match format.filter(|wanted| *wanted != checkpoint.format()) {
        Some(wanted) => {
            let error = wrong_format(paths::display(path), checkpoint.format(), wanted);
            Err(Failure::new(Exit::Model, error).hint(wrong_format_hint()))
        }
        None => Ok(checkpoint),
    }
}

/// Says which format of a directory that holds several is used, unless the user chose.
pub(crate) fn say_choice(checkpoint: &Checkpoint, settings: &Settings) {
    if settings.model.format == "auto" && !checkpoint.other_formats().is_empty() {
        let path = paths::display(checkpoint.path());
        output::note(&several_formats(path, checkpoint.format(), checkpoint.other_formats().join(", ")));
    }
}

/// Loads everything. `interrupted` is asked often; once true, loading ends with [`Exit::Interrupted`].
pub(crate) fn load(settings: &Settings, interrupted: &dyn Fn() -> bool) -> Result<Loaded> {
    let checkpoint = open(settings)?;
    let loaded = load_into(&checkpoint, settings, 1, true, interrupted, &mut |_| ())?;
    if demo::is(checkpoint.path()) {
        output::note(&demo::notice());
    }
    Ok(loaded)
}

/// Loads an open model file, with a cache for `n_sequences` full windows and nothing else.
pub(crate) fn load_from(
    checkpoint: &Checkpoint,
    settings: &Settings,
    n_sequences: usize,
    interrupted: &dyn Fn() -> bool,
) -> Result<Loaded> {
    load_into(checkpoint, settings, n_sequences, false, interrupted, &mut |_| ())
}

/// [`load_from`] for one window, with what its matrices are multiplied with watched.
pub(crate) fn load_observed(checkpoint: &Checkpoint, settings: &Settings) -> Result<(Loaded, Vec<ObservedTensor>)> {
    let mut observed = Vec::new();
    let mut observe = |decoder: &mut Decoder| observed = decoder.observe(checkpoint);
    let loaded = load_into(checkpoint, settings, 1, false, &|| false, &mut observe)?;
    Ok((loaded, observed))
}

/// `saves`: the cache has room for saved prefixes too, as the settings say; `prepare` sees the model before it runs.
fn load_into(
    checkpoint: &Checkpoint,
    settings: &Settings,
    n_sequences: usize,
    saves: bool,
    interrupted: &dyn Fn() -> bool,
    prepare: &mut dyn FnMut(&mut Decoder),
) -> Result<Loaded> {
    let start = Instant::now();
    let path = checkpoint.path().to_path_buf();
    let model_error = |error: model::Error| model_failure(&path, &error);
    let hyper = HyperParams::read(checkpoint).map_err(model_error)?;
    integrity::check(checkpoint, settings, interrupted)?;
    // Small things that may be wrong come before large ones that take time.
    let tokenizer = Tokenizer::from_checkpoint(checkpoint).map_err(|error| text_failure(&path, &error))?;
    let template = find_template(checkpoint, settings)?;
    let allowed = fitting::allowed(settings);
    let adapters = adapters::open(settings)?;
    let fitting = Fitting { checkpoint, settings, hyper: &hyper, n_sequences, saves, allowed, adapters: &adapters };
    let fit = fitting.fit()?;
    fitting.tell(&fit);
    let context = fit.context;
    let device = backends::open(settings)?;
    let chunk = settings.backend.prefill_chunk.min(context);
    let mut decoder = {
        let bar = output::progress(
            settings.interface.show_progress,
            checkpoint.tensors().iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes)),
            "{msg} [{bar:24}] {bytes}/{total_bytes} {eta}",
        );
        bar.set_message(loading(model_name(checkpoint)));
        let options = LoadOptions { max_rows: chunk, context_length: Some(context) };
        let kept = match fit.mixture {
            Some(mixture) => Kept::open(checkpoint, settings, mixture, fit.plan.weights_bytes),
            None => Kept::Nothing,
        };
        let make = |tensor: &HostTensor, to: DType| transcode(tensor, to, settings.backend.threads);
        let encode = |tensor: &HostTensor, to: DType| kept.get(tensor, to, || make(tensor, to));
        let retype = fit.mixture.map(|mixture| Retype { mixture, encode: &encode });
        let result = Decoder::load_as(checkpoint, device, &options, retype.as_ref(), &mut |at| {
            bar.set_position(at.done_bytes);
            if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        let decoder = result.map_err(model_error)?;
        kept.finish();
        decoder
    };
    let mut in_use = Vec::new();
    for Adapter { named, checkpoint } in &adapters {
        decoder.add_adapter(checkpoint, named.scale).map_err(|error| named.refused(&error))?;
        in_use.extend(decoder.adapters().last().map(|&info| InUse { path: named.path.clone(), info }));
    }
    prepare(&mut decoder);
    let engine = Engine::start(EngineConfig {
        decoder,
        tokenizer: tokenizer.clone(),
        context,
        kv_type: fitting.kv_type(context),
        prefill_chunk: chunk,
        max_sequences: n_sequences,
        saved_positions: fit.saved_positions,
    })
    .map_err(|error| engine_failure(&error))?;
    let loaded = Loaded {
        engine,
        tokenizer,
        template,
        hyper,
        files: checkpoint.files().to_vec(),
        file_bytes: checkpoint.file_bytes(),
        context,
        suggestions: suggestions(checkpoint),
        adapters: in_use,
        load_s: start.elapsed().as_secs_f64(),
        path,
    };
    tracing::info!(
        model = %visible_line(&loaded.path.to_string_lossy()),
        architecture = loaded.hyper.architecture.name,
        context,
        load_s = loaded.load_s,
        "model loaded"
    );
    Ok(loaded)
}

/// The bytes of a tensor in another type, made by all threads.
fn transcode(tensor: &HostTensor, to: DType, threads: Option<usize>) -> tensor::Result<Vec<u8>> {
    let shape = *tensor.shape();
    let row_bytes = tensor.row_bytes();
    let read = |rows: std::ops::Range<usize>, out: &mut Vec<u8>| {
        let bytes = tensor.bytes().get(rows.start * row_bytes..rows.end * row_bytes);
        out.extend_from_slice(bytes.ok_or_else(|| tensor::Error::Shape(format!("rows {rows:?} of {shape}")))?);
        Ok(())
    };
    let mut out = Vec::new();
    let n_bytes = to.tensor_bytes(&shape)?;
    let no_memory = || tensor::Error::Overflow { shape: shape.to_string(), dtype: to };
    out.try_reserve_exact(n_bytes).map_err(|_| no_memory())?;
    let conversion = Conversion { from: tensor.dtype(), to, shape, threads, importance: &[] };
    conversion.run(&read, &mut |bytes| {
        out.extend_from_slice(&bytes);
        Ok(())
    })?;
    Ok(out)
}

/// Bytes that this process may still take: of the machine, or of its control groups if they allow less. Page cache counts
/// as available, so that a model that was just read does not stand in its own way.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    match (machine, control_group::available_memory()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The spellings of BOS and EOS, as templates want them.
pub(crate) fn edge_tokens(tokenizer: &Tokenizer) -> (String, String) {
    let text = |id: Option<u32>| {
        id.map(|id| String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned()).unwrap_or_default()
    };
    (text(tokenizer.bos()), text(tokenizer.eos()))
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The name that the model gives itself, else that of its file; one harmless line.
pub(crate) fn model_name(checkpoint: &Checkpoint) -> String {
    let own = checkpoint.metadata().str("general.name").ok().flatten().map(str::trim).filter(|name| !name.is_empty());
    let file = || checkpoint.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = own.map_or_else(file, str::to_owned).chars().take(80).collect();
    visible_line(&name)
}

/// A template, or why there is none.
pub(crate) type Template = Result<Option<ChatTemplate>>;

/// The template of the settings, else the model's own. Settings that name none that works are an error now; a model
/// without is one only when a template is needed.
pub(crate) fn find_template(checkpoint: &Checkpoint, settings: &Settings) -> Result<Template> {
    if let Some(name) = &settings.model.template {
        return model_template(checkpoint, name).map(|template| Ok(Some(template)));
    }
    Ok(match ChatTemplate::from_checkpoint(checkpoint) {
        Ok(template) => Ok(template),
        Err(error) => Err(Failure::new(Exit::Model, template_unusable(paths::display(checkpoint.path())))
            .because_of(&error)
            .hint(template_missing_hint(builtin_names()))),
    })
}

/// One of the model's templates by name, else [`named_template`].
pub(crate) fn model_template(checkpoint: &Checkpoint, name: &str) -> Result<ChatTemplate> {
    let own = ChatTemplate::named_in(checkpoint).map_err(|error| text_failure(checkpoint.path(), &error))?;
    match own.iter().find(|(known, _)| known == name) {
        Some((_, source)) => ChatTemplate::from_source(source)
            .map_err(|error| Failure::new(Exit::Model, template_unusable(visible_line(name))).because_of(&error)),
        None => {
            let own: Vec<String> = own.iter().map(|(name, _)| visible_line(name)).collect();
            named_template_beside(name, &own)
        }
    }
}

/// A built-in template, or that of a file.
pub(crate) fn named_template(name: &str) -> Result<ChatTemplate> {
    named_template_beside(name, &[])
}

/// The same, where the model has templates of other names.
fn named_template_beside(name: &str, own: &[String]) -> Result<ChatTemplate> {
    if let Some(template) = ChatTemplate::builtin(name) {
        return Ok(template);
    }
    let fail =
        |cause: &crate::exit::Cause| Failure::new(Exit::Usage, template_unusable(visible_line(name))).because_of(cause);
    let path = paths::expand(std::ffi::OsStr::new(name), None).map_err(|error| fail(&error))?;
    if !path.exists() {
        let names = own.iter().cloned().chain(ChatTemplate::builtin_names().map(str::to_owned));
        let names: Vec<String> = names.collect();
        return Err(
            Failure::new(Exit::Usage, no_such_template(visible_line(name))).hint(template_names(names.join(", ")))
        );
    }
    let source = crate::safe_write::read_text(&path, MAX_TEMPLATE_BYTES).map_err(|error| fail(&error))?;
    ChatTemplate::from_source(&source).map_err(|error| fail(&error))
}

/// The built-in templates, for messages.
pub(crate) fn builtin_names() -> String {
    ChatTemplate::builtin_names().collect::<Vec<_>>().join(", ")
}

/// A failure of the file.
pub(crate) fn checkpoint_failure(path: &Path, error: &checkpoint::Error) -> Failure {
    let exit = if matches!(error, checkpoint::Error::Memory { .. }) { Exit::Memory } else { Exit::Model };
    Failure::new(exit, model_failed(paths::display(path))).because_of(error)
}

/// A failure of the tokenizer or template.
pub(crate) fn text_failure(path: &Path, error: &text::Error) -> Failure {
    Failure::new(Exit::Model, model_failed(paths::display(path)))
        .because_of(error)
        .hint(model_failed_hint(paths::display(path)))
}

/// A failure between file and logits.
pub(crate) fn model_failure(path: &Path, error: &model::Error) -> Failure {
    match error {
        model::Error::Cancelled => Failure::silent(Exit::Interrupted),
        model::Error::Checkpoint(error) => checkpoint_failure(path, error),
        model::Error::Compute(compute::Error::OutOfMemory { .. }) => {
            Failure::new(Exit::Memory, model_failed(paths::display(path))).because_of(error)
        }
        model::Error::UnknownArchitecture { .. } | model::Error::UnknownModelType { .. } => {
            Failure::new(Exit::Model, model_failed(paths::display(path))).because_of(error).hint(unknown_family_hint())
        }
        _ => Failure::new(Exit::Model, model_failed(paths::display(path)))
            .because_of(error)
            .hint(model_failed_hint(paths::display(path))),
    }
}

/// A failure of the engine.
pub(crate) fn engine_failure(error: &engine::Error) -> Failure {
    let exit = match error {
        engine::Error::ContextOverflow { .. } => Exit::Context,
        engine::Error::CacheTooSmall { .. } => Exit::Memory,
        engine::Error::Interrupted => return Failure::silent(Exit::Interrupted),
        engine::Error::Sampling { .. } | engine::Error::Config { .. } => Exit::Usage,
        _ => Exit::Runtime,
    };
    Failure::new(exit, engine_failed()).because_of(error)
}
