//! `perplexity`: how surprised the model is by a text.
//!
//! As the field does it (llama.cpp's tool, for comparable figures): the text is cut into windows of `ctx` tokens, each
//! begins with BOS where the model wants one, and only the second half of each is scored, so that every scored token has
//! seen at least half a window. A text shorter than one window is one window, scored from its second token.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    loading, output, paths, safe_write,
    settings::{
        Layers, Settings,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use std::{ops::ControlFlow, path::Path};
use text::EncodeOptions;

crate::messages::messages! {
    /// A text that cannot be read.
    text_unreadable(path) { "cannot read {path}", "{path} を読めません" }
    /// A text that is too short.
    text_short(path) { "{path} has fewer than two tokens", "{path} のトークンが 2 個未満です" }
    /// Progress.
    window_progress(at, of, perplexity) { "window {at}/{of}: {perplexity}", "ウィンドウ {at}/{of}: {perplexity}" }
}

/// A text larger than this is refused.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Tokens of a window unless the settings say otherwise.
const WINDOW: usize = 512;

pub(super) const TOOL: Tool = Tool {
    name: "perplexity",
    synopsis: "--model FILE --file TEXT [--ctx N] [--json]",
    en: "the model's perplexity on a text",
    ja: "テキストに対するモデルのパープレキシティ",
    arguments: &[
        Argument {
            flag: "file", value: "FILE", required: true, en: "the text", ja: "テキストファイル", ..ARGUMENT
        },
        Argument { flag: "json", en: "result as JSON", ja: "結果を JSON で出力", ..ARGUMENT },
    ],
    settings: super::ENGINE_SETTINGS,
    run,
    ..Tool::NEW
};

/// Sums over scored tokens.
#[derive(Default)]
pub(super) struct Score {
    n: usize,
    nll: f64,
    squares: f64,
}

impl Score {
    fn add(&mut self, nll: f64) {
        self.n += 1;
        self.nll += nll;
        self.squares += nll * nll;
    }

    /// Mean negative log-likelihood and its standard error.
    pub(super) fn mean(&self) -> (f64, f64) {
        let n = self.n.max(1) as f64;
        let mean = self.nll / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        (mean, (variance / (n - 1.0).max(1.0)).sqrt())
    }
}

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let path = values.path("file")?.unwrap_or_default();
    let text = read(&path)?;
    let settings = settings(layers);
    let checkpoint = loading::open(&settings)?;
    let loaded = loading::load_from(&checkpoint, &settings, 1, &|| false)?;
    let windows = windows(&loaded, &text, &path)?;
    let mut score = Score::default();
    for (i, (window, from)) in windows.iter().enumerate() {
        score_window(&loaded, window, *from, *from, &mut score)?;
        if output::can_animate() {
            output::note(&window_progress(i + 1, windows.len(), format!("{:.4}", score.mean().0.exp())));
        }
    }
    let (nll, error) = score.mean();
    let perplexity = nll.exp();
    if values.has("json") {
        return output::answer_line(
            &serde_json::json!({
                "perplexity": perplexity,
                "error": perplexity * error,
                "nll": nll,
                "n_scored": score.n,
                "n_windows": windows.len(),
                "ctx": loaded.context,
            })
            .to_string(),
        );
    }
    output::answer_line(&format!("{perplexity:.4} ± {:.4}", perplexity * error))
}

/// The text in the file `path`.
pub(super) fn read(path: &Path) -> Result<String> {
    safe_write::read_text(path, MAX_TEXT_BYTES)
        .map_err(|error| Failure::new(Exit::Usage, text_unreadable(paths::display(path))).because(error))
}

/// The settings, with a window of a length of its own.
pub(super) fn settings(layers: &Layers) -> Settings {
    let mut settings = layers.settings().clone();
    // The window decides which tokens are scored, so memory must not.
    settings.context.size = Some(settings.context.size.unwrap_or(WINDOW));
    settings
}

/// The windows of the text in the file `path`, at least one, and for each the first row whose prediction is scored.
pub(super) fn windows(loaded: &loading::Loaded, text: &str, path: &Path) -> Result<Vec<(Vec<u32>, usize)>> {
    let tokens = loaded.tokenizer.encode(text, EncodeOptions { bos_eos: false, special: false });
    let bos = loaded.tokenizer.bos().filter(|_| loaded.tokenizer.adds_bos());
    let windows = cut(&tokens, loaded.context, bos);
    match windows.is_empty() {
        true => Err(Failure::new(Exit::Usage, text_short(paths::display(path)))),
        false => Ok(windows),
    }
}

/// Windows with, for each, the first row whose prediction is scored.
fn cut(tokens: &[u32], n_ctx: usize, bos: Option<u32>) -> Vec<(Vec<u32>, usize)> {
    let lead = usize::from(bos.is_some());
    let begin = |part: &[u32]| bos.into_iter().chain(part.iter().copied()).collect::<Vec<u32>>();
    if tokens.len() + lead <= n_ctx {
        let whole = begin(tokens);
        return if whole.len() < 2 { Vec::new() } else { vec![(whole, 0)] };
    }
    // As in the original, BOS takes the place of a window's first token rather than shifting the cut.
    tokens
        .chunks_exact(n_ctx.max(2))
        .map(|part| (begin(part.get(lead..).unwrap_or_default()), (n_ctx / 2).min(part.len() - 2)))
        .collect()
}

/// Computes a window's rows from `computed` on and scores those from `from` on.
pub(super) fn score_window(
    loaded: &loading::Loaded,
    window: &[u32],
    computed: usize,
    from: usize,
    score: &mut Score,
) -> Result<()> {
    let n_vocab = loaded.hyper.n_vocab;
    loaded
        .engine
        .logits(window, computed, |first, block| {
            for (row, logits) in block.chunks_exact(n_vocab).enumerate() {
                // The last row predicts what the window does not hold.
                let next = window.get(first + row + 1).filter(|_| first + row >= from);
                let next = next.and_then(|id| usize::try_from(*id).ok());
                if let Some(logit) = next.and_then(|id| logits.get(id)) {
                    score.add(log_sum_exp(logits) - f64::from(*logit));
                }
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| loading::engine_failure(&error))
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + logits.iter().map(|x| (f64::from(*x) - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(n: u32, n_ctx: usize, bos: Option<u32>, expected: &[(usize, u32, usize)]) {
        let tokens: Vec<u32> = (10..10 + n).collect();
        let windows: Vec<(usize, u32, usize)> =
            cut(&tokens, n_ctx, bos).iter().map(|(w, from)| (w.len(), w[0], *from)).collect();
        assert_eq!(windows, expected, "{n} tokens, window {n_ctx}, BOS {bos:?}");
    }

    #[test]
    fn windows() {
        check(8, 4, None, &[(4, 10, 2), (4, 14, 2)]);
        check(9, 4, Some(1), &[(4, 1, 2), (4, 1, 2)]);
        check(3, 4, Some(1), &[(4, 1, 0)]);
        check(3, 8, None, &[(3, 10, 0)]);
        check(1, 8, None, &[]);
        check(1, 8, Some(1), &[(2, 1, 0)]);
        check(0, 8, Some(1), &[]);
    }

    #[test]
    fn scores() {
        assert!((log_sum_exp(&[0.0, 0.0]) - 2f64.ln()).abs() < 1e-12);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-9);
        let mut score = Score::default();
        [1.0, 3.0].into_iter().for_each(|nll| score.add(nll));
        assert_eq!(score.mean(), (2.0, 1.0));
    }
}
