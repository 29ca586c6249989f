//! `template`: a conversation rendered by a chat template, byte for byte as the model would see it.

use super::Tool;
use crate::{
    exit::{Exit, Failure, Result},
    loading, output, paths, safe_write,
    settings::{
        Layers,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use serde_json::{Map, Value};
use std::path::Path;
use text::{ChatTemplate, RenderInput, Tokenizer};

crate::messages::messages! {
    /// An input file that cannot be used.
    bad_file(path) { "cannot use {path}", "{path} を使えません" }
    /// What messages look like.
    messages_expected() {
        "a JSON list such as [{{\"role\": \"user\", \"content\": \"Hi\"}}] is expected",
        "[{{\"role\": \"user\", \"content\": \"Hi\"}}] のような JSON リストが必要です"
    }
    /// What variables look like.
    vars_expected() { "a JSON object such as {{\"bos_token\": \"<s>\"}} is expected", "{{\"bos_token\": \"<s>\"}} のような JSON オブジェクトが必要です" }
    /// The model brings none.
    template_missing() { "the model has no chat template", "モデルにチャットテンプレートがありません" }
    /// Rendering failed.
    render_failed() { "the chat template cannot render this conversation", "チャットテンプレートでこの会話を展開できません" }
}

/// An input file larger than this is refused.
const MAX_FILE_BYTES: u64 = 256 << 20;

pub(super) const TOOL: Tool = Tool {
    name: "template",
    synopsis: "(--model FILE | --template NAME|FILE) --messages FILE.json [--vars FILE.json]",
    en: "print the prompt that a chat template makes of messages",
    ja: "チャットテンプレートでメッセージを展開したプロンプトを出力する",
    arguments: &[
        Argument {
            flag: "messages",
            value: "FILE",
            required: true,
            en: "JSON list of messages",
            ja: "メッセージの JSON リスト",
            ..ARGUMENT
        },
        Argument {
            flag: "vars",
            value: "FILE",
            en: "JSON object with variables of the template: bos_token, eos_token, tools, …",
            ja: "テンプレート変数の JSON オブジェクト: bos_token、eos_token、tools など",
            ..ARGUMENT
        },
        Argument {
            flag: "now",
            value: "TIME",
            en: "the time that the template sees, such as 2026-08-18T12:34:56",
            ja: "テンプレートから見える時刻(例: 2026-08-18T12:34:56)",
            ..ARGUMENT
        },
        Argument {
            flag: "no-generation-prompt",
            en: "do not open the assistant's turn at the end",
            ja: "末尾に応答の開始部を付けない",
            ..ARGUMENT
        },
    ],
    settings: &["model.path", "model.format", "model.mmap", "model.template"],
    run,
    ..Tool::NEW
};

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let settings = layers.settings();
    let mut input = RenderInput {
        messages: list(values.path("messages")?.as_deref())?,
        add_generation_prompt: !values.has("no-generation-prompt"),
        now: Some(now(values)?),
        ..RenderInput::default()
    };
    let template = match &settings.model.template {
        Some(name) if layers.settings().model.path.is_none() => loading::named_template(name)?,
        _ => from_model(layers, &mut input)?,
    };
    if let Some(path) = values.path("vars")? {
        let vars = json::<Map<String, Value>>(&path).map_err(|failure| failure.hint(vars_expected()))?;
        apply(&mut input, vars).map_err(|cause| {
            Failure::new(Exit::Usage, bad_file(paths::display(&path))).because(cause).hint(vars_expected())
        })?;
    }
    let text =
        template.render(&input).map_err(|error| Failure::new(Exit::Runtime, render_failed()).because_of(&error))?;
    output::answer(&text)
}

/// The model's own template, and the spellings of its tokens.
fn from_model(layers: &Layers, input: &mut RenderInput) -> Result<ChatTemplate> {
    let checkpoint = loading::open(layers.settings())?;
    let template = loading::find_template(&checkpoint, layers.settings())?;
    let tokenizer =
        Tokenizer::from_checkpoint(&checkpoint).map_err(|error| loading::text_failure(checkpoint.path(), &error))?;
    (input.bos_token, input.eos_token) = loading::edge_tokens(&tokenizer);
    template?.ok_or_else(|| {
        Failure::new(Exit::Model, template_missing()).hint(loading::template_names(loading::builtin_names()))
    })
}

fn now(values: &Values) -> Result<jiff::civil::DateTime> {
    let Some(text) = values.text("now")? else { return Ok(jiff::Zoned::now().datetime()) };
    text.parse().map_err(|error| Failure::new(Exit::Usage, crate::settings::layers::flag_value("now")).because(error))
}

fn list(path: Option<&Path>) -> Result<Vec<Value>> {
    path.map_or(Ok(Vec::new()), |path| json(path).map_err(|failure| failure.hint(messages_expected())))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let fail = |cause: &dyn std::fmt::Display| Failure::new(Exit::Usage, bad_file(paths::display(path))).because(cause);
    let text = safe_write::read_text(path, MAX_FILE_BYTES).map_err(|error| fail(&error))?;
    serde_json::from_str(&text).map_err(|error| fail(&error))
}

fn apply(input: &mut RenderInput, vars: Map<String, Value>) -> std::result::Result<(), String> {
    for (name, value) in vars {
        match (name.as_str(), value) {
            ("bos_token", Value::String(text)) => input.bos_token = text,
            ("eos_token", Value::String(text)) => input.eos_token = text,
            ("bos_token" | "eos_token", Value::Null) => {}
            ("tools", Value::Null) => input.tools = None,
            ("tools", Value::Array(tools)) => input.tools = Some(tools),
            ("add_generation_prompt", Value::Bool(on)) => input.add_generation_prompt = on,
            ("bos_token" | "eos_token" | "tools" | "add_generation_prompt" | "messages", _) => {
                return Err(format!("`{name}` cannot be set to this"));
            }
            (_, value) => {
                input.vars.insert(name, value);
            }
        }
    }
    Ok(())
}
