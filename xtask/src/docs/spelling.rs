//! Flags, variables and slash commands that hand-written documents mention must be those of the program.

use super::tables::Tables;
use crate::project::{File, Project};

/// Documents for users; others may speak of what is planned.
fn is_read(path: &str) -> bool {
    matches!(path, "README.md" | "README.ja.md") || path.starts_with("docs/en/") || path.starts_with("docs/ja/")
}

/// One line per spelling that the program does not know.
pub(super) fn check(project: &Project, tables: &Tables) -> Vec<String> {
    let known = known(tables);
    project.files().filter(|f| is_read(&f.path)).flat_map(|f| unknown(f, &known)).collect()
}

/// Everything a document may spell.
fn known(tables: &Tables) -> Vec<String> {
    let mut known: Vec<String> = ["--help", "--version"].map(str::to_owned).to_vec();
    for s in &tables.settings {
        known.extend([format!("--{}", s.flag), s.variable.clone()]);
        if s.value.is_empty() {
            // A switch is shown in the spelling that changes its default, and has the other one too.
            let other = s.flag.strip_prefix("no-").map_or_else(|| format!("no-{}", s.flag), str::to_owned);
            known.push(format!("--{other}"));
        }
    }
    let options = tables.tools.iter().flat_map(|t| &t.options);
    known.extend(options.flat_map(|o| spellings(&o.usage)).map(str::to_owned));
    known.extend(
        tables
            .commands
            .iter()
            .flat_map(|c| c.aliases.iter().chain([&c.usage]))
            .flat_map(|c| spellings(c))
            .map(str::to_owned),
    );
    known
}

fn unknown(file: &File, known: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        // What stands between `cargo` and ` -- ` is addressed to cargo.
        let ours = match line.split_once("cargo ") {
            Some((before, rest)) => format!("{before} {}", rest.split_once(" -- ").map_or("", |(_, ours)| ours)),
            None => line.to_owned(),
        };
        for word in spellings(&ours) {
            if !known.iter().any(|k| k == word) {
                findings.push(format!("{}:{number}: `{word}` is not known to the program", file.path));
            }
        }
    }
    findings
}

/// The flags (`--x`), variables (`RUSTORCH_X`) and slash commands (`/x` at the start of code) in a text.
fn spellings(text: &str) -> impl Iterator<Item = &str> {
    let is_edge = |c: char| c.is_whitespace() || "`'\"()[]|,;:=<>「」、。".contains(c);
    let pieces = text.split_inclusive(is_edge).scan(None, move |before: &mut Option<char>, piece| {
        let edge = before.replace(piece.chars().next_back().unwrap_or(' '));
        Some((edge, piece.trim_end_matches(is_edge)))
    });
    pieces.filter_map(|(edge, word)| {
        let flag = word.strip_prefix("--").is_some_and(|w| w.starts_with(|c: char| c.is_ascii_lowercase()));
        let variable = word.starts_with("RUSTORCH_") && !word.ends_with('_');
        let command =
            word.strip_prefix('/').is_some_and(|w| !w.is_empty() && w.chars().all(|c| c.is_ascii_lowercase()));
        let slash_command = command && matches!(edge, None | Some('`'));
        (flag || variable || slash_command).then_some(word.trim_end_matches('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::tables::{Setting, SlashCommand};

    #[test]
    fn only_known_spellings_pass() {
        let tables = Tables {
            settings: vec![
                Setting {
                    flag: "top-p".into(),
                    value: "X".into(),
                    variable: "RUSTORCH_A_TOP_P".into(),
                    ..Setting::default()
                },
                Setting { flag: "no-mmap".into(), ..Setting::default() },
            ],
            commands: vec![SlashCommand { usage: "/save [FILE]".into(), ..SlashCommand::default() }],
            ..Tables::default()
        };
        let check = |text: &str, expected: usize| {
            let project = Project::new(vec![File::new("README.md", text)]);
            assert_eq!(super::check(&project, &tables).len(), expected, "{text}");
        };
        check("`--top-p 0.9`, --no-mmap, --mmap, `RUSTORCH_A_TOP_P=1`, `/save a.json`", 0);
        check("`--top_p 0.9`", 1);
        check("`--no-top-p`", 1);
        check("`RUSTORCH_TOP_P`", 1);
        check("`/store`", 1);
        check("read and/or write /usr", 0);
        check("`cargo test --workspace`", 0);
        check("`cargo run --release -- --top-p 1 --bottom-p 2`", 1);
        check("`RUSTORCH_<SECTION>_<KEY>` and `--`", 0);
    }
}
