//! A family described by a user: a TOML file that says how it differs from a known one.
//!
//! What belongs here: the keys of such a file and what each means for the record. What does not: the record itself
//! (`architecture.rs`), reading files (the program). What a file says lives as long as the program: records are constants.

use crate::architecture::{ExpertOrder, NormPlaces, Recurrence, WindowPattern, WindowedRope};
use crate::{Architecture, Error, Result, hugging_face};
use compute::{NormKind, RopePairing};
use toml::{Table, Value};

/// Bytes of such a file at most.
const MAX_BYTES: usize = 64 << 10;
/// Its keys that are no column of the record.
const NAME: &str = "name";
const BASE: &str = "base";

type Pairs = &'static [(&'static str, &'static str)];

/// One key: its name, what its value must be, and how it changes the record.
struct Field {
    key: &'static str,
    kind: &'static str,
    set: fn(&mut Architecture, &Value) -> Option<()>,
}

const fn field(key: &'static str, kind: &'static str, set: fn(&mut Architecture, &Value) -> Option<()>) -> Field {
    Field { key, kind, set }
}

const FLAG: &str = "true or false";
const COUNT: &str = "a whole number above 0";
const NAMES: &str = "a table of names, each a text or a list of texts";

const FIELDS: &[Field] = &[
    field("models", "a text", |a, v| put(&mut a.models, v.as_str().map(kept))),
    field("model_types", "a list of texts", |a, v| put(&mut a.model_types, texts(v))),
    field("renamed", NAMES, |a, v| {
        let all = names(v, a.renamed);
        put(&mut a.renamed, all)
    }),
    field("house_renamed", NAMES, |a, v| {
        let all = names(v, a.house_renamed);
        put(&mut a.house_renamed, all)
    }),
    field("defaults", "a table of numbers", |a, v| {
        let all = numbers(v, a.config_defaults);
        put(&mut a.config_defaults, all)
    }),
    field("norms_less_one", FLAG, |a, v| put(&mut a.norms_less_one, v.as_bool())),
    field("fused_by_head", FLAG, |a, v| put(&mut a.fused_by_head, v.as_bool())),
    field("transposed", FLAG, |a, v| put(&mut a.transposed, v.as_bool())),
    field("expert_order", "\"halves\", \"transposed-halves\" or \"transposed-pairs\"", |a, v| {
        let orders = [
            ("halves", ExpertOrder::Halves),
            ("transposed-halves", ExpertOrder::TransposedHalves),
            ("transposed-pairs", ExpertOrder::TransposedPairs),
        ];
        put(&mut a.expert_order, choice(v, &orders))
    }),
    field("has_rope", FLAG, |a, v| put(&mut a.has_rope, v.as_bool())),
    field("house_pairing", PAIRINGS, |a, v| put(&mut a.pairing, pairing(v))),
    field("pairing", PAIRINGS, |a, v| put(&mut a.config_pairing, pairing(v))),
    field("no_rope_every", COUNT, |a, v| put(&mut a.no_rope_every, count(v).map(Some))),
    field("activation", "the name of an activation", |a, v| {
        put(&mut a.activation, v.as_str().and_then(hugging_face::activation))
    }),
    field("gated", FLAG, |a, v| put(&mut a.gated, v.as_bool())),
    field("norm", "\"rms\" or \"layer\"", |a, v| {
        put(&mut a.norm, choice(v, &[("rms", NormKind::Rms), ("layer", NormKind::Layer)]))
    }),
    field("bare_norms", FLAG, |a, v| put(&mut a.bare_norms, v.as_bool())),
    field("recurrence", "\"short-convolution\" or \"delta-rule\"", |a, v| {
        let kinds = [("short-convolution", Recurrence::ShortConv), ("delta-rule", Recurrence::DeltaRule)];
        put(&mut a.recurrence, choice(v, &kinds).map(Some))
    }),
    field("house_heads_in_turns", FLAG, |a, v| put(&mut a.house_heads_in_turns, v.as_bool())),
    field("gated_attention", FLAG, |a, v| put(&mut a.gated_attention, v.as_bool())),
    field("adjusts_feed_forward", FLAG, |a, v| put(&mut a.adjusts_feed_forward, v.as_bool())),
    field("norms", "\"before\", \"around\" or \"after\"", |a, v| {
        let places = [("before", NormPlaces::Before), ("around", NormPlaces::Around), ("after", NormPlaces::After)];
        put(&mut a.norms, choice(v, &places))
    }),
    field("norm_after_rope", FLAG, |a, v| put(&mut a.norm_after_rope, v.as_bool())),
    field("bare_head_norms", FLAG, |a, v| put(&mut a.bare_head_norms, v.as_bool())),
    field("parallel", FLAG, |a, v| put(&mut a.parallel, v.as_bool())),
    field("windows_of", COUNT, |a, v| put(&mut a.window_pattern, count(v).map(WindowPattern::AllButLastOf))),
    field("windowed_rope", "\"same\", \"apart\" or \"only\"", |a, v| {
        let kinds = [("same", WindowedRope::Same), ("apart", WindowedRope::Apart), ("only", WindowedRope::Only)];
        put(&mut a.windowed_rope, choice(v, &kinds))
    }),
    field("window", COUNT, |a, v| put(&mut a.default_window, count(v).map(Some))),
    field("chunked", FLAG, |a, v| put(&mut a.chunked, v.as_bool())),
    field("root_width_embedding", FLAG, |a, v| put(&mut a.root_width_embedding, v.as_bool())),
    field("attention_softcap", "a number above 0", |a, v| put(&mut a.default_attention_softcap, factor(v).map(Some))),
    field("logit_softcap", "a number above 0", |a, v| put(&mut a.default_logit_softcap, factor(v).map(Some))),
    field("logit_scale_divides", FLAG, |a, v| put(&mut a.logit_scale_divides, v.as_bool())),
    field("normalizes_experts", FLAG, |a, v| put(&mut a.normalizes_experts, v.as_bool())),
    field("sigmoid_experts", FLAG, |a, v| put(&mut a.sigmoid_experts, v.as_bool())),
    field("weighs_expert_input", FLAG, |a, v| put(&mut a.weighs_expert_input, v.as_bool())),
];

const PAIRINGS: &str = "\"neighbours\" or \"halves\"";

/// The record that `text` describes. Error: no TOML, an unknown key, or a value that is not what the key needs.
pub(crate) fn read(text: &str) -> Result<Architecture> {
    let wrong = |what: String| Error::Description { what };
    if text.len() > MAX_BYTES {
        return Err(wrong(format!("it is longer than {MAX_BYTES} bytes")));
    }
    let table: Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string().trim_end().to_owned()))?;
    let name = table.get(NAME).and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong(format!("{NAME} must be there, as a text")))?;
    let base = match table.get(BASE) {
        Some(base) => base.as_str().ok_or_else(|| wrong(format!("{BASE} must be the name of a family")))?,
        None => crate::arch::META.name,
    };
    let mut record =
        Architecture { name: kept(name), models: kept(name), model_types: &[], ..*Architecture::find(base)? };
    for (key, value) in table.iter().filter(|(key, _)| *key != NAME && *key != BASE) {
        let Some(field) = FIELDS.iter().find(|field| field.key == key) else {
            let known: Vec<&str> = [NAME, BASE].into_iter().chain(FIELDS.iter().map(|field| field.key)).collect();
            return Err(wrong(format!("{key:?} is no key of it; known are {}", known.join(", "))));
        };
        (field.set)(&mut record, value).ok_or_else(|| wrong(format!("{key} must be {}", field.kind)))?;
    }
    Ok(record)
}

fn put<T>(to: &mut T, value: Option<T>) -> Option<()> {
    *to = value?;
    Some(())
}

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn count(value: &Value) -> Option<usize> {
    value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).filter(|n| n.is_finite())
}

fn factor(value: &Value) -> Option<f32> {
    number(value).map(|n| n as f32).filter(|n| n.is_normal() && *n > 0.0)
}

fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Option<T> {
    let name = value.as_str()?;
    choices.iter().find(|(known, _)| *known == name).map(|&(_, choice)| choice)
}

fn pairing(value: &Value) -> Option<RopePairing> {
    choice(value, &[("neighbours", RopePairing::Interleaved), ("halves", RopePairing::Halves)])
}

fn texts(value: &Value) -> Option<&'static [&'static str]> {
    let texts: Option<Vec<&'static str>> = value.as_array()?.iter().map(|text| text.as_str().map(kept)).collect();
    texts.map(|texts| &*texts.leak())
}

/// The names of the file, and those of the base that it does not replace.
fn names(value: &Value, base: Pairs) -> Option<Pairs> {
    let table = value.as_table()?;
    let mut pairs: Vec<_> = base.iter().copied().filter(|(house, _)| !table.contains_key(*house)).collect();
    for (house, own) in table {
        let own = own.as_str().map(|own| vec![kept(own)]).or_else(|| texts(own).map(<[_]>::to_vec))?;
        pairs.extend(own.into_iter().map(|own| (kept(house), own)));
    }
    Some(pairs.leak())
}

/// The numbers of the file, and those of the base that it does not replace.
fn numbers(value: &Value, base: &'static [(&'static str, f64)]) -> Option<&'static [(&'static str, f64)]> {
    let table = value.as_table()?;
    let mut pairs: Vec<_> = base.iter().copied().filter(|(key, _)| !table.contains_key(*key)).collect();
    for (key, value) in table {
        pairs.push((kept(key), number(value)?));
    }
    Some(pairs.leak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_from_a_known_family() {
        let text = "name = \"mine\"\nbase = \"gpt2\"\nmodel_types = [\"mine\", \"ours\"]\nhas_rope = true\n\
                    norm = \"rms\"\nwindows_of = 3\n[renamed]\nffn_up = [\"a\", \"b\"]\n[defaults]\ncontext_length = 64";
        let record = read(text).unwrap();
        let base = Architecture::find("gpt2").unwrap();
        assert_eq!((record.name, record.model_types), ("mine", &["mine", "ours"][..]));
        assert_eq!((record.has_rope, record.norm, record.gated), (true, NormKind::Rms, base.gated));
        assert_eq!(record.window_pattern, WindowPattern::AllButLastOf(3));
        let up: Vec<_> = record.renamed.iter().filter(|(house, _)| *house == "ffn_up").collect();
        assert_eq!(up, [&("ffn_up", "a"), &("ffn_up", "b")]);
        assert_eq!(record.renamed.len(), base.renamed.len() + 1);
        assert_eq!(record.config_defaults, [("context_length", 64.0)]);
    }

    #[test]
    fn refusals_name_the_key() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        check("", "name must be there");
        check("name = 1", "name must be there");
        check("name = \"x\"\nbase = \"lama\"", "close to it is llama");
        check("name = \"x\"\nparalel = true", "\"paralel\" is no key of it; known are name, base, models");
        check("name = \"x\"\nparallel = 1", "parallel must be true or false");
        check("name = \"x\"\nnorm = \"batch\"", "norm must be \"rms\" or \"layer\"");
        check("name = \"x\"\nwindow = 0", "window must be a whole number above 0");
        check("name = \"x\"\nlogit_softcap = nan", "logit_softcap must be a number above 0");
        check("name = \"x\"\n[renamed]\nffn_up = 3", "renamed must be a table of names");
        check("name = x", "line 1");
        check(&" ".repeat(MAX_BYTES + 1), "longer than");
    }
}
