//! `man`: the manual page, from the same tables as the help.

use super::Tool;
use crate::{
    exit::{EXITS, Exit, Failure, Result},
    messages::language,
    output,
    settings::{
        Layers,
        arguments::{Values, command},
    },
};
use std::io::Write as _;

pub(super) const TOOL: Tool = Tool {
    name: "man",
    synopsis: "",
    en: "print the manual page (roff)",
    ja: "マニュアルページ(roff)を出力する",
    arguments: &[],
    settings: &[],
    run,
    ..Tool::NEW
};

fn run(_: &Layers, _: &Values) -> Result<()> {
    let mut page = Vec::new();
    render(&mut page).map_err(|error| Failure::new(Exit::Runtime, "man").because(error))?;
    output::answer_bytes(&page)
}

fn render(page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command());
    man.render(page)?;
    writeln!(page, ".SH \"{}\"", language().pick("EXIT STATUS", "終了コード"))?;
    for row in EXITS {
        writeln!(page, ".TP\n.B {}\n{}", row.code, row.meaning(language()))?;
    }
    writeln!(page, ".SH \"{}\"", language().pick("FILES", "ファイル"))?;
    for (path, what) in super::paths::files(language()) {
        writeln!(page, ".TP\n.I {}\n{what}", path.replace('\\', "\\\\"))?;
    }
    Ok(())
}
