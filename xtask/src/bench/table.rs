//! The table of the READMEs, between two marks.

use super::report::{Report, Row};
use super::run::{OURS, PEERS};
use std::fmt::Write;

pub(super) const BEGIN: &str = "<!-- speed: begin (written by `cargo xtask bench`) -->";
pub(super) const END: &str = "<!-- speed: end -->";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Japanese,
}

impl Language {
    fn pick(self, en: &'static str, ja: &'static str) -> &'static str {
        if self == Language::English { en } else { ja }
    }
}

/// Everything between the marks.
pub(super) fn section(report: &Report, language: Language) -> String {
    let versions: Vec<String> = report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let note = language.pick(
        "Medians over rounds, every engine alone in turn; ratio: median of the rounds' own ratios (lowest–highest), above 1 we \
         are better (faster, or less time or memory). All runs",
        "ラウンドの中央値(各エンジンを単独で交互に実行)。比は各ラウンド内の比の中央値(最小–最大)で、1 より大きいほど rustorch-cli が\
         優れる(速い、または時間・メモリが少ない)。全記録",
    );
    format!(
        "{}, {} ({}; {} {}){stop}{note}: [bench/cpu/{name}](bench/cpu/{name}).\n\n{}",
        report.machine.processor,
        report.machine.date,
        versions.join(", "),
        report.rounds,
        language.pick("rounds", "ラウンド"),
        markdown(report, language),
        stop = language.pick(". ", "。"),
        name = report.file_name(),
    )
}

/// The rows as a Markdown table; columns of an engine that was not measured are left out.
pub(super) fn markdown(report: &Report, language: Language) -> String {
    let measured = |name: &str| report.rows.iter().any(|row| row.theirs.iter().any(|theirs| theirs.engine == name));
    let peers: Vec<&str> = PEERS.iter().map(|peer| peer.name).filter(|name| measured(name)).collect();
    let mut out = format!(
        "| {} | {} | {} | {OURS} |",
        language.pick("Model", "モデル"),
        language.pick("Threads", "スレッド"),
        language.pick("Test", "測定"),
    );
    for name in &peers {
        let _ = write!(out, " {name} | {} |", language.pick("ratio", "比"));
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(4 + 2 * peers.len()));
    for row in &report.rows {
        let model = row.model.trim_end_matches(".gguf");
        let _ =
            write!(out, "| {model} | {} | {} | {} |", row.case.threads, test(row, language), shown(row.key, row.ours));
        for name in &peers {
            let theirs = row.theirs.iter().find(|theirs| theirs.engine == *name);
            let value = theirs.map(|theirs| shown(row.key, theirs.value));
            let ratio = theirs.and_then(|theirs| theirs.ratio);
            let ratio = ratio.map(|(median, least, most)| format!("{median:.2} ({least:.2}–{most:.2})"));
            let _ = write!(out, " {} | {} |", or_dash(value), or_dash(ratio));
        }
        out.push('\n');
    }
    out
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

/// What a row measured, in words.
fn test(row: &Row, language: Language) -> String {
    let case = row.case;
    match row.key {
        "prefill_tps" => format!("{} {}, t/s", language.pick("prompt", "プロンプト"), case.prompt),
        "decode_tps" => {
            let mut text = format!("{} {}", language.pick("decode", "生成"), case.generate);
            if case.depth > 0 {
                let _ = write!(text, " {} {}", language.pick("at depth", "深さ"), case.depth);
            }
            if case.parallel > 1 {
                let _ = write!(text, " × {}", case.parallel);
            }
            text + ", t/s"
        }
        "load_s" => language.pick("load, s", "読み込み、秒").to_owned(),
        _ => language.pick("peak memory, MB", "最大メモリ、MB").to_owned(),
    }
}

fn shown(key: &str, value: f64) -> String {
    match key {
        "peak_rss_bytes" => format!("{:.0}", value / 1e6),
        "load_s" => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// The document with other text between the marks; None without marks.
pub(super) fn replace(document: &str, section: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", section.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    #[test]
    fn a_table_in_both_languages() {
        let report = report();
        let english = section(&report, Language::English);
        assert!(english.contains("| m | 2 | decode 64, t/s | 25.0 | 10.0 | 2.00 (2.00–2.00) |"), "{english}");
        assert!(english.contains("[bench/cpu/a-processor-2026-01-02.json]"), "{english}");
        assert!(section(&report, Language::Japanese).contains("| m | 2 | 生成 64, t/s |"));
        let columns: Vec<usize> =
            markdown(&report, Language::English).lines().map(|l| l.matches('|').count()).collect();
        assert!(columns.iter().all(|n| *n == 7), "{columns:?}");
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replace(&document, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb\n")));
        assert_eq!(replace("a", "new"), None);
        assert_eq!(replace(&format!("{END}{BEGIN}"), "new"), None);
    }
}
