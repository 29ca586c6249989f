//! Gemma 4 (Google 2026), text part: heads of layers that see everything are wider, of which a quarter turns, and their V may be
//! what becomes K; the last layers may read the keys and values of others; an embedding of the token for each layer; a dense
//! block beside experts; a scale of each layer.

use super::gemma3::GEMMA3;
use crate::Architecture;

pub(crate) const GEMMA4: Architecture = Architecture {
    name: "gemma4",
    models: "Gemma 4 (text)",
    model_types: &["gemma4_text", "gemma4"],
    renamed: &[
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("ffn_gate_inp", "router.proj"),
        ("ffn_gate_inp.scale", "router.scale"),
        ("ffn_up_exps.weight", "experts.gate_up_proj"),
        ("ffn_up_exps.weight", "experts.switch_glu.up_proj.weight"),
        ("ffn_gate_exps", "experts.switch_glu.gate_proj"),
        ("ffn_down_exps.weight", "experts.down_proj"),
        ("ffn_down_exps.weight", "experts.switch_glu.down_proj.weight"),
        ("ffn_down_exps.scale", "router.per_expert_scale"),
        ("post_ffw_norm_1", "post_feedforward_layernorm_1"),
        ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
        ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
        ("layer_output_scale.weight", "layer_scalar"),
        ("inp_gate", "per_layer_input_gate"),
        ("proj", "per_layer_projection"),
        ("post_norm", "post_per_layer_input_norm"),
    ],
    house_renamed: &[("ffn_up_exps", "ffn_gate_up_exps")],
    norms_less_one: false,
    config_defaults: &[
        ("context_length", 131_072.0),
        ("attention.head_count", 8.0),
        ("attention.head_count_kv", 4.0),
        ("attention.key_length", 256.0),
        ("attention.value_length", 256.0),
        ("attention.key_length_global", 512.0),
        ("attention.sliding_window", 512.0),
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("embedding_length_per_layer_input", 256.0),
        ("rope.freq_base", 1e6),
        ("rope.dimension_fraction", 0.25),
        ("rope.scaling.leading", 1.0),
    ],
    adjusts_feed_forward: true,
    bare_value_norms: true,
    values_may_be_keys: true,
    says_sharing: true,
    default_attention_scale: Some(1.0),
    width_scaled_queries_at: None,
    ..GEMMA3
};
