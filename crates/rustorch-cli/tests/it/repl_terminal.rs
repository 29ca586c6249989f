//! A chat as a person sees it: a real pseudo-terminal, keys going in, the rendered screen coming out.
//!
//! The model is the stories fixture, which never learned to chat: what it says does not matter, that it is shown, kept and
//! interrupted does. Waiting has a generous limit and no test asserts a duration.

use crate::repl_support::{model, screen_size};
use portable_pty::{Child, CommandBuilder, MasterPty, native_pty_system};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A program on a terminal.
struct Terminal {
    home: tempfile::TempDir,
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    modes_before: String,
}

impl Terminal {
    /// Starts the chat; `None` (with a visible line) where there is no model.
    fn start(arguments: &[&str]) -> Option<Terminal> {
        Terminal::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    fn start_in(home: tempfile::TempDir, arguments: &[&str]) -> Option<Terminal> {
        let model = model()?;
        let mut all: Vec<&std::ffi::OsStr> =
            ["--template", "chatml", "--temperature", "0", "--seed", "1", "--model"].map(AsRef::as_ref).to_vec();
        all.push(model.as_os_str());
        all.extend(arguments.iter().map(|argument| -> &std::ffi::OsStr { argument.as_ref() }));
        Some(Terminal::start_with(home, &all))
    }

    /// Starts the chat with these arguments and waits for its prompt.
    fn start_with<S: AsRef<std::ffi::OsStr>>(home: tempfile::TempDir, arguments: &[S]) -> Terminal {
        let pair = native_pty_system().openpty(screen_size()).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_rustorch-cli"));
        command.args(["--language", "en", "--threads", "1"]);
        command.args(arguments);
        command.cwd(home.path());
        command.env("HOME", home.path());
        command.env("TERM", "xterm-256color");
        command.env("NO_COLOR", "1");
        let modes_before = modes(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut output = pair.master.try_clone_reader().unwrap();
        let size = screen_size();
        let rows = size.rows.try_into().unwrap();
        let cols = size.cols.try_into().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 0)));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                shared.lock().unwrap().process(&bytes[..n]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        let terminal = Terminal { home, child, master: pair.master, keys, screen, modes_before };
        terminal.wait("You> ", 1);
        terminal
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen shows `text` at least `times` times.
    fn wait(&self, text: &str, times: usize) {
        let limit = Instant::now() + Duration::from_secs(120);
        while self.contents().matches(text).count() < times {
            assert!(Instant::now() < limit, "waiting for {times} x {text:?}; the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Types a line and waits for an answer to it and the next prompt.
    fn say(&mut self, line: &str, expected: &str) {
        let prompts = self.contents().matches("You> ").count();
        self.type_keys(&format!("{line}\r"));
        self.wait(expected, 1);
        self.wait("You> ", prompts + 1);
    }

    /// Whether the screen shows a cursor, in the usual buffer, and pastes are not marked.
    fn is_plain(&self) -> bool {
        let screen = self.screen.lock().unwrap();
        let screen = screen.screen();
        !screen.hide_cursor() && !screen.alternate_screen() && !screen.bracketed_paste()
    }

    /// Waits for the end; the terminal must be as it was.
    fn exit_code(mut self) -> u32 {
        let limit = Instant::now() + Duration::from_secs(60);
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.exit_code(),
                None => assert!(Instant::now() < limit, "still running; the screen:\n{}", self.contents()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(modes(&*self.master), self.modes_before, "the terminal is left as it was found");
        // The last bytes may still be on their way through the terminal.
        while !self.is_plain() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.is_plain(), "a mode of the terminal is still on");
        code
    }
}

/// The modes of the terminal's line discipline.
fn modes(master: &dyn MasterPty) -> String {
    #[cfg(unix)]
    if let Some(t) = master.get_termios() {
        return format!("{:?} {:?} {:?} {:?}", t.input_flags, t.output_flags, t.control_flags, t.local_flags);
    }
    let _ = master;
    String::new()
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn contents_of(path: &Path) -> Vec<String> {
    read_json(path)["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn chat_settings_save_clear_load_exit() {
    let Some(mut t) = Terminal::start(&["--max-tokens", "12"]) else { return };
    t.say("Once upon a time", "[stopped at max_tokens = 12; /continue goes on]");
    assert!(t.contents().contains("Assistant> "));
    t.say("/set max_tokens 5", "max_tokens = 5");
    t.say("/set temperatur 1", "did you mean temperature?");
    t.say("/params", "order of the samplers");
    t.say("/stats", "1 turns");
    t.say("/context", "turn 1");
    t.say("/save \"my chat.json\"", "saved 2 messages to my chat.json");
    t.say("/clear", "cleared 2 messages");
    t.say("/history", "the conversation is empty");
    t.say("/load 'my chat.json'", "2 messages, 1 turns");
    t.say("/exiting", "did you mean /exit?");
    t.say("/system Be kind.", "system prompt set");
    t.say("And then", "[stopped at max_tokens = 5; /continue goes on]");
    t.say("/continue", "Assistant> ");
    t.say("/undo", "the answer before is back");
    t.say("/undo", "took back: And then");
    t.say("/model /nonexistent.gguf", "the model in use stays as it was");
    t.say("/backend cuda", "the backend `cuda` is not available");
    t.say("/help load", "effect: messages replaced");
    t.type_keys("/exit\r");
    let saved = contents_of(&t.file("my chat.json"));
    let home = t.home.path().to_path_buf();
    let latest = contents_of(&home.join(".rustorch/history/latest.json"));
    assert_eq!(saved.len(), 2);
    assert_eq!(saved[0], "Once upon a time");
    // The system prompt stands first; turns taken back stay in the tree.
    assert_eq!(latest[0], "Be kind.");
    assert!(latest.contains(&"And then".to_owned()), "{latest:?}");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn an_interrupted_answer_is_kept_and_marked() {
    let Some(mut t) = Terminal::start(&["--max-tokens", "-1", "--ctx", "30000"]) else { return };
    t.type_keys("Once upon a time\r");
    t.wait("Assistant> ", 1);
    t.type_keys("\x03");
    t.wait("[interrupted; /continue goes on]", 1);
    t.wait("You> ", 2);
    let latest = t.file(".rustorch/history/latest.json");
    let answer = read_json(&latest)["messages"][1].clone();
    assert_eq!(answer["finish_reason"], "interrupted");
    t.say("/set max_tokens 3", "max_tokens = 3");
    t.say("/continue", "[stopped at max_tokens = 3");
    let messages = read_json(&latest)["messages"].clone();
    let longer = messages[2]["content"].as_str().unwrap().to_owned();
    assert!(longer.starts_with(answer["content"].as_str().unwrap()));
    t.type_keys("\x04");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn several_lines_and_pastes() {
    let Some(mut t) = Terminal::start(&["--max-tokens", "3"]) else { return };
    t.type_keys("\"\"\"\rone\rtwo\r\x04");
    t.wait("You> ", 2);
    t.type_keys("first\\\rsecond\r");
    t.wait("You> ", 3);
    t.type_keys("/multi\r");
    t.wait("Ctrl-D sends them", 1);
    t.type_keys("a\r/exit\r\x04");
    t.wait("You> ", 4);
    // A paste is inserted, not sent, whatever it holds.
    t.type_keys("\x1b[200~pasted\rline /exit\x1b[201~");
    t.wait("line /exit", 1);
    assert_eq!(t.contents().matches("Assistant> ").count(), 3);
    t.type_keys("\r");
    t.wait("Assistant> ", 4);
    t.wait("You> ", 5);
    let latest = t.file(".rustorch/history/latest.json");
    let said: Vec<String> = contents_of(&latest).into_iter().step_by(2).collect();
    assert_eq!(said, ["one\ntwo", "first\nsecond", "a\n/exit", "pasted\nline /exit"]);
    t.type_keys("/bye\r");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn control_c_at_the_prompt() {
    let Some(mut t) = Terminal::start(&[]) else { return };
    t.type_keys("half a lin\x03");
    t.wait("You> ", 2);
    assert!(!t.contents().contains("Ctrl-C again"));
    t.type_keys("\x03");
    t.wait("Ctrl-C again", 1);
    t.wait("You> ", 3);
    t.type_keys("\x03");
    assert_eq!(t.exit_code(), 130);
}

#[cfg(unix)]
#[test]
fn a_wish_to_terminate_saves_and_restores_the_terminal() {
    let Some(mut t) = Terminal::start(&["--max-tokens", "3"]) else { return };
    t.say("Once", "Assistant> ");
    let pid = t.child.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let home = t.home.path().join(".rustorch/history/latest.json");
    let kept = contents_of(&home).len();
    assert_eq!(t.exit_code(), 143);
    assert_eq!(kept, 2);
}

#[test]
fn a_full_window_asks_before_turns_leave() {
    let Some(mut t) = Terminal::start(&["--max-tokens", "8", "--ctx", "192"]) else { return };
    let long = "once upon a time there was a little girl named lily who loved to play outside in the park ".repeat(2);
    t.say(long.trim(), "[stopped at max_tokens = 8");
    t.type_keys(&format!("{}\r", long.trim()));
    t.wait("[d]rop them and send, [c]ancel?", 1);
    assert!(t.contents().contains("the context window is full"));
    t.type_keys("c\r");
    t.wait("the message was not sent", 1);
    // The message is a draft again; Enter sends it once more.
    t.type_keys("\r");
    t.wait("[d]rop them and send, [c]ancel?", 2);
    t.type_keys("d\r");
    t.wait("[stopped at max_tokens = 8", 2);
    t.wait("You> ", 4);
    let latest = t.file(".rustorch/history/latest.json");
    let messages = read_json(&latest)["messages"].clone();
    assert_eq!(messages.as_array().unwrap().len(), 4);
    assert_eq!(messages[0]["in_context"], false);
    assert_eq!(messages[2].get("in_context"), None);
    t.type_keys("/quit\r");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn the_demo_model_answers_out_of_the_box() {
    let mut t = Terminal::start_with(tempfile::tempdir().unwrap(), &["--model", "demo"]);
    assert!(t.contents().contains("demo model inside the program"), "{}", t.contents());
    t.say("How do I save this conversation?", "/save");
    t.say("/params", "temperature       = 0.0");
    t.say("/set temperature 0.5", "temperature = 0.5");
    t.say("/model demo", "demo model inside the program");
    t.say("/params", "temperature       = 0.5");
    t.type_keys("/model d\t");
    t.wait("/model demo", 2);
    t.type_keys("\r");
    t.wait("You> ", 7);
    t.say("/save demo", "saved 2 messages to demo");
    t.type_keys("/exit\r");
    assert!(!t.file(".rustorch/models.lock").exists(), "what is part of the program need not be remembered");
    assert_eq!(t.exit_code(), 0);
}
