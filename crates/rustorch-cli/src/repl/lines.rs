//! Input that is no terminal, or one that can only print: a pipe, a script file, `TERM=dumb`.
//!
//! Lines are read on a thread of their own, so that a wish to terminate is seen while the other end of a pipe is silent.
//! The rules for several lines are those of the editor: a backslash at the end, a `"""` block, `/multi` up to the end.

use super::{
    editor::{Input, block_is_open, unquote_block},
    words,
};
use crate::{
    exit::{Exit, Failure, Result},
    interrupt, output,
};
use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

/// A longer line is an error.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Lines from somewhere.
pub(crate) struct Lines {
    lines: Receiver<std::result::Result<String, String>>,
    /// Show the prompt: a person types at a terminal that can only print.
    prompts: bool,
}

impl Lines {
    /// Reads from `input` until it ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(input: impl Read + Send + 'static, prompts: bool) -> Result<Lines> {
        let (sender, lines) = sync_channel(16);
        std::thread::Builder::new()
            .name("input".into())
            .spawn(move || {
                let mut input = BufReader::new(input);
                for number in 1_usize.. {
                    let line = match next_line(&mut input, number) {
                        Some(line) => line,
                        None => return,
                    };
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| Failure::new(Exit::Runtime, words::cannot_read_input()).because(error))?;
        Ok(Lines { lines, prompts })
    }

    /// The next line or block.
    ///
    /// # Errors
    /// A line that cannot be used; the next call goes on behind it.
    pub(crate) fn read(&mut self, prompt: &str, multi: bool) -> Result<Input> {
        if self.prompts {
            output::note_part(prompt);
        }
        let mut text = String::new();
        let mut any = false;
        while let Some(line) = self.line()? {
            if any && !text.ends_with('\n') {
                text.push('\n');
            }
            any = true;
            text.push_str(&line);
            if multi || block_is_open(&text) {
                continue;
            }
            if !text.starts_with("\"\"\"") && text.ends_with('\\') {
                text.pop();
                text.push('\n');
                continue;
            }
            break;
        }
        if !any {
            return Ok(if interrupt::wanted() { Input::Interrupt { empty: true } } else { Input::End });
        }
        Ok(if multi {
            Input::Block(text)
        } else if text.starts_with("\"\"\"") {
            Input::Block(unquote_block(&text).to_owned())
        } else {
            Input::Text(text)
        })
    }

    fn line(&mut self) -> Result<Option<String>> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return line.map(Some).map_err(|why| Failure::new(Exit::Runtime, why)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if interrupt::wanted() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// One line without its end; `None` at the end of the input.
fn next_line(input: &mut impl BufRead, number: usize) -> Option<std::result::Result<String, String>> {
    let mut bytes = Vec::new();
    match input.take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes) {
        Ok(0) => None,
        Ok(_) => {
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
            Some(String::from_utf8(bytes).map_err(|_| words::line_not_text(number)))
        }
        Err(error) => Some(Err(format!("{}: {error}", words::cannot_read_input()))).filter(|_| number < 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &'static [u8], multi: bool, expected: &[Input]) {
        let mut lines = Lines::new(input, false).unwrap();
        for expected in expected {
            assert_eq!(lines.read("", multi).unwrap(), *expected, "{:?}", String::from_utf8_lossy(input));
        }
        assert_eq!(lines.read("", false).unwrap(), Input::End);
    }

    #[test]
    fn lines_and_blocks() {
        let text = |t: &str| Input::Text(t.into());
        let block = |t: &str| Input::Block(t.into());
        check(b"", false, &[]);
        check(b"one\ntwo", false, &[text("one"), text("two")]);
        check(b"one\r\n\r\ntwo\n", false, &[text("one"), text(""), text("two")]);
        check(b"one\\\ntwo\nthree", false, &[text("one\ntwo"), text("three")]);
        check(b"one\\", false, &[text("one\n")]);
        check(b"\"\"\"\n/exit\n  b\n\"\"\"\nafter", false, &[block("/exit\n  b"), text("after")]);
        check(b"\"\"\"open\nto the end", false, &[block("open\nto the end")]);
        check(b"a\n/b\n", true, &[block("a\n/b")]);
    }

    #[test]
    fn a_line_that_is_not_text_is_skipped() {
        let mut lines = Lines::new(&b"\xff\xfe\nfine"[..], false).unwrap();
        assert!(lines.read("", false).is_err());
        assert_eq!(lines.read("", false).unwrap(), Input::Text("fine".into()));
    }
}
