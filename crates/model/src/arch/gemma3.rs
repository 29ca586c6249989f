//! Gemma 3 (Kamath et al. 2025), text part: five windowed layers to one that sees everything, each kind with its own
//! RoPE base; Q/K norms in place of the soft-caps. The 27B model (62 layers) scales its queries by `√(width / n_heads)`.

use super::gemma2::GEMMA2;
use crate::{Architecture, WindowPattern};

pub(crate) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    models: "Gemma 3 (text)",
    model_types: &["gemma3_text", "gemma3"],
    // Files of the models with vision leave out what the class has as its default.
    config_defaults: &[
        ("context_length", 131_072.0),
        ("attention.head_count", 8.0),
        ("attention.head_count_kv", 4.0),
        ("attention.key_length", 256.0),
        ("attention.value_length", 256.0),
        ("attention.scale_divisor_squared", 256.0),
        ("attention.sliding_window", 4096.0),
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("rope.freq_base", 1e6),
    ],
    window_pattern: WindowPattern::AllButLastOf(6),
    default_window: None,
    default_local_rope_base: Some(10_000.0),
    default_attention_softcap: None,
    default_logit_softcap: None,
    width_scaled_queries_at: Some(62),
    ..GEMMA2
};
