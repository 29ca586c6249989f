//! Meta's own names for the numbers and tensors of a model (`params.json` beside `consolidated.NN.pth`), which Mistral's
//! files in that form share: tables, and what such files leave to the code that reads them.
//!
//! Q and K lie in the original order, in which neighbours pair.

use checkpoint::Metadata;

/// The house's keys (GGUF's without the family) and the names of the same numbers here.
const KEYS: &[(&str, &str)] = &[
    ("context_length", "max_seq_len"),
    ("embedding_length", "dim"),
    ("block_count", "n_layers"),
    ("feed_forward_length", "hidden_dim"),
    ("attention.head_count", "n_heads"),
    ("attention.head_count_kv", "n_kv_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.value_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "norm_eps"),
    ("attention.sliding_window", "sliding_window"),
    ("expert_count", "moe.num_experts"),
    ("expert_used_count", "moe.num_experts_per_tok"),
    ("rope.freq_base", "rope_theta"),
    ("rope.scaling.bands", "use_scaled_rope"),
    ("rope.scaling.factor", "rope_scaling_factor"),
    ("rope.scaling.low_freq_factor", "rope_low_freq_factor"),
    ("rope.scaling.high_freq_factor", "rope_high_freq_factor"),
];

/// Numbers that files leave out, by generation: those of Llama 1 and 2, of Llama 3 (told by its base), and of 3.1 and
/// later (told by its scaling).
const FIRST: &[(&str, f64)] = &[("context_length", 4096.0)];
const THIRD: &[(&str, f64)] = &[("context_length", 8192.0)];
const SCALED: &[(&str, f64)] = &[
    ("context_length", 131_072.0),
    ("rope.scaling.original_context_length", 8192.0),
    ("rope.scaling.factor", 8.0),
    ("rope.scaling.low_freq_factor", 1.0),
    ("rope.scaling.high_freq_factor", 4.0),
];

/// Tensors: the house's name and the one here. `{}` is the number of an expert.
const TENSORS: &[(&str, &str)] = &[("token_embd", "tok_embeddings"), ("output_norm", "norm"), ("output", "output")];
const LAYER_TENSORS: &[(&str, &str)] = &[
    ("attn_norm", "attention_norm"),
    ("attn_q", "attention.wq"),
    ("attn_k", "attention.wk"),
    ("attn_v", "attention.wv"),
    ("attn_output", "attention.wo"),
    ("ffn_norm", "ffn_norm"),
    ("ffn_gate", "feed_forward.w1"),
    ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
    ("ffn_gate_inp", "feed_forward.gate"),
    ("ffn_gate_exps", "feed_forward.experts.{}.w1"),
    ("ffn_up_exps", "feed_forward.experts.{}.w3"),
    ("ffn_down_exps", "feed_forward.experts.{}.w2"),
];

/// Whether the metadata are those of such a file.
pub(crate) fn is_followed(metadata: &Metadata) -> bool {
    metadata.get("params.dim").is_some()
}

/// The file's spelling of `key`.
pub(crate) fn key(key: &str) -> String {
    let name = KEYS.iter().find(|(house, _)| *house == key).map_or(key, |&(_, name)| name);
    format!("params.{name}")
}

/// What the file leaves out.
pub(crate) fn defaults(metadata: &Metadata) -> &'static [(&'static str, f64)] {
    let is_set = |key: &str| metadata.bool(key).ok().flatten() == Some(true);
    match metadata.get("params.rope_theta") {
        _ if is_set("params.use_scaled_rope") => SCALED,
        Some(_) => THIRD,
        None => FIRST,
    }
}

/// The name of the house's tensor `name`, if there is such a tensor here.
pub(crate) fn tensor(name: &str) -> Vec<String> {
    let Some((base, kind)) = name.rsplit_once('.') else { return Vec::new() };
    let (names, prefix, part) = match base.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (LAYER_TENSORS, format!("layers.{layer}."), part),
        None => (TENSORS, String::new(), base),
    };
    let found = names.iter().find(|(house, _)| *house == part);
    found.map(|(_, name)| format!("{prefix}{name}.{kind}")).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        #[track_caller]
        fn check(name: &str, expected: &[&str]) {
            assert_eq!(tensor(name), expected);
        }
        check("token_embd.weight", &["tok_embeddings.weight"]);
        check("blk.11.attn_q.weight", &["layers.11.attention.wq.weight"]);
        check("blk.0.ffn_up_exps.weight", &["layers.0.feed_forward.experts.{}.w3.weight"]);
        check("rope_freqs.weight", &[]);
        assert_eq!(key("embedding_length"), "params.dim");
        assert_eq!(key("tied_embeddings"), "params.tied_embeddings");
    }
}
