//! The weights of a model on its device: what `load.rs` fills and `decoder.rs` uses.

use crate::hyper::DeltaParams;
use compute::{Norm, Projection, Rope, RouterRule, Weight};

/// All weights of a model.
pub(crate) struct Weights {
    pub(crate) embedding: Weight,
    /// Added to the embeddings by position, `[context_length, width]`.
    pub(crate) positions: Option<Weight>,
    /// ALiBi's, `[n_heads]`.
    pub(crate) slopes: Option<Weight>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) output_norm: Norm,
    pub(crate) head: Projection,
}

impl Weights {
    /// Every matrix that operations multiply with, but the embedding.
    pub(crate) fn projections_mut(&mut self) -> Vec<&mut Projection> {
        let mut all = vec![&mut self.head];
        for block in &mut self.blocks {
            all.push(&mut block.o);
            match &mut block.attention {
                AttentionWeights::Plain { q, k, v, gate, .. } => {
                    all.extend([q, k, v]);
                    all.extend(gate);
                }
                AttentionWeights::ShortConv { input, .. } => all.push(input),
                AttentionWeights::DeltaRule { qkv, z, b, a, .. } => all.extend([qkv, z, b, a]),
                AttentionWeights::Latent { q_down, q, kv_down, k_up, v_up, .. } => {
                    all.extend([q, kv_down, k_up, v_up]);
                    all.extend(q_down.as_mut().map(|(down, _)| down));
                }
            }
            match &mut block.feed_forward {
                FeedForwardWeights::Dense(dense) => dense.projections_mut(&mut all),
                FeedForwardWeights::Experts { shared, router, gate, up, down, .. } => {
                    all.extend([router, gate, up, down]);
                    shared.iter_mut().for_each(|dense| dense.projections_mut(&mut all));
                }
            }
        }
        all
    }
}

/// The weights of one layer.
pub(crate) struct Block {
    pub(crate) attn_norm: Option<Norm>,
    pub(crate) attention: AttentionWeights,
    pub(crate) sinks: Option<Weight>,
    /// Of attention's result, before `o`.
    pub(crate) attn_sub_norm: Option<Norm>,
    pub(crate) o: Projection,
    pub(crate) attn_post_norm: Option<Norm>,
    pub(crate) ffn_norm: Option<Norm>,
    pub(crate) feed_forward: FeedForwardWeights,
    pub(crate) ffn_post_norm: Option<Norm>,
}

/// What mixes positions, up to the output projection: what makes queries, keys and values, or a recurrence.
#[allow(clippy::large_enum_variant, reason = "one per layer, of few variants")]
pub(crate) enum AttentionWeights {
    Plain {
        q: Projection,
        k: Projection,
        v: Projection,
        q_norm: Option<Norm>,
        k_norm: Option<Norm>,
        rope: Option<Rope>,
        /// How much of the result counts, by element.
        gate: Option<Projection>,
    },
    /// DeepSeek's; what is what stands at [`compute::LatentQkv`].
    Latent {
        q_down: Option<(Projection, Norm)>,
        q: Projection,
        kv_down: Projection,
        latent_norm: Norm,
        k_up: Projection,
        /// `[n_heads, v_dim, rank]`: makes each head's result of a mixture of latents.
        v_up: Projection,
        rope: Rope,
    },
    /// What is what stands at [`compute::ShortConv`].
    ShortConv { input: Projection, taps: Weight, bias: Option<Weight> },
    /// What is what stands at [`compute::DeltaRule`].
    DeltaRule {
        qkv: Projection,
        z: Projection,
        b: Projection,
        a: Projection,
        taps: Weight,
        decay: Weight,
        shift: Weight,
        head_norm: Norm,
        params: DeltaParams,
    },
}

/// A dense feed-forward block.
pub(crate) struct DenseWeights {
    pub(crate) gate: Option<Projection>,
    pub(crate) up: Projection,
    /// Before `down`.
    pub(crate) inner_norm: Option<Norm>,
    pub(crate) down: Projection,
    /// How much of its result counts, by token.
    pub(crate) output_gate: Option<Weight>,
}

impl DenseWeights {
    fn projections_mut<'w>(&'w mut self, all: &mut Vec<&'w mut Projection>) {
        all.extend([&mut self.up, &mut self.down]);
        all.extend(&mut self.gate);
    }
}

/// The weights of a layer's second half.
#[allow(clippy::large_enum_variant, reason = "one per layer, all of the same variant as a rule")]
pub(crate) enum FeedForwardWeights {
    Dense(DenseWeights),
    Experts {
        /// What every token passes, besides the chosen ones.
        shared: Option<DenseWeights>,
        rule: RouterRule,
        router: Projection,
        choice_bias: Option<Weight>,
        gate: Projection,
        up: Projection,
        down: Projection,
    },
}
