//! Running the program with a home of its own, and finding fixtures.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a run left behind.
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: Option<i32>,
    /// Stdout.
    pub(crate) out: Vec<u8>,
    /// Stderr.
    pub(crate) err: String,
}

impl Ran {
    /// Stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {:?} {}", self.text(), self.err))
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }
}

/// A home directory and what is set in it.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Home {
    /// An empty one, with a space and Japanese in its name.
    pub(crate) fn new() -> Home {
        let dir = tempfile::Builder::new().prefix("rustorch テスト ").tempdir().unwrap();
        Home { dir, env: Vec::new() }
    }

    /// Sets an environment variable for all runs.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Home {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file under it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs the program without stdin.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Ran {
        self.run_with(arguments, None)
    }

    /// Runs the program with something on stdin.
    pub(crate) fn run_with<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S], stdin: Option<&[u8]>) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustorch-cli"));
        command.args(arguments).current_dir(self.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("RUSTORCH_") || ["LANG", "LC_ALL", "LC_MESSAGES", "NO_COLOR"].contains(&&*name) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path()).env("USERPROFILE", self.path()).envs(self.env.iter().cloned());
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
            // A program that ends early closes its side: not this test's business.
            let _ = pipe.write_all(bytes);
        }
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code(), out: output.stdout, err }
    }
}

/// A fixture of the repository or of the shared folder; none (with a visible line) where it is not there.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = ["fixtures", "../shared/fixtures"].iter().map(|dir| root.join(dir).join(name)).find(|p| p.exists());
    if found.is_none() {
        println!("skipped: {name} is not there");
    }
    found.map(|path| path.canonicalize().unwrap())
}

/// The small model that is always there.
pub(crate) fn llama() -> PathBuf {
    fixture("archs/llama/model.gguf").expect("fixtures/archs/llama is part of the repository")
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
