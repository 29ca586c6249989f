//! `cargo xtask dist`: release archives, a Debian package and their checksums.
//!
//! For each target: the program, built with the profile `dist`; man pages, completions, licences of everything that is
//! linked, READMEs; packed the same way each time; then unpacked again and run, where this machine can run it. Nothing is
//! downloaded: a target whose toolchain is missing is an error that says what to install. What does not belong here: how
//! a target is told apart (`targets`), whose licences those are (`licences`).

mod archive;
mod debian;
mod licences;
mod targets;
mod trial;

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use targets::{TARGETS, Target};

const HELP: &str = "\
cargo xtask dist [TARGET...] [options]

  TARGET...        what to build; without any, the targets below that are built on Linux
  --out FOLDER     where the archives go [target/dist-archives]
  --program FILE   take this program instead of building one (one TARGET only)
  --deb            also a Debian package of x86_64-unknown-linux-gnu
  --no-trial       do not run what was built
";

/// What the chore was told.
#[derive(Debug, PartialEq)]
struct Arguments {
    targets: Vec<&'static Target>,
    out: Option<PathBuf>,
    program: Option<PathBuf>,
    deb: bool,
    trial: bool,
}

impl Arguments {
    /// None when help was asked for.
    fn parse(given: &[String]) -> Result<Option<Arguments>> {
        let mut a = Arguments { targets: Vec::new(), out: None, program: None, deb: false, trial: true };
        let unknown = |argument: &str| Error::UnknownArgument { chore: "dist", argument: argument.to_owned() };
        let mut words = given.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "-h" | "--help" => return Ok(None),
                "--deb" => a.deb = true,
                "--no-trial" => a.trial = false,
                "--out" => a.out = Some(words.next().ok_or_else(|| unknown(word))?.into()),
                "--program" => a.program = Some(words.next().ok_or_else(|| unknown(word))?.into()),
                name => a.targets.push(targets::find(name).ok_or_else(|| unknown(name))?),
            }
        }
        if a.targets.is_empty() {
            a.targets = TARGETS.iter().filter(|target| target.from_linux).collect();
        }
        if a.program.is_some() && a.targets.len() != 1 {
            return Err(Error::Dist("--program goes with one TARGET".to_owned()));
        }
        Ok(Some(a))
    }
}

/// Builds, packs, tries, sums up.
pub(crate) fn run(root: &Path, given: &[String], out: &mut dyn Write) -> Result<()> {
    let Some(arguments) = Arguments::parse(given)? else {
        out.write_all(HELP.as_bytes())?;
        for target in TARGETS {
            writeln!(out, "  {:<28} {}", target.triple, target.about)?;
        }
        return Ok(());
    };
    let folder = arguments.out.clone().unwrap_or_else(|| root.join("target/dist-archives"));
    let folder = std::path::absolute(&folder).map_err(|cause| Error::Io { path: folder, cause })?;
    make_folder(&folder)?;
    let release = Release::read(root)?;
    let texts = Texts::read(root)?;
    let mut files = Vec::new();
    let mut rows = Vec::new();
    for target in &arguments.targets {
        let program = match &arguments.program {
            Some(program) => program.clone(),
            None => build(root, target, &release)?,
        };
        let name = format!("rustorch-cli-{}-{}", release.version, target.triple);
        let staged = folder.join(&name);
        stage(root, target, &program, &texts, &staged)?;
        let packed = archive::pack(&folder, &name, target, release.epoch)?;
        let verdict = if arguments.trial { trial::run(target, &packed, &folder)? } else { "not tried".to_owned() };
        rows.push((file_name(&packed), size(&packed)?, size(&program)?, verdict));
        files.push(packed);
        if arguments.deb && target.triple == debian::TRIPLE {
            let package = debian::pack(root, &staged, &folder, &release)?;
            rows.push((file_name(&package), size(&package)?, size(&program)?, "the same program".to_owned()));
            files.push(package);
        }
        fs::remove_dir_all(&staged).map_err(|cause| Error::Io { path: staged.clone(), cause })?;
    }
    write_sums(&folder, &files)?;
    for (name, packed, program, verdict) in rows {
        writeln!(out, "{name}  {packed} bytes, program {program} bytes; {verdict}")?;
    }
    writeln!(out, "{}", folder.join(SUMS).display())?;
    Ok(())
}

const SUMS: &str = "SHA256SUMS";

/// What is released.
struct Release {
    version: String,
    commit: String,
    /// Time of the commit, seconds since 1970: the time of everything in the archives.
    epoch: u64,
}

impl Release {
    fn read(root: &Path) -> Result<Release> {
        let commit = capture(root, "git", &["rev-parse", "--short=12", "HEAD"])?;
        let epoch = capture(root, "git", &["log", "-1", "--format=%ct"])?;
        let epoch = epoch.parse().map_err(|_| Error::Dist(format!("the commit's time is `{epoch}`")))?;
        Ok(Release { version: env!("CARGO_PKG_VERSION").to_owned(), commit, epoch })
    }
}

/// What the archives of all targets hold alike, made by the program built for this machine.
struct Texts {
    man: Vec<(&'static str, Vec<u8>)>,
    completions: Vec<(&'static str, Vec<u8>)>,
}

/// Shells, and where their completion scripts are looked for.
const SHELLS: &[(&str, &str)] = &[
    ("bash", "completions/rustorch-cli.bash"),
    ("zsh", "completions/_rustorch-cli"),
    ("fish", "completions/rustorch-cli.fish"),
    ("powershell", "completions/_rustorch-cli.ps1"),
    ("elvish", "completions/rustorch-cli.elv"),
];

/// Languages of the man page.
const MAN: &[(&str, &str)] = &[("en", "man/man1/rustorch-cli.1"), ("ja", "man/ja/man1/rustorch-cli.1")];

impl Texts {
    fn read(root: &Path) -> Result<Texts> {
        let said = |words: &[&str]| -> Result<Vec<u8>> {
            let output = cargo(root)
                .args(["run", "--quiet", "--locked", "--offline", "--package", "rustorch-cli", "--"])
                .args(words)
                .output()
                .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
            if output.status.success() {
                return Ok(output.stdout);
            }
            Err(Error::Dist(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        };
        let man = MAN.iter().map(|(language, path)| Ok((*path, said(&["man", "--language", language])?)));
        let completions = SHELLS.iter().map(|(shell, path)| Ok((*path, said(&["completions", shell])?)));
        Ok(Texts { man: man.collect::<Result<_>>()?, completions: completions.collect::<Result<_>>()? })
    }
}

/// Files of the repository that every archive holds, and their names there.
const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", "README.md"),
    ("README.ja.md", "README.ja.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("crates/rustorch-cli/model/MODEL_CARD.md", "DEMO-MODEL.md"),
];

/// Lays out what an archive holds.
fn stage(root: &Path, target: &Target, program: &Path, texts: &Texts, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|cause| Error::Io { path: folder.to_path_buf(), cause })?;
    }
    make_folder(folder)?;
    copy(program, &folder.join(target.program()))?;
    for (from, to) in DOCUMENTS {
        copy(&root.join(from), &folder.join(to))?;
    }
    for (path, text) in texts.man.iter().chain(&texts.completions) {
        write(&folder.join(path), text)?;
    }
    write(&folder.join("THIRD-PARTY-LICENSES.txt"), licences::text(root, target)?.as_bytes())
}

/// Builds the program and says where it is.
fn build(root: &Path, target: &Target, release: &Release) -> Result<PathBuf> {
    let zig = if target.glibc.is_some() || target.linker_is_zig { "zigbuild" } else { "build" };
    let triple = match target.glibc {
        Some(version) => format!("{}.{version}", target.triple),
        None => target.triple.to_owned(),
    };
    let status = cargo(root)
        .args([zig, "--locked", "--offline", "--profile", "dist", "--package", "rustorch-cli", "--target", &triple])
        .env("GIT_COMMIT", &release.commit)
        .status()
        .map_err(|cause| Error::Io { path: root.to_path_buf(), cause })?;
    if !status.success() {
        return Err(Error::Dist(format!("{} was not built; it needs {}", target.triple, target.needs)));
    }
    let made = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(made.join(target.triple).join("dist").join(target.program()))
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// What a program says, trimmed.
fn capture(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|cause| Error::Io { path: program.into(), cause })?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Dist(format!("{program} {}: {problem}", arguments.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program that must succeed.
fn must(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|cause| Error::Io { path: name.clone().into(), cause })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Dist(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|cause| Error::Io { path: path.to_path_buf(), cause })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map(drop).map_err(|cause| Error::Io { path: from.to_path_buf(), cause })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    make_folder(path.parent().unwrap_or(path))?;
    fs::write(path, bytes).map_err(|cause| Error::Io { path: path.to_path_buf(), cause })
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(|cause| Error::Io { path: path.to_path_buf(), cause })?.len())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes the checksums, in the form that `sha256sum --check` reads; those of archives made earlier stay.
fn write_sums(folder: &Path, files: &[PathBuf]) -> Result<()> {
    let path = folder.join(SUMS);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let mut sums = Vec::new();
    for file in files {
        let bytes = fs::read(file).map_err(|cause| Error::Io { path: file.clone(), cause })?;
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push((sum, file_name(file)));
    }
    write(&path, merge_sums(&before, sums, &|name| folder.join(name).is_file()).as_bytes())
}

/// The lines of `before` whose files are still there and were not made anew, and the new ones, by name.
fn merge_sums(before: &str, new: Vec<(String, String)>, is_there: &dyn Fn(&str) -> bool) -> String {
    let old = before.lines().filter_map(|line| line.split_once("  "));
    let kept = old.filter(|(_, name)| is_there(name) && !new.iter().any(|(_, other)| other == name));
    let mut all: Vec<(String, String)> = kept.map(|(sum, name)| (sum.to_owned(), name.to_owned())).collect();
    all.extend(new);
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all.iter().map(|(sum, name)| format!("{sum}  {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |words: &[&str]| Arguments::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let all = parse(&[]).unwrap().unwrap();
        assert_eq!(all.targets.len(), TARGETS.iter().filter(|t| t.from_linux).count());
        let one = parse(&["x86_64-unknown-linux-musl", "--out", "o", "--no-trial"]).unwrap().unwrap();
        assert_eq!((one.targets.len(), one.out, one.trial), (1, Some("o".into()), false));
        assert!(parse(&["--help"]).unwrap().is_none());
        assert!(parse(&["sparc"]).is_err() && parse(&["--out"]).is_err());
        assert!(parse(&["--program", "p"]).is_err());
    }

    #[test]
    fn sums_of_other_archives_stay() {
        let before = "aa  a.tar.gz\nbb  b.zip\ncc  gone.zip\n";
        let new = vec![("dd".to_owned(), "b.zip".to_owned()), ("ee".to_owned(), "0.zip".to_owned())];
        assert_eq!(merge_sums(before, new, &|name| name != "gone.zip"), "ee  0.zip\naa  a.tar.gz\ndd  b.zip\n");
    }
}
