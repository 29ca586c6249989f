//! `verify`: reads all of a model and compares it with published checksums and with what it was when first used.

use super::Tool;
use crate::{
    demo,
    exit::{Exit, Failure, Result},
    integrity::{self, Entry, Remembered},
    interrupt, loading, output, paths, safe_write,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
    terminal_filter::visible_line,
};
use checkpoint::Checkpoint;
use std::path::Path;

crate::messages::messages! {
    /// The bar's words.
    verifying(name) { "reading {name}", "{name} を読み込み中" }
    /// The list of checksums is of no use.
    sums_unusable(path) { "cannot use the checksums in {path}", "{path} のチェックサムを使えません" }
    /// None found.
    sums_empty() {
        "no line of it is a SHA-256 and a file name, as sha256sum writes them",
        "sha256sum 形式(SHA-256 とファイル名)の行がありません"
    }
    /// A file of the model is not in the list.
    sum_missing(name) { "it has no checksum for {name}", "{name} のチェックサムがありません" }
    /// A checksum is another.
    sum_differs(path) { "{path} is damaged or not the file that was published", "{path} は壊れているか、公開されたものと異なります" }
    /// Which.
    sums_of(expected, found) { "SHA-256 {found}, expected {expected}", "SHA-256 は {found}、期待値は {expected}" }
    /// All is well.
    as_published(n) { "{n} files match the published checksums", "{n} 個のファイルが公開チェックサムと一致しました" }
    /// As it was.
    as_before(n) { "unchanged since its first use ({n} tensors)", "初回使用時から変わっていません(テンソル {n} 個)" }
    /// The model in the program is not remembered.
    nothing_to_accept(name) {
        "{name} is part of the program: there is nothing to accept",
        "{name} はプログラムの一部のため、--accept は不要です"
    }
    /// Remembered now.
    remembered(n) { "remembered as it is ({n} tensors)", "現在の状態を記録しました(テンソル {n} 個)" }
}

pub(super) const TOOL: Tool = Tool {
    name: "verify",
    synopsis: "PATH [--sums FILE] [--accept]",
    en: "read all of a model; compare with checksums and with its first use",
    ja: "モデル全体を読み、チェックサムや初回使用時の記録と照合する",
    arguments: &[
        Argument {
            flag: "path",
            value: "PATH",
            required: true,
            positional: true,
            en: "a model file or folder, or demo",
            ja: "モデルのファイルまたはフォルダ、または demo",
            ..ARGUMENT
        },
        Argument {
            flag: "sums",
            value: "FILE",
            en: "published checksums, in the form of sha256sum",
            ja: "公開されたチェックサム(sha256sum 形式)",
            ..ARGUMENT
        },
        Argument {
            flag: "accept",
            en: "remember the model as it is now, whatever it was",
            ja: "以前と異なっていても現在の状態を記録する",
            ..ARGUMENT
        },
    ],
    settings: &["model.format", "model.mmap", "interface.show_progress"],
    run,
    ..Tool::NEW
};

/// A larger list of checksums is none.
const MAX_SUMS_BYTES: u64 = 16 << 20;

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let settings = layers.settings();
    let path = values.path("path")?.unwrap_or_default();
    let sums = values.path("sums")?.map(|file| read_sums(&file).map(|sums| (file, sums))).transpose()?;
    interrupt::watch();
    let checkpoint = loading::open_path(&path, settings)?;
    loading::say_choice(&checkpoint, settings);
    if checkpoint.files().is_empty() && values.has("accept") {
        return Err(Failure::new(Exit::Usage, nothing_to_accept(paths::display(&path))));
    }
    let tensors = checkpoint.tensors().iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.bytes));
    let bar = output::progress(
        settings.interface.show_progress,
        tensors.saturating_add(checkpoint.file_bytes()),
        "{msg} [{bar:24}] {bytes}/{total_bytes} {eta}",
    );
    bar.set_message(verifying(loading::model_name(&checkpoint)));
    let now = Entry::complete(&checkpoint, &mut |bytes| {
        bar.inc(bytes);
        !interrupt::wanted()
    });
    bar.finish_and_clear();
    let now = now?.ok_or_else(|| Failure::silent(Exit::Interrupted))?;
    if let Some((file, sums)) = sums {
        compare_with_sums(&checkpoint, &now, &file, &sums)?;
    }
    if checkpoint.files().is_empty() {
        // Part of the program: the same for as long as the program is.
        return output::answer_line(&format!("{}  {}", demo::sha256(), demo::FILE_NAME));
    }
    let n_tensors = checkpoint.tensors().len();
    let mut known = Remembered::read();
    let before = known.as_ref().and_then(|known| known.find(&now)).cloned();
    let found = before.as_ref().map(|before| before.differences(&now)).unwrap_or_default();
    if !found.is_empty() && !values.has("accept") {
        return Err(integrity::changed(&checkpoint, &found));
    }
    for (file, sum) in now.sums() {
        output::answer_line(&format!("{sum}  {}", visible_line(file)))?;
    }
    let is_known = before.is_some_and(|before| before.sums().count() > 0 && found.is_empty());
    if let Some(known) = known.as_mut().filter(|_| !settings.history.ephemeral) {
        known.keep(now);
        output::note(&if is_known { as_before(n_tensors) } else { remembered(n_tensors) });
    }
    Ok(())
}

/// Checksums and file names of a list.
fn read_sums(path: &Path) -> Result<Vec<(String, String)>> {
    let fail = || Failure::new(Exit::Usage, sums_unusable(paths::display(path)));
    let text = safe_write::read_text(path, MAX_SUMS_BYTES).map_err(|error| fail().because(error))?;
    let sums: Vec<(String, String)> = text.lines().filter_map(parse_sum).collect();
    if sums.is_empty() { Err(fail().because(sums_empty())) } else { Ok(sums) }
}

/// `HEX  NAME`, `HEX *NAME` or `SHA256 (NAME) = HEX`.
fn parse_sum(line: &str) -> Option<(String, String)> {
    let line = line.trim_end();
    let (hex, name) = match line.strip_prefix("SHA256 (") {
        Some(rest) => rest.rsplit_once(") = ").map(|(name, hex)| (hex, name))?,
        None => {
            let (hex, name) = line.trim_start().split_once([' ', '\t'])?;
            (hex, name.trim_start().trim_start_matches('*'))
        }
    };
    let is_sum = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_sum && !name.is_empty()).then(|| (hex.to_ascii_lowercase(), name.to_owned()))
}

/// Every file of the model must be in the list, with its checksum; files are told apart by their names alone.
fn compare_with_sums(checkpoint: &Checkpoint, now: &Entry, list: &Path, sums: &[(String, String)]) -> Result<()> {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let published = |name: &str| sums.iter().find(|(_, listed)| name_of(Path::new(listed)) == name);
    let mut files: Vec<(String, String, String)> = checkpoint
        .files()
        .iter()
        .zip(now.sums())
        .map(|(file, (_, found))| (name_of(file), paths::display(file), found.to_owned()))
        .collect();
    if files.is_empty() {
        files.push((demo::FILE_NAME.to_owned(), paths::display(checkpoint.path()), demo::sha256()));
    }
    for (name, shown, found) in &files {
        let Some((expected, _)) = published(name) else {
            let missing = sum_missing(visible_line(name));
            return Err(Failure::new(Exit::Usage, sums_unusable(paths::display(list))).because(missing));
        };
        if expected != found {
            return Err(Failure::new(Exit::Model, sum_differs(shown)).because(sums_of(expected, found)));
        }
    }
    output::note(&as_published(files.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_checksums() {
        let hex = "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        #[track_caller]
        fn check(line: &str, expected: Option<&str>) {
            assert_eq!(parse_sum(line).map(|(_, name)| name).as_deref(), expected, "{line:?}");
        }
        check(&format!("{hex}  model.gguf"), Some("model.gguf"));
        check(&format!("{hex} *a b.gguf\r"), Some("a b.gguf"));
        check(&format!("SHA256 (x (1).gguf) = {hex}"), Some("x (1).gguf"));
        check("# a comment", None);
        check(&format!("{}  short", &hex[1..]), None);
        check(hex, None);
        assert_eq!(parse_sum(&format!("{hex} m")).unwrap().0, hex.to_ascii_lowercase());
    }
}
