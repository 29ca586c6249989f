//! Gemma 3n (Google 2025), text part: several residual streams (Baykal et al. 2023), a low-rank addition to the residual (Menghani
//! et al. 2024), an embedding of the token for each layer, sparse activations in the first layers, and last layers that read
//! the keys and values of others.

use super::gemma3::GEMMA3;
use crate::{Architecture, WindowPattern};

pub(crate) const GEMMA3N: Architecture = Architecture {
    name: "gemma3n",
    models: "Gemma 3n (text)",
    model_types: &["gemma3n_text", "gemma3n"],
    renamed: &[
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("altup_correct_coef", "altup.correction_coefs"),
        ("altup_correct_scale.weight", "altup.correct_output_scale"),
        ("altup_predict_coef", "altup.prediction_coefs"),
        ("altup_router", "altup.modality_router"),
        ("altup_router_norm", "altup.router_norm"),
        ("laurel_l", "laurel.linear_left"),
        ("laurel_r", "laurel.linear_right"),
        ("laurel_post_norm", "laurel.post_laurel_norm"),
        ("inp_gate", "per_layer_input_gate"),
        ("proj", "per_layer_projection"),
        ("post_norm", "post_per_layer_input_norm"),
    ],
    norms_less_one: false,
    config_defaults: &[
        ("context_length", 32_768.0),
        ("attention.head_count", 8.0),
        ("attention.head_count_kv", 2.0),
        ("attention.key_length", 256.0),
        ("attention.value_length", 256.0),
        ("attention.sliding_window", 512.0),
        ("attention.shared_kv_layers", 15.0),
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("embedding_length_per_layer_input", 256.0),
        ("altup.num_inputs", 4.0),
        ("rope.freq_base", 1e6),
    ],
    window_pattern: WindowPattern::AllButLastOf(5),
    bare_value_norms: true,
    says_sharing: true,
    default_sparsity: Some((10, 0.95)),
    default_attention_scale: Some(1.0),
    default_logit_softcap: Some(30.0),
    width_scaled_queries_at: None,
    ..GEMMA3
};
