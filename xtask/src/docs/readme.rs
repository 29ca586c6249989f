//! The part of the READMEs that is made from the program's tables: which formats run on which backends, between two marks.
//!
//! Readers of formats know no device, and devices no format, so a backend runs either every format or none. Which of them
//! the program has is what its table of backends says.

use super::Language;
use super::tables::Tables;
use std::fmt::Write;

const BEGIN: &str = "<!-- formats: begin (written by `cargo xtask docs`) -->";
const END: &str = "<!-- formats: end -->";

/// The README of a language.
pub(super) fn file(language: Language) -> &'static str {
    language.pick("README.md", "README.ja.md")
}

/// `text` with the part between the marks made anew; none without the marks.
pub(super) fn renew(text: &str, tables: &Tables, language: Language) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}{END}{after}", table(tables, language)))
}

fn table(tables: &Tables, language: Language) -> String {
    let mut out = format!("| {} |", language.pick("Format", "形式"));
    for backend in &tables.backends {
        let _ = write!(out, " `{}` |", backend.name);
    }
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(tables.backends.len()));
    for format in &tables.formats {
        let _ = write!(out, "| `{format}` |");
        for backend in &tables.backends {
            let cell =
                if backend.is_built { language.pick("yes", "対応") } else { language.pick("not yet", "未対応") };
            let _ = write!(out, " {cell} |");
        }
        let _ = writeln!(out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::tables::Backend;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let backend = |name: &str, is_built| Backend { name: name.into(), is_built, ..Backend::default() };
        let tables = Tables {
            formats: vec!["gguf".into()],
            backends: vec![backend("cpu", true), backend("cuda", false)],
            ..Tables::default()
        };
        let text = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let made = "| Format | `cpu` | `cuda` |\n|---|---|---|\n| `gguf` | yes | not yet |\n";
        let expected = format!("a\n{BEGIN}\n{made}{END}\nz\n");
        assert_eq!(renew(&text, &tables, Language::English).as_deref(), Some(expected.as_str()));
        assert_eq!(renew(&expected, &tables, Language::English).as_deref(), Some(expected.as_str()));
        assert_eq!(renew("no marks", &tables, Language::English), None);
    }
}
