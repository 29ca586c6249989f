//! `models`: what other programs keep on this machine, and whether it fits.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    fitting::{self, Fitting},
    loading, output,
    settings::{
        Layers, Settings,
        arguments::{ARGUMENT, Argument, Values},
    },
    stores::{self, Found},
    terminal_filter::visible_line,
};
use model::HyperParams;
use serde_json::json;

crate::messages::messages! {
    /// None found.
    none_found() {
        "no other models were found; `--model demo` tries the one in the program",
        "ほかのモデルは見つかりませんでした。`--model demo` で内蔵モデルを試せます"
    }
    /// How to use one.
    use_by_name() { "each name works as --model", "名前はそのまま --model に指定できます" }
    /// It fits.
    fits() { "fits", "収まる" }
    /// With other types.
    fits_as(name) { "fits as {name}", "{name} なら収まる" }
    /// It does not.
    does_not_fit() { "too large", "収まらない" }
}

pub(super) const TOOL: Tool = Tool {
    name: "models",
    synopsis: "[--json]",
    en: "list the models that this and other programs keep on this machine; nothing is changed",
    ja: "このプログラムや他のプログラムがこのマシンに置いているモデルの一覧(変更はしない)",
    arguments: &[Argument { flag: "json", en: "result as JSON", ja: "結果を JSON で出力", ..ARGUMENT }],
    settings: &["context.", "backend.memory_budget", "backend.precision", "backend.prefill_chunk", "model.quantize"],
    run,
    ..Tool::NEW
};

/// What is known of a model.
struct Facts {
    found: Found,
    bytes: Option<u64>,
    family: Option<&'static str>,
    types: Option<String>,
    /// Whether it fits; none: not known.
    fits: Option<bool>,
    /// The type that it would be quantized to.
    quantize: Option<&'static str>,
    problem: Option<String>,
}

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let settings = layers.settings();
    let allowed = fitting::allowed(settings);
    let all: Vec<Facts> =
        stores::in_program().chain(stores::all()).map(|found| look(found, settings, allowed)).collect();
    if values.has("json") {
        let rows = all.iter().map(|facts| {
            json!({
                "name": facts.found.name,
                "store": facts.found.store,
                "path": facts.found.path.to_string_lossy(),
                "bytes": facts.bytes,
                "family": facts.family,
                "types": facts.types,
                "fits": facts.fits,
                "quantize": facts.quantize,
                "problem": facts.problem,
            })
        });
        return output::answer_json(&rows.collect());
    }
    for facts in &all {
        output::answer_line(&line(facts))?;
    }
    output::note(&if all.len() == 1 { none_found() } else { use_by_name() });
    Ok(())
}

/// Looks into a model; one that cannot be read is listed with the reason.
fn look(found: Found, settings: &Settings, allowed: Option<u64>) -> Facts {
    let mut facts = Facts { found, bytes: None, family: None, types: None, fits: None, quantize: None, problem: None };
    let checkpoint = match loading::open_path(&facts.found.path, settings) {
        Ok(checkpoint) => checkpoint,
        Err(failure) => {
            facts.problem = failure.cause.or(Some(failure.error));
            return facts;
        }
    };
    facts.bytes = Some(checkpoint.file_bytes());
    let hyper = match HyperParams::read(&checkpoint) {
        Ok(hyper) => hyper,
        Err(error) => {
            facts.problem = Some(error.to_string());
            return facts;
        }
    };
    facts.family = Some(hyper.architecture.name);
    let (n_sequences, saves, adapters) = (1, false, &[]);
    let fitting = Fitting { checkpoint: &checkpoint, settings, hyper: &hyper, n_sequences, saves, allowed, adapters };
    match fitting.plan(None, 1) {
        Ok(plan) => facts.types = Some(fitting::types(&plan)),
        Err(error) => facts.problem = Some(error.to_string()),
    }
    match fitting.fit() {
        Ok(fit) => (facts.fits, facts.quantize) = (Some(true), fit.mixture.map(|mixture| mixture.name)),
        Err(failure) if failure.exit == Exit::Memory => facts.fits = Some(false),
        Err(failure) => facts.problem = facts.problem.or(Some(failure.error)),
    }
    facts
}

fn line(facts: &Facts) -> String {
    let verdict = match (facts.fits, facts.quantize) {
        (Some(true), Some(name)) => fits_as(name),
        (Some(true), None) => fits(),
        (Some(false), _) => does_not_fit(),
        (None, _) => facts.problem.as_deref().map(visible_line).unwrap_or_default(),
    };
    format!(
        "{:<44} {:<12} {:>10}  {:<10} {:<16} {verdict}",
        visible_line(&facts.found.name),
        facts.found.store,
        facts.bytes.map(loading::size).unwrap_or_default(),
        facts.family.unwrap_or_default(),
        facts.types.as_deref().unwrap_or_default(),
    )
}

/// The path of the one model called `name`, of this machine's stores. `None`: there is none.
///
/// # Errors
/// Several are called so.
pub(crate) fn path_of(name: &str) -> Result<Option<std::path::PathBuf>> {
    match stores::find(name).as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.path.clone())),
        several => {
            let names: Vec<String> =
                several.iter().map(|found| format!("{} ({})", visible_line(&found.name), found.store)).collect();
            Err(Failure::new(Exit::Usage, ambiguous(visible_line(name))).hint(one_of(names.join(", "))))
        }
    }
}

crate::messages::messages! {
    /// Several models of that name.
    ambiguous(name) { "several models are called `{name}`", "`{name}` という名前のモデルが複数あります" }
    /// Which.
    one_of(names) { "name one in full: {names}", "正式な名前で指定してください: {names}" }
}
