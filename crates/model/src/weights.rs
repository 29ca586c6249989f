//! The weights of a model on its device: what `load/` fills and `forward.rs` uses.

use crate::hyper::DeltaParams;
use compute::{Norm, Projection, Rope, RouterRule, StreamFactors, Weight};

/// All weights of a model.
pub(crate) struct Weights {
    pub(crate) embedding: Weight,
    /// Added to the embeddings by position, `[context_length, width]`.
    pub(crate) positions: Option<Weight>,
    /// ALiBi's, `[n_heads]`.
    pub(crate) slopes: Option<Weight>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) layer_inputs: Option<LayerInputs>,
    pub(crate) streams: Option<StreamProjections>,
    pub(crate) output_norm: Norm,
    pub(crate) head: Projection,
}

impl Weights {
    /// Every matrix that operations multiply with, but the embedding.
    pub(crate) fn projections_mut(&mut self) -> Vec<&mut Projection> {
        let mut all = vec![&mut self.head];
        all.extend(self.layer_inputs.as_mut().map(|inputs| &mut inputs.projection));
        all.extend(self.streams.iter_mut().flat_map(|streams| [&mut streams.part, &mut streams.join]));
        for block in &mut self.blocks {
            all.push(&mut block.o);
            all.extend(block.input.iter_mut().flat_map(|input| [&mut input.gate, &mut input.output]));
            all.extend(block.streams.iter_mut().flat_map(BlockStreams::projections_mut));
            match &mut block.attention {
                AttentionWeights::Plain { q, k, v, gate, .. } => {
                    all.push(q);
                    all.extend([k, v, gate].into_iter().flatten());
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
    /// What the layer adds by its own embedding of the token.
    pub(crate) input: Option<BlockInput>,
    /// What it needs where there are several residual streams.
    pub(crate) streams: Option<BlockStreams>,
    /// Multiplied into the residual stream after it.
    pub(crate) gain: f32,
}

/// What makes the embeddings of a token that layers have, beside what they make of them: the sum of a table's row and of the
/// usual embedding projected and normalized, over the root of two.
pub(crate) struct LayerInputs {
    /// `[n, n_layers · dim]`.
    pub(crate) table: Weight,
    /// Its rows; tokens beyond them (those of other modalities) take the first.
    pub(crate) n_rows: usize,
    /// `[n_layers · dim, width]`.
    pub(crate) projection: Projection,
    /// `[dim]`, over the root of two.
    pub(crate) norm: Norm,
}

/// The matrices at the ends of several residual streams, each a stack.
pub(crate) struct StreamProjections {
    pub(crate) part: Projection,
    pub(crate) join: Projection,
}

/// What a layer adds by its own embedding; see [`compute::LayerInput`].
pub(crate) struct BlockInput {
    pub(crate) scale: Option<Weight>,
    pub(crate) gate: Projection,
    pub(crate) output: Projection,
    pub(crate) post_norm: Norm,
}

/// A layer's part in several residual streams: predictions, corrections, and the low-rank addition to the first one.
pub(crate) struct BlockStreams {
    pub(crate) norm: Norm,
    pub(crate) router: Projection,
    pub(crate) predict: Projection,
    pub(crate) correct: Projection,
    pub(crate) left: Projection,
    pub(crate) right: Projection,
    pub(crate) right_norm: Norm,
}

impl BlockStreams {
    /// What makes the factors of predictions, or those of corrections.
    pub(crate) fn factors(&self, of_predictions: bool) -> StreamFactors<'_> {
        let coefficients = if of_predictions { &self.predict } else { &self.correct };
        StreamFactors { norm: &self.norm, router: &self.router, coefficients }
    }

    fn projections_mut(&mut self) -> [&mut Projection; 5] {
        [&mut self.router, &mut self.predict, &mut self.correct, &mut self.left, &mut self.right]
    }
}

/// The norms of a layer whose dense block and experts read the same input, each in its own way.
pub(crate) struct BranchNorms {
    pub(crate) dense_post: Norm,
    pub(crate) experts: Norm,
    pub(crate) experts_post: Norm,
}

/// What mixes positions, up to the output projection: what makes queries, keys and values, or a recurrence.
#[allow(clippy::large_enum_variant, reason = "one per layer, of few variants")]
pub(crate) enum AttentionWeights {
    Plain {
        q: Projection,
        /// None: it reads the keys and values of another layer.
        k: Option<Projection>,
        /// None beside K: V is the product that becomes K.
        v: Option<Projection>,
        q_norm: Option<Norm>,
        k_norm: Option<Norm>,
        v_norm: Option<Norm>,
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
    pub(crate) sparsity: Option<f32>,
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
        /// What that has of its own, where both are no simple sum.
        branches: Option<BranchNorms>,
        rule: RouterRule,
        /// Of what the router reads, where that is not what experts read.
        router_norm: Option<Norm>,
        router: Projection,
        expert_scale: Option<Weight>,
        choice_bias: Option<Weight>,
        gate: Projection,
        up: Projection,
        down: Projection,
    },
}
