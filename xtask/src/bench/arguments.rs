//! What `cargo xtask bench` is told.

use super::run::{Case, PEERS, Peer};
use crate::error::{Error, Result};
use std::path::PathBuf;

pub(super) const HELP: &str = "\
cargo xtask bench --model FILE... [--llama-python PYTHON] [options]

  --model FILE...        models to measure
  --llama-python PYTHON  a Python with the package llama-cpp-python, to compare with llama.cpp
  --ik-python PYTHON     a Python with the package ik-llama-cpp-python, to compare with ik_llama.cpp
  --threads LIST         numbers of threads [2,1]
  --prompt N             tokens of the prompt [512]
  --gen N                tokens decoded [64]
  --depth LIST           also decode at these depths
  --parallel LIST        also decode so many sequences side by side
  --rounds N             rounds; medians are shown [3]
  --program FILE         measure this program instead of building one
  --machine NAME         name of the machine in the file name [the processor's]
  --out FOLDER           where the figures go [bench/cpu]
  --no-readme            leave the tables of the READMEs as they are
";

/// The arguments, checked.
#[derive(Debug, PartialEq)]
pub(super) struct Arguments {
    pub(super) models: Vec<PathBuf>,
    /// Whom to compare with, and the Python that has its package.
    pub(super) peers: Vec<(&'static Peer, PathBuf)>,
    pub(super) program: Option<PathBuf>,
    pub(super) machine: Option<String>,
    pub(super) out: Option<PathBuf>,
    pub(super) threads: Vec<usize>,
    pub(super) depths: Vec<usize>,
    pub(super) parallel: Vec<usize>,
    pub(super) prompt: usize,
    pub(super) generate: usize,
    pub(super) rounds: usize,
    pub(super) readme: bool,
}

impl Arguments {
    /// None when help was asked for.
    pub(super) fn parse(given: &[String]) -> Result<Option<Arguments>> {
        let mut a = Arguments {
            models: Vec::new(),
            peers: Vec::new(),
            program: None,
            machine: None,
            out: None,
            threads: vec![2, 1],
            depths: Vec::new(),
            parallel: Vec::new(),
            prompt: 512,
            generate: 64,
            rounds: 3,
            readme: true,
        };
        let mut words = given.iter().map(String::as_str).peekable();
        while let Some(flag) = words.next() {
            let mut value = || {
                let value = words.next_if(|word| !word.starts_with("--"));
                value.ok_or_else(|| Error::Bench(format!("`{flag}` needs a value")))
            };
            match flag {
                "--help" | "-h" => return Ok(None),
                "--model" => {
                    a.models.push(value()?.into());
                    while let Some(more) = words.next_if(|word| !word.starts_with("--")) {
                        a.models.push(more.into());
                    }
                }
                "--program" => a.program = Some(value()?.into()),
                "--machine" => a.machine = Some(value()?.to_owned()),
                "--out" => a.out = Some(value()?.into()),
                "--threads" => a.threads = counts(flag, value()?)?,
                "--depth" => a.depths = counts(flag, value()?)?,
                "--parallel" => a.parallel = counts(flag, value()?)?,
                "--prompt" => a.prompt = count(flag, value()?)?,
                "--gen" => a.generate = count(flag, value()?)?,
                "--rounds" => a.rounds = count(flag, value()?)?,
                "--no-readme" => a.readme = false,
                _ if let Some(peer) = PEERS.iter().find(|peer| peer.flag == flag) => {
                    a.peers.push((peer, value()?.into()))
                }
                _ => return Err(Error::UnknownArgument { chore: "bench", argument: flag.to_owned() }),
            }
        }
        if a.models.is_empty() {
            return Err(Error::Bench(
                "no --model was given; `cargo xtask bench --help` lists the arguments".to_owned(),
            ));
        }
        Ok(Some(a))
    }

    /// What is measured of each model, in order.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &threads in &self.threads {
            let plain = Case { threads, prompt: self.prompt, generate: self.generate, depth: 0, parallel: 1 };
            cases.push(plain);
            cases.extend(self.depths.iter().map(|&depth| Case { prompt: 0, depth, ..plain }));
            cases.extend(self.parallel.iter().map(|&parallel| Case { prompt: 0, parallel, ..plain }));
        }
        cases
    }
}

fn count(flag: &str, text: &str) -> Result<usize> {
    let n = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    n.ok_or_else(|| Error::Bench(format!("`{flag} {text}`: expected a number from 1")))
}

fn counts(flag: &str, text: &str) -> Result<Vec<usize>> {
    text.split(',').map(|part| count(flag, part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments() {
        let a = parse("--model a.gguf b.gguf --threads 4,1 --depth 4096 --parallel 8 --rounds 5 --no-readme")
            .unwrap()
            .unwrap();
        assert_eq!(a.models, [PathBuf::from("a.gguf"), PathBuf::from("b.gguf")]);
        assert_eq!((a.rounds, a.readme, a.peers.len()), (5, false, 0));
        let a = parse("--model a --ik-python p --llama-python q").unwrap().unwrap();
        let names: Vec<&str> = a.peers.iter().map(|(peer, _)| peer.name).collect();
        assert_eq!(names, ["ik_llama.cpp", "llama.cpp"]);
        let cases = parse("--model a --threads 4,1 --depth 4096 --parallel 8").unwrap().unwrap().cases();
        assert_eq!(cases.len(), 6);
        assert_eq!(cases[1], Case { threads: 4, prompt: 0, generate: 64, depth: 4096, parallel: 1 });
        assert_eq!(cases[5], Case { threads: 1, prompt: 0, generate: 64, depth: 0, parallel: 8 });
        assert_eq!(parse("--model a --help").unwrap(), None);
        for wrong in
            ["", "--model", "--model a --threads 0", "--model a --rounds x", "--modle a", "--model a --llama-python"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
