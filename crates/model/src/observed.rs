//! Watching what goes into the matrices of a loaded model, by the names that its file (or what `export` makes of it) has
//! for them.
//!
//! What belongs here: which matrix has which name. What does not: the sums (`compute::Observer`), files of importance
//! matrices (`checkpoint`).

use crate::HyperParams;
use crate::export;
use crate::weights::{AttentionWeights, Block, BlockInput, BlockStreams, DenseWeights, FeedForwardWeights};
use checkpoint::Checkpoint;
use compute::{Observer, Weight};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A matrix that is watched.
pub struct ObservedTensor {
    /// Its name as `Export` writes it.
    pub name: String,
    /// What it has been multiplied with.
    pub observer: Arc<Observer>,
}

/// The names that a matrix of a layer may have, of which a file has one.
type Names = &'static [&'static str];

/// A matrix by its names.
type Named<'a> = (Names, &'a mut Weight);

/// The matrices of a layer.
fn matrices(block: &mut Block) -> Vec<Named<'_>> {
    let mut all: Vec<Named<'_>> = Vec::new();
    match &mut block.attention {
        // What is in one matrix has one input.
        AttentionWeights::Plain { q, k, v, .. } => {
            all.push((&["attn_q", "attn_qkv"], &mut q.weight));
            all.extend(k.iter_mut().map(|k| (["attn_k"].as_slice(), &mut k.weight)));
            all.extend(v.iter_mut().map(|v| (["attn_v"].as_slice(), &mut v.weight)));
        }
        AttentionWeights::Latent { q_down, q, kv_down, k_up, v_up, .. } => {
            all.extend(q_down.iter_mut().map(|(down, _)| (["attn_q_a"].as_slice(), &mut down.weight)));
            all.extend([
                (["attn_q_b", "attn_q"].as_slice(), &mut q.weight),
                (["attn_kv_a_mqa"].as_slice(), &mut kv_down.weight),
                (["attn_k_b"].as_slice(), &mut k_up.weight),
                (["attn_v_b"].as_slice(), &mut v_up.weight),
            ]);
        }
        AttentionWeights::ShortConv { input, .. } => all.push((&["shortconv.in_proj"], &mut input.weight)),
        AttentionWeights::DeltaRule { qkv, z, b, a, .. } => all.extend([
            (["attn_qkv", "ssm_in"].as_slice(), &mut qkv.weight),
            (["attn_gate"].as_slice(), &mut z.weight),
            (["ssm_beta", "ssm_ba"].as_slice(), &mut b.weight),
            (["ssm_alpha"].as_slice(), &mut a.weight),
        ]),
    }
    if let Some(BlockStreams { left, right, .. }) = &mut block.streams {
        all.extend([(["laurel_l"].as_slice(), &mut left.weight), (["laurel_r"].as_slice(), &mut right.weight)]);
    }
    if let Some(BlockInput { gate, output, .. }) = &mut block.input {
        all.extend([(["inp_gate"].as_slice(), &mut gate.weight), (["proj"].as_slice(), &mut output.weight)]);
    }
    all.push((&["attn_output", "shortconv.out_proj", "ssm_out"], &mut block.o.weight));
    match &mut block.feed_forward {
        FeedForwardWeights::Dense(weights) => all.extend(dense([&["ffn_gate"], &["ffn_up"], &["ffn_down"]], weights)),
        FeedForwardWeights::Experts { shared, router, gate, up, down, .. } => {
            let names: [Names; 3] =
                [&["ffn_gate_shexp", "ffn_gate"], &["ffn_up_shexp", "ffn_up"], &["ffn_down_shexp", "ffn_down"]];
            all.extend(shared.iter_mut().flat_map(|shared| dense(names, shared)));
            all.extend([
                (["ffn_gate_inp"].as_slice(), &mut router.weight),
                (["ffn_gate_exps"].as_slice(), &mut gate.weight),
                (["ffn_up_exps", "ffn_gate_up_exps"].as_slice(), &mut up.weight),
                (["ffn_down_exps"].as_slice(), &mut down.weight),
            ]);
        }
    }
    all
}

/// The matrices of a dense block.
fn dense([gate, up, down]: [Names; 3], weights: &mut DenseWeights) -> impl Iterator<Item = Named<'_>> {
    let first = weights.gate.iter_mut().map(move |projection| (gate, &mut projection.weight));
    first.chain([(up, &mut weights.up.weight), (down, &mut weights.down.weight)])
}

/// Watches the matrices of all layers.
pub(crate) fn observe(checkpoint: &Checkpoint, hyper: &HyperParams, blocks: &mut [Block]) -> Vec<ObservedTensor> {
    let known: BTreeSet<String> = export::listing(checkpoint, hyper).into_iter().map(|tensor| tensor.name).collect();
    let mut observed = Vec::new();
    for (i, block) in blocks.iter_mut().enumerate() {
        for (parts, weight) in matrices(block) {
            let mut names = parts.iter().map(|part| format!("blk.{i}.{part}.weight"));
            let Some(name) = names.find(|name| known.contains(name)) else { continue };
            let n_matrices = match weight.shape().dims() {
                [n, _, _] => *n,
                _ => 1,
            };
            let observer = Arc::new(Observer::new(n_matrices, weight.shape().row_len()));
            weight.observe(Arc::clone(&observer));
            observed.push(ObservedTensor { name, observer });
        }
    }
    observed
}
