//! The weights of a model on its device: what `load.rs` fills and `decoder.rs` uses.

use compute::{Norm, Projection, Rope, RouterRule, Weight};

/// All weights of a model.
pub(crate) struct Weights {
    pub(crate) embedding: Weight,
    pub(crate) blocks: Vec<Block>,
    pub(crate) output_norm: Norm,
    pub(crate) head: Projection,
}

/// The weights of one layer.
pub(crate) struct Block {
    pub(crate) attn_norm: Option<Norm>,
    pub(crate) q: Projection,
    pub(crate) k: Projection,
    pub(crate) v: Projection,
    pub(crate) q_norm: Option<Norm>,
    pub(crate) k_norm: Option<Norm>,
    pub(crate) rope: Option<Rope>,
    pub(crate) o: Projection,
    pub(crate) attn_post_norm: Option<Norm>,
    pub(crate) ffn_norm: Option<Norm>,
    pub(crate) feed_forward: FeedForwardWeights,
    pub(crate) ffn_post_norm: Option<Norm>,
}

/// The weights of a layer's second half.
#[allow(clippy::large_enum_variant, reason = "one per layer, all of the same variant as a rule")]
pub(crate) enum FeedForwardWeights {
    Dense {
        gate: Projection,
        up: Projection,
        down: Projection,
    },
    Experts {
        rule: RouterRule,
        router: Projection,
        choice_bias: Option<Weight>,
        gate: Projection,
        up: Projection,
        down: Projection,
    },
}
