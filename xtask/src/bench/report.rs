//! All runs together: medians, ratios, and the file that keeps everything.

use super::arguments::Arguments;
use super::machine::{self, Machine};
use super::run::{Case, Engine, FIGURES, OURS, PEERS, Run};
use serde_json::{Value, json};

/// One compared figure of one case.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) model: String,
    pub(super) case: Case,
    pub(super) key: &'static str,
    pub(super) ours: f64,
    /// Those that were measured, by name.
    pub(super) theirs: Vec<Theirs>,
}

/// A peer's figure beside ours.
#[derive(Debug, PartialEq)]
pub(super) struct Theirs {
    pub(super) engine: &'static str,
    pub(super) value: f64,
    /// How much better ours is (above 1: better), taken inside each round: median, least, most. None without a common round.
    pub(super) ratio: Option<(f64, f64, f64)>,
}

pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) versions: Vec<(&'static str, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) skipped: Vec<String>,
    pub(super) rounds: usize,
    name: String,
    commands: Vec<String>,
    runs: Vec<Run>,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        arguments: &Arguments,
        engines: &[Engine],
        runs: Vec<Run>,
        mut skipped: Vec<String>,
    ) -> Report {
        let (rows, without) = rows(&runs);
        skipped.extend(without);
        let name = arguments.machine.as_deref().map_or_else(|| machine.slug(), machine::slug);
        let cases = arguments.cases();
        let commands = engines.iter().flat_map(|engine| cases.iter().map(|case| engine.command(case)));
        Report {
            name: format!("{name}-{}.json", machine.date),
            versions: engines.iter().map(|engine| (engine.name, engine.version.clone())).collect(),
            commands: commands.collect(),
            rounds: arguments.rounds,
            machine,
            rows,
            skipped,
            runs,
        }
    }

    pub(super) fn file_name(&self) -> &str {
        &self.name
    }

    pub(super) fn json(&self) -> Value {
        let results = self.rows.iter().map(|row| {
            let Case { threads, prompt, generate, depth, parallel } = row.case;
            let peers = row.theirs.iter().map(|Theirs { engine, value, ratio }| {
                let ratio = ratio.map(|(median, least, most)| json!({"median": median, "min": least, "max": most}));
                ((*engine).to_owned(), json!({"value": value, "ratio": ratio}))
            });
            json!({
                "model": row.model, "threads": threads, "prompt": prompt, "gen": generate, "depth": depth,
                "parallel": parallel, "figure": row.key, OURS: row.ours,
                "peers": peers.collect::<serde_json::Map<_, _>>(),
            })
        });
        json!({
            "date": self.machine.date,
            "machine": self.machine.json(),
            "versions": self.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version)))
                .collect::<serde_json::Map<_, _>>(),
            "method": "each engine alone, in turn, round by round; medians over rounds; ratios inside a round, above 1 where ours is better",
            "rounds": self.rounds,
            "commands": self.commands,
            "results": results.collect::<Vec<_>>(),
            "skipped": self.skipped,
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
        })
    }
}

/// The rows in the order of the runs, and what is missing.
fn rows(runs: &[Run]) -> (Vec<Row>, Vec<String>) {
    let mut cases: Vec<(&str, Case)> = Vec::new();
    for run in runs {
        if !cases.contains(&(&run.model, run.case)) {
            cases.push((&run.model, run.case));
        }
    }
    let mut skipped: Vec<String> = Vec::new();
    for run in runs {
        if let Err(why) = &run.result {
            let Case { threads, depth, parallel, .. } = run.case;
            let line = format!(
                "{} on {} ({threads} threads, depth {depth}, {parallel} at once) in round {}: {why}",
                run.engine,
                run.model,
                run.round + 1
            );
            skipped.push(line);
        }
    }
    let mut rows = Vec::new();
    for (model, case) in cases {
        for figure in FIGURES {
            // Load and memory belong to the plain case: the others differ in how large a cache was made.
            if figure.less_is_better && case.prompt == 0 {
                continue;
            }
            let of = |engine: &str| -> Vec<(usize, f64)> {
                let mine = runs.iter().filter(|run| run.engine == engine && run.model == model && run.case == case);
                mine.filter_map(|run| Some((run.round, run.figure(figure.key)?))).collect()
            };
            let ours = of(OURS);
            let Some(our_median) = median(ours.iter().map(|(_, value)| *value).collect()) else { continue };
            let theirs = PEERS.iter().filter_map(|peer| {
                let theirs = of(peer.name);
                let value = median(theirs.iter().map(|(_, value)| *value).collect())?;
                Some(Theirs { engine: peer.name, value, ratio: ratio(&ours, &theirs, figure.less_is_better) })
            });
            let theirs = theirs.collect();
            rows.push(Row { model: model.to_owned(), case, key: figure.key, ours: our_median, theirs });
        }
    }
    (rows, skipped)
}

/// Ratios inside the rounds that both have: median, least, most.
fn ratio(ours: &[(usize, f64)], theirs: &[(usize, f64)], less_is_better: bool) -> Option<(f64, f64, f64)> {
    let mut ratios: Vec<f64> = Vec::new();
    for (round, value) in ours {
        for (_, other) in theirs.iter().filter(|(other_round, _)| other_round == round) {
            ratios.push(if less_is_better { other / value } else { value / other });
        }
    }
    ratios.sort_by(f64::total_cmp);
    Some((median(ratios.clone())?, *ratios.first()?, *ratios.last()?))
}

/// The median; of an even number the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let (low, high) = (values.get(n.checked_sub(1)? / 2)?, values.get(n / 2)?);
    Some((low + high) / 2.0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Map;

    const CASE: Case = Case { threads: 2, prompt: 512, generate: 64, depth: 0, parallel: 1 };

    fn run(engine: &'static str, round: usize, decode: Option<f64>, load: f64) -> Run {
        let figures = decode.map(|tps| {
            let mut figures = Map::new();
            figures.insert("decode_tps".to_owned(), json!(tps));
            figures.insert("load_s".to_owned(), json!(load));
            figures
        });
        let result = figures.ok_or_else(|| "exit status: 4".to_owned());
        Run { engine, model: "m.gguf".to_owned(), case: CASE, round, result }
    }

    /// A report of two rounds, one of which failed for llama.cpp.
    pub(in crate::bench) fn report() -> Report {
        let runs = vec![
            run(OURS, 0, Some(20.0), 0.5),
            run(PEERS[0].name, 0, Some(10.0), 1.0),
            run(PEERS[0].name, 1, None, 0.0),
            run(OURS, 1, Some(30.0), 0.7),
        ];
        let arguments = Arguments::parse(&["--model".to_owned(), "m.gguf".to_owned()]).unwrap().unwrap();
        let machine = Machine::named("A Processor", "2026-01-02");
        Report::new(machine, &arguments, &[], runs, vec!["x.gguf: there is no such file".to_owned()])
    }

    #[test]
    fn medians_ratios_and_what_is_missing() {
        let report = report();
        assert_eq!(report.file_name(), "a-processor-2026-01-02.json");
        assert_eq!(report.rows.len(), 2);
        let row = &report.rows[0];
        assert_eq!((row.key, row.ours, row.theirs.len()), ("decode_tps", 25.0, 1));
        assert_eq!(row.theirs[0], Theirs { engine: "llama.cpp", value: 10.0, ratio: Some((2.0, 2.0, 2.0)) });
        assert_eq!(report.rows[1].theirs[0].ratio, Some((2.0, 2.0, 2.0)), "less is better");
        assert_eq!(report.skipped.len(), 2);
        assert!(report.skipped[1].contains("exit status: 4") && report.skipped[1].contains("round 2"));
        let json = report.json();
        assert_eq!(
            (json["runs"].as_array().unwrap().len(), &json["results"][0]["peers"]["llama.cpp"]["ratio"]["median"]),
            (4, &json!(2.0))
        );
        assert_eq!(median(vec![]), None);
    }
}
