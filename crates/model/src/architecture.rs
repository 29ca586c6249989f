//! The record that tells a family apart from Llama, and the lookup among the supported ones.
//!
//! A column exists only for what neither the numbers in the file nor the presence of tensors tells. Families are in
//! `arch/`, one file each; nothing outside that folder names one.

use crate::arch::{ARCHITECTURES, NOT_SUPPORTED};
use crate::{Error, Result, description};
use compute::{Activation, NormKind, QueryGrowth, RopePairing};
use std::sync::{PoisonError, RwLock};

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
    /// All but the last of each group of this many layers.
    AllButLastOf(usize),
}

/// How RoPE differs between windowed layers and those that see everything, in models that have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowedRope {
    /// Not at all.
    Same,
    /// Windowed layers rotate by their own base and without the file's scaling.
    Apart,
    /// Only windowed layers rotate.
    Only,
}

/// What recurrent layers are, in families that have such layers beside those of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// A gated short convolution (LFM2).
    ShortConv,
    /// The gated delta rule (Qwen3-Next).
    DeltaRule,
}

/// How the experts of a layer lie in one tensor, gate and up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertOrder {
    /// `[n, 2 · n_ff, width]`: the rows of the gate, then those of up.
    Halves,
    /// `[n, width, 2 · n_ff]`: the same transposed.
    TransposedHalves,
    /// `[n, width, 2 · n_ff]`: a column of the gate, then one of up.
    TransposedPairs,
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
    /// Tensors that this convention names otherwise than Llama's: the house's name and its own, several in order. A
    /// layer's are named within it; `layers` is the list of layers itself.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Tensors that GGUF files name otherwise than those of Llama.
    pub house_renamed: &'static [(&'static str, &'static str)],
    /// Norm weights of Hugging Face's convention are stored less one.
    pub norms_less_one: bool,
    /// Fused Q, K and V of that convention lie by K/V head: its queries, its key, its value.
    pub fused_by_head: bool,
    /// Q, K and V are one tensor in that convention and three in GGUF's.
    pub splits_qkv: bool,
    /// The matrices of its layers lie transposed, `[n_in, n_out]`.
    pub transposed: bool,
    /// Numbers that such files may leave out, by the house's key; flags are 0 or 1.
    pub config_defaults: &'static [(&'static str, f64)],
    /// Whether the order of tokens is in RoPE; otherwise it is in learned positions or in ALiBi's slopes.
    pub has_rope: bool,
    /// Number of layers of the one size that has ALiBi in place of RoPE.
    pub alibi_at: Option<usize>,
    /// How experts lie in Hugging Face's files, where all of a layer are one tensor.
    pub expert_order: ExpertOrder,
    /// Which elements of a head RoPE pairs, in the weight order of GGUF.
    pub pairing: RopePairing,
    /// The same in the weight order of Hugging Face.
    pub config_pairing: RopePairing,
    /// Every n-th layer has no RoPE.
    pub no_rope_every: Option<usize>,
    /// The activation, where the file does not name one.
    pub activation: Activation,
    /// Feed-forward blocks have a gate.
    pub gated: bool,
    /// Which normalization; its shift is where its tensor is.
    pub norm: NormKind,
    /// Norms have no weights.
    pub bare_norms: bool,
    /// What its recurrent layers are; which layers are recurrent is in the file.
    pub recurrence: Option<Recurrence>,
    /// In GGUF files V heads of the delta rule that share a K head lie apart: one of every K head, then the next.
    pub house_heads_in_turns: bool,
    /// GGUF files say how the pairs of RoPE are shared by the directions of an image; in a text all are the same.
    pub rope_sections: bool,
    /// Q comes with as many rows of a gate on attention's result: those of a head after its queries.
    pub gated_attention: bool,
    /// Dense blocks are as wide as their tensors in files of Hugging Face's convention, whatever these say.
    pub adjusts_feed_forward: bool,
    /// Where a layer normalizes.
    pub norms: NormPlaces,
    /// Q and K norms come after RoPE.
    pub norm_after_rope: bool,
    /// Heads of Q and K that rotate have a norm without weights, where the file does not say.
    pub bare_head_norms: bool,
    /// Number of experts of the one size that has none of these, where the file does not say.
    pub no_head_norms_at: Option<usize>,
    /// Attention and feed-forward read the same input, where the file does not say.
    pub parallel: bool,
    /// Which layers a window applies to.
    pub window_pattern: WindowPattern,
    /// Windows lie side by side, and a position sees what is in its own.
    pub chunked: bool,
    /// How RoPE goes with them.
    pub windowed_rope: WindowedRope,
    /// Window in positions where the file does not give it.
    pub default_window: Option<usize>,
    /// Queries that do not rotate grow with their position, where the file does not say: how far and how fast.
    pub query_growth: Option<QueryGrowth>,
    /// RoPE base of windowed layers where the file does not give it; none: that of the other layers.
    pub default_local_rope_base: Option<f64>,
    /// V has a norm without weights over each head.
    pub bare_value_norms: bool,
    /// Layers without a matrix for V take the product that becomes K.
    pub values_may_be_keys: bool,
    /// GGUF files always say how many layers read the keys and values of others, which layers are windowed, and how wide the
    /// inputs of layers are.
    pub says_sharing: bool,
    /// How many layers have sparse activations, and what part of them vanishes, in a model with more layers whose file does
    /// not say.
    pub default_sparsity: Option<(usize, f64)>,
    /// Multiplied into attention scores where the file does not say.
    pub default_attention_scale: Option<f32>,
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
    /// The weights of the chosen experts are divided by their sum, where the file does not say.
    pub normalizes_experts: bool,
    /// Other readers of its files want to know every how many layers there are experts, be it every one.
    pub names_expert_step: bool,
    /// Experts are scored by sigmoids, where the file does not say.
    pub sigmoid_experts: bool,
    /// The weight of a chosen expert is its share among those within this fraction of its score, where the file does not
    /// give half of it.
    pub expert_peers: Option<f32>,
    /// The input of a chosen expert is multiplied with its weight, instead of its output.
    pub weighs_expert_input: bool,
    /// Rows of the output matrix of a vocabulary of this size have the length 1, to which Hugging Face's files do not bring
    /// them.
    pub unit_output_rows_at: Option<usize>,
}

impl Architecture {
    /// The record for `general.architecture`. Error: unknown, naming the nearest and all known ones.
    pub fn find(name: &str) -> Result<&'static Architecture> {
        known().find(|a| a.name == name).ok_or_else(|| Error::UnknownArchitecture {
            name: name.chars().take(64).collect(),
            lacking: lacking(name),
            nearest: nearest(name),
            supported: Self::all().iter().map(|a| a.name).collect(),
        })
    }

    /// The record for a `model_type`, or for a class named after one. Error: unknown, naming the nearest and all known.
    pub fn find_model_type(name: &str) -> Result<&'static Architecture> {
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let wanted = plain(name);
        let found = known().find(|a| a.model_types.iter().any(|known| plain(known) == wanted));
        found.ok_or_else(|| Error::UnknownModelType {
            name: name.chars().take(64).collect(),
            lacking: lacking(name),
            nearest: nearest(name),
            supported: Self::all().iter().flat_map(|a| a.model_types).copied().collect(),
        })
    }

    /// A family described by a user: TOML that names it, the known one that it is like (`base`), and the differences.
    /// Error: what is wrong with the description.
    pub fn from_description(text: &str) -> Result<Architecture> {
        description::read(text)
    }

    /// Makes a record known to this process, before the built-in ones.
    pub fn add(record: Architecture) {
        let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
        added.retain(|known| known.name != record.name);
        added.insert(0, Box::leak(Box::new(record)));
    }

    /// Every built-in one.
    pub fn all() -> &'static [&'static Architecture] {
        ARCHITECTURES
    }
}

/// What users described.
static ADDED: RwLock<Vec<&'static Architecture>> = RwLock::new(Vec::new());

/// All records, those of users first.
fn known() -> impl Iterator<Item = &'static Architecture> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner).clone();
    added.into_iter().chain(ARCHITECTURES.iter().copied())
}

/// What a family that is known and not supported needs; empty for others.
fn lacking(name: &str) -> &'static str {
    NOT_SUPPORTED.iter().find(|(names, _)| names.contains(&name)).map_or("", |&(_, lacking)| lacking)
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
        check("lama", &["llama", "llama4"]);
        check("Qwen_3", &["qwen3", "qwen2", "qwen35"]);
        check("qwen2mo", &["qwen2moe", "qwen2", "qwen3moe"]);
        check("resnet", &[]);
        check("", &[]);
    }

    #[test]
    fn families_that_are_known_say_what_they_need() {
        for name in NOT_SUPPORTED.iter().flat_map(|(names, _)| *names) {
            for error in [Architecture::find(name).unwrap_err(), Architecture::find_model_type(name).unwrap_err()] {
                assert!(error.to_string().contains("it is known, but its models need"), "{error}");
            }
        }
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
