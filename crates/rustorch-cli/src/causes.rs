//! What the lower floors say, in Japanese.
//!
//! Their errors speak English, for the log and for programs; here each kind that a user meets has its sentence, made from
//! the same facts. What has none keeps its own words. Nothing is printed here.

use crate::{exit::Cause, messages::Language, paths};
use std::io::ErrorKind;

/// The cause in a language. `None`: its own words are the ones to show.
pub(crate) fn words(error: &Cause, language: Language) -> Option<String> {
    match language {
        Language::English => None,
        Language::Japanese => japanese(error),
    }
}

fn japanese(error: &Cause) -> Option<String> {
    if let Some(error) = error.downcast_ref::<checkpoint::Error>() {
        return Some(of_checkpoint(error));
    }
    if let Some(error) = error.downcast_ref::<model::Error>() {
        return of_model(error);
    }
    if let Some(error) = error.downcast_ref::<text::Error>() {
        return of_text(error);
    }
    if let Some(error) = error.downcast_ref::<compute::Error>() {
        return of_compute(error);
    }
    if let Some(error) = error.downcast_ref::<engine::Error>() {
        return of_engine(error);
    }
    error.downcast_ref::<std::io::Error>().map(of_system)
}

/// The system's reasons that are common; others in its own words.
fn of_system(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "ファイルまたはフォルダがありません".to_owned(),
        ErrorKind::PermissionDenied => "アクセス権がありません".to_owned(),
        ErrorKind::StorageFull => "ディスクに空きがありません".to_owned(),
        ErrorKind::IsADirectory => "フォルダです".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "読み取り専用のファイルシステムです".to_owned(),
        ErrorKind::OutOfMemory => "メモリが足りません".to_owned(),
        ErrorKind::UnexpectedEof => "ファイルが途中で終わっています".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether a file ends before what it announces, as after a download that broke off: every such message says so.
fn is_truncated(problem: &str) -> bool {
    problem.contains("truncated")
}

fn of_checkpoint(error: &checkpoint::Error) -> String {
    use checkpoint::Error as E;
    let name = |path: &std::path::Path| paths::display(path);
    match error {
        E::Io { path, action, source } => {
            let action = match *action {
                "open" => "開けません",
                "read" => "読み込めません",
                "map into memory" => "メモリに割り当てられません",
                _ => "扱えません",
            };
            format!("{} を{action}: {}", name(path), of_system(source))
        }
        E::Malformed { path, field, problem } if is_truncated(problem) => format!(
            "{} は途中で切れています({field}: {problem})。ダウンロードが完了していない可能性があります",
            name(path)
        ),
        E::NotAModel { path, detail } if is_truncated(detail) => {
            format!("{} は途中で切れています({detail})。ダウンロードが完了していない可能性があります", name(path))
        }
        E::NotRegular { path, kind } => format!("{} は通常のファイルではありません({kind})", name(path)),
        E::Directory { path, detail } => format!("フォルダ {} はモデルとして読めません: {detail}", name(path)),
        E::UnsupportedFormat { path, format } => {
            format!("{} の形式 {format} には未対応です(対応: GGUF、safetensors、MLX、PyTorch、ONNX)", name(path))
        }
        E::NotAModel { path, detail } => format!("{} はモデルファイルではありません: {detail}", name(path)),
        E::UnsupportedVersion { path, detail } => format!("{} のバージョンには未対応です: {detail}", name(path)),
        E::Malformed { path, field, problem } => format!("{} は壊れています: {field}: {problem}", name(path)),
        E::Graph { path, detail } => format!("{} のグラフを認識できません: {detail}", name(path)),
        E::Forbidden { path, detail } => {
            format!("{} は拒否されました: {detail}(読むのはテンソルだけで、何も実行しません)", name(path))
        }
        E::UnsupportedType { path, tensor, type_name } => {
            format!("{}: テンソル {tensor} の型 {type_name} には未対応です", name(path))
        }
        E::Split { path, problem } => format!("{}: 分割されたモデル: {problem}", name(path)),
        E::Value { path, key, expected, found } => {
            format!("{}: メタデータ {key} は {expected} であるべきですが、{found} です", name(path))
        }
        E::MissingTensor { path, tensor } => format!("{}: テンソル {tensor} がありません", name(path)),
        E::Unwritable { what, problem } => format!("{what} を書き込めません: {problem}"),
        E::Changed { path, detail } => format!("{} が使用中に変更されました: {detail}", name(path)),
        E::Memory { path, bytes, what } => {
            format!("{}: {what} のための {bytes} バイトのメモリが足りません", name(path))
        }
        E::Tensor { path, tensor, source } => format!("{}: テンソル {tensor}: {source}", name(path)),
        other => other.to_string(),
    }
}

fn of_model(error: &model::Error) -> Option<String> {
    use model::Error as E;
    let near = |nearest: &[&str]| match nearest {
        [] => String::new(),
        some => format!("近い名前: {}。", some.join("、")),
    };
    let lacks = |lacking: &str| match lacking {
        "" => String::new(),
        what => format!("(不足: {what})"),
    };
    Some(match error {
        E::UnknownArchitecture { name, nearest, supported, lacking } => {
            format!(
                "アーキテクチャ {name:?} には未対応です{}。{}対応: {}",
                lacks(lacking),
                near(nearest),
                supported.join("、")
            )
        }
        E::UnknownModelType { name, nearest, supported, lacking } => {
            format!(
                "model_type {name:?} には未対応です{}。{}対応: {}",
                lacks(lacking),
                near(nearest),
                supported.join("、")
            )
        }
        E::Description { what } => format!("系列の記述: {what}"),
        E::MissingKey { key } => format!("メタデータ {key} がありません"),
        E::BadKey { key, value, why } => format!("メタデータ {key} が {value} です: {why}"),
        E::Unsupported { what } => format!("未対応です: {what}"),
        E::MissingTensor { name, hint } => match hint.is_empty() {
            true => format!("テンソル {name} がありません"),
            false => format!("テンソル {name} がありません: {hint}"),
        },
        E::TensorShape { name, found, expected } => {
            format!("テンソル {name} の形状が {found} です({expected} であるべきです)")
        }
        E::UnplacedTensors { architecture, n, first } => {
            format!("アーキテクチャ {architecture} に置き場所のないテンソルが {n} 個あります(例: {first})")
        }
        E::NotAnAdapter => {
            "アダプターではありません(`general.type` にも、同じ場所の adapter_config.json にもその記述がありません)"
                .to_owned()
        }
        E::IsAnAdapter => "モデルではなくアダプターです。モデルを読み込んでから適用してください".to_owned(),
        E::EmptyAdapter => "アダプターに行列の組がありません".to_owned(),
        E::AdapterFamily { adapter, model } => {
            format!("アダプターはアーキテクチャ {adapter:?} 用ですが、モデルは {model} です")
        }
        E::Overflow { what } => format!("{what} の大きさが上限を超えています"),
        E::Tensor { name, source } => format!("テンソル {name}: {source}"),
        E::Checkpoint(error) => of_checkpoint(error),
        E::Compute(error) => return of_compute(error),
        _ => return None,
    })
}

fn of_text(error: &text::Error) -> Option<String> {
    use text::Error as E;
    Some(match error {
        E::TemplateFile { file, problem } => format!("チャットテンプレート: {file}: {problem}"),
        E::TemplateSyntax { line, problem } => format!("チャットテンプレートの {line} 行目: 文法の誤り: {problem}"),
        E::TemplateRender { line, problem } => format!("チャットテンプレートの {line} 行目: {problem}"),
        E::TemplateRaised(why) => format!("チャットテンプレートがこの会話を拒否しました: {why}"),
        E::TemplateLimit { what, limit } => format!("チャットテンプレート: {what} が上限 {limit} を超えています"),
        E::TemplateThread(source) => {
            format!("チャットテンプレート: スレッドを開始できません: {}", of_system(source))
        }
        E::Vocabulary { key, problem } => format!("トークナイザー: {key}: {problem}"),
        E::UnknownTokenizer { found, known } => {
            format!("tokenizer.ggml.model: トークナイザー '{found}' には未対応です(対応: {known})")
        }
        E::UnknownPreTokenizer { found, known } => {
            format!("tokenizer.ggml.pre: 前処理 '{found}' には未対応です(対応: {known})")
        }
        E::Checkpoint(error) => of_checkpoint(error),
        _ => return None,
    })
}

fn of_compute(error: &compute::Error) -> Option<String> {
    match error {
        compute::Error::OutOfMemory { device, bytes, what } => {
            Some(format!("デバイス {device} で {what} のための {bytes} バイトを確保できません"))
        }
        _ => None,
    }
}

fn of_engine(error: &engine::Error) -> Option<String> {
    use engine::Error as E;
    Some(match error {
        E::ContextOverflow { prompt, limit } => {
            format!("プロンプトは {prompt} トークンですが、コンテキストは {limit} トークンです")
        }
        E::EmptyPrompt => "プロンプトが空です".to_owned(),
        E::NoFiniteLogits { position } => {
            format!("位置 {position} の出力に有限の値がありません(重みの破損、または数値の範囲外)")
        }
        E::Panicked { message } => format!("計算中の内部エラー: {message}"),
        E::CacheTooSmall { needed, available } => {
            format!("KV キャッシュは {available} トークン分ですが、{needed} トークン分が必要です")
        }
        E::Stopped => "エンジンが停止しました".to_owned(),
        E::Thread(source) => format!("エンジンのスレッドを開始できません: {}", of_system(source)),
        E::Text(error) => return of_text(error),
        E::Model(error) => {
            let plain: &Cause = error.as_ref();
            return japanese(plain);
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[track_caller]
    fn check(error: &Cause, expected: &str) {
        assert_eq!(words(error, Language::English), None);
        let text = words(error, Language::Japanese);
        assert!(text.as_deref().is_some_and(|text| text.contains(expected)), "{text:?}");
    }

    #[test]
    fn common_causes_have_a_sentence() {
        let path = PathBuf::from("m.gguf");
        let io = |kind| std::io::Error::new(kind, "as the system says it");
        check(
            &checkpoint::Error::Io { path: path.clone(), action: "open", source: io(ErrorKind::NotFound) },
            "m.gguf を開けません: ファイルまたはフォルダがありません",
        );
        let problem = "truncated: 9 bytes are announced, 3 are left".to_owned();
        check(
            &checkpoint::Error::Malformed { path: path.clone(), field: "header".to_owned(), problem },
            "途中で切れています(header: truncated: 9 bytes",
        );
        let memory = checkpoint::Error::Memory { path, bytes: 7, what: "x".to_owned() };
        check(&memory, "7 バイトのメモリが足りません");
        // Whatever wraps it.
        check(&model::Error::Checkpoint(memory), "7 バイトのメモリが足りません");
        let unknown = || model::Error::UnknownArchitecture {
            name: "lama".to_owned(),
            nearest: vec!["llama"],
            supported: vec!["llama", "qwen2"],
            lacking: "",
        };
        check(&unknown(), "\"lama\" には未対応です。近い名前: llama。対応: llama、qwen2");
        check(&engine::Error::Model(Box::new(unknown())), "近い名前: llama");
        check(&engine::Error::Text(Box::new(text::Error::TemplateRaised("no".to_owned()))), "拒否しました: no");
        check(&text::Error::TemplateSyntax { line: 3, problem: "x".to_owned() }, "3 行目: 文法の誤り");
        check(&io(ErrorKind::PermissionDenied), "アクセス権がありません");
        let no_memory = compute::Error::OutOfMemory { device: "cpu", bytes: 5, what: "KV".to_owned() };
        check(&model::Error::Compute(no_memory), "5 バイトを確保できません");
    }

    #[test]
    fn what_has_no_sentence_keeps_its_words() {
        assert_eq!(words(&std::fmt::Error, Language::Japanese), None);
    }
}
