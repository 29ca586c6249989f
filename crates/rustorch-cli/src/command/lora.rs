//! `/lora`: the adapters of the model in use.

use super::{Command, Completes, Flow, Text, arguments, wrong_arguments};
use crate::{
    adapters::Named,
    exit::{Exit, Failure, Result},
    loading::size,
    messages::messages,
    output, paths,
    repl::Chat,
};
use engine::AdapterChange;

messages! {
    /// There are none.
    none_in_use() { "no adapter is in use; /lora add FILE[:SCALE] adds one", "使用中のアダプタはありません。/lora add ファイル[:倍率] で追加できます" }
    /// One line of the list.
    in_use(number, path, scale, n, rank, bytes) {
        "{number}. {path}: scale {scale}, {n} matrices of rank {rank} at most, {bytes}",
        "{number}. {path}: 倍率 {scale}、行列 {n} 個(最大ランク {rank})、{bytes}"
    }
    /// It is there now.
    added(number, path, scale) { "adapter {number}: {path}, scale {scale}", "アダプタ {number}: {path}、倍率 {scale}" }
    /// Its scale is another now.
    scaled(number, path, scale) { "adapter {number}: {path}, scale {scale}", "アダプタ {number}: {path}、倍率 {scale}" }
    /// It is gone.
    removed(path) { "no longer in use: {path}", "使用をやめました: {path}" }
    /// No such adapter.
    no_such(number) { "there is no adapter {number}", "アダプタ {number} はありません" }
    /// How to see them.
    list_hint() { "/lora lists those in use", "/lora で使用中のものを表示します" }
    /// A scale that is none.
    bad_scale(text) { "`{text}` is not a scale: a finite number is expected", "`{text}` は倍率として使えません。有限の数を指定してください" }
    /// A spelling that cannot be used.
    bad_name(text) { "cannot use `{text}` as an adapter", "`{text}` をアダプタとして使えません" }
}

/// The row.
pub(super) const LORA: Command = Command {
    name: "lora",
    aliases: &[],
    arguments: "[add FILE[:SCALE] | scale N VALUE | remove N]",
    help: Text {
        en: "show the adapters (LoRA) in use, add one, change its scale, remove it",
        ja: "使用中のアダプタ(LoRA)の表示、追加、倍率の変更、削除",
    },
    effect: Text {
        en: "the answers from the next one on; messages and settings kept; the KV cache is rebuilt at the next turn; an adapter \
             that cannot be used changes nothing",
        ja: "次の回答から有効。メッセージと設定は保持し、KV キャッシュは次の発言で作り直す。使えないアダプタでは何も変わらない",
    },
    example: "/lora add ~/adapters/story:0.8",
    completes: Completes::WordThenPath(&["add", "remove", "scale"]),
    run,
};

fn run(chat: &mut Chat, rest: &str) -> Result<Flow> {
    let words = arguments(rest)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => list(chat),
        ["add", file] => add(chat, file)?,
        ["scale", number, scale] => set_scale(chat, number, scale)?,
        ["remove", number] => remove(chat, number)?,
        _ => return Err(wrong_arguments(&LORA)),
    }
    Ok(Flow::Next)
}

fn list(chat: &Chat) {
    if chat.adapters().is_empty() {
        return output::note(&none_in_use());
    }
    for (i, adapter) in chat.adapters().iter().enumerate() {
        let info = adapter.info;
        let path = paths::display(&adapter.path);
        output::note(&in_use(i + 1, path, info.scale, info.n_matrices, info.rank, size(info.bytes)));
    }
}

fn add(chat: &mut Chat, text: &str) -> Result<()> {
    let named = Named::parse(text, None).map_err(|error| Failure::new(Exit::Usage, bad_name(text)).because(error))?;
    let adapter = named.open(chat.settings.model.mmap)?;
    let change = AdapterChange::Add { source: Box::new(adapter.checkpoint), scale: named.scale };
    chat.change_adapters(change, |list| list.push(named.clone())).map_err(|error| named.refused_by_engine(&error))?;
    output::note(&added(chat.adapters().len(), paths::display(&named.path), named.scale));
    Ok(())
}

/// The index that a number means, and the adapter.
fn find(chat: &Chat, number: &str) -> Result<(usize, Named)> {
    let index = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    let found = index.and_then(|index| Some((index, chat.settings.model.lora.get(index)?.clone())));
    found.ok_or_else(|| Failure::new(Exit::Usage, no_such(number)).hint(list_hint()))
}

fn set_scale(chat: &mut Chat, number: &str, text: &str) -> Result<()> {
    let (index, named) = find(chat, number)?;
    let scale = text.parse::<f32>().ok().filter(|scale| scale.is_finite());
    let scale = scale.ok_or_else(|| Failure::new(Exit::Usage, bad_scale(text)))?;
    let changed = |list: &mut Vec<Named>| list.iter_mut().skip(index).take(1).for_each(|named| named.scale = scale);
    chat.change_adapters(AdapterChange::Scale { index, scale }, changed)
        .map_err(|error| named.refused_by_engine(&error))?;
    output::note(&scaled(index + 1, paths::display(&named.path), scale));
    Ok(())
}

fn remove(chat: &mut Chat, number: &str) -> Result<()> {
    let (index, named) = find(chat, number)?;
    let change = AdapterChange::Remove { index };
    let without = |list: &mut Vec<Named>| drop(list.remove(index));
    chat.change_adapters(change, without).map_err(|error| named.refused_by_engine(&error))?;
    output::note(&removed(paths::display(&named.path)));
    Ok(())
}
