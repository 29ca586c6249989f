//! Help texts, made of the tables: `-h` fits one screen, `--help` has everything with defaults, variables and keys.

use super::{
    SETTINGS,
    arguments::{Argument, RUN, heading},
    row::{GROUPS, Group, Row},
};
use crate::{
    exit::EXITS,
    messages::{Language, language},
    output::{Channel, Look, paint},
    tool::{Tool, listed},
};
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr;

crate::messages::messages! {
    /// First line of the help.
    about() {
        "rustorch-cli: chat with a local language model, offline",
        "rustorch-cli: ローカル言語モデルとオフラインでチャットする"
    }
    /// The word before the forms of the command.
    usage() { "Usage", "使い方" }
    /// Heading of the tools.
    tools() { "Tools", "ツール" }
    /// Heading of a tool's own arguments.
    arguments() { "Arguments", "引数" }
    /// The word before a default.
    default_word() { "default", "既定" }
    /// No default.
    none_word() { "none", "なし" }
    /// What the negative spelling of a switch does.
    turn_off(what) { "turn off: {what}", "無効にする: {what}" }
    /// End of the short help.
    more() {
        "--help: everything; TOOL --help: one tool; help exit-codes: exit codes",
        "--help: 全項目、ツール名 --help: 各ツール、help exit-codes: 終了コード"
    }
    /// How the layers lie.
    precedence() {
        "A flag counts more than an environment variable, that more than the config file (--config, else ~/.rustorch/config.toml).",
        "優先順位: フラグ > 環境変数 > 設定ファイル(--config、なければ ~/.rustorch/config.toml)"
    }
}

/// Where the second column begins.
const COLUMN: usize = 26;

impl Row {
    /// The default for people: `default: 0.7`.
    pub(crate) fn default_for_people(&self) -> String {
        let none = none_word();
        let value = if self.default.is_empty() { &none } else { self.default };
        let quoted = if self.default.ends_with(' ') { format!("\"{value}\"") } else { value.to_owned() };
        format!("{}: {quoted}", default_word())
    }
}

/// `-h`: one screen.
pub(crate) fn short() -> String {
    let mut out = head("rustorch-cli [OPTIONS]\n       rustorch-cli TOOL [OPTIONS]");
    for argument in RUN.iter().filter(|argument| argument.daily) {
        entry(&mut out, &spelling(argument), argument.help(language()), None);
    }
    for row in SETTINGS.iter().filter(|row| row.daily) {
        entry(&mut out, &row_spelling(row), &row_help(row), None);
    }
    let names: Vec<&str> = listed().map(|tool| tool.name).collect();
    let lines: Vec<String> = names.chunks(8).map(|names| names.join(", ")).collect();
    let _ = writeln!(out, "{}: {}\n{}", tools(), lines.join(",\n  "), more());
    out
}

/// `--help`: everything.
pub(crate) fn long() -> String {
    let mut out = head(
        "rustorch-cli --model FILE [OPTIONS]              (chat)\n       rustorch-cli --model FILE -p TEXT [OPTIONS]      \
         (one answer)\n       rustorch-cli TOOL [OPTIONS]",
    );
    for (group, ..) in GROUPS {
        title(&mut out, heading(*group));
        if *group == Group::Run {
            for argument in RUN {
                entry(&mut out, &spelling(argument), argument.help(language()), None);
            }
        }
        for row in SETTINGS.iter().filter(|row| row.group == *group) {
            setting(&mut out, row);
        }
    }
    title(&mut out, &tools());
    for tool in listed() {
        entry(&mut out, tool.name, tool.help(language()), None);
    }
    let _ = writeln!(out, "\n{}\n{}", precedence(), more());
    out
}

/// `TOOL --help`.
pub(crate) fn tool(tool: &Tool) -> String {
    let mut out = format!("{}\n\n{}: rustorch-cli {} {}\n", tool.help(language()), usage(), tool.name, tool.synopsis);
    if !tool.arguments.is_empty() {
        title(&mut out, &arguments());
    }
    for argument in tool.arguments {
        let note = (!argument.default.is_empty()).then(|| format!("{}: {}", default_word(), argument.default));
        entry(&mut out, &spelling(argument), argument.help(language()), note.as_deref());
    }
    for (group, ..) in GROUPS {
        let rows: Vec<&Row> = tool.settings().into_iter().filter(|row| row.group == *group).collect();
        if !rows.is_empty() {
            title(&mut out, heading(*group));
        }
        for row in rows {
            setting(&mut out, row);
        }
    }
    out
}

/// `help exit-codes`.
pub(crate) fn exit_codes(language: Language) -> String {
    let mut out = String::new();
    for row in EXITS {
        let _ = writeln!(out, "{:>4}  {}", row.code, row.meaning(language));
    }
    out
}

fn head(forms: &str) -> String {
    format!("{}\n\n{}: {forms}\n", about(), paint(Channel::Out, Look::Strong, &usage()))
}

fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{}:", paint(Channel::Out, Look::Strong, text));
}

fn setting(out: &mut String, row: &Row) {
    let range = row.range();
    let values = if range.is_empty() || row.is_switch() { String::new() } else { format!("{range}; ") };
    let note = format!("[{values}{}; {}; {}]", row.default_for_people(), row.env_name(), row.full_key());
    entry(out, &row_spelling(row), &row_help(row), Some(&note));
}

fn entry(out: &mut String, left: &str, help: &str, note: Option<&str>) {
    let gap = COLUMN.saturating_sub(left.width() + 2);
    let _ = if gap == 0 {
        writeln!(out, "  {left}\n{:COLUMN$}{help}", "")
    } else {
        writeln!(out, "  {left}{:gap$}{help}", "")
    };
    if let Some(note) = note {
        let _ = writeln!(out, "{:COLUMN$}{}", "", paint(Channel::Out, Look::Dim, note));
    }
}

/// What the spelling that is shown does.
fn row_help(row: &Row) -> String {
    let help = row.help(language());
    if row.shown_flag() == row.flag { help.to_owned() } else { turn_off(help) }
}

fn row_spelling(row: &Row) -> String {
    flag_spelling(row.short, &row.shown_flag(), row.value)
}

pub(crate) fn spelling(argument: &Argument) -> String {
    if argument.positional {
        return argument.value.to_owned();
    }
    flag_spelling(argument.short, argument.flag, argument.value)
}

fn flag_spelling(short: Option<char>, flag: &str, value: &str) -> String {
    let mut out = short.map_or_else(String::new, |c| format!("-{c}, "));
    let _ = write!(out, "--{flag}");
    if !value.is_empty() {
        let _ = write!(out, " {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_help_names_every_row_completely() {
        let text = long();
        for row in SETTINGS {
            for part in [format!("--{}", row.shown_flag()), row.env_name(), row.full_key(), row.en.to_owned()] {
                assert!(text.contains(&part), "{part} is missing in the help");
            }
        }
        for argument in RUN {
            assert!(text.contains(&format!("--{}", argument.flag)));
        }
    }

    #[test]
    fn the_short_help_fits_one_screen() {
        let text = short();
        assert!(text.lines().count() <= 24, "{} lines", text.lines().count());
        for line in text.lines() {
            assert!(line.width() <= 100, "{line}");
        }
    }
}
