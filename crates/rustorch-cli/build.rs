//! Tells `version.rs` what the compiler does not: the target's full name, and the commit in builds that are given away.
//!
//! The commit comes from `GIT_COMMIT` where that is set (`cargo xtask dist`), else from git in optimized builds; builds for
//! tests have none, so that they are not made anew with every commit. Without git there is none, which is no error.

#![allow(clippy::print_stdout)] // how a build script speaks to cargo

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    println!("cargo::rustc-env=BUILD_TARGET={}", variable("TARGET").unwrap_or_default());
    let is_given_away = variable("PROFILE").is_some_and(|profile| profile == "release");
    let commit = variable("GIT_COMMIT").or_else(|| is_given_away.then(commit).flatten());
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit.unwrap_or_default());
}

/// The commit that is checked out; with every commit this is asked anew.
fn commit() -> Option<String> {
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if std::path::Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
