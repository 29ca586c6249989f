//! Command R7B and Command A (Cohere 2025): Command R with three windowed layers to one that sees everything and has no
//! position embedding.

use super::command_r::COMMAND_R;
use crate::{Architecture, WindowPattern, WindowedRope};

pub(crate) const COHERE2: Architecture = Architecture {
    name: "cohere2",
    models: "Command R7B, Command A, Aya",
    model_types: &["cohere2"],
    window_pattern: WindowPattern::AllButLastOf(4),
    windowed_rope: WindowedRope::Only,
    ..COMMAND_R
};
