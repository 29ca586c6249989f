//! Gemma 3 (Kamath et al. 2025), text part: five windowed layers to one that sees everything, each kind with its own
//! RoPE base; Q/K norms in place of the soft-caps. The 27B model (62 layers) scales its queries by `√(width / n_heads)`.

use super::gemma2::GEMMA2;
use crate::{Architecture, WindowPattern};

pub(crate) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    models: "Gemma 3 (text)",
    window_pattern: WindowPattern::AllButLastOf(6),
    default_window: None,
    default_local_rope_base: Some(10_000.0),
    default_attention_softcap: None,
    default_logit_softcap: None,
    width_scaled_queries_at: Some(62),
    ..GEMMA2
};
