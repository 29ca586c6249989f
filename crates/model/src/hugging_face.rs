//! Hugging Face's names for the numbers and tensors that the house knows: tables, and nothing that decides.
//!
//! The names are those of the `transformers` package (its model classes and their configurations). A family says in its
//! record where it differs. Names in `config.json` come with the prefix `config.`; a model with other modalities keeps
//! the language model's in an object of its own.

use crate::arch::BANDS_TYPE;
use crate::{Architecture, Result};
use checkpoint::{Checkpoint, Metadata, Value};
use compute::Activation;

/// Where the family's name is.
pub(crate) const MODEL_TYPE_KEY: &str = "config.model_type";
/// Objects that may hold a number, in order.
const SCOPES: &[&str] = &["config.text_config", "config"];

/// The house's keys (GGUF's without the family) and the names of the same numbers here, in order.
const KEYS: &[(&str, &[&str])] = &[
    ("vocab_rows", &["vocab_size"]),
    ("context_length", &["max_position_embeddings", "n_positions", "max_seq_len", "model_max_length"]),
    ("embedding_length", &["hidden_size", "n_embd", "d_model"]),
    ("block_count", &["num_hidden_layers", "n_layer", "n_layers", "num_layers"]),
    ("feed_forward_length", &["intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner"]),
    ("activation", &["hidden_activation", "hidden_act", "activation_function", "activation"]),
    ("use_parallel_residual", &["use_parallel_residual", "parallel_attn"]),
    ("tied_embeddings", &["tie_word_embeddings"]),
    ("quantization", &["quantization_config.quant_method", "quantization.bits", "quantization_config.bits"]),
    ("embedding_scale", &["embedding_multiplier", "scale_emb"]),
    ("residual_scale", &["residual_multiplier"]),
    ("residual_scale_of_depth", &["scale_depth"]),
    ("logit_base_width", &["dim_model_base"]),
    ("logit_scale", &["logits_scaling", "logit_scale"]),
    ("final_logit_softcapping", &["final_logit_softcapping"]),
    ("attn_logit_softcapping", &["attn_logit_softcapping"]),
    ("attention.head_count", &["num_attention_heads", "n_head", "n_heads"]),
    ("attention.head_count_kv", &["num_key_value_heads", "num_kv_heads", "n_head_kv", "attn_config.kv_n_heads"]),
    ("attention.multi_query", &["multi_query"]),
    ("attention.grouped", &["new_decoder_architecture"]),
    ("attention.key_length", &["head_dim"]),
    ("attention.value_length", &["head_dim"]),
    ("attention.key_length_swa", &["head_dim"]),
    ("attention.value_length_swa", &["head_dim"]),
    ("attention.key_length_global", &["global_head_dim"]),
    ("attention.head_count_kv_global", &["num_global_key_value_heads"]),
    ("attention.values_are_keys", &["attention_k_eq_v"]),
    ("attention.shared_kv_layers", &["num_kv_shared_layers"]),
    ("embedding_length_per_layer_input", &["hidden_size_per_layer_input"]),
    ("altup.num_inputs", &["altup_num_inputs"]),
    ("altup.active_idx", &["altup_active_idx"]),
    ("altup.limit", &["altup_coef_clip"]),
    ("activation_sparsity", &["activation_sparsity_pattern"]),
    ("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "layer_norm_epsilon", "norm_eps"]),
    (
        "attention.layer_norm_epsilon",
        &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "rms_norm_eps"],
    ),
    ("attention.clamp_kqv", &["clip_qkv", "attn_config.clip_qkv"]),
    ("attention.alibi", &["attn_config.alibi", "alibi"]),
    ("attention.max_alibi_bias", &["attn_config.alibi_bias_max"]),
    ("attention.q_lora_rank", &["q_lora_rank"]),
    ("attention.kv_lora_rank", &["kv_lora_rank"]),
    ("attention.key_length_nope", &["qk_nope_head_dim"]),
    ("attention.value_length_mla", &["v_head_dim"]),
    ("attention.scale", &["attention_multiplier"]),
    ("attention.scale_divisor_squared", &["query_pre_attn_scalar"]),
    ("attention.sliding_window", &["sliding_window", "attention_chunk_size"]),
    ("attention.sliding_window_pattern", &["sliding_window_pattern", "_sliding_window_pattern"]),
    ("attention.sliding_window_on", &["use_sliding_window"]),
    ("attention.sliding_window_from", &["max_window_layers"]),
    ("attention.layer_types", &["layer_types"]),
    ("shortconv.l_cache", &["conv_L_cache"]),
    ("ssm.conv_kernel", &["linear_conv_kernel_dim"]),
    ("ssm.state_size", &["linear_key_head_dim"]),
    ("ssm.value_length", &["linear_value_head_dim"]),
    ("ssm.group_count", &["linear_num_key_heads"]),
    ("ssm.time_step_rank", &["linear_num_value_heads"]),
    ("attention.head_norms", &["use_qk_norm"]),
    ("attention.temperature_on", &["attn_temperature_tuning"]),
    ("attention.temperature_length", &["floor_scale"]),
    ("attention.temperature_scale", &["attn_scale"]),
    ("expert_count", &["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"]),
    ("expert_used_count", &["num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk"]),
    ("expert_group_count", &["n_group"]),
    ("expert_group_used_count", &["topk_group"]),
    ("expert_scoring", &["scoring_func"]),
    ("expert_choice", &["topk_method"]),
    ("expert_feed_forward_length", &["moe_intermediate_size", "intermediate_size"]),
    ("expert_jitter", &["router_jitter_noise"]),
    ("expert_weights_norm", &["norm_topk_prob"]),
    ("expert_weights_scale", &["routed_scaling_factor"]),
    ("rope.dimension_count", &["qk_rope_head_dim", "rotary_dim"]),
    ("rope.layers", &["no_rope_layers"]),
    ("rope.none_every", &["no_rope_layer_interval"]),
    (
        "rope.dimension_fraction",
        &[
            "partial_rotary_factor",
            "rotary_pct",
            "rope_parameters.partial_rotary_factor",
            "rope_parameters.full_attention.partial_rotary_factor",
        ],
    ),
    (
        "rope.freq_base",
        &["rope_theta", "rotary_emb_base", "rope_parameters.rope_theta", "rope_parameters.full_attention.rope_theta"],
    ),
    ("rope.freq_base_swa", &["rope_local_base_freq", "rope_parameters.sliding_attention.rope_theta"]),
    ("rope.scaling.type", &["rope_scaling.rope_type", "rope_scaling.type"]),
    ("rope.scaling.factor", &["rope_scaling.factor"]),
    ("rope.scaling.alpha", &["rope_scaling.alpha"]),
    ("rope.scaling.attn_factor", &["rope_scaling.attention_factor"]),
    (
        "rope.scaling.original_context_length",
        &["rope_scaling.original_max_position_embeddings", "original_max_position_embeddings"],
    ),
    ("rope.scaling.yarn_beta_fast", &["rope_scaling.beta_fast"]),
    ("rope.scaling.yarn_beta_slow", &["rope_scaling.beta_slow"]),
    ("rope.scaling.magnitude", &["rope_scaling.mscale"]),
    ("rope.scaling.magnitude_all", &["rope_scaling.mscale_all_dim"]),
    ("rope.scaling.truncate", &["rope_scaling.truncate"]),
    ("rope.scaling.low_freq_factor", &["rope_scaling.low_freq_factor"]),
    ("rope.scaling.high_freq_factor", &["rope_scaling.high_freq_factor"]),
    ("rope.scaling.short_magnitude", &["rope_scaling.short_mscale"]),
    ("rope.scaling.long_magnitude", &["rope_scaling.long_mscale"]),
    ("rope.scaling.short_factor", &["rope_scaling.short_factor"]),
    ("rope.scaling.long_factor", &["rope_scaling.long_factor"]),
];

/// RoPE's object in files up to and from version 5 of the package: the second holds the base as well, and may have an
/// object for each kind of layer.
const ROPE_OBJECT: &str = "rope_scaling.";
const NEWER_ROPE_OBJECTS: &[&str] = &["rope_parameters.", "rope_parameters.full_attention."];

/// A layer's tensors: the house's name of each and the names here, in order. `{}` is the number of an expert or head: the
/// tensor is stored in pieces. A name with the kind of the tensor in it stands for that tensor as a whole.
const LAYER_TENSORS: &[(&str, &[&str])] = &[
    ("attn_norm", &["input_layernorm"]),
    ("attn_q", &["self_attn.q_proj"]),
    ("attn_k", &["self_attn.k_proj"]),
    ("attn_v", &["self_attn.v_proj"]),
    ("attn_qkv", &["self_attn.qkv_proj"]),
    ("attn_q_norm", &["self_attn.q_norm"]),
    ("attn_k_norm", &["self_attn.k_norm"]),
    ("attn_sub_norm", &["self_attn.attn_sub_norm"]),
    ("attn_output", &["self_attn.o_proj"]),
    ("post_attention_norm", &["post_attention_layernorm"]),
    ("ffn_norm", &["post_attention_layernorm"]),
    ("ffn_gate", &["mlp.gate_proj"]),
    ("ffn_up", &["mlp.up_proj", "mlp.gate_up_proj"]),
    ("ffn_sub_norm", &["mlp.ffn_sub_norm"]),
    ("ffn_down", &["mlp.down_proj"]),
    ("ffn_gate_inp", &["mlp.gate", "block_sparse_moe.gate"]),
    (
        "ffn_gate_exps",
        &[
            "mlp.experts.{}.gate_proj",
            "block_sparse_moe.experts.{}.w1",
            "mlp.switch_mlp.gate_proj",
            "block_sparse_moe.switch_mlp.gate_proj",
        ],
    ),
    (
        "ffn_up_exps",
        &[
            "mlp.experts.{}.up_proj",
            "block_sparse_moe.experts.{}.w3",
            "mlp.switch_mlp.up_proj",
            "block_sparse_moe.switch_mlp.up_proj",
        ],
    ),
    (
        "ffn_down_exps",
        &[
            "mlp.experts.{}.down_proj",
            "block_sparse_moe.experts.{}.w2",
            "mlp.switch_mlp.down_proj",
            "block_sparse_moe.switch_mlp.down_proj",
        ],
    ),
    ("exp_probs_b.bias", &["mlp.gate.e_score_correction_bias", "mlp.moe_statics.e_score_correction_bias"]),
    ("ffn_gate_inp_shexp", &["mlp.shared_expert_gate"]),
    ("ffn_gate_shexp", &["mlp.shared_expert.gate_proj", "mlp.shared_experts.gate_proj"]),
    ("ffn_up_shexp", &["mlp.shared_expert.up_proj", "mlp.shared_experts.up_proj"]),
    ("ffn_down_shexp", &["mlp.shared_expert.down_proj", "mlp.shared_experts.down_proj"]),
    ("attn_sinks.weight", &["self_attn.sinks"]),
    ("post_ffw_norm", &["post_feedforward_layernorm"]),
    ("shortconv.in_proj", &["conv.in_proj"]),
    ("shortconv.conv", &["conv.conv"]),
    ("shortconv.out_proj", &["conv.out_proj"]),
    ("ssm_in", &["linear_attn.in_proj_qkvz"]),
    ("ssm_ba", &["linear_attn.in_proj_ba"]),
    ("ssm_conv1d", &["linear_attn.conv1d"]),
    ("ssm_a.log", &["linear_attn.A_log"]),
    ("ssm_dt.bias", &["linear_attn.dt_bias"]),
    ("ssm_norm", &["linear_attn.norm"]),
    ("ssm_out", &["linear_attn.out_proj"]),
];

/// What tensors of other modalities begin with.
pub(crate) const OTHER_MODALITIES: &[&str] = &[
    "vision_tower.",
    "vision_model.",
    "visual.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.visual.",
    "model.audio_tower.",
    "model.embed_vision.",
    "model.embed_audio.",
    "model.multi_modal_projector.",
    // Layers that guess further tokens.
    "mtp.",
];

/// What names of tensors end with that hold no weights: frequencies of RoPE and masks, which older files keep.
pub(crate) const BUFFERS: &[&str] =
    &[".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

/// Names of activations.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_python", Activation::Gelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::ReluSquared),
];

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// It sees all positions before it.
    Full,
    /// It sees a window of them.
    Windowed,
    /// It keeps a state instead.
    Recurrent,
}

/// Names of kinds of layers.
const LAYER_TYPES: &[(&str, LayerKind)] = &[
    ("full_attention", LayerKind::Full),
    ("sliding_attention", LayerKind::Windowed),
    ("chunked_attention", LayerKind::Windowed),
    ("conv", LayerKind::Recurrent),
    ("linear_attention", LayerKind::Recurrent),
];

/// Kinds of RoPE scaling that the house calls otherwise.
const ROPE_TYPES: &[(&str, &str)] = &[("default", "none"), (BANDS_TYPE, "bands"), ("su", "longrope")];

/// The family. `None`: the metadata do not follow this convention. Error: one that is not supported.
pub(crate) fn architecture(metadata: &Metadata) -> Result<Option<&'static Architecture>> {
    for scope in SCOPES {
        if let Some(name) = metadata.str(&format!("{scope}.model_type"))? {
            return Architecture::find_model_type(name).map(Some);
        }
    }
    // Configurations without it still name the class: `XyzForCausalLM` for `xyz`.
    let Some(classes) = metadata.string_array("config.architectures")? else { return Ok(None) };
    let class = classes.get(0).map(String::from_utf8_lossy);
    class.map(|class| Architecture::find_model_type(class.split("For").next().unwrap_or_default())).transpose()
}

/// Whether there is a `config.json`.
pub(crate) fn is_followed(metadata: &Metadata) -> bool {
    metadata.iter().any(|(key, _)| key.starts_with("config."))
}

/// Where `key` is in the metadata, something before null; or where it would be.
pub(crate) fn key(metadata: &Metadata, key: &str) -> String {
    let names = KEYS.iter().find(|(house, _)| *house == key).map_or(&[][..], |(_, names)| names);
    let mut candidates = Vec::new();
    for scope in SCOPES {
        for name in names {
            candidates.push(format!("{scope}.{name}"));
            let inner = name.strip_prefix(ROPE_OBJECT);
            let newer = NEWER_ROPE_OBJECTS.iter().filter_map(|object| Some(format!("{scope}.{object}{}", inner?)));
            candidates.extend(newer);
        }
    }
    let is_null = |name: &&String| matches!(metadata.get(name), Some(Value::Null));
    let has_value = |name: &&String| metadata.get(name).is_some() && !is_null(name);
    let found = candidates.iter().find(has_value).or_else(|| candidates.iter().find(is_null));
    match (found, names.first()) {
        (Some(found), _) => found.clone(),
        (None, Some(first)) => format!("config.{first}"),
        // A number that these files do not have.
        (None, None) => key.to_owned(),
    }
}

/// Where a layer has a number of its own under `key`, if it does.
pub(crate) fn own_key(metadata: &Metadata, key: &str, layer: usize) -> Option<String> {
    let names = KEYS.iter().find(|(house, _)| *house == key).map_or(&[][..], |(_, names)| names);
    let candidates = SCOPES
        .iter()
        .flat_map(|scope| names.iter().map(move |name| format!("{scope}.per_layer_config.{layer}.{name}")));
    candidates.into_iter().find(|key| metadata.get(key).is_some())
}

/// The activation called `name`.
pub(crate) fn activation(name: &str) -> Option<Activation> {
    ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|&(_, activation)| activation)
}

/// Whether files have a name for this activation.
pub(crate) fn has_name(activation: Activation) -> bool {
    ACTIVATIONS.iter().any(|&(_, named)| named == activation)
}

/// What layers of this type are. `None`: an unknown type.
pub(crate) fn layer_kind(layer_type: &str) -> Option<LayerKind> {
    LAYER_TYPES.iter().find(|(name, _)| *name == layer_type).map(|&(_, kind)| kind)
}

/// The house's name of a kind of RoPE scaling.
pub(crate) fn rope_type(name: &str) -> &str {
    ROPE_TYPES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |&(_, house)| house)
}

/// Where the language model's tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Before the names of its tensors.
    prefix: &'static str,
    /// The output matrix, which is beside it.
    head: &'static str,
}

/// Names within a root that are no layer's, and the list of layers: the house's name and the usual one here.
const ROOT_NAMES: &[(&str, &str)] = &[
    ("token_embd", "embed_tokens"),
    ("output_norm", "norm"),
    ("layers", "layers"),
    ("per_layer_token_embd", "embed_tokens_per_layer"),
    ("per_layer_model_proj", "per_layer_model_projection"),
    ("per_layer_proj_norm", "per_layer_projection_norm"),
    ("altup_proj", "altup_projections.{}"),
    ("altup_unembd_proj", "altup_unembed_projections.{}"),
];

const ROOTS: &[Root] = &[
    Root { prefix: "model.", head: "lm_head" },
    Root { prefix: "language_model.model.", head: "language_model.lm_head" },
    Root { prefix: "model.language_model.", head: "lm_head" },
    Root { prefix: "", head: "lm_head" },
    Root { prefix: "transformer.", head: "lm_head" },
];

impl Root {
    /// Where the embedding is; the usual place when it is missing.
    pub(crate) fn of(checkpoint: &Checkpoint, architecture: &Architecture) -> Root {
        let has = |root: &&Root| {
            let name = root.name(architecture, "token_embd");
            name.is_some_and(|name| checkpoint.tensor(&format!("{name}.weight")).is_some())
        };
        ROOTS.iter().find(has).copied().unwrap_or(Root { prefix: "model.", head: "lm_head" })
    }

    /// A tensor that is no layer's, or the list of layers.
    fn name(&self, architecture: &Architecture, house: &str) -> Option<String> {
        let own = architecture.renamed.iter().find(|(name, _)| *name == house).map(|&(_, own)| own);
        if house == "output" {
            return Some(own.unwrap_or(self.head).to_owned());
        }
        let usual = || ROOT_NAMES.iter().find(|(name, _)| *name == house).map(|&(_, usual)| usual);
        own.or_else(usual).map(|name| format!("{}{name}", self.prefix))
    }

    /// What the names of tensors in layers begin with.
    pub(crate) fn layers(&self, architecture: &Architecture) -> String {
        format!("{}.", self.name(architecture, "layers").unwrap_or_default())
    }
}

/// Names of the house's tensor `name` below `root`, likeliest first; none when there is no such tensor here.
pub(crate) fn tensor(root: Root, architecture: &Architecture, name: &str) -> Vec<String> {
    let Some((base, kind)) = name.rsplit_once('.') else { return Vec::new() };
    let Some((layer, part)) = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return root.name(architecture, base).map(|name| format!("{name}.{kind}")).into_iter().collect();
    };
    let layers = root.layers(architecture);
    let whole = format!("{part}.{kind}");
    for (house, end) in [(whole.as_str(), String::new()), (part, format!(".{kind}"))] {
        let mut names: Vec<&str> = architecture.renamed.iter().filter(|(h, _)| *h == house).map(|&(_, n)| n).collect();
        if names.is_empty() {
            names.extend(LAYER_TENSORS.iter().filter(|(h, _)| *h == house).flat_map(|(_, names)| *names));
        }
        if !names.is_empty() {
            return names.iter().map(|name| format!("{layers}{layer}.{name}{end}")).collect();
        }
    }
    Vec::new()
}

/// Names of the house's tensor `name` below every root.
pub(crate) fn everywhere(architecture: &Architecture, name: &str) -> Vec<String> {
    let mut names: Vec<String> = ROOTS.iter().flat_map(|&root| tensor(root, architecture, name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The house's names of all parts that a layer of this family may have, without the kind of tensor.
pub(crate) fn layer_parts(architecture: &Architecture) -> Vec<&'static str> {
    const NO_PARTS: &[&str] = &["token_embd", "position_embd", "output_norm", "output", "layers"];
    let all = LAYER_TENSORS.iter().map(|(house, _)| *house).chain(architecture.renamed.iter().map(|(house, _)| *house));
    let mut parts = Vec::new();
    let kinds = [".weight", ".bias", ".scale"];
    for part in all.map(|part| kinds.iter().find_map(|kind| part.strip_suffix(kind)).unwrap_or(part)) {
        if !parts.contains(&part) && !NO_PARTS.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// The name of piece `index` of a tensor that is stored in pieces; of others the name as it is.
pub(crate) fn piece(name: &str, index: usize) -> String {
    name.replace("{}", &index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_names() {
        #[track_caller]
        fn check(root: usize, architecture: &str, name: &str, expected: &[&str]) {
            let architecture = Architecture::find(architecture).unwrap();
            assert_eq!(tensor(ROOTS[root], architecture, name), expected);
        }
        check(0, "llama", "token_embd.weight", &["model.embed_tokens.weight"]);
        check(1, "llama", "output.weight", &["language_model.lm_head.weight"]);
        check(2, "llama", "output_norm.weight", &["model.language_model.norm.weight"]);
        check(0, "llama", "blk.12.attn_q.bias", &["model.layers.12.self_attn.q_proj.bias"]);
        check(3, "llama", "blk.0.ffn_norm.weight", &["layers.0.post_attention_layernorm.weight"]);
        check(0, "gemma2", "blk.0.ffn_norm.weight", &["model.layers.0.pre_feedforward_layernorm.weight"]);
        check(0, "llama", "rope_freqs.weight", &[]);
        check(0, "llama", "blk.0.nothing.weight", &[]);
        assert_eq!(piece("a.{}.w1.weight", 7), "a.7.w1.weight");
    }
}
