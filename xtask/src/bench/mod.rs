//! `cargo xtask bench`: our release program against its peers on this machine, written down so that it can be judged.
//!
//! Every engine runs alone, in a process of its own, in turn, round by round: a machine that is shared drifts, and only
//! figures of one round compare. What is written: `bench/cpu/MACHINE-DATE.json` (machine, versions, commands, every
//! single run) and the table between the marks in both READMEs. What could not be measured is left out and said. What
//! does not belong here: how a run is measured, which is the program's `bench` and `bench/peer_llama_cpp.py`.

mod arguments;
mod machine;
mod report;
mod run;
mod table;

use crate::error::{Error, Result};
use arguments::Arguments;
use report::Report;
use run::{Engine, PEERS, Run};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measures and writes.
pub(crate) fn run(root: &Path, given: &[String], out: &mut dyn Write) -> Result<()> {
    let Some(arguments) = Arguments::parse(given)? else {
        return Ok(out.write_all(arguments::HELP.as_bytes())?);
    };
    let mut skipped = Vec::new();
    let models = existing(&arguments.models, &mut skipped);
    if models.is_empty() {
        return Err(Error::Bench(format!("nothing to measure: {}", skipped.join("; "))));
    }
    let engines = engines(root, &arguments, &mut skipped)?;
    for line in &skipped {
        writeln!(out, "skipped: {line}")?;
    }
    let before = machine::Machine::read();
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..arguments.rounds {
        for model in &models {
            for case in arguments.cases() {
                // Who begins changes: later runs find the file in the page cache, and the machine warm.
                let mut order: Vec<&Engine> = engines.iter().collect();
                order.rotate_left(round % engines.len());
                for engine in order {
                    let run = engine.measure(model, &case, round);
                    writeln!(out, "{}", run.line())?;
                    out.flush()?;
                    runs.push(run);
                }
            }
        }
    }
    let report = Report::new(before, &arguments, &engines, runs, skipped);
    if report.rows.is_empty() {
        return Err(Error::Bench("no run succeeded; nothing was written".to_owned()));
    }
    writeln!(out, "\n{}", table::markdown(&report, table::Language::English))?;
    for line in &report.skipped {
        writeln!(out, "skipped: {line}")?;
    }
    write_results(root, &arguments, &report, out)
}

/// The models that are there, in order; the others are named.
fn existing(models: &[PathBuf], skipped: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for model in models {
        if model.exists() {
            found.push(model.clone());
        } else {
            skipped.push(format!("{}: there is no such file", run::file_name(model)));
        }
    }
    found
}

/// The engines to compare: ours first.
fn engines(root: &Path, arguments: &Arguments, skipped: &mut Vec<String>) -> Result<Vec<Engine>> {
    let ours = match &arguments.program {
        Some(program) => Engine::ours(program.clone(), None)?,
        None => Engine::ours(build(root)?, machine::commit(root).as_deref())?,
    };
    let mut engines = vec![ours];
    for peer in PEERS {
        let python = arguments.peers.iter().find(|(wanted, _)| *wanted == peer).map(|(_, python)| python);
        match python.map(|python| Engine::peer(peer, python, &root.join("bench/peer_llama_cpp.py"))) {
            None => skipped.push(format!("{}: no {} was given", peer.name, peer.flag)),
            Some(Ok(engine)) => engines.push(engine),
            Some(Err(why)) => skipped.push(format!("{}: {why}", peer.name)),
        }
    }
    Ok(engines)
}

/// Builds the program for release and gives its path.
fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "rustorch-cli",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
    if !output.status.success() {
        return Err(Error::Bench("the release build failed".to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().ok_or_else(|| Error::Bench("cargo named no program that it built".to_owned()))
}

/// Writes the figures and the tables of both READMEs.
fn write_results(root: &Path, arguments: &Arguments, report: &Report, out: &mut dyn Write) -> Result<()> {
    let json = format!("{:#}\n", report.json());
    let folder = arguments.out.clone().unwrap_or_else(|| root.join("bench/cpu"));
    fs::create_dir_all(&folder).map_err(|cause| Error::Io { path: folder.clone(), cause })?;
    let file = folder.join(report.file_name());
    let verb = if file.exists() { "replaced" } else { "wrote" };
    fs::write(&file, json).map_err(|cause| Error::Io { path: file.clone(), cause })?;
    writeln!(out, "{verb} {}", file.display())?;
    if !arguments.readme {
        return Ok(writeln!(out, "skipped: the tables of the READMEs (--no-readme)")?);
    }
    for (name, language) in [("README.md", table::Language::English), ("README.ja.md", table::Language::Japanese)] {
        let path = root.join(name);
        let failed = |cause| Error::Io { path: path.clone(), cause };
        let text = fs::read_to_string(&path).map_err(failed)?;
        let section = table::section(report, language);
        let text = table::replace(&text, &section)
            .ok_or_else(|| Error::Bench(format!("{name} lacks the marks {} and {}", table::BEGIN, table::END)))?;
        fs::write(&path, text).map_err(failed)?;
        writeln!(out, "wrote the table of {name}")?;
    }
    Ok(())
}
