//! The generated pages: one row of [`PAGES`] each.

use super::tables::Tables;
use super::{Language, matrix_page};
use std::fmt::Write;

/// A page: the name of its file and how it is laid out.
pub(super) struct Page {
    pub(super) name: &'static str,
    pub(super) render: fn(&Tables, Language) -> String,
}

pub(super) const PAGES: &[Page] = &[
    Page { name: "settings", render: settings },
    Page { name: "commands", render: commands },
    Page { name: "formats", render: formats },
    Page { name: "models", render: matrix_page::page },
];

/// A page under construction. Writing to a `String` cannot fail.
pub(super) struct Paper {
    pub(super) text: String,
    pub(super) language: Language,
}

impl Paper {
    pub(super) fn new(language: Language, en: &'static str, ja: &'static str) -> Paper {
        let note = language.pick(
            "<!-- Made by `cargo xtask docs` from the program's tables; edit those. -->",
            "<!-- プログラムの表から `cargo xtask docs` が生成。編集は表の側で。 -->",
        );
        Paper { text: format!("{note}\n# {}\n", language.pick(en, ja)), language }
    }

    pub(super) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.text, "\n## {text}\n");
    }

    /// A heading in both languages.
    pub(super) fn heading_of(&mut self, en: &'static str, ja: &'static str) {
        self.heading(self.language.pick(en, ja));
    }

    pub(super) fn paragraph(&mut self, en: &'static str, ja: &'static str) {
        // A heading has left a blank line already.
        let gap = if self.text.ends_with("\n\n") { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{}", self.language.pick(en, ja));
    }

    /// The head of a table.
    pub(super) fn columns(&mut self, names: &[(&'static str, &'static str)]) {
        let names: Vec<String> = names.iter().map(|(en, ja)| self.language.pick(en, ja).to_owned()).collect();
        self.head(&names);
    }

    /// The head of a table whose columns are not the same everywhere.
    pub(super) fn head(&mut self, names: &[String]) {
        let _ = writeln!(self.text, "| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()));
    }

    pub(super) fn row(&mut self, cells: &[String]) {
        // A bar inside a cell would end it, inside code as well.
        let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    pub(super) fn own(&self, en: &str, ja: &str) -> String {
        match self.language {
            Language::English => en.to_owned(),
            Language::Japanese => ja.to_owned(),
        }
    }
}

pub(super) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn settings(tables: &Tables, language: Language) -> String {
    let mut p = Paper::new(language, "Settings", "設定");
    p.paragraph(
        "Every setting has one flag, one environment variable and one key in the configuration file. A flag wins over the \
         variable, the variable over the file, the file over what the model's own file suggests (`general.sampling.*` of a GGUF), \
         and that over the default. The file is `~/.rustorch/config.toml`, or the one that `--config` names; one that `config init` \
         wrote sets every key, so delete the lines that the model shall decide. A flag that begins with `no-` turns off \
         what the last column says; without, it turns that on.",
        "各設定には、フラグ・環境変数・設定ファイルのキーが一つずつあります。優先順位はフラグ、環境変数、設定ファイル、\
         モデルファイルの推奨値(GGUF の `general.sampling.*`)、既定値の順です。設定ファイルは `~/.rustorch/config.toml`、または `--config` で\
         指定したファイルです。`config init` のファイルは全キーを設定するため、モデルに任せる行は削除してください。`no-` で始まるフラグは説明の内容を無効に、\
         付けなければ有効にします。",
    );
    for group in &tables.groups {
        let rows: Vec<_> = tables.settings.iter().filter(|s| s.group == group.id).collect();
        if rows.is_empty() {
            continue;
        }
        let heading = p.own(&group.en, &group.ja);
        p.heading(&heading);
        p.columns(&[
            ("Flag", "フラグ"),
            ("Key", "キー"),
            ("Variable", "環境変数"),
            ("Default", "既定値"),
            ("Values", "値"),
            ("What it does", "説明"),
        ]);
        for s in rows {
            let short = s.short.map(|c| format!("`-{c}`, ")).unwrap_or_default();
            let flag = format!("--{} {}", s.flag, s.value);
            let about = p.own(&s.en, &s.ja);
            let default = code(s.default.trim_end_matches('\n'));
            p.row(&[short + &code(flag.trim_end()), code(&s.key), code(&s.variable), default, code(&s.range), about]);
        }
    }
    p.text
}

fn commands(tables: &Tables, language: Language) -> String {
    let mut p = Paper::new(language, "Commands", "コマンド");
    p.heading(language.pick("In a chat", "チャット中"));
    p.columns(&[
        ("Command", "コマンド"),
        ("What it does", "説明"),
        ("Effect on the chat", "チャットへの影響"),
        ("Example", "例"),
    ]);
    for c in &tables.commands {
        let names: Vec<String> = std::iter::once(&c.usage).chain(&c.aliases).map(|n| code(n)).collect();
        let (about, effect) = (p.own(&c.en, &c.ja), p.own(&c.effect_en, &c.effect_ja));
        p.row(&[names.join(", "), about, effect, code(&c.example)]);
    }
    p.heading(language.pick("On the command line", "コマンドライン"));
    let intro = language.pick(
        "Each takes the flags of the settings page that act on it as well; `rustorch-cli help NAME` lists them.\n",
        "それぞれに関係する設定ページのフラグも受け付けます(一覧は `rustorch-cli help NAME`)。\n",
    );
    let _ = writeln!(p.text, "{intro}");
    p.columns(&[("Command or option", "コマンド・オプション"), ("What it does", "説明")]);
    for t in &tables.tools {
        let about = p.own(&t.en, &t.ja);
        p.row(&[code(format!("rustorch-cli {}", t.name).trim_end()), about]);
        for o in &t.options {
            let about = p.own(&o.en, &o.ja);
            p.row(&[format!("&nbsp;&nbsp;{}", code(&o.usage)), about]);
        }
    }
    p.heading(language.pick("Exit codes", "終了コード"));
    p.columns(&[("Code", "コード"), ("Meaning", "意味")]);
    for e in &tables.exits {
        let about = p.own(&e.en, &e.ja);
        p.row(&[e.code.to_string(), about]);
    }
    p.text
}

fn formats(tables: &Tables, language: Language) -> String {
    let mut p = Paper::new(language, "Models that are read", "読み込めるモデル");
    p.paragraph(
        "A model needs a file format, a family, tensor types and a tokenizer that the program knows; what it does not know it \
         refuses by name. The format is told by the content of the file, not by its name. Of a folder that holds several \
         formats the first of safetensors (and MLX), PyTorch, GGUF and ONNX is opened, which the program says, and \
         `--model-format` chooses. What is compared with other software is in the [support matrix](models.md).",
        "モデルは、ファイル形式・系列・テンソル型・トークナイザーのすべてにプログラムが対応している必要があり、未対応のものは\
         名前を挙げて拒否します。形式はファイル名ではなく内容で判定します。複数の形式があるフォルダでは safetensors(MLX を含む)、PyTorch、GGUF、ONNX の\
         順で最初のものを開き、その旨を表示します。`--model-format` で選べます。他のソフトウェアと比較済みの範囲は[対応表](models.md)に\
         あります。",
    );
    p.heading(language.pick("Families", "系列"));
    p.columns(&[("`general.architecture`", "`general.architecture`"), ("Models", "モデル")]);
    for f in &tables.families {
        p.row(&[code(&f.name), f.models.clone()]);
    }
    let lists: [(&'static str, &'static str, &[String]); 3] = [
        ("File formats", "ファイル形式", &tables.formats),
        ("Tensor types", "テンソル型", &tables.dtypes),
        ("Built-in chat templates (`--template`)", "組み込みチャットテンプレート(`--template`)", &tables.templates),
    ];
    for (en, ja, names) in lists {
        p.heading(language.pick(en, ja));
        let names: Vec<String> = names.iter().map(|n| code(n)).collect();
        let _ = writeln!(p.text, "{}", names.join(", "));
    }
    p.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::tables::{Group, Setting, SlashCommand};

    #[test]
    fn a_setting_is_one_row_in_either_language() {
        let tables = Tables {
            groups: vec![Group { id: "g".into(), en: "Group".into(), ja: "組".into() }],
            settings: vec![Setting {
                group: "g".into(),
                key: "a.b".into(),
                flag: "b".into(),
                short: Some('b'),
                value: "X".into(),
                variable: "V".into(),
                default: "1".into(),
                range: "0|1".into(),
                en: "does b".into(),
                ja: "b する".into(),
            }],
            ..Tables::default()
        };
        let check = |language, expected: &str| assert!(settings(&tables, language).contains(expected), "{expected}");
        check(Language::English, "## Group\n\n| Flag |");
        check(Language::English, "| `-b`, `--b X` | `a.b` | `V` | `1` | `0\\|1` | does b |");
        check(Language::Japanese, "## 組\n\n| フラグ |");
        check(Language::Japanese, "| b する |");
    }

    #[test]
    fn a_command_shows_its_other_names() {
        let command = SlashCommand { usage: "/exit".into(), aliases: vec!["/quit".into()], ..SlashCommand::default() };
        let tables = Tables { commands: vec![command], ..Tables::default() };
        assert!(commands(&tables, Language::English).contains("| `/exit`, `/quit` |"));
    }
}
