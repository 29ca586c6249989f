//! One run of one engine: the command, and what it said.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is measured in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) threads: usize,
    /// Tokens of the prompt; 0: no prefill is measured.
    pub(super) prompt: usize,
    pub(super) generate: usize,
    pub(super) depth: usize,
    pub(super) parallel: usize,
}

/// A figure of a run: its key, and whether less of it is better.
pub(super) struct Figure {
    pub(super) key: &'static str,
    pub(super) less_is_better: bool,
}

/// The figures that are compared.
pub(super) const FIGURES: &[Figure] = &[
    Figure { key: "prefill_tps", less_is_better: false },
    Figure { key: "decode_tps", less_is_better: false },
    Figure { key: "load_s", less_is_better: true },
    Figure { key: "peak_rss_bytes", less_is_better: true },
];

/// A program that can be measured.
pub(super) struct Engine {
    /// As the figures and tables call it.
    pub(super) name: &'static str,
    pub(super) version: String,
    program: PathBuf,
    /// Comes before all other arguments.
    script: Option<PathBuf>,
    package: Option<&'static str>,
    arguments: fn(&Case) -> Vec<(&'static str, String)>,
}

pub(super) const OURS: &str = "rustorch-cli";

/// Another engine, by way of a Python package that `bench/peer_llama_cpp.py` drives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// As the figures and tables call it.
    pub(super) name: &'static str,
    /// Names the Python that has the package.
    pub(super) flag: &'static str,
    /// What pip calls the package.
    distribution: &'static str,
    package: &'static str,
}

/// The engines we are compared with, in the order of the tables' columns.
pub(super) const PEERS: &[Peer] = &[
    Peer { name: "llama.cpp", flag: "--llama-python", distribution: "llama-cpp-python", package: "llama_cpp" },
    Peer { name: "ik_llama.cpp", flag: "--ik-python", distribution: "ik-llama-cpp-python", package: "ik_llama_cpp" },
];

impl Engine {
    /// Our program; `commit` is what it was built from, if that is known.
    pub(super) fn ours(program: PathBuf, commit: Option<&str>) -> Result<Engine> {
        let version = said(Command::new(&program).arg("--version"));
        let version = version.map_err(|why| Error::Bench(format!("{}: {why}", program.display())))?;
        let version = version.lines().next().unwrap_or_default().trim_start_matches(OURS).trim();
        let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version}, commit {commit}"));
        let arguments = |case: &Case| {
            let mut words: Vec<(&str, String)> = [
                ("--prompt-tokens", case.prompt),
                ("--gen-tokens", case.generate),
                ("--depth", case.depth),
                ("--parallel", case.parallel),
                ("--threads", case.threads),
                ("--repeat", 1),
            ]
            .map(|(flag, n)| (flag, n.to_string()))
            .to_vec();
            words.push(("--json", String::new()));
            words
        };
        Ok(Engine { name: OURS, version, program, script: None, package: None, arguments })
    }

    /// A peer, run by the Python that has its package; an error says why that is not to be had.
    pub(super) fn peer(peer: &Peer, python: &Path, script: &Path) -> std::result::Result<Engine, String> {
        let Peer { distribution, package, .. } = *peer;
        let ask = format!("import {package}; print({package}.__version__)");
        let version = said(Command::new(python).args(["-c", &ask]))
            .map_err(|why| format!("{} has no usable {package} ({why})", file_name(python)))?;
        if !script.is_file() {
            return Err(format!("{} is missing", file_name(script)));
        }
        let arguments = |case: &Case| {
            let words = [
                ("--prompt", case.prompt),
                ("--gen", case.generate),
                ("--depth", case.depth),
                ("--parallel", case.parallel),
                ("--threads", case.threads),
            ];
            words.map(|(flag, n)| (flag, n.to_string())).to_vec()
        };
        let version = format!("{distribution} {}", version.lines().last().unwrap_or_default().trim());
        let (program, script) = (python.to_path_buf(), Some(script.to_path_buf()));
        Ok(Engine { name: peer.name, version, program, script, package: Some(package), arguments })
    }

    /// Runs once. A failure is a result too.
    pub(super) fn measure(&self, model: &Path, case: &Case, round: usize) -> Run {
        let mut words: Vec<OsString> = self.script.iter().map(|script| script.clone().into_os_string()).collect();
        if self.script.is_none() {
            words.push("bench".into());
        }
        words.extend(self.package.iter().flat_map(|package| ["--package".into(), package.into()]));
        words.extend(["--model".into(), model.as_os_str().to_owned()]);
        for (flag, value) in (self.arguments)(case) {
            words.push(flag.into());
            words.extend((!value.is_empty()).then(|| value.into()));
        }
        let name = file_name(model);
        // What is written down holds no paths of this machine.
        let result = said(Command::new(&self.program).args(&words))
            .and_then(|text| figures(&text))
            .map_err(|why| why.replace(&*model.to_string_lossy(), &name));
        Run { engine: self.name, model: name, case: *case, round, result }
    }

    /// The command as somebody else would type it: names instead of this machine's paths.
    pub(super) fn command(&self, case: &Case) -> String {
        let mut words = match self.script {
            Some(_) => vec!["python bench/peer_llama_cpp.py".to_owned()],
            None => vec![format!("{OURS} bench")],
        };
        words.extend(self.package.iter().map(|package| format!("--package {package}")));
        words.push("--model MODEL".to_owned());
        let flags = (self.arguments)(case);
        words.extend(flags.into_iter().map(|(flag, value)| format!("{flag} {value}").trim_end().to_owned()));
        words.join(" ")
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What a command wrote to stdout, or why it failed: its last words on stderr.
fn said(command: &mut Command) -> std::result::Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    let words: Vec<&str> = words.into_iter().rev().collect();
    Err(format!("{}: {}", output.status, words.join(" / ")))
}

/// The figures in the last line of an output; medians where there are several.
fn figures(text: &str) -> std::result::Result<Map<String, Value>, String> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let answer: Value = serde_json::from_str(line).map_err(|error| format!("its answer is no JSON ({error})"))?;
    let mut figures = Map::new();
    for Figure { key, .. } in FIGURES {
        let value = match &answer[key] {
            Value::Object(spread) => spread.get("median").and_then(Value::as_f64),
            value => value.as_f64(),
        };
        // A rate of 0 says that it was not measured.
        if let Some(value) = value.filter(|value| *value > 0.0) {
            figures.insert((*key).to_owned(), json!(value));
        }
    }
    if figures.is_empty() { Err("its answer has no figures".to_owned()) } else { Ok(figures) }
}

/// One run and what came of it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) engine: &'static str,
    /// File name of the model.
    pub(super) model: String,
    pub(super) case: Case,
    pub(super) round: usize,
    pub(super) result: std::result::Result<Map<String, Value>, String>,
}

impl Run {
    /// A figure, if it was measured.
    pub(super) fn figure(&self, key: &str) -> Option<f64> {
        self.result.as_ref().ok()?.get(key)?.as_f64()
    }

    /// One line for who waits.
    pub(super) fn line(&self) -> String {
        let Case { threads, depth, parallel, .. } = self.case;
        let what =
            format!("round {} {} {threads} threads, depth {depth}, {parallel} at once", self.round + 1, self.model);
        match &self.result {
            Ok(figures) => {
                let shown: Vec<String> = figures
                    .iter()
                    .map(|(key, value)| format!("{key} {:.2}", value.as_f64().unwrap_or_default()))
                    .collect();
                format!("{what}: {} {}", self.engine, shown.join(", "))
            }
            Err(why) => format!("{what}: {} failed: {why}", self.engine),
        }
    }

    pub(super) fn json(&self) -> Value {
        let Case { threads, prompt, generate, depth, parallel } = self.case;
        let mut row = json!({
            "round": self.round + 1, "engine": self.engine, "model": self.model, "threads": threads, "prompt": prompt,
            "gen": generate, "depth": depth, "parallel": parallel,
        });
        match &self.result {
            Ok(figures) => row["figures"] = json!(figures),
            Err(why) => row["error"] = json!(why),
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_either_form() {
        let ours =
            figures("{\"prefill_tps\":{\"median\":10.5,\"min\":1,\"max\":20},\"decode_tps\":{\"median\":0.0}}\n")
                .unwrap();
        assert_eq!(Value::Object(ours), json!({"prefill_tps": 10.5}));
        let theirs = figures("noise\n{\"decode_tps\": 3, \"load_s\": 0.5, \"version\": \"1\"}\n\n").unwrap();
        assert_eq!(Value::Object(theirs), json!({"decode_tps": 3.0, "load_s": 0.5}));
        for wrong in ["", "{}", "Traceback", "[1]"] {
            assert!(figures(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn commands_hold_no_paths() {
        let arguments = |_: &Case| vec![("--threads", "2".to_owned()), ("--json", String::new())];
        let mut engine = Engine {
            name: OURS,
            version: String::new(),
            program: "/a/b".into(),
            script: None,
            package: None,
            arguments,
        };
        let case = Case { threads: 2, prompt: 0, generate: 1, depth: 0, parallel: 1 };
        assert_eq!(engine.command(&case), "rustorch-cli bench --model MODEL --threads 2 --json");
        (engine.script, engine.package) = (Some("/c/bench/peer_llama_cpp.py".into()), Some("llama_cpp"));
        let command = "python bench/peer_llama_cpp.py --package llama_cpp --model MODEL --threads 2 --json";
        assert_eq!(engine.command(&case), command);
        let run = engine.measure(Path::new("/x/m.gguf"), &case, 0);
        assert!(run.result.is_err() && run.line().contains("failed") && run.json()["model"] == "m.gguf", "{run:?}");
    }
}
