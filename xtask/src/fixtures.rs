//! `cargo xtask fixtures`: the fixtures made anew by the scripts beside them, which run the reference libraries.
//!
//! What belongs here: which script makes what, and how it is called. The scripts are Python and say in their first lines what
//! they need; the interpreter that has it is named on the command line. Tests never make fixtures, they only read them.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A set of fixtures and the script that makes it.
struct Set {
    name: &'static str,
    script: &'static str,
    /// What the script is called with; see [`fill`].
    arguments: &'static [&'static str],
}

/// Every set, in the order of the help.
const SETS: &[Set] = &[
    Set {
        name: "demo",
        script: "tools/demo-model/fixtures.py",
        arguments: &["--run", "{run}", "--tokenizer", "{tokenizer}", "--out", "{out}"],
    },
    Set { name: "families", script: "fixtures/families/make.py", arguments: &["{out}"] },
    Set { name: "vocabularies", script: "fixtures/vocabularies/make.py", arguments: &["{out}"] },
    Set { name: "variants", script: "fixtures/variants/make.py", arguments: &["{out}"] },
    Set { name: "quantized", script: "fixtures/quantized/make.py", arguments: &["{out}"] },
    Set { name: "quantized-mlx", script: "fixtures/quantized/make_mlx.py", arguments: &["{out}"] },
];

const USAGE: &str = "cargo xtask fixtures SET… --python INTERPRETER [--out DIR] [--run DIR] [--tokenizer FILE]

Makes sets of fixtures anew with the reference libraries. The scripts say what they need, and write over what is there.

  --python INTERPRETER  a Python that has what the scripts need
  --out DIR             where they write (default: the set's folder in fixtures/)
  --run DIR             demo: the folder of the training (default: tools/demo-model/build/run)
  --tokenizer FILE      demo: its tokenizer (default: tools/demo-model/build/tokenizer.json)
";

/// The command line.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    sets: Vec<String>,
    python: Option<String>,
    out: Option<String>,
    run: Option<String>,
    tokenizer: Option<String>,
    help: bool,
}

pub(crate) fn run(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let wanted = parse(arguments)?;
    let Some(python) = wanted.python.as_ref().filter(|_| !wanted.help && !wanted.sets.is_empty()) else {
        write!(out, "{USAGE}\nsets:")?;
        SETS.iter().try_for_each(|set| write!(out, " {}", set.name))?;
        writeln!(out)?;
        return Ok(());
    };
    for name in &wanted.sets {
        let set = SETS
            .iter()
            .find(|set| set.name == name)
            .ok_or_else(|| Error::UnknownArgument { chore: "fixtures", argument: name.clone() })?;
        let arguments: Vec<PathBuf> = set.arguments.iter().map(|argument| fill(root, set, &wanted, argument)).collect();
        let status = Command::new(python)
            .arg(root.join(set.script))
            .args(&arguments)
            .current_dir(root)
            .status()
            .map_err(|cause| Error::Io { path: python.into(), cause })?;
        if !status.success() {
            return Err(Error::Script { script: set.script, status: status.to_string() });
        }
        writeln!(out, "made {name}")?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let unknown = |argument: &str| Error::UnknownArgument { chore: "fixtures", argument: argument.to_owned() };
    let mut wanted = Wanted::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "-h" | "--help" => {
                wanted.help = true;
                continue;
            }
            "--python" => &mut wanted.python,
            "--out" => &mut wanted.out,
            "--run" => &mut wanted.run,
            "--tokenizer" => &mut wanted.tokenizer,
            name if !name.starts_with('-') => {
                wanted.sets.push(name.to_owned());
                continue;
            }
            other => return Err(unknown(other)),
        };
        *place = Some(words.next().ok_or_else(|| unknown(word))?.clone());
    }
    Ok(wanted)
}

/// An argument of a script with its place filled in. What the user names is below the folder he stands in, defaults are
/// below the root.
fn fill(root: &Path, set: &Set, wanted: &Wanted, argument: &str) -> PathBuf {
    let folder = if set.name == "quantized-mlx" { "quantized" } else { set.name };
    let (given, usual) = match argument {
        "{out}" => (&wanted.out, format!("fixtures/{folder}")),
        "{run}" => (&wanted.run, "tools/demo-model/build/run".to_owned()),
        "{tokenizer}" => (&wanted.tokenizer, "tools/demo-model/build/tokenizer.json".to_owned()),
        plain => return plain.into(),
    };
    match given {
        Some(given) => std::path::absolute(given).unwrap_or_else(|_| given.into()),
        None => root.join(usual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_exist_and_places_are_filled() {
        let root = crate::root();
        let wanted = Wanted { run: Some("/a/run".into()), ..Wanted::default() };
        for set in SETS {
            assert!(root.join(set.script).is_file(), "{}", set.script);
            let filled: Vec<PathBuf> = set.arguments.iter().map(|a| fill(&root, set, &wanted, a)).collect();
            assert!(filled.iter().all(|a| !a.to_string_lossy().contains('{')), "{filled:?}");
        }
        assert_eq!(fill(&root, &SETS[0], &wanted, "{run}"), PathBuf::from("/a/run"));
        assert!(fill(&root, &SETS[0], &wanted, "{out}").ends_with("fixtures/demo"));
    }

    #[test]
    fn arguments_are_understood_or_named() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        let wanted = parse(&words("demo families --python py --out x")).ok();
        let expected = Wanted {
            sets: words("demo families"),
            python: Some("py".into()),
            out: Some("x".into()),
            ..Wanted::default()
        };
        assert_eq!(wanted, Some(expected));
        assert!(parse(&words("demo --pyton x")).is_err());
        assert!(parse(&words("demo --python")).is_err());
    }
}
