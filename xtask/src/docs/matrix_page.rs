//! The page of the support matrix: `docs/*/models.md`.

use super::Language;
use super::matrix::{Checked, Matrix, Reference};
use super::pages::{Paper, code};
use super::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};

/// What stands where nothing was compared.
const NOT_CHECKED: &str = "○";

pub(super) fn page(tables: &Tables, language: Language) -> String {
    let mut p = Paper::new(language, "Support matrix", "対応表");
    p.paragraph(
        "What tests compare with other software, read off the fixtures that the tests walk: nothing here is written by hand. \
         The [formats](formats.md) page lists what is read at all.",
        "テストが他のソフトウェアの結果と比較している範囲です。テストが実際に読むフィクスチャから生成しており、手書きはありません。\
         読み込める形式・系列・型の一覧は[対応形式](formats.md)にあります。",
    );
    legend(&mut p);
    backends(&mut p, tables);
    for backend in tables.backends.iter().filter(|b| b.is_built) {
        families(&mut p, tables, &backend.name);
    }
    layouts(&mut p, &tables.matrix);
    types(&mut p, tables);
    refused(&mut p, &tables.matrix);
    p.text
}

fn legend(p: &mut Paper) {
    p.heading_of("Legend", "凡例");
    p.columns(&[("Sign", "記号"), ("Meaning", "意味")]);
    for reference in Reference::ALL {
        let (en, ja) = match reference {
            Reference::Transformers => (
                "logits at every position (of `demo`: the last four, and the mean over all) equal those of transformers in float32, \
                 within 0.2 % of their spread and 0.001",
                "全位置(`demo` では最後の 4 位置と全体の平均)のロジットが transformers(float32)と一致(ばらつきの 0.2 % と 0.001 以内)",
            ),
            Reference::TransformersAndLlamaCpp => {
                ("the same, and llama.cpp agrees on that file", "同上。さらに同じファイルで llama.cpp とも一致")
            }
            Reference::Dequantized => (
                "the same as transformers in float32 on the weights as other software dequantized them",
                "他のソフトウェアが逆量子化した重みで計算した transformers(float32)と一致",
            ),
            Reference::Mlx => ("logits at every position equal MLX's own", "全位置のロジットが MLX 自身の結果と一致"),
            Reference::OnnxRuntime => (
                "logits equal onnxruntime's in float32 on the weights as NumPy dequantized them",
                "NumPy が逆量子化した重みで計算した onnxruntime(float32)と一致",
            ),
        };
        let text = p.own(en, ja);
        p.row(&[reference.letter().to_owned(), text]);
    }
    let text = p.own(
        "nothing of this family is compared in this format: the reader takes it where it knows all names and numbers, and \
         refuses it by name where it does not",
        "この系列はこの形式では比較していません。名前と数値がすべて既知なら読み込み、そうでなければ名前を挙げて拒否します",
    );
    p.row(&[NOT_CHECKED.to_owned(), text]);
}

fn backends(p: &mut Paper, tables: &Tables) {
    p.heading_of("Backends", "バックエンド");
    p.columns(&[("Backend", "バックエンド"), ("In this program", "このプログラムで"), ("Needs", "必要なもの")]);
    for backend in &tables.backends {
        let there = match backend.is_built {
            true => p.own("compared below", "以下で比較"),
            false => p.own("refused (exit 4)", "拒否(終了コード 4)"),
        };
        let needs = p.own(&backend.needs_en, &backend.needs_ja);
        p.row(&[code(&backend.name), there, needs]);
    }
}

fn families(p: &mut Paper, tables: &Tables, backend: &str) {
    let heading = p.language.pick("Families by format, on", "系列と形式:");
    p.heading(&format!("{heading} `{backend}`"));
    let mut names = vec![p.own("Family", "系列"), p.own("Models", "モデル")];
    names.extend(tables.formats.iter().map(|format| code(format)));
    p.head(&names);
    for family in &tables.families {
        let mut cells = vec![code(&family.name), family.models.clone()];
        for format in &tables.formats {
            let of = |c: &&Checked| c.family == family.name && c.format == *format && c.backend == backend;
            cells.push(cell(tables.matrix.checked.iter().filter(of)));
        }
        p.row(&cells);
    }
}

/// The types compared, by what with.
fn cell<'a>(checked: impl Iterator<Item = &'a Checked>) -> String {
    let mut types: BTreeMap<Reference, BTreeSet<&str>> = BTreeMap::new();
    for c in checked {
        types.entry(c.reference).or_default().extend(c.types.iter().map(String::as_str));
    }
    if types.is_empty() {
        return NOT_CHECKED.to_owned();
    }
    let lines = types.into_iter().map(|(reference, types)| {
        format!("{}: {}", reference.letter(), types.into_iter().collect::<Vec<_>>().join(" "))
    });
    lines.collect::<Vec<_>>().join("<br>")
}

fn layouts(p: &mut Paper, matrix: &Matrix) {
    p.heading_of("Weights stored as integers", "整数で保存された重み");
    p.columns(&[
        ("Layout (method, bits)", "配置(方式、ビット数)"),
        ("Format", "形式"),
        ("Family", "系列"),
        ("Kept as", "保持する型"),
        ("Compared", "比較"),
        ("Fixture", "フィクスチャ"),
    ]);
    for c in matrix.checked.iter().filter(|c| c.method.is_some()) {
        let types = c.types.iter().map(|t| code(t)).collect::<Vec<_>>().join(" ");
        let method = c.method.clone().unwrap_or_default();
        let compared = c.reference.letter().to_owned();
        p.row(&[method, code(&c.format), code(&c.family), types, compared, code(&c.fixture)]);
    }
}

fn types(p: &mut Paper, tables: &Tables) {
    p.heading_of("Tensor types", "テンソル型");
    p.paragraph(
        "Decoding: the same bits as gguf-py. Encoding: an error at most 2 % above ggml's quantizer without an importance \
         matrix. Products: within the bounds of the conformance tests on every instruction set, exact and fast. Integer \
         products: the fast mode multiplies integers; otherwise it multiplies the decoded rows. Logits: formats in which a \
         whole model with matrices of this type is compared. ✓ compared by a test; ○ not compared; – does not apply.\n",
        "復号: gguf-py とビット単位で一致。符号化: 重要度行列なしの ggml の量子化に対し誤差の増加が 2 % 以内。積: 全命令セットで適合\
         テストの範囲内(厳密・高速とも)。整数積: 高速モードが整数のまま計算(それ以外は復号した行で計算)。ロジット: この型の行列を\
         持つモデル全体を比較した形式。✓ テストで比較、○ 比較なし、– 該当なし。\n",
    );
    let mut names = vec![p.own("Type", "型"), p.own("Decoding", "復号"), p.own("Encoding", "符号化")];
    for backend in tables.backends.iter().filter(|b| b.is_built) {
        names.push(format!("{} `{}`", p.language.pick("Products,", "積:"), backend.name));
        names.push(format!("{} `{}`", p.language.pick("Integer products,", "整数積:"), backend.name));
    }
    names.push(p.own("Logits", "ロジット"));
    p.head(&names);
    for name in &tables.dtypes {
        let yes = |is: bool| if is { "✓".to_owned() } else { NOT_CHECKED.to_owned() };
        let formats: BTreeSet<&str> =
            tables.matrix.checked.iter().filter(|c| c.types.contains(name)).map(|c| c.format.as_str()).collect();
        // Numbers that no matrix of a model consists of.
        if !tables.written.contains(name) && !tables.matrix.decoded.contains(name) && formats.is_empty() {
            continue;
        }
        let mut cells =
            vec![code(name), yes(tables.matrix.decoded.contains(name)), yes(tables.matrix.encoded.contains(name))];
        for backend in tables.backends.iter().filter(|b| b.is_built) {
            cells.push(yes(tables.written.contains(name) || tables.matrix.decoded.contains(name)));
            cells.push(if backend.own_forms.contains(name) { "✓".to_owned() } else { "–".to_owned() });
        }
        let formats = formats.into_iter().map(code).collect::<Vec<_>>().join(" ");
        cells.push(if formats.is_empty() { NOT_CHECKED.to_owned() } else { formats });
        p.row(&cells);
    }
}

fn refused(p: &mut Paper, matrix: &Matrix) {
    p.heading_of("Refused", "拒否するもの");
    p.paragraph(
        "Each of these is tried by a test, and ends with exit 3 and a message that holds the words on the right.\n",
        "いずれもテストで確認しており、終了コード 3 と右の語を含むメッセージで終わります。\n",
    );
    p.columns(&[("What", "内容"), ("The message says", "メッセージ")]);
    for row in &matrix.refused {
        let what = p.own(&row.en, &row.ja);
        p.row(&[what, code(&row.error)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::tables::{Backend, Family};

    fn checked(format: &str, types: &[&str], reference: Reference) -> Checked {
        Checked {
            fixture: "a/b".into(),
            format: format.into(),
            family: "f".into(),
            types: types.iter().map(|t| (*t).to_owned()).collect(),
            method: None,
            reference,
            backend: "cpu",
        }
    }

    #[test]
    fn a_family_shows_what_was_compared_and_what_was_not() {
        let backend = |name: &str, is_built| Backend {
            name: name.into(),
            is_built,
            needs_en: "nothing".into(),
            needs_ja: "なし".into(),
            own_forms: vec!["Q8_0".into()],
        };
        let tables = Tables {
            families: vec![Family { name: "f".into(), models: "F 1".into() }],
            formats: vec!["gguf".into(), "onnx".into()],
            dtypes: vec!["F16".into(), "Q8_0".into(), "U8".into()],
            written: vec!["F16".into()],
            backends: vec![backend("cpu", true), backend("other", false)],
            matrix: Matrix {
                checked: vec![
                    checked("gguf", &["F16"], Reference::Transformers),
                    checked("gguf", &["Q8_0", "F16"], Reference::Dequantized),
                ],
                ..Matrix::default()
            },
            ..Tables::default()
        };
        let text = page(&tables, Language::English);
        for expected in [
            "## Families by format, on `cpu`",
            "| `f` | F 1 | T: F16<br>D: F16 Q8_0 | ○ |",
            "| `other` | refused (exit 4) | nothing |",
            "| `F16` | ○ | ○ | ✓ | – | `gguf` |",
            "| `Q8_0` | ○ | ○ | ○ | ✓ | `gguf` |",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("`U8`"));
        assert!(page(&tables, Language::Japanese).contains("## 系列と形式: `cpu`"));
    }
}
