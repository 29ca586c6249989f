//! From settings to something that answers: file, plan, device, weights, tokenizer, template, engine.
//!
//! Nothing is allocated before the plan fits (requirement rows R42, R90). What is made is one [`Loaded`], which the chat
//! replaces as a whole for `/model` and `/backend`; a failure or Ctrl-C leaves nothing behind.

use crate::{
    backends,
    exit::{Exit, Failure, Result},
    output, paths,
    settings::{Settings, kv_type_name},
    terminal_filter::visible_line,
};
use checkpoint::{Checkpoint, OpenOptions};
use compute::{KV_BLOCK, KvType};
use engine::{Engine, EngineConfig};
use model::{Decoder, HyperParams, LoadOptions, MemoryPlan, kv_bytes};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};
use text::{ChatTemplate, Tokenizer};

crate::messages::messages! {
    /// The file is no model that can be used.
    model_failed(path) { "cannot load the model {path}", "モデル {path} を読み込めません" }
    /// What might help.
    model_failed_hint(path) {
        "`rustorch-cli inspect --model {path}` shows what is in the file",
        "`rustorch-cli inspect --model {path}` でファイルの内容を確認できます"
    }
    /// `model.format` says otherwise.
    wrong_format(path, found, wanted) {
        "{path} is a {found} file, but model.format is `{wanted}`",
        "{path} は {found} 形式ですが、model.format は `{wanted}` です"
    }
    /// What to do about it.
    wrong_format_hint() { "set model.format to \"auto\" or name another file", "model.format を \"auto\" にするか、別のファイルを指定してください" }
    /// It does not fit.
    too_large(needed, available) {
        "the model needs {needed} of memory, {available} are available",
        "モデルには {needed} のメモリが必要ですが、{available} しかありません"
    }
    /// Where the memory would go.
    too_large_cause(weights, kv, context, kv_type, scratch) {
        "weights {weights}, KV cache {kv} ({context} tokens, {kv_type}), scratch {scratch}",
        "重み {weights}、KV キャッシュ {kv}({context} トークン、{kv_type})、作業領域 {scratch}"
    }
    /// The three remedies.
    too_large_hint(window, kv) {
        "(1) {window}; (2) {kv}; (3) use a smaller quantization of the model, or free memory",
        "(1) {window}、(2) {kv}、(3) より小さい量子化のモデルを使うかメモリを空ける"
    }
    /// First remedy.
    remedy_window(n) { "--ctx {n}", "--ctx {n}" }
    /// First remedy, when no window is small enough.
    remedy_no_window() { "no window is small enough", "どのコンテキスト長でも収まらない" }
    /// Second remedy.
    remedy_kv(name) { "--kv-type {name} for a smaller KV cache", "--kv-type {name} で KV キャッシュを小さくする" }
    /// Second remedy, when it is already taken.
    remedy_kv_done() { "a smaller --prefill-chunk", "--prefill-chunk を小さくする" }
    /// The window is smaller than the model's.
    window_reduced(context, trained) {
        "context window: {context} tokens of the model's {trained}, as memory allows",
        "コンテキスト: メモリに合わせ {context} トークン(モデルは {trained})"
    }
    /// The window is larger than the model's.
    window_beyond(context, trained) {
        "the context window of {context} tokens is more than the {trained} that the model was trained for; answers may degrade beyond that",
        "コンテキスト {context} トークンは学習時の {trained} を超えています。超えた部分の品質は低下します"
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
    /// The engine refused.
    engine_failed() { "the engine cannot start", "エンジンを開始できません" }
}

/// A template file larger than this is none.
const MAX_TEMPLATE_BYTES: u64 = 4 << 20;

/// Of the memory that is available, the part that may be planned for, in percent: other programs live too.
const USABLE_PERCENT: u64 = 95;

/// A window below this is not chosen by itself: it could hardly hold a question and its answer.
const LEAST_WINDOW: usize = 256;

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

/// Opens the model file of the settings.
pub(crate) fn open(settings: &Settings) -> Result<Checkpoint> {
    let Some(path) = &settings.model.path else {
        let config = paths::default_config().map_or_else(|| "config.toml".to_owned(), |path| paths::display(&path));
        return Err(Failure::new(Exit::Usage, crate::messages::no_model()).hint(crate::messages::no_model_hint(config)));
    };
    let checkpoint = Checkpoint::open(path, &OpenOptions { mmap: settings.model.mmap })
        .map_err(|error| checkpoint_failure(path, &error))?;
    let (found, wanted) = (checkpoint.format(), settings.model.format);
    if wanted != "auto" && wanted != found {
        let shown = paths::display(path);
        return Err(Failure::new(Exit::Model, wrong_format(shown, found, wanted)).hint(wrong_format_hint()));
    }
    Ok(checkpoint)
}

/// Loads everything. `interrupted` is asked often; once true, loading ends with [`Exit::Interrupted`].
pub(crate) fn load(settings: &Settings, interrupted: &dyn Fn() -> bool) -> Result<Loaded> {
    let checkpoint = open(settings)?;
    load_into(&checkpoint, settings, 1, true, interrupted)
}

/// Loads an open model file, with a cache for `n_sequences` full windows and nothing else.
pub(crate) fn load_from(
    checkpoint: &Checkpoint,
    settings: &Settings,
    n_sequences: usize,
    interrupted: &dyn Fn() -> bool,
) -> Result<Loaded> {
    load_into(checkpoint, settings, n_sequences, false, interrupted)
}

/// `saves`: the cache has room for saved prefixes too, as the settings say.
fn load_into(
    checkpoint: &Checkpoint,
    settings: &Settings,
    n_sequences: usize,
    saves: bool,
    interrupted: &dyn Fn() -> bool,
) -> Result<Loaded> {
    let start = Instant::now();
    let path = checkpoint.path().to_path_buf();
    let model_error = |error: model::Error| model_failure(&path, &error);
    let hyper = HyperParams::read(checkpoint).map_err(model_error)?;
    // Small things that may be wrong come before large ones that take time.
    let tokenizer = Tokenizer::from_checkpoint(checkpoint).map_err(|error| text_failure(&path, &error))?;
    let template = find_template(checkpoint, settings)?;
    let available = available_memory();
    let room = Room { checkpoint, hyper: &hyper, settings, n_sequences, saves, available };
    let (context, plan) = choose_window(settings, &hyper, available, &|context| Ok(room.plan(context)?.0))
        .map_err(|error| error.into_failure(&path, &|context| room.kv_type(context)))?;
    let (_, saved_positions) = room.plan(context).map_err(model_error)?;
    tell_about_window(settings, context, hyper.context_length);
    let device = backends::open(settings)?;
    let chunk = settings.backend.prefill_chunk.min(context);
    let decoder = {
        let bar = output::progress(
            settings.interface.show_progress,
            plan.weights_bytes,
            "{msg} [{bar:24}] {bytes}/{total_bytes} {eta}",
        );
        bar.set_message(loading(model_name(checkpoint)));
        let options = LoadOptions { max_rows: chunk, context_length: Some(context) };
        let result = Decoder::load(checkpoint, device, &options, &mut |at| {
            bar.set_position(at.done_bytes);
            if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        result.map_err(model_error)?
    };
    let engine = Engine::start(EngineConfig {
        decoder,
        tokenizer: tokenizer.clone(),
        context,
        kv_type: room.kv_type(context),
        prefill_chunk: chunk,
        max_sequences: n_sequences,
        saved_positions,
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

/// What a model, its KV cache and its scratch are to take.
pub(crate) struct Room<'a> {
    /// The file.
    pub(crate) checkpoint: &'a Checkpoint,
    /// Its numbers.
    pub(crate) hyper: &'a HyperParams,
    /// What was asked for.
    pub(crate) settings: &'a Settings,
    /// Full windows that the cache holds.
    pub(crate) n_sequences: usize,
    /// Whether it holds saved prefixes too.
    pub(crate) saves: bool,
    /// Bytes of memory available, if known.
    pub(crate) available: Option<u64>,
}

impl Room<'_> {
    /// Element type of the KV cache for windows of `context` tokens.
    pub(crate) fn kv_type(&self, context: usize) -> KvType {
        let positions = context.saturating_mul(self.n_sequences);
        self.settings.kv_type(kv_bytes(self.hyper, positions, KvType::F32).unwrap_or(u64::MAX))
    }

    /// The plan for windows of `context` tokens, and how many positions of its cache are for saved prefixes.
    pub(crate) fn plan(&self, context: usize) -> model::Result<(MemoryPlan, usize)> {
        let kv_type = self.kv_type(context);
        let rows = self.settings.backend.prefill_chunk.min(context);
        let windows = context.saturating_mul(self.n_sequences);
        let plan = MemoryPlan::new(self.checkpoint, self.hyper, windows, kv_type, rows)?;
        if !self.saves {
            return Ok((plan, 0));
        }
        let spare = self.available.map_or(u64::MAX, |bytes| usable(bytes).saturating_sub(plan.total_bytes));
        let block_bytes = kv_bytes(self.hyper, KV_BLOCK, kv_type)?.max(1);
        let n_blocks = self.settings.prefix_cache_bytes(plan.kv_bytes, spare) / block_bytes;
        let saved = usize::try_from(n_blocks).unwrap_or(usize::MAX).saturating_mul(KV_BLOCK);
        if saved == 0 {
            return Ok((plan, 0));
        }
        let positions = windows.div_ceil(KV_BLOCK).saturating_mul(KV_BLOCK).saturating_add(saved);
        Ok((MemoryPlan::new(self.checkpoint, self.hyper, positions, kv_type, rows)?, saved))
    }
}

/// Why no window was chosen.
enum Refusal {
    TooLarge { plan: MemoryPlan, context: usize, available: u64, fits: Option<usize> },
    Model(model::Error),
}

impl Refusal {
    fn into_failure(self, path: &Path, kv_type_for: &dyn Fn(usize) -> KvType) -> Failure {
        let (plan, context, available, fits) = match self {
            Refusal::Model(error) => return model_failure(path, &error),
            Refusal::TooLarge { plan, context, available, fits } => (plan, context, available, fits),
        };
        let window = fits.map_or_else(remedy_no_window, remedy_window);
        let kv_type = kv_type_for(context);
        let kv = if kv_type == KvType::Q8_0 { remedy_kv_done() } else { remedy_kv(kv_type_name(KvType::Q8_0)) };
        let parts = too_large_cause(
            size(plan.weights_bytes),
            size(plan.kv_bytes),
            context,
            kv_type_name(kv_type),
            size(plan.scratch_bytes),
        );
        Failure::new(Exit::Memory, too_large(size(plan.total_bytes), size(available)))
            .because(parts)
            .hint(too_large_hint(window, kv))
    }
}

/// The window asked for if it fits; else, if none was asked for, the largest up to the model's own that does.
fn choose_window(
    settings: &Settings,
    hyper: &HyperParams,
    available: Option<u64>,
    plan_for: &dyn Fn(usize) -> model::Result<MemoryPlan>,
) -> std::result::Result<(usize, MemoryPlan), Refusal> {
    let wanted = settings.context.size.unwrap_or(hyper.context_length).max(1);
    let plan = plan_for(wanted).map_err(Refusal::Model)?;
    let Some(available) = available else { return Ok((wanted, plan)) };
    let usable = usable(available);
    if plan.total_bytes <= usable {
        return Ok((wanted, plan));
    }
    // The plan grows with the window, so bisecting over whole cache blocks finds the largest.
    let (mut low, mut high) = (0, wanted / KV_BLOCK);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match plan_for(middle * KV_BLOCK) {
            Ok(plan) if plan.total_bytes <= usable => low = middle,
            _ => high = middle - 1,
        }
    }
    let fits = low * KV_BLOCK;
    if settings.context.size.is_none() && fits >= LEAST_WINDOW.min(wanted) {
        let plan = plan_for(fits).map_err(Refusal::Model)?;
        return Ok((fits, plan));
    }
    let fits = (fits >= LEAST_WINDOW).then_some(fits);
    Err(Refusal::TooLarge { plan, context: wanted, available, fits })
}

fn tell_about_window(settings: &Settings, context: usize, trained: usize) {
    if context > trained {
        output::warning(&window_beyond(context, trained));
    } else if settings.context.size.is_none() && context < trained {
        output::note(&window_reduced(context, trained));
    }
}

/// Bytes that this process may still take: of the machine, or of its control group if that allows less. Page cache counts
/// as available, so that a model that was just read does not stand in its own way.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    let group = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    match (machine, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The part of the available memory that may be planned for.
pub(crate) fn usable(available: u64) -> u64 {
    available / 100 * USABLE_PERCENT
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
        return named_template(name).map(|template| Ok(Some(template)));
    }
    Ok(match ChatTemplate::from_checkpoint(checkpoint) {
        Ok(template) => Ok(template),
        Err(error) => Err(Failure::new(Exit::Model, template_unusable(paths::display(checkpoint.path())))
            .because_of(&error)
            .hint(template_missing_hint(builtin_names()))),
    })
}

/// A built-in template, or that of a file.
pub(crate) fn named_template(name: &str) -> Result<ChatTemplate> {
    if let Some(template) = ChatTemplate::builtin(name) {
        return Ok(template);
    }
    let fail = |cause: &dyn std::error::Error| {
        Failure::new(Exit::Usage, template_unusable(visible_line(name))).because_of(cause)
    };
    let path = paths::expand(std::ffi::OsStr::new(name), None).map_err(|error| fail(&error))?;
    if !path.exists() {
        return Err(
            Failure::new(Exit::Usage, no_such_template(visible_line(name))).hint(template_names(builtin_names()))
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
