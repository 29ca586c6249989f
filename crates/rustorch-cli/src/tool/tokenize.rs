//! `tokenize` and `detokenize`: text to token ids and back, exactly. A file with a vocabulary and no tensors is enough.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    loading, output, safe_write,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use text::{EncodeOptions, Tokenizer};

crate::messages::messages! {
    /// Stdin is not what it should be.
    bad_input() { "cannot use what came on stdin", "標準入力の内容を使えません" }
    /// What it should be.
    ids_expected() { "a JSON array of token ids is expected, such as [1, 306, 4658]", "[1, 306, 4658] のようなトークン ID の JSON 配列が必要です" }
    /// An id that is none.
    id_unknown(id, n_vocab) { "{id} is not below {n_vocab}, the number of tokens", "{id} は語彙数 {n_vocab} 未満ではありません" }
}

/// Text or ids on stdin beyond this are refused.
const MAX_INPUT_BYTES: u64 = 1 << 30;

const SETTINGS: &[&str] = &["model.path", "model.arch", "model.format", "model.mmap"];

pub(super) const TOKENIZE: Tool = Tool {
    name: "tokenize",
    synopsis: "--model FILE [--special] [--no-bos] < TEXT",
    en: "text on stdin to a JSON array of token ids",
    ja: "標準入力のテキストをトークン ID の JSON 配列にする",
    arguments: &[
        Argument {
            flag: "special",
            en: "read the spellings of control tokens as those tokens",
            ja: "制御トークンの表記をそのトークンとして読む",
            ..ARGUMENT
        },
        Argument {
            flag: "no-bos",
            en: "do not add the tokens that the model wants at the beginning and end",
            ja: "モデルが求める先頭・末尾トークンを付けない",
            ..ARGUMENT
        },
    ],
    settings: SETTINGS,
    run: tokenize,
    ..Tool::NEW
};

pub(super) const DETOKENIZE: Tool = Tool {
    name: "detokenize",
    synopsis: "--model FILE < IDS.json",
    en: "a JSON array of token ids on stdin to the exact bytes of the text",
    ja: "標準入力のトークン ID の JSON 配列を元のテキスト(正確なバイト列)にする",
    settings: SETTINGS,
    run: detokenize,
    ..Tool::NEW
};

fn tokenizer(layers: &Layers) -> Result<Tokenizer> {
    let checkpoint = loading::open(layers.settings())?;
    Tokenizer::from_checkpoint(&checkpoint).map_err(|error| loading::text_failure(checkpoint.path(), &error))
}

fn stdin() -> Result<String> {
    safe_write::read_text_from(std::io::stdin().lock(), MAX_INPUT_BYTES)
        .map_err(|error| Failure::new(Exit::Usage, bad_input()).because(error))
}

fn tokenize(layers: &Layers, values: &Values) -> Result<()> {
    let tokenizer = tokenizer(layers)?;
    let options = EncodeOptions { bos_eos: !values.has("no-bos"), special: values.has("special") };
    let ids = tokenizer.encode(&stdin()?, options);
    let json = serde_json::to_string(&ids).map_err(|error| Failure::new(Exit::Runtime, error.to_string()))?;
    output::answer_line(&json)
}

fn detokenize(layers: &Layers, _: &Values) -> Result<()> {
    let tokenizer = tokenizer(layers)?;
    let fail = |cause: String| Failure::new(Exit::Usage, bad_input()).because(cause).hint(ids_expected());
    let ids: Vec<u32> = serde_json::from_str(&stdin()?).map_err(|error| fail(error.to_string()))?;
    let n_vocab = tokenizer.n_vocab();
    if let Some(id) = ids.iter().find(|id| usize::try_from(**id).map_or(true, |id| id >= n_vocab)) {
        return Err(fail(id_unknown(id, n_vocab)));
    }
    output::answer_bytes(&tokenizer.decode(&ids))
}
