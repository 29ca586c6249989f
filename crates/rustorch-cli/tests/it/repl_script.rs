//! The chat without a terminal: scripts, and the files it keeps.

use crate::repl_support::model;
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs a script of lines; `None` (with a visible line) where there is no model.
fn run_script(home: &Path, lines: &str, arguments: &[&str]) -> Option<Output> {
    let model = model()?;
    let script = home.join("script.txt");
    std::fs::write(&script, lines).unwrap();
    Some(command(home, &model).arg("--script").arg(&script).args(arguments).output().unwrap())
}

fn command(home: &Path, model: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustorch-cli"));
    command.args(["--template", "chatml", "--temperature", "0", "--language", "en", "--threads", "1"]);
    command.arg("--model").arg(model).current_dir(home).env("HOME", home).stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_script_prints_answers_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let lines = "/set max_tokens 6\nOnce upon a time\n\n/nonsense\n//slash\n/stats --json\n/exit\nnever\n";
    let Some(output) = run_script(home.path(), lines, &[]) else { return };
    let (out, err) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(!out.contains('\x1b') && !out.contains("You>") && !out.contains("Assistant>"), "{out}");
    assert!(!err.contains('\x1b') && err.contains("there is no command /nonsense"), "{err}");
    let stats: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(stats["session"]["turns"], 2);
    assert!(stats["last_turn"]["cached_tokens"].as_u64().unwrap() > 0, "{stats}");
    let latest = std::fs::read_to_string(home.path().join(".rustorch/history/latest.json")).unwrap();
    let latest: serde_json::Value = serde_json::from_str(&latest).unwrap();
    assert_eq!(latest["messages"][2]["content"], "/slash");
    assert!(latest["messages"][1]["ts_end"].as_str().is_some());
}

/// `/clear` and `/load` go back to what was computed before, within the memory that was stated.
#[test]
fn saved_prefixes_are_shown_and_keep_to_their_budget() {
    let home = tempfile::tempdir().unwrap();
    let lines = "/set max_tokens 4\nOnce upon a time\n/save a.json\n/clear\nThere was a big dog\n/load a.json\n\
                 And then\n/stats --json\n/stats\n";
    let mut cached = Vec::new();
    for (mib, most) in [("1", 1 << 20), ("0", 0)] {
        let args = ["--prefix-cache", mib, "--system", "Tell a story about a cat and a dog."];
        let Some(output) = run_script(home.path(), lines, &args) else { return };
        let (out, err) = (stdout(&output), stderr(&output));
        let stats: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let at = |key: &str| stats["prefix_cache"][key].as_u64().unwrap();
        assert!(at("budget_bytes") <= most && (at("budget_bytes") > 0) == (most > 0), "{stats}");
        assert!(at("budget_used_bytes") <= at("budget_bytes") && at("bytes") > 0, "{stats}");
        assert!(at("hits") >= 2 && at("reused_tokens") > 20, "{stats}");
        cached.push(stats["last_turn"]["cached_tokens"].as_u64().unwrap());
        assert!(err.contains("--prefix-cache"), "{err}");
        std::fs::remove_file(home.path().join("a.json")).unwrap();
    }
    assert!(cached[0] > cached[1] + 20, "the conversation that was left is still there, or not: {cached:?}");
}

#[test]
fn what_is_typed_never_becomes_a_control_token() {
    let home = tempfile::tempdir().unwrap();
    let plain = run_script(home.path(), "/set max_tokens 1\nx\n/context\n", &["--ephemeral"]);
    let Some(plain) = plain else { return };
    let forged = run_script(home.path(), "/set max_tokens 1\n<s>x</s>\n/context\n", &["--ephemeral"]).unwrap();
    let used = |output: &Output| -> usize {
        let err = stderr(output);
        let line = err.lines().find(|l| l.contains("tokens used")).unwrap_or_else(|| panic!("{err}")).to_owned();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    // Seven characters more are at least that many more tokens than two control tokens would be.
    assert!(used(&forged) > used(&plain) + 2, "{} {}", used(&plain), used(&forged));
}

#[test]
fn damaged_history_is_refused_and_kept() {
    let home = tempfile::tempdir().unwrap();
    for (content, expected) in [
        (&b"{\"format\": \"rustorch-chat\", \"version\": 1,\n \"messages\": [{\"ro"[..], "line 2, column"),
        (b"\xff\xfe", "byte 0"),
        (b"[{\"role\": \"wizard\", \"content\": \"\"}]", "unknown role"),
        (b"{\"format\": \"rustorch-chat\", \"version\": 99}", "newer rustorch-cli"),
    ] {
        let path = home.path().join("chat.json");
        std::fs::write(&path, content).unwrap();
        let arguments = ["--load-history", "chat.json", "--save-history", "chat.json"];
        let Some(output) = run_script(home.path(), "hello\n", &arguments) else { return };
        assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(std::fs::read(&path).unwrap(), content);
        // Inside a session the same file is an error and the session goes on.
        let output = run_script(home.path(), "/load chat.json\n/save chat.json.new\n", &[]).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn load_and_save_history_continue_one_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("talk.json");
    std::fs::write(
        &path,
        "[{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"ho\", \"x\": 1}]",
    )
    .unwrap();
    let arguments = ["--load-history", "talk.json", "--save-history", "talk.json", "--max-tokens", "2"];
    let Some(output) = run_script(home.path(), "more\n", &arguments) else { return };
    assert_eq!(output.status.code(), Some(7), "a file that is not ours needs --force: {}", stderr(&output));
    let with_force = [&arguments[..], &["--force"]].concat();
    for turns in [2, 3] {
        let arguments = if turns == 2 { &with_force[..] } else { &arguments[..] };
        let output = run_script(home.path(), "more\n", arguments).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(saved["messages"].as_array().unwrap().len(), turns * 2, "{saved}");
        assert_eq!(saved["messages"][1]["x"], 1);
    }
    assert!(home.path().join("talk.json.bak").exists());
}

#[test]
fn ephemeral_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let Some(output) = run_script(home.path(), "/set max_tokens 2\nhello\n/save x.json\n", &["--ephemeral"]) else {
        return;
    };
    assert!(stderr(&output).contains("--ephemeral writes nothing"), "{}", stderr(&output));
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["script.txt"]);
}

#[test]
fn the_model_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let Some(model) = model() else { return };
    let copy = home.path().join("model.gguf");
    std::fs::copy(&model, &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    let script = home.path().join("script.txt");
    std::fs::write(&script, "/save model.gguf --force\n/save .\n/save script.txt\n").unwrap();
    let output = command(home.path(), &copy).arg("--script").arg(&script).output().unwrap();
    let err = stderr(&output);
    assert!(err.contains("never overwritten") && err.contains("directory") && err.contains("--force"), "{err}");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
}

#[test]
fn a_second_program_gets_a_session_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let Some(model) = model() else { return };
    let script = home.path().join("first.txt");
    std::fs::write(&script, "").unwrap();
    // The first program waits for lines on a pipe given as its script.
    let mut first = command(home.path(), &model)
        .args(["--script", "/dev/stdin", "--max-tokens", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keys = first.stdin.take().unwrap();
    keys.write_all(b"hello\n").unwrap();
    let latest = home.path().join(".rustorch/history/latest.json");
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !latest.exists() {
        assert!(std::time::Instant::now() < limit, "the first program saved nothing");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = run_script(home.path(), "hello\n", &["--max-tokens", "2"]).unwrap();
    assert!(stderr(&second).contains("another rustorch-cli uses"), "{}", stderr(&second));
    drop(keys);
    assert!(first.wait().unwrap().success());
    let sessions = std::fs::read_dir(latest.parent().unwrap()).unwrap();
    let names = sessions.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name.starts_with("20") && name.ends_with(".json")).count(), 2);
}
