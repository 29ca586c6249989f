//! What a setting is: its row, the values it takes, and how one is read, checked and shown.

use super::Settings;
use crate::{adapters::Named, messages::Language, paths};
use engine::{MAX_DRAFT, Speculation};
use std::{
    ffi::OsStr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Where a setting belongs in help and docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Which model.
    Model,
    /// Where it runs.
    Backend,
    /// How much it remembers.
    Context,
    /// How it answers.
    Generation,
    /// How it looks.
    Interface,
    /// What is kept of conversations.
    History,
    /// What is logged.
    Logging,
    /// Only for this run: no key, no variable.
    Run,
}

/// All groups in the order of the help, with their headings.
pub(crate) const GROUPS: &[(Group, &str, &str)] = &[
    (Group::Run, "This run", "今回の実行"),
    (Group::Model, "Model", "モデル"),
    (Group::Backend, "Backend", "バックエンド"),
    (Group::Context, "Context", "コンテキスト"),
    (Group::Generation, "Generation", "生成"),
    (Group::Interface, "Interface", "表示"),
    (Group::History, "History", "履歴"),
    (Group::Logging, "Logging", "ログ"),
];

/// Access to one field of the settings.
type At<T> = fn(&mut Settings) -> &mut T;

/// What values a setting takes and where they go. A `word` stands for "none".
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `true` or `false`; on the command line `--flag` and `--no-flag`.
    Switch(At<bool>),
    /// A count.
    Count(At<usize>, RangeInclusive<u64>),
    /// A count or a word.
    CountOr(At<Option<usize>>, RangeInclusive<u64>, &'static str),
    /// A 64-bit number or a word.
    NumberOr(At<Option<u64>>, &'static str),
    /// A size in bytes, with or without a unit, or a word.
    BytesOr(At<Option<u64>>, &'static str),
    /// How far to guess ahead: `auto`, `off` or a count.
    Guess(At<Speculation>),
    /// A number within bounds; `true`: the lower one is not allowed itself.
    Real(At<f32>, RangeInclusive<f32>, bool),
    /// One of several words.
    Choice(At<&'static str>, &'static [&'static str]),
    /// Any text.
    Text(At<String>),
    /// Any text; empty: none.
    TextOr(At<Option<String>>),
    /// A path; empty: none.
    Path(At<Option<PathBuf>>),
    /// A path, or a word that is none and stays as it is; empty: none.
    PathOr(At<Option<PathBuf>>, &'static str),
    /// Several texts: the flag repeats, a variable is a TOML array or one text.
    List(At<Vec<String>>),
    /// Several adapters, given like several texts; relative paths as of a path.
    Adapters(At<Vec<Named>>),
    /// Several of several words, separated by commas in a flag or variable.
    Choices(At<Vec<String>>, &'static [&'static str]),
}

/// One setting.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// TOML table.
    pub(crate) section: &'static str,
    /// TOML key.
    pub(crate) key: &'static str,
    /// Flag, without dashes.
    pub(crate) flag: &'static str,
    /// One-letter flag.
    pub(crate) short: Option<char>,
    /// Name of the value in help; empty for switches.
    pub(crate) value: &'static str,
    /// Values and field.
    pub(crate) kind: Kind,
    /// Built-in default, as one would type it.
    pub(crate) default: &'static str,
    /// Where it is listed.
    pub(crate) group: Group,
    /// Listed by `-h` too.
    pub(crate) daily: bool,
    /// What it does, English.
    pub(crate) en: &'static str,
    /// What it does, Japanese.
    pub(crate) ja: &'static str,
}

impl Row {
    /// `section.key`
    pub(crate) fn full_key(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// `RUSTORCH_SECTION_KEY`
    pub(crate) fn env_name(&self) -> String {
        format!("RUSTORCH_{}_{}", self.section, self.key).to_uppercase()
    }

    /// What it does.
    pub(crate) fn help(&self, language: Language) -> &'static str {
        language.pick(self.en, self.ja)
    }

    /// The values it takes, for people: `a|b|c`, `0 to 5`; empty if anything goes.
    pub(crate) fn range(&self) -> String {
        let counts = |range: &RangeInclusive<u64>| format!("{}..{}", range.start(), range.end());
        match &self.kind {
            Kind::Switch(_) => "true|false".into(),
            Kind::Count(_, range) => counts(range),
            Kind::CountOr(_, range, word) => format!("{word}|{}", counts(range)),
            Kind::NumberOr(_, word) => format!("{word}|0..{}", u64::MAX),
            Kind::BytesOr(_, word) => format!("{word}|8GiB|8GB|512MiB|bytes"),
            Kind::Guess(_) => format!("auto|off|1..{MAX_DRAFT}"),
            Kind::Real(_, range, open) => {
                format!("{}{}..{}", if *open { "above " } else { "" }, range.start(), range.end())
            }
            Kind::Choice(_, words) | Kind::Choices(_, words) => words.join("|"),
            Kind::Text(_) | Kind::TextOr(_) | Kind::Path(_) | Kind::PathOr(..) | Kind::List(_) | Kind::Adapters(_) => {
                String::new()
            }
        }
    }

    /// Whether it is a switch.
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch(_))
    }

    /// The spelling of the flag worth showing: the one that changes the default.
    pub(crate) fn shown_flag(&self) -> String {
        if self.is_switch() && self.default == "true" { format!("no-{}", self.flag) } else { self.flag.to_owned() }
    }

    /// Sets it from text as typed on the command line, in a variable or in `/set`. Relative paths start at `base`.
    pub(crate) fn set_text(&self, settings: &mut Settings, text: &OsStr, base: Option<&Path>) -> Result<(), String> {
        if let Kind::Path(at) | Kind::PathOr(at, _) = &self.kind {
            let is_word = matches!(&self.kind, Kind::PathOr(_, word) if text == *word);
            *at(settings) = if text.is_empty() {
                None
            } else if text == "-" || is_word {
                Some(PathBuf::from(text)) // a standard stream, where that makes sense
            } else {
                Some(paths::expand(text, base).map_err(|error| error.to_string())?)
            };
            return Ok(());
        }
        let text = text.to_str().ok_or("the value is not valid Unicode")?;
        if let Kind::Adapters(at) = &self.kind {
            *at(settings) = if text.is_empty() { Vec::new() } else { vec![Named::parse(text, base)?] };
            return Ok(());
        }
        self.set_str(settings, text)?;
        self.mark_set(settings);
        Ok(())
    }

    /// From now on no model's suggestion replaces the value.
    fn mark_set(&self, settings: &mut Settings) {
        if self.section == "generation" {
            settings.unset.retain(|key| *key != self.key);
        }
    }

    fn set_str(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let expected = || format!("`{}` is not valid here; expected {}", text.escape_default(), self.range());
        let count = |range: &RangeInclusive<u64>| -> Result<usize, String> {
            let n: u64 = text.trim().parse().map_err(|_| expected())?;
            if !range.contains(&n) {
                return Err(expected());
            }
            usize::try_from(n).map_err(|_| expected())
        };
        match &self.kind {
            Kind::Switch(at) => *at(settings) = switch(text).ok_or_else(expected)?,
            Kind::Count(at, range) => *at(settings) = count(range)?,
            Kind::CountOr(at, range, word) => *at(settings) = if text == *word { None } else { Some(count(range)?) },
            Kind::NumberOr(at, word) => {
                *at(settings) = if text == *word { None } else { Some(text.trim().parse().map_err(|_| expected())?) };
            }
            Kind::BytesOr(at, word) => {
                *at(settings) = if text == *word { None } else { Some(bytes(text).ok_or_else(expected)?) };
            }
            Kind::Guess(at) => {
                *at(settings) = match text {
                    "auto" => Speculation::Auto,
                    "off" => Speculation::Off,
                    _ => Speculation::Fixed(count(&(1..=MAX_DRAFT as u64))?),
                };
            }
            Kind::Real(at, range, open) => {
                let x: f32 = text.trim().parse().map_err(|_| expected())?;
                // NaN is in no range.
                if !range.contains(&x) || (*open && x == *range.start()) {
                    return Err(expected());
                }
                *at(settings) = x;
            }
            Kind::Choice(at, words) => {
                *at(settings) = words.iter().find(|word| **word == text).ok_or_else(expected)?;
            }
            Kind::Text(at) => *at(settings) = text.to_owned(),
            Kind::TextOr(at) => *at(settings) = (!text.is_empty()).then(|| text.to_owned()),
            Kind::Path(at) | Kind::PathOr(at, _) => *at(settings) = (!text.is_empty()).then(|| PathBuf::from(text)),
            Kind::Adapters(at) => *at(settings) = vec![Named::parse(text, None)?],
            Kind::List(at) => *at(settings) = if text.is_empty() { Vec::new() } else { vec![text.to_owned()] },
            Kind::Choices(at, words) => {
                let mut chosen = Vec::new();
                for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    if !words.contains(&word) {
                        return Err(expected());
                    }
                    chosen.push(word.to_owned());
                }
                *at(settings) = chosen;
            }
        }
        Ok(())
    }

    /// Whether its flag may be repeated, each time with one of its values.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self.kind, Kind::List(_) | Kind::Adapters(_))
    }

    /// Sets a list setting from several values. Relative paths start at `base`.
    pub(crate) fn set_list(
        &self,
        settings: &mut Settings,
        values: &[String],
        base: Option<&Path>,
    ) -> Result<(), String> {
        match &self.kind {
            Kind::Adapters(at) => {
                *at(settings) = values.iter().map(|text| Named::parse(text, base)).collect::<Result<_, _>>()?;
                Ok(())
            }
            Kind::List(at) => {
                if values.iter().any(String::is_empty) {
                    return Err("an empty text is not allowed here".into());
                }
                *at(settings) = values.to_vec();
                self.mark_set(settings);
                Ok(())
            }
            Kind::Choices(..) => self.set_str(settings, &values.join(",")),
            _ => Err(format!("expected one value, not a list{}", self.range_note())),
        }
    }

    /// `; values: …` or nothing.
    fn range_note(&self) -> String {
        let range = self.range();
        if range.is_empty() { range } else { format!(" ({range})") }
    }

    /// The value as a TOML value: what `config show` prints and a config file could hold.
    pub(crate) fn show(&self, settings: &Settings) -> String {
        // The accessors lend mutably so that one function serves reading and writing.
        let mut copy = settings.clone();
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let list = |items: &[String]| format!("[{}]", items.iter().map(|i| quoted(i)).collect::<Vec<_>>().join(", "));
        match &self.kind {
            Kind::Switch(at) => at(&mut copy).to_string(),
            Kind::Count(at, _) => at(&mut copy).to_string(),
            Kind::CountOr(at, _, word) => match at(&mut copy) {
                Some(n) => n.to_string(),
                None if word.parse::<i64>().is_ok() => (*word).to_owned(),
                None => quoted(word),
            },
            Kind::NumberOr(at, word) => at(&mut copy).map_or_else(|| quoted(word), |n| n.to_string()),
            Kind::BytesOr(at, word) => at(&mut copy).map_or_else(|| quoted(word), |n| n.to_string()),
            Kind::Guess(at) => match *at(&mut copy) {
                Speculation::Auto => quoted("auto"),
                Speculation::Off => quoted("off"),
                Speculation::Fixed(n) => n.to_string(),
            },
            Kind::Real(at, ..) => format!("{:?}", at(&mut copy)),
            Kind::Choice(at, _) => quoted(at(&mut copy)),
            Kind::Text(at) => quoted(at(&mut copy)),
            Kind::TextOr(at) => quoted(at(&mut copy).as_deref().unwrap_or_default()),
            Kind::Path(at) | Kind::PathOr(at, _) => {
                quoted(&at(&mut copy).as_deref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
            }
            Kind::List(at) | Kind::Choices(at, _) => list(at(&mut copy)),
            Kind::Adapters(at) => list(&at(&mut copy).iter().map(Named::show).collect::<Vec<_>>()),
        }
    }
}

/// Units of sizes: IEC 80000-13 and SI; single letters as people mean them of memory.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// A size such as `6GiB`, `1.5 GB` or `1000000`, above 0.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let size = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor)?,
        // Beyond 2⁵³ bytes nobody minds a rounded one.
        Err(_) => (number.parse::<f64>().ok().filter(|n| *n < 1e9)? * factor as f64) as u64,
    };
    (size > 0).then_some(size)
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
        check("1000000", Some(1_000_000));
        check("6GiB", Some(6 << 30));
        check("6 gb", Some(6_000_000_000));
        check("1.5g", Some(3 << 29));
        check("512MiB", Some(512 << 20));
        for bad in ["", "0", "GiB", "-1", "1.2.3GB", "6 XB", "99999999999TiB", "inf", "nan", "1e9"] {
            check(bad, None);
        }
    }
}
