//! The arguments of feed-forward blocks: dense ones and mixtures of experts.
//!
//! What belongs here: activations, the rule by which experts are chosen. What does not: what follows a block's last product
//! (`product.rs`).

use super::{Epilogue, Norm, Projection, Weight};

/// The activation of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU, tanh form (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// GELU with the error function.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (Nemotron, Arcee).
    ReluSquared,
    /// `x · sigmoid(1.702 · x)` of `x` cut to at most 7, times one more than the other factor cut to ±7 (gpt-oss).
    ClampedSwish,
}

/// A feed-forward block: `down(norm(act(gate(x)) ⊙ up(x)))`, or `down(norm(act(up(x))))` without a gate.
pub struct FeedForward<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// `[n_ff, width]`.
    pub gate: Option<&'a Projection>,
    /// `[n_ff, width]`.
    pub up: &'a Projection,
    /// Of the gate's products only what is above their mean by so many standard deviations of their row counts, less that
    /// (Gemma 3n).
    pub sparsity: Option<f32>,
    /// Applied to the input of `down` (BitNet).
    pub inner_norm: Option<&'a Norm>,
    /// `[width, n_ff]`.
    pub down: &'a Projection,
    /// Which activation.
    pub activation: Activation,
    /// The product of `down` is multiplied with `sigmoid(norm(x) · this)`, `f32 [width]` (the shared expert of Qwen2-MoE);
    /// `down` must have no bias then.
    pub output_gate: Option<&'a Weight>,
    /// After `down`.
    pub epilogue: Epilogue<'a>,
}

/// How router scores become expert weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterRule {
    /// Experts used by each token.
    pub n_used: usize,
    /// Scores are `sigmoid(x)` rather than a softmax over all experts (DeepSeek V3).
    pub sigmoid: bool,
    /// Softmax over the chosen experts only, instead of over all (gpt-oss).
    pub softmax_after_choice: bool,
    /// Chosen weights divided by their sum (Mixtral, Qwen3).
    pub normalize: bool,
    /// Multiplied into the chosen weights at the end.
    pub scale: f32,
    /// Experts are chosen from the best groups only (DeepSeek V2 and V3).
    pub groups: Option<RouterGroups>,
    /// The weight of a choice is its share among its peers (Liu et al. 2024, "GRIN"): a softmax over the scores of the
    /// experts not chosen before whose distance from its own is at most this fraction of the larger of both. Scores stay as
    /// they are then.
    pub peers: Option<f32>,
    /// A chosen expert's input is multiplied with its weight, instead of its output (Llama 4).
    pub weighs_input: bool,
}

/// Groups of experts, of which only the best take part in the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterGroups {
    /// Groups; they divide the experts evenly, in order.
    pub n_groups: usize,
    /// Groups that take part.
    pub n_used: usize,
    /// A group counts by the sum of its best so many scores: 1 (DeepSeek V2) or 2 (V3).
    pub n_best: usize,
}

/// A mixture of experts (Shazeer et al. 2017): router, the chosen experts' gated feed-forward, weighted sum.
pub struct Experts<'a> {
    /// Applied to the input.
    pub norm: Option<&'a Norm>,
    /// Applied to what the router reads instead (Gemma 4).
    pub router_norm: Option<&'a Norm>,
    /// `[n_expert, width]`.
    pub router: &'a Projection,
    /// Added to the scores for the choice only, `f32 [n_expert]` (DeepSeek V3).
    pub choice_bias: Option<&'a Weight>,
    /// The rule.
    pub rule: RouterRule,
    /// `[n_expert, n_ff, width]`, bias `[n_expert, n_ff]`.
    pub gate: Option<&'a Projection>,
    /// `[n_expert, n_ff, width]`.
    pub up: &'a Projection,
    /// `[n_expert, width, n_ff]`.
    pub down: &'a Projection,
    /// Multiplied into the weight of each expert once it is chosen, `f32 [n_expert]` (Gemma 4).
    pub expert_scale: Option<&'a Weight>,
    /// Which activation.
    pub activation: Activation,
    /// After the weighted sum.
    pub epilogue: Epilogue<'a>,
}
