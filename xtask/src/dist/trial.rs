//! Whether what is in an archive works: it is unpacked and run, by this machine or by an emulator.

use super::targets::Target;
use super::{archive, file_name};
use crate::error::{Error, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs of a program: arguments, and what must be in the answer.
const RUNS: &[(&[&str], &str)] = &[
    (&["--version"], "rustorch-cli"),
    (&["inspect", "--model", "demo", "--json"], "qwen3"),
    (&["--model", "demo", "--ephemeral", "--prompt", "How do I save this conversation?"], "/save"),
];

/// Unpacks and runs; says what was done in words. A program that does not do what it must is an error; one that nothing
/// here can run is not.
pub(super) fn run(target: &Target, packed: &Path, folder: &Path) -> Result<String> {
    let place = folder.join("trial");
    archive::unpack(packed, &place)?;
    let name = file_name(packed);
    let name = name.strip_suffix(".tar.gz").or(name.strip_suffix(".zip")).unwrap_or(&name);
    let program = place.join(name).join(target.program());
    let home = place.join("home");
    super::make_folder(&home)?;
    let verdict = match (target.is_native(), target.emulator) {
        (true, _) => tried(Command::new(&program), &home).map(|()| "ran on this machine".to_owned()),
        (false, [emulator, arguments @ ..]) if is_installed(emulator) => {
            let command = || {
                let mut command = Command::new(emulator);
                command.args(arguments).arg(&program);
                command
            };
            tried(command(), &home).map(|()| format!("ran under {emulator}"))
        }
        (false, [emulator, ..]) => Ok(format!("not run: {emulator} is not installed")),
        (false, []) => Ok("not run: another system".to_owned()),
    };
    fs::remove_dir_all(&place).map_err(|cause| Error::Io { path: place.clone(), cause })?;
    verdict
}

/// All runs, with an empty home folder.
fn tried(command: Command, home: &Path) -> Result<()> {
    for (arguments, expected) in RUNS {
        let mut run = Command::new(command.get_program());
        run.args(command.get_args()).args(*arguments).env("HOME", home).env("LC_ALL", "C").env("WINEDEBUG", "-all");
        let output = run.output().map_err(|cause| Error::Io { path: command.get_program().into(), cause })?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains(expected) {
            let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let what = format!("`{}` ended with {}", arguments.join(" "), output.status);
            return Err(Error::Dist(format!("{what} and said `{}`, not `{expected}`: {problem}", said.trim())));
        }
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
