//! `imatrix`: what the columns of a model's matrices are multiplied with on a text, for `convert --imatrix`.
//!
//! The text is cut as `perplexity` does it, and every row of every window counts, as in llama.cpp's tool of that name, whose
//! files these are. What belongs here: the command. What does not: the sums (`compute::Observer`), the file
//! (`checkpoint::ImportanceSums`), using it (`convert`).

use super::{
    Tool, convert,
    perplexity::{self, Score},
};
use crate::{
    exit::{Exit, Failure, Result},
    loading, output, paths, safe_write,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use checkpoint::ImportanceSums;
use model::ObservedTensor;

crate::messages::messages! {
    /// The name says another format.
    imatrix_suffix(path) { "{path} does not end in .gguf", "{path} の末尾が .gguf ではありません" }
    /// The bar's words.
    measuring(name) { "measuring {name}", "{name} を計測中" }
    /// Experts without any input.
    experts_unused(n, of) {
        "{n} of {of} matrices of experts were never chosen: a longer or more varied text would measure them too",
        "エキスパートの行列 {of} 個のうち {n} 個が一度も選ばれませんでした。より長く多様なテキストなら計測できます"
    }
    /// A number that is none came out.
    imatrix_broken(name) { "the inputs of {name} are not finite numbers", "{name} の入力に有限でない数値があります" }
    /// It cannot be written.
    imatrix_unwritable(path) { "cannot write {path}", "{path} に書き込めません" }
    /// Done.
    imatrix_written(path, tensors, windows, context, perplexity) {
        "{path}: {tensors} tensors over {windows} windows of {context} tokens (perplexity {perplexity})",
        "{path}: テンソル {tensors} 個、{context} トークンのウィンドウ {windows} 個(パープレキシティ {perplexity})"
    }
}

pub(super) const TOOL: Tool = Tool {
    name: "imatrix",
    synopsis: "--model FILE --file TEXT OUT [--ctx N] [--force]",
    en: "measure on a text which columns of the model matter, for `convert --imatrix` (OUT ends in .gguf)",
    ja: "モデルのどの列が重要かをテキストで計測し、`convert --imatrix` 用に書き出す(OUT の末尾は .gguf)",
    arguments: &[
        Argument {
            flag: "file",
            value: "TEXT",
            required: true,
            en: "a text like those that the model will be used on",
            ja: "モデルの用途に近いテキストのファイル",
            ..ARGUMENT
        },
        Argument {
            flag: "out",
            value: "OUT",
            required: true,
            positional: true,
            en: "the file to write: *.gguf",
            ja: "書き出すファイル(*.gguf)",
            ..ARGUMENT
        },
        Argument {
            flag: "force", en: "replace OUT if it exists", ja: "OUT が既にあれば置き換える", ..ARGUMENT
        },
    ],
    settings: super::ENGINE_SETTINGS,
    run,
    ..Tool::NEW
};

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let path = values.path("file")?.unwrap_or_default();
    let target = values.path("out")?.unwrap_or_default();
    if !target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return Err(Failure::new(Exit::Usage, imatrix_suffix(paths::display(&target))));
    }
    convert::refuse_existing(&target, values.has("force"))?;
    let text = perplexity::read(&path)?;
    let settings = perplexity::settings(layers);
    let checkpoint = loading::open(&settings)?;
    let (loaded, observed) = loading::load_observed(&checkpoint, &settings)?;
    let windows = perplexity::windows(&loaded, &text, &path)?;
    let bar =
        output::progress(settings.interface.show_progress, windows.len() as u64, "{msg} [{bar:24}] {pos}/{len} {eta}");
    bar.set_message(measuring(loading::model_name(&checkpoint)));
    let mut score = Score::default();
    for (window, from) in &windows {
        // What windows begin with alike would otherwise be counted once only.
        loaded.engine.forget().map_err(|error| loading::engine_failure(&error))?;
        // All rows: those whose logits nobody wants skip the last layer.
        perplexity::score_window(&loaded, window, 0, *from, &mut score)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let sums = observed.iter().map(sums).collect::<Result<Vec<_>>>()?;
    warn_of_unused(&sums);
    let dataset = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let unwritable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Runtime, imatrix_unwritable(paths::display(&target))).because(error)
    };
    safe_write::replace(&target, |out| {
        ImportanceSums::write(&sums, &dataset, count(windows.len()), count(loaded.context), out)
            .map_err(std::io::Error::other)
    })
    .map_err(|error: std::io::Error| unwritable(&error))?;
    let perplexity = format!("{:.4}", score.mean().0.exp());
    output::note(&imatrix_written(paths::display(&target), sums.len(), windows.len(), loaded.context, perplexity));
    Ok(())
}

/// What was seen, as the file has it.
fn sums(tensor: &ObservedTensor) -> Result<ImportanceSums> {
    let observed = tensor.observer.observed();
    let sums: Vec<f32> = observed.sums.iter().map(|sum| *sum as f32).collect();
    if sums.iter().any(|sum| !sum.is_finite()) {
        return Err(Failure::new(Exit::Model, imatrix_broken(&tensor.name)));
    }
    let counts = observed.counts.iter().map(|count| *count as f32).collect();
    Ok(ImportanceSums { name: tensor.name.clone(), sums, counts })
}

fn warn_of_unused(sums: &[ImportanceSums]) {
    let stacks = sums.iter().filter(|tensor| tensor.counts.len() > 1).flat_map(|tensor| &tensor.counts);
    let (unused, of) = stacks.fold((0, 0), |(unused, of), count| (unused + usize::from(*count == 0.0), of + 1));
    if unused > 0 {
        output::warning(&experts_unused(unused, of));
    }
}
