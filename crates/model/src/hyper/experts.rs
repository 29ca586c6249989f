//! The mixture of experts: how many, how wide, and the rule by which they are chosen.
//!
//! What belongs here: the keys of experts. What does not: which layers have them, which their tensors tell (`load/`).

use super::{MAX_HEADS, MAX_WIDTH};
use crate::Result;
use crate::convention::Names;
use crate::keys::Keys;
use compute::{RouterGroups, RouterRule};

/// The mixture of experts, if the model has one.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertParams {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Width of one expert.
    pub n_ff: usize,
    /// Width of the expert that every token passes, if there is one.
    pub shared_n_ff: Option<usize>,
    /// How they are chosen and weighted.
    pub rule: RouterRule,
}

/// The experts, where the file has any.
pub(super) fn experts(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize) -> Result<Option<ExpertParams>> {
    let Some(n_experts) = keys.count_or_zero("expert_count", MAX_HEADS)?.filter(|&n| n > 0) else { return Ok(None) };
    let used_key = "expert_used_count";
    let n_used = keys.required(used_key, MAX_HEADS)?;
    if n_used > n_experts {
        return Err(keys.bad(used_key, n_used, &format!("there are {n_experts} experts")));
    }
    let n_ff = match keys.count("expert_feed_forward_length", MAX_WIDTH)? {
        Some(n) => n,
        None => keys.required("feed_forward_length", MAX_WIDTH)?,
    };
    let gating_key = "expert_gating_func";
    let architecture = keys.architecture();
    let named = keys.word("expert_scoring")?.map(|name| name == "sigmoid");
    let (sigmoid, softmax_after_choice) = match keys.count_or_zero(gating_key, usize::MAX)? {
        None => (named.unwrap_or(architecture.sigmoid_experts), false),
        Some(0 | 1) => (false, false),
        Some(2) => (true, false),
        Some(3) => (false, true),
        Some(other) => return Err(keys.bad(gating_key, other, "known are 1, 2 and 3")),
    };
    // The matrix back to the width has the same rows in every family, fused or not.
    let shared = (0..n_layers).find_map(|i| names.find(&format!("blk.{i}.ffn_down_shexp.weight")));
    let shared_n_ff = shared.map(|info| info.shape.row_len());
    let normalize = keys.flag("expert_weights_norm")?.unwrap_or(architecture.normalizes_experts);
    let peers = match architecture.expert_peers {
        Some(default) => Some(keys.factor("expert_jitter")?.map_or(default, |half| 2.0 * half)),
        None => None,
    };
    let scale = keys.factor("expert_weights_scale")?.unwrap_or(1.0);
    Ok(Some(ExpertParams {
        n_experts,
        n_ff,
        shared_n_ff,
        rule: RouterRule {
            n_used,
            sigmoid,
            softmax_after_choice,
            normalize,
            scale,
            groups: groups(keys, n_experts, n_used, sigmoid)?,
            peers,
            weighs_input: architecture.weighs_expert_input,
        },
    }))
}

/// Groups of which only the best take part in the choice of `n_used` experts.
fn groups(keys: &Keys<'_>, n_experts: usize, n_used: usize, sigmoid: bool) -> Result<Option<RouterGroups>> {
    let (key, used_key) = ("expert_group_count", "expert_group_used_count");
    let Some(n_groups) = keys.count_or_zero(key, MAX_HEADS)?.filter(|&n| n > 1) else { return Ok(None) };
    if keys.word("expert_choice")? == Some("greedy") {
        return Ok(None);
    }
    if !n_experts.is_multiple_of(n_groups) {
        return Err(keys.bad(key, n_groups, &format!("it must divide the {n_experts} experts")));
    }
    // DeepSeek V3's groups count by their two best, V2's by their best.
    let (each, n_best) = (n_experts / n_groups, if sigmoid { 2 } else { 1 });
    let used = keys.required(used_key, n_groups)?;
    if n_best > each || n_used > used * each {
        return Err(keys.bad(used_key, used, &format!("groups of {each} experts are too small to choose {n_used}")));
    }
    Ok(Some(RouterGroups { n_groups, n_used: used, n_best }))
}
