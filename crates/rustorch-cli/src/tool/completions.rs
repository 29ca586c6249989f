//! `completions SHELL`: the completion script of a shell.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    output,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values, command},
    },
};
use clap_complete::Shell;

pub(super) const TOOL: Tool = Tool {
    name: "completions",
    synopsis: "SHELL",
    en: "print the completion script of a shell",
    ja: "シェルの補完スクリプトを出力する",
    arguments: &[Argument {
        flag: "shell",
        value: "bash|zsh|fish|powershell|elvish",
        required: true,
        positional: true,
        en: "the shell",
        ja: "シェルの名前",
        ..ARGUMENT
    }],
    settings: &[],
    run,
    ..Tool::NEW
};

fn run(_: &Layers, values: &Values) -> Result<()> {
    let name = values.text("shell")?.unwrap_or_default();
    let shell: Shell = name.parse().map_err(|_| {
        Failure::new(Exit::Usage, crate::settings::layers::flag_value("shell"))
            .because(format!("`{}`; expected bash, zsh, fish, powershell or elvish", name.escape_default()))
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "rustorch-cli", &mut script);
    output::answer_bytes(&script)
}
