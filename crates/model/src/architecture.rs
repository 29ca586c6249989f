//! The record that tells a family apart from Llama, and the lookup among the supported ones.
//!
//! A column exists only for what neither the numbers in the file nor the presence of tensors tells. Families are in
//! `arch/`, one file each; nothing outside that folder names one.

use crate::arch::ARCHITECTURES;
use crate::{Error, Result};
use compute::{Activation, RopePairing};

/// Where a layer normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before attention and before the feed-forward block.
    Before,
    /// Before and after each.
    Around,
    /// After each only.
    After,
}

/// Which layers see only a window of the past, when the file gives a window size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowPattern {
    /// All of them.
    Every,
    /// All but the last of each group of this many layers. The windowed layers rotate by their own base and without
    /// the file's RoPE scaling, which is for the layers that see everything.
    AllButLastOf(usize),
}

/// How a family of models differs from Llama.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// `general.architecture` in the file, and the prefix of its keys.
    pub name: &'static str,
    /// The models that people know it by.
    pub models: &'static str,
    /// Its names as `model_type` in files of Hugging Face's convention.
    pub model_types: &'static [&'static str],
    /// Tensors of a layer that this convention names otherwise than Llama's: the house's name and its own.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Norm weights of this convention are stored less one.
    pub norms_less_one: bool,
    /// Numbers that such files may leave out, by the house's key; flags are 0 or 1.
    pub config_defaults: &'static [(&'static str, f64)],
    /// Which elements of a head RoPE pairs, in the weight order of GGUF; halves in that of Hugging Face.
    pub pairing: RopePairing,
    /// Every n-th layer has no RoPE.
    pub no_rope_every: Option<usize>,
    /// The gate's activation.
    pub activation: Activation,
    /// Where a layer normalizes.
    pub norms: NormPlaces,
    /// Which layers a window applies to.
    pub window_pattern: WindowPattern,
    /// Window in positions where the file does not give it.
    pub default_window: Option<usize>,
    /// RoPE base of windowed layers where the file does not give it; none: that of the other layers.
    pub default_local_rope_base: Option<f64>,
    /// Embeddings multiplied by the root of the width.
    pub root_width_embedding: bool,
    /// Attention soft-cap where the file does not give it.
    pub default_attention_softcap: Option<f32>,
    /// Logit soft-cap where the file does not give it.
    pub default_logit_softcap: Option<f32>,
    /// Number of layers of the one size whose scores are divided by `√(width / n_heads)` instead of `√head_dim`.
    pub width_scaled_queries_at: Option<usize>,
    /// `logit_scale` in the file is a divisor, not a factor.
    pub logit_scale_divides: bool,
}

impl Architecture {
    /// The record for `general.architecture`. Error: unknown, naming the nearest and all known ones.
    pub fn find(name: &str) -> Result<&'static Architecture> {
        ARCHITECTURES.iter().copied().find(|a| a.name == name).ok_or_else(|| Error::UnknownArchitecture {
            name: name.chars().take(64).collect(),
            nearest: nearest(name),
            supported: Self::all().iter().map(|a| a.name).collect(),
        })
    }

    /// The record for a `model_type`, or for a class named after one. Error: unknown, naming the nearest and all known.
    pub fn find_model_type(name: &str) -> Result<&'static Architecture> {
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let wanted = plain(name);
        let found = ARCHITECTURES.iter().copied().find(|a| a.model_types.iter().any(|known| plain(known) == wanted));
        found.ok_or_else(|| Error::UnknownModelType {
            name: name.chars().take(64).collect(),
            nearest: nearest(name),
            supported: Self::all().iter().flat_map(|a| a.model_types).copied().collect(),
        })
    }

    /// Every supported one.
    pub fn all() -> &'static [&'static Architecture] {
        ARCHITECTURES
    }
}

/// Known names at most a third of their letters away, nearest first.
fn nearest(name: &str) -> Vec<&'static str> {
    let lower: String = name.chars().take(64).flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect();
    let mut found: Vec<(usize, &'static str)> = ARCHITECTURES
        .iter()
        .map(|a| (edit_distance(&lower, a.name), a.name))
        .filter(|&(distance, known)| distance * 3 <= known.len().max(lower.chars().count()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, known)| known).take(3).collect()
}

/// Insertions, deletions and replacements between two short words (Levenshtein 1966).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, &y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_found_by_its_name_once() {
        for a in Architecture::all() {
            assert_eq!(Architecture::find(a.name).unwrap(), *a);
            assert_eq!(Architecture::all().iter().filter(|b| b.name == a.name).count(), 1, "{}", a.name);
            for model_type in a.model_types {
                assert_eq!(Architecture::find_model_type(model_type).unwrap(), *a, "{model_type}");
            }
            assert!(!a.model_types.is_empty(), "{}", a.name);
        }
    }

    #[test]
    fn unknown_names_get_their_nearest() {
        #[track_caller]
        fn check(name: &str, expected: &[&str]) {
            let Err(Error::UnknownArchitecture { nearest, supported, .. }) = Architecture::find(name) else {
                panic!("{name} was found")
            };
            assert_eq!(nearest, expected, "{name}");
            assert_eq!(supported.len(), Architecture::all().len());
        }
        check("lama", &["llama"]);
        check("Qwen_3", &["qwen3", "qwen2"]);
        check("qwen2moe", &["qwen3moe"]);
        check("bert", &[]);
        check("", &[]);
    }

    #[test]
    fn model_types_and_classes() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            assert_eq!(Architecture::find_model_type(name).unwrap().name, expected);
        }
        check("qwen3_moe", "qwen3moe");
        check("Qwen3Moe", "qwen3moe");
        check("mixtral", "llama");
        check("gemma3_text", "gemma3");
        let error = Architecture::find_model_type("lama").unwrap_err().to_string();
        assert!(error.contains("model_type") && error.contains("close to it is llama"), "{error}");
    }

    #[test]
    fn distances() {
        #[track_caller]
        fn check(a: &str, b: &str, expected: usize) {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("qwen2", "qwen3", 1);
        check("ab", "ba", 2);
    }
}
