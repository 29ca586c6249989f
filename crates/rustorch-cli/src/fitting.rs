//! Whether a model fits, before anything is loaded: the plan against the memory that it may take, the window, and the types
//! that unquantized weights are brought to where they do not fit as they are (requirement rows R37, R38, R42, R90).
//!
//! A file that is quantized already is never lowered; everything that is decided here is said. What does not belong here:
//! what the parts of a plan take (`model::MemoryPlan`), loading (`loading`).

use crate::{
    adapters::Adapter,
    backends,
    exit::{Exit, Failure, Result},
    loading::{self, size},
    output,
    settings::{Settings, kv_type_name},
};
use checkpoint::Checkpoint;
use compute::{KV_BLOCK, KvType};
use model::{HyperParams, MemoryPlan, PlanRow, kv_block_bytes, kv_bytes};
use std::{collections::BTreeMap, path::Path};
use tensor::{Mixture, Shape};

crate::messages::messages! {
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
    too_large_hint(window, kv, weights) { "(1) {window}; (2) {kv}; (3) {weights}", "(1) {window}、(2) {kv}、(3) {weights}" }
    /// First remedy.
    remedy_window(n) { "--ctx {n}", "--ctx {n}" }
    /// First remedy, when no window is small enough.
    remedy_no_window() { "no window is small enough", "どのコンテキスト長でも収まらない" }
    /// Second remedy.
    remedy_kv(name) { "--kv-type {name} for a smaller KV cache", "--kv-type {name} で KV キャッシュを小さくする" }
    /// Second remedy, when it is already taken.
    remedy_kv_done() { "a smaller --prefill-chunk", "--prefill-chunk を小さくする" }
    /// Third remedy, for weights that may be quantized.
    remedy_quantize(name, total) {
        "--quantize {name} ({total} in all)",
        "--quantize {name} を付ける(合計 {total})"
    }
    /// Third remedy otherwise.
    remedy_smaller() {
        "use a smaller quantization of the model, or free memory (--memory-budget SIZE overrides what counts as free)",
        "より小さい量子化のモデルを使うかメモリを空ける(--memory-budget で上限を指定可)"
    }
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
    /// The plan in a line.
    plan_line(weights, types, kv, context, kv_type, scratch, total) {
        "memory: weights {weights} ({types}), KV cache {kv} ({context} tokens, {kv_type}), scratch {scratch}: {total} in all",
        "メモリ: 重み {weights}({types})、KV キャッシュ {kv}({context} トークン、{kv_type})、作業領域 {scratch}、合計 {total}"
    }
    /// Adapters in that line.
    plan_adapters(bytes) { "; adapters {bytes}", "、アダプタ {bytes}" }
    /// What is allowed.
    plan_allowed(allowed) { " of {allowed} allowed", " / 上限 {allowed}" }
    /// Weights are quantized to make them fit.
    quantized(from, bytes, allowed, name, new) {
        "the weights take {bytes} as they are ({from}) and {allowed} are allowed: quantized to {name} while loading ({new})",
        "重みはそのまま({from})で {bytes} あり上限 {allowed} に収まらないため、読み込み時に {name} へ量子化します({new})"
    }
    /// Weights are quantized because the user said so.
    quantized_as_asked(from, bytes, name, new) {
        "the weights ({from}, {bytes}) are quantized to {name} while loading ({new})",
        "重み({from}、{bytes})を読み込み時に {name} へ量子化します({new})"
    }
    /// What else could be done.
    alternatives(list) { "alternatives: {list}", "ほかの選択肢: {list}" }
    /// A better type.
    alternative_better(name, total) { "--quantize {name} with {total} of memory", "メモリ {total} で --quantize {name}" }
    /// A smaller one.
    alternative_smaller(name, context) { "--quantize {name} for a window of {context} tokens", "コンテキスト {context} トークンなら --quantize {name}" }
    /// Once and for all.
    alternative_convert(name) { "`rustorch-cli convert` with --type {name}, once", "`rustorch-cli convert` の --type {name} で一度だけ変換" }
    /// The file's types stay.
    quantized_already(types) { "the weights are quantized already ({types})", "重みは既に量子化済みです({types})" }
    /// What to do.
    quantized_already_hint() {
        "leave out --quantize, or make another file with `rustorch-cli convert`",
        "--quantize を外すか、`rustorch-cli convert` で別のファイルを作ってください"
    }
}

/// Of the memory that is available, the part that may be planned for, in percent: other programs live too.
const USABLE_PERCENT: u64 = 95;

/// A window below this is not chosen by itself: it could hardly hold a question and its answer.
const LEAST_WINDOW: usize = 256;

/// A window that weights are quantized for rather than made do without.
const COMFORTABLE_WINDOW: usize = 4096;

/// What was decided.
#[derive(Debug)]
pub(crate) struct Fit {
    /// Tokens of the window.
    pub(crate) context: usize,
    /// What it takes.
    pub(crate) plan: MemoryPlan,
    /// The types that the weights are brought to; none: they stay.
    pub(crate) mixture: Option<&'static Mixture>,
    /// Positions of the cache that are for saved prefixes.
    pub(crate) saved_positions: usize,
}

/// Bytes that a model may take: as the user says, else most of what is free; none where that is not known.
pub(crate) fn allowed(settings: &Settings) -> Option<u64> {
    let free = || loading::available_memory().map(|available| available / 100 * USABLE_PERCENT);
    settings.backend.memory_budget.or_else(free)
}

/// What is to be fitted.
pub(crate) struct Fitting<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) settings: &'a Settings,
    pub(crate) hyper: &'a HyperParams,
    /// Full windows that the cache has to hold.
    pub(crate) n_sequences: usize,
    /// Whether it has room for saved prefixes too, as the settings say.
    pub(crate) saves: bool,
    /// Bytes that all may take.
    pub(crate) allowed: Option<u64>,
    /// Adapters that are loaded with it.
    pub(crate) adapters: &'a [Adapter],
}

/// A type that the weights could have, and the plan with the window that is wished for.
struct Candidate {
    mixture: Option<&'static Mixture>,
    plan: MemoryPlan,
}

impl Fitting<'_> {
    fn path(&self) -> &Path {
        self.checkpoint.path()
    }

    /// The element type of a cache for such a window.
    pub(crate) fn kv_type(&self, context: usize) -> KvType {
        let positions = context.saturating_mul(self.n_sequences);
        self.settings.kv_type(kv_bytes(self.hyper, positions, KvType::F32).unwrap_or(u64::MAX))
    }

    /// `plan` with a cache for such a window.
    fn resized(&self, plan: &MemoryPlan, context: usize) -> model::Result<MemoryPlan> {
        self.with_saved(plan, context).map(|(plan, _)| plan)
    }

    /// The same, and how many positions of the cache are for saved prefixes.
    fn with_saved(&self, plan: &MemoryPlan, context: usize) -> model::Result<(MemoryPlan, usize)> {
        let kv_type = self.kv_type(context);
        let rows = self.settings.backend.prefill_chunk.min(context);
        let windows = context.saturating_mul(self.n_sequences);
        let plan = plan.resized(self.hyper, windows, kv_type, rows)?;
        if !self.saves {
            return Ok((plan, 0));
        }
        let spare = self.allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(plan.total_bytes));
        let block_bytes = kv_block_bytes(self.hyper, kv_type)?.max(1);
        let n_blocks = self.settings.prefix_cache_bytes(plan.kv_bytes, spare) / block_bytes;
        let saved = usize::try_from(n_blocks).unwrap_or(usize::MAX).saturating_mul(KV_BLOCK);
        if saved == 0 {
            return Ok((plan, 0));
        }
        let positions = windows.div_ceil(KV_BLOCK).saturating_mul(KV_BLOCK).saturating_add(saved);
        Ok((plan.resized(self.hyper, positions, kv_type, rows)?, saved))
    }

    /// The plan for the weights as `mixture` makes them.
    pub(crate) fn plan(&self, mixture: Option<&Mixture>, context: usize) -> model::Result<MemoryPlan> {
        let kept = |dtype, shape: &Shape, usage| backends::weight_bytes(self.settings, dtype, shape, usage);
        let plan = MemoryPlan::quantized(self.checkpoint, self.hyper, mixture, &kept, 0, KvType::F32, 1)?;
        let plan = plan.with_adapters(self.adapters.iter().map(|adapter| &adapter.checkpoint));
        self.resized(&plan, context)
    }

    /// The window that the settings ask for, or the model's own.
    fn wanted(&self) -> usize {
        self.settings.context.size.unwrap_or(self.hyper.context_length).max(1)
    }

    /// Decides. Failure: it does not fit, or may not be quantized.
    pub(crate) fn fit(&self) -> Result<Fit> {
        let failed = |error: model::Error| loading::model_failure(self.path(), &error);
        let wanted = self.wanted();
        let candidates = self.candidates(wanted)?;
        let Some(allowed) = self.allowed else {
            let first = candidates.into_iter().next();
            let first = first.ok_or_else(|| Failure::new(Exit::Runtime, too_large("?", "?")))?;
            let (plan, saved_positions) = self.with_saved(&first.plan, wanted).map_err(failed)?;
            return Ok(Fit { context: wanted, plan, mixture: first.mixture, saved_positions });
        };
        let is_given = self.settings.context.size.is_some();
        let comfortable = if is_given { wanted } else { wanted.min(COMFORTABLE_WINDOW) };
        let least = if is_given { wanted } else { wanted.min(LEAST_WINDOW) };
        for window in [comfortable, least] {
            for candidate in &candidates {
                if self.resized(&candidate.plan, window).map_err(failed)?.total_bytes > allowed {
                    continue;
                }
                let context =
                    if is_given { wanted } else { self.largest(&candidate.plan, wanted, allowed).max(window) };
                let (plan, saved_positions) = self.with_saved(&candidate.plan, context).map_err(failed)?;
                return Ok(Fit { context, plan, mixture: candidate.mixture, saved_positions });
            }
        }
        Err(self.refusal(&candidates, allowed))
    }

    /// The types that may be tried, best first.
    fn candidates(&self, window: usize) -> Result<Vec<Candidate>> {
        let failed = |error: model::Error| loading::model_failure(self.path(), &error);
        let made = |mixture| {
            let plan = self.plan(mixture, window).map_err(failed)?;
            Ok(Candidate { mixture, plan })
        };
        let asked = self.settings.model.quantize;
        let own = made(None)?;
        if let Some(mixture) = Mixture::find(asked) {
            if own.plan.is_quantized() {
                let refused = Failure::new(Exit::Usage, quantized_already(types(&own.plan)));
                return Err(refused.hint(quantized_already_hint()));
            }
            return Ok(vec![made(Some(mixture))?]);
        }
        if asked == "none" || own.plan.is_quantized() {
            return Ok(vec![own]);
        }
        let mut all = vec![own];
        all.extend(self.automatic(window).map_err(failed)?);
        Ok(all)
    }

    /// The mixtures that weights may be brought to by themselves, best first, each smaller than those before it: a device
    /// may keep a type in no less memory than a better one.
    fn automatic(&self, window: usize) -> model::Result<Vec<Candidate>> {
        let mut all: Vec<Candidate> = Vec::new();
        for mixture in Mixture::automatic() {
            let plan = self.plan(Some(mixture), window)?;
            if all.last().is_none_or(|better| plan.weights_bytes < better.plan.weights_bytes) {
                all.push(Candidate { mixture: Some(mixture), plan });
            }
        }
        Ok(all)
    }

    /// The largest window up to `wanted` that fits; 0: none.
    fn largest(&self, plan: &MemoryPlan, wanted: usize, allowed: u64) -> usize {
        let fits = |context: usize| self.resized(plan, context).is_ok_and(|plan| plan.total_bytes <= allowed);
        if fits(wanted) {
            return wanted;
        }
        // The plan grows with the window, so bisecting over whole cache blocks finds the largest.
        let (mut low, mut high) = (0, wanted / KV_BLOCK);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle * KV_BLOCK) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low * KV_BLOCK
    }

    fn refusal(&self, candidates: &[Candidate], allowed: u64) -> Failure {
        let wanted = self.wanted();
        let Some(last) = candidates.last() else { return Failure::new(Exit::Memory, too_large("?", size(allowed))) };
        let fits = Some(self.largest(&last.plan, wanted, allowed)).filter(|&n| n >= LEAST_WINDOW && n < wanted);
        let window = fits.map_or_else(remedy_no_window, remedy_window);
        let kv_type = self.kv_type(wanted);
        let kv = if kv_type == KvType::Q8_0 { remedy_kv_done() } else { remedy_kv(kv_type_name(KvType::Q8_0)) };
        let plan = &last.plan;
        let parts = too_large_cause(
            size(plan.weights_bytes),
            size(plan.kv_bytes),
            wanted,
            kv_type_name(kv_type),
            size(plan.scratch_bytes),
        );
        Failure::new(Exit::Memory, too_large(size(plan.total_bytes), size(allowed)))
            .because(parts)
            .hint(too_large_hint(window, kv, self.weights_remedy(last, wanted, allowed)))
    }

    /// What could be done about the weights.
    fn weights_remedy(&self, tried: &Candidate, context: usize, allowed: u64) -> String {
        if tried.mixture.is_none() && tried.plan.is_quantized() {
            return remedy_smaller();
        }
        let smaller = Mixture::automatic().find_map(|mixture| {
            let plan = self.plan(Some(mixture), context).ok()?;
            (plan.total_bytes <= allowed).then(|| remedy_quantize(mixture.name, size(plan.total_bytes)))
        });
        smaller.unwrap_or_else(remedy_smaller)
    }

    /// Says what was decided and why.
    pub(crate) fn tell(&self, fit: &Fit) {
        let trained = self.hyper.context_length;
        if fit.context > trained {
            output::warning(&window_beyond(fit.context, trained));
        } else if self.settings.context.size.is_none() && fit.context < trained {
            output::note(&window_reduced(fit.context, trained));
        }
        let line = self.line(fit);
        tracing::info!("{line}");
        let matters = fit.mixture.is_some() || self.settings.backend.memory_budget.is_some();
        if let Some(mixture) = fit.mixture {
            self.tell_mixture(fit, mixture);
        }
        if matters || output::is_terminal(output::Channel::Err) {
            output::note(&line);
        }
    }

    fn tell_mixture(&self, fit: &Fit, mixture: &'static Mixture) {
        let Ok(own) = self.plan(None, fit.context) else { return };
        let (from, bytes, new) = (types(&own), size(own.weights_bytes), size(fit.plan.weights_bytes));
        let Some(allowed) = self.allowed.filter(|_| self.settings.model.quantize == "auto") else {
            return output::note(&quantized_as_asked(from, bytes, mixture.name, new));
        };
        output::note(&quantized(from, bytes, size(allowed), mixture.name, new));
        let all = self.automatic(fit.context).unwrap_or_default();
        let name = |other: &Candidate| other.mixture.map_or("", |mixture| mixture.name);
        let at = all.iter().position(|other| name(other) == mixture.name);
        let better = at.and_then(|at| all.get(at.checked_sub(1)?));
        let better = better.map(|better| alternative_better(name(better), size(better.plan.total_bytes)));
        let smaller = at.and_then(|at| all.get(at + 1)).and_then(|smaller| {
            let context = self.largest(&smaller.plan, self.wanted(), allowed);
            (context > fit.context).then(|| alternative_smaller(name(smaller), context))
        });
        let list: Vec<String> =
            [better, smaller, Some(alternative_convert(mixture.name))].into_iter().flatten().collect();
        output::note(&alternatives(list.join("; ")));
    }

    /// The plan in a line.
    fn line(&self, fit: &Fit) -> String {
        let plan = &fit.plan;
        let line = plan_line(
            size(plan.weights_bytes),
            types(plan),
            size(plan.kv_bytes),
            fit.context,
            kv_type_name(self.kv_type(fit.context)),
            size(plan.scratch_bytes),
            size(plan.total_bytes),
        );
        let adapters = Some(plan.adapters_bytes).filter(|bytes| *bytes > 0).map(|bytes| plan_adapters(size(bytes)));
        line + &adapters.unwrap_or_default()
            + &self.allowed.map(|allowed| plan_allowed(size(allowed))).unwrap_or_default()
    }
}

/// The types of the matrices of a plan, those with most bytes first.
pub(crate) fn types(plan: &MemoryPlan) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for row in plan.weights() {
        if let PlanRow::Weights { dtype, bytes: n, .. } = row {
            let sum = bytes.entry(dtype.name()).or_default();
            *sum = sum.saturating_add(*n);
        }
    }
    let mut types: Vec<(&str, u64)> = bytes.into_iter().collect();
    types.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    types.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}
