//! `logits`: what the model predicts after each of the given tokens, as a NumPy file (NEP 1, version 1.0).

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    interrupt, loading, output, paths, safe_write,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use std::{io::Write, ops::ControlFlow};

crate::messages::messages! {
    /// The file could not be written.
    npy_unwritable(path) { "cannot write {path}", "{path} に書き込めません" }
    /// It was.
    npy_written(path, rows, columns) { "{path}: float32 [{rows}, {columns}]", "{path}: float32 [{rows}, {columns}]" }
}

pub(super) const TOOL: Tool = Tool {
    name: "logits",
    synopsis: "--model FILE --tokens 1,2,3 --out FILE.npy [--last]",
    en: "write the logits after each token to a NumPy file, float32 [n_tokens, n_vocab]",
    ja: "各トークン直後のロジットを NumPy ファイル(float32 [トークン数, 語彙数])に書く",
    arguments: &[
        Argument {
            flag: "tokens",
            value: "IDS",
            required: true,
            en: "token ids, separated by commas",
            ja: "カンマ区切りのトークン ID",
            ..ARGUMENT
        },
        Argument {
            flag: "out",
            value: "FILE",
            required: true,
            en: "the file to write",
            ja: "出力ファイル",
            ..ARGUMENT
        },
        Argument {
            flag: "last",
            en: "only the row after the last token",
            ja: "最後のトークン直後の行だけ",
            ..ARGUMENT
        },
    ],
    settings: super::ENGINE_SETTINGS,
    run,
    ..Tool::NEW
};

/// Why writing stopped.
enum Stop {
    Io(std::io::Error),
    Engine(engine::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Io(error)
    }
}

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let tokens = ids(values.text("tokens")?.unwrap_or_default())?;
    let path = values.path("out")?.unwrap_or_default();
    // The file is written under another name first, which an interrupt must not leave behind.
    interrupt::watch();
    let loaded = loading::load(layers.settings(), &interrupt::wanted)?;
    let from = if values.has("last") { tokens.len().saturating_sub(1) } else { 0 };
    let (rows, columns) = (tokens.len() - from, loaded.hyper.n_vocab);
    let written = safe_write::replace(&path, |writer| {
        writer.write_all(&npy_header(rows, columns))?;
        let mut failed = None;
        let computed = loaded.engine.logits(&tokens, from, |_, block| {
            for value in block {
                if let Err(error) = writer.write_all(&value.to_le_bytes()) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if interrupt::wanted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match failed {
            Some(error) => Err(Stop::Io(error)),
            None => computed.map_err(Stop::Engine),
        }
    });
    let shown = paths::display(&path);
    written.map_err(|stop| match stop {
        Stop::Io(error) => Failure::new(Exit::Runtime, npy_unwritable(&shown)).because(error),
        Stop::Engine(error) => loading::engine_failure(&error),
    })?;
    output::note(&npy_written(shown, rows, columns));
    Ok(())
}

fn ids(text: &str) -> Result<Vec<u32>> {
    let ids: std::result::Result<Vec<u32>, _> = text.split(',').map(|id| id.trim().parse()).collect();
    ids.map_err(|error| Failure::new(Exit::Usage, crate::settings::layers::flag_value("tokens")).because(error))
}

/// Magic, version 1.0, length of the rest, a Python dictionary padded so that the data starts at a multiple of 64.
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let padding = (64 - (MAGIC.len() + 2 + text.len() + 1) % 64) % 64;
    text.push_str(&" ".repeat(padding));
    text.push('\n');
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX); // two numbers are never that long
    [MAGIC, &length.to_le_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_aligned() {
        for (rows, columns) in [(1, 1), (7, 512), (4096, 151_936), (usize::MAX, usize::MAX)] {
            let header = npy_header(rows, columns);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }

    #[test]
    fn token_lists() {
        assert_eq!(ids("1, 2,3").unwrap(), [1, 2, 3]);
        for bad in ["", "1,,2", "-1", "4294967296", "a"] {
            assert_eq!(ids(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
