//! A mixture of experts: router, choice, and the chosen experts' feed-forward blocks.
//!
//! Rows are grouped by expert, so that each chosen expert's weights are read once per pass, and all experts' products
//! of one kind run in one parallel region.
//!
//! What belongs here: routing and grouping. What does not: the products (`product`).

use super::{
    Work,
    linear::EpilogueView,
    norm::normed,
    product::{Product, View, products},
    require,
};
use crate::{
    Buffer, Experts, Projection, Result, RouterGroups, RouterRule,
    cpu::{
        argument,
        columns::Input,
        floats, floats_mut,
        memory::{Scratch, SharedMut},
        simd::Kernels,
        weight,
    },
};

/// What the operation keeps between calls.
#[derive(Default)]
pub(crate) struct ExpertScratch {
    scores: Scratch<f32>,
    /// Rows gathered by expert, `[slots, width]`; later the experts' outputs.
    gathered: Scratch<f32>,
    outputs: Scratch<f32>,
    mixed: Scratch<f32>,
    /// `[n_rows, n_used]`: which experts, and how much.
    chosen: Vec<usize>,
    weights: Vec<f32>,
    /// First slot of each expert that has any; its number.
    groups: Vec<Group>,
    /// Slot of each (row, choice), and the reverse.
    slot_of: Vec<usize>,
    choice_of: Vec<usize>,
    counts: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Group {
    expert: usize,
    first: usize,
    len: usize,
}

/// A stack of matrices `[n_expert, n_out, n_in]` whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a> {
    all: View<'a>,
    n_out: usize,
}

impl<'a> Stack<'a> {
    pub(crate) fn of(op: &'static str, name: &str, projection: &'a Projection, n_expert: usize) -> Result<Self> {
        let dims = projection.weight.shape().dims();
        let ok = dims.len() == 3 && dims[0] == n_expert;
        require(op, ok, format_args!("{name} is {} and there are {n_expert} experts", projection.weight.shape()))?;
        let all = View::of(op, name, projection, None, None)?;
        require(op, all.matrix.is_stack_of(dims[1]), format_args!("{name} was not uploaded as a stack of experts"))?;
        Ok(Self { all, n_out: dims[1] })
    }

    pub(crate) fn n_in(&self) -> usize {
        self.all.matrix.row_len
    }

    pub(crate) fn n_out(&self) -> usize {
        self.n_out
    }

    pub(crate) fn expert(&self, expert: usize) -> View<'a> {
        let first = expert * self.n_out;
        let bias = self.all.bias.map(|bias| &bias[first..first + self.n_out]);
        let additions = self.all.additions.part(expert);
        View { matrix: self.all.matrix.part(expert, self.n_out), bias, additions, ..self.all }
    }

    /// The product of one expert's rows, which lie at its slots of `x` and `out`.
    fn product(&self, group: Group, x: &'a [f32], out: SharedMut<'a, f32>) -> Product<'a> {
        let (n_in, n_out) = (self.n_in(), self.n_out);
        let x = &x[group.first * n_in..(group.first + group.len) * n_in];
        let out = out.part(group.first * n_out..(group.first + group.len) * n_out);
        Product::plain(self.expert(group.expert), x, group.len, out)
    }
}

/// `out = epilogue(Σ weight · expert(norm(x)))`.
pub(crate) fn experts(work: &mut Work, x: &Buffer, n_rows: usize, args: &Experts<'_>, out: &mut Buffer) -> Result<()> {
    let op = "experts";
    let Work { team, scratch } = work;
    let router = View::of(op, "the router", args.router, None, None)?;
    let (width, n_expert) = (router.matrix.row_len, router.matrix.n_rows);
    let up = Stack::of(op, "up", args.up, n_expert)?;
    let gate = args.gate.map(|gate| Stack::of(op, "gate", gate, n_expert)).transpose()?;
    let mut down = Stack::of(op, "down", args.down, n_expert)?;
    down.all.input = Input::Outliers;
    let (n_ff, n_out) = (up.n_out, down.n_out);
    let fits = up.n_in() == width && down.n_in() == n_ff && gate.is_none_or(|g| g.n_in() == width && g.n_out == n_ff);
    require(op, fits, "the experts' matrices do not fit one another")?;
    let choice_bias = weight::optional_vector(op, args.choice_bias, n_expert)?;
    let expert_scale = weight::optional_vector(op, args.expert_scale, n_expert)?;
    let n_used = args.rule.n_used;
    if let Some(RouterGroups { n_groups, n_used: used, n_best }) = args.rule.groups {
        let even = n_groups > 0 && n_expert.is_multiple_of(n_groups) && (1..=n_groups).contains(&used);
        let enough = even && n_best > 0 && n_best <= n_expert / n_groups && n_used <= used * (n_expert / n_groups);
        require(
            op,
            enough,
            format_args!("cannot choose {n_used} of {n_expert} experts from {used} of {n_groups} groups"),
        )?;
    }
    require(op, (1..=n_expert).contains(&n_used), format_args!("cannot choose {n_used} of {n_expert} experts"))?;
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let epilogue = EpilogueView::of(op, &args.epilogue, n_rows, n_out)?;
    let out = floats_mut(op, out, n_rows.checked_mul(n_out))?;
    let size = |n: usize, width: usize| n.checked_mul(width).ok_or_else(|| argument(op, "a size that overflows"));
    let slots = size(n_rows, n_used)?;

    let own = &mut scratch.experts;
    let scores = own.scores.take(size(n_rows, n_expert)? + n_expert)?;
    let (scores, order) = scores.split_at_mut(n_rows * n_expert);
    let read_by_router = args.router_norm.or(args.norm);
    {
        let x = normed(op, team, &mut scratch.normed, read_by_router, x, width)?;
        let product = Product::plain(router, x, n_rows, SharedMut::new(scores));
        products(team, &mut scratch.products, 1, |_| product)?;
    }
    let x = normed(op, team, &mut scratch.normed, args.norm, x, width)?;
    own.chosen.clear();
    own.weights.clear();
    for scores in scores.chunks_mut(n_expert) {
        choose(team.kernels, &args.rule, scores, choice_bias, order, &mut own.chosen, &mut own.weights);
    }
    if let Some(scale) = expert_scale {
        own.weights.iter_mut().zip(&own.chosen).for_each(|(weight, expert)| *weight *= scale[*expert]);
    }
    own.counts.clear();
    own.counts.resize(n_expert, 0);
    group(&own.chosen, &mut own.counts, &mut own.groups, &mut own.slot_of, &mut own.choice_of);

    let (kernels, groups, choice_of) = (team.kernels, &*own.groups, &*own.choice_of);
    let gathered = own.gathered.take(size(slots, width)?)?;
    let weights = &*own.weights;
    team.rows(gathered, width, |slot, to, _| {
        let choice = choice_of[slot];
        to.copy_from_slice(&x[choice / n_used * width..][..width]);
        if args.rule.weighs_input {
            to.iter_mut().for_each(|x| *x *= weights[choice]);
        }
    });
    let hidden = scratch.first.take(size(slots, n_ff)?)?;
    let other = scratch.second.take(if gate.is_some() { slots * n_ff } else { 0 })?;
    {
        let gathered = &*gathered;
        let (first, second) = (SharedMut::new(hidden), SharedMut::new(other));
        let count = groups.len() * if gate.is_some() { 2 } else { 1 };
        products(team, &mut scratch.products, count, |i| match gate {
            Some(gate) if i % 2 == 0 => gate.product(groups[i / 2], gathered, first),
            Some(_) => up.product(groups[i / 2], gathered, second),
            None => up.product(groups[i], gathered, first),
        })?;
    }
    {
        let other = &*other;
        team.rows(hidden, n_ff, |slot, hidden, _| {
            kernels.activate(args.activation, hidden, other.get(slot * n_ff..(slot + 1) * n_ff));
        });
    }
    let outputs = own.outputs.take(size(slots, n_out)?)?;
    {
        let (hidden, shared) = (&*hidden, SharedMut::new(outputs));
        products(team, &mut scratch.products, groups.len(), |i| down.product(groups[i], hidden, shared))?;
    }
    let (outputs, slot_of) = (&*outputs, &*own.slot_of);
    let mixed = own.mixed.take(size(n_rows, n_out)?)?;
    team.rows(mixed, n_out, |row, mixed, _| {
        mixed.fill(0.0);
        for choice in row * n_used..(row + 1) * n_used {
            let slot = slot_of[choice];
            let weight = if args.rule.weighs_input { 1.0 } else { weights[choice] };
            let output = &outputs[slot * n_out..(slot + 1) * n_out];
            mixed.iter_mut().zip(output).for_each(|(m, o)| *m += weight * o);
        }
    });
    epilogue.apply(team, mixed, n_out, out);
    Ok(())
}

/// Chooses one row's experts and appends them and their weights. `scores` are the router's products; `order` is
/// scratch. Equal scores: the lower number wins.
fn choose(
    kernels: &Kernels,
    rule: &RouterRule,
    scores: &mut [f32],
    choice_bias: Option<&[f32]>,
    order: &mut [f32],
    chosen: &mut Vec<usize>,
    weights: &mut Vec<f32>,
) {
    // Where nothing is added to scores, the products tell more: the sigmoids of large ones are equal.
    let by_products = choice_bias.is_none() && rule.groups.is_none();
    if by_products {
        order.copy_from_slice(scores);
    }
    if rule.sigmoid {
        kernels.sigmoid(scores);
    } else if !rule.softmax_after_choice && rule.peers.is_none() {
        softmax(kernels, scores);
    }
    if !by_products {
        order.copy_from_slice(scores);
    }
    if let Some(bias) = choice_bias {
        order.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
    }
    if let Some(groups) = rule.groups {
        exclude_groups(groups, order);
    }
    let first = weights.len();
    for _ in 0..rule.n_used {
        // NaN ranks last, what was taken is not looked at again.
        let taken = &chosen[first..];
        let rank = |i: usize| if order[i].is_nan() { f32::NEG_INFINITY } else { order[i] };
        let free = (0..order.len()).filter(|i| !taken.contains(i));
        let best = free.reduce(|best, i| if rank(i) > rank(best) { i } else { best });
        let Some(best) = best else { break };
        weights.push(match rule.peers {
            Some(within) => share(scores, taken, best, within),
            None => scores[best],
        });
        chosen.push(best);
    }
    let weights = &mut weights[first..];
    if rule.softmax_after_choice && !rule.sigmoid {
        softmax(kernels, weights);
    }
    if rule.normalize {
        let sum: f32 = weights.iter().sum();
        // All sigmoids may vanish; the smallest normal number keeps 0 / 0 away and NaN a NaN.
        let sum = if sum < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { sum };
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    weights.iter_mut().for_each(|w| *w *= rule.scale);
}

/// The share of `best` in a softmax over the scores of its peers: those not `taken` that are near it.
fn share(scores: &[f32], taken: &[usize], best: usize, within: f32) -> f32 {
    let top = scores[best];
    let peers = scores
        .iter()
        .enumerate()
        .filter(|&(i, score)| i == best || !taken.contains(&i) && top - score <= within * score.abs().max(top));
    1.0 / peers.map(|(_, score)| (score - top).exp()).sum::<f32>()
}

/// Keeps the scores of the best groups; those of the others go below all.
fn exclude_groups(groups: RouterGroups, scores: &mut [f32]) {
    let len = scores.len() / groups.n_groups;
    let rank = |group: &[f32]| {
        let mut best = group.to_vec();
        best.sort_by(|a, b| b.total_cmp(a));
        best.iter().take(groups.n_best).sum::<f32>()
    };
    let ranks: Vec<f32> = scores.chunks(len).map(rank).collect();
    for (i, group) in scores.chunks_mut(len).enumerate() {
        // Of equal groups the first ones win.
        let better = ranks.iter().enumerate().filter(|&(j, r)| *r > ranks[i] || (*r == ranks[i] && j < i)).count();
        if better >= groups.n_used {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

fn softmax(kernels: &Kernels, values: &mut [f32]) {
    let largest = kernels.max(values);
    let sum = kernels.exp_sum(values, largest);
    values.iter_mut().for_each(|v| *v /= sum);
}

/// Sorts the choices by expert. `counts` is zeros, one per expert.
fn group(
    chosen: &[usize],
    counts: &mut [usize],
    groups: &mut Vec<Group>,
    slot_of: &mut Vec<usize>,
    choice_of: &mut Vec<usize>,
) {
    chosen.iter().for_each(|expert| counts[*expert] += 1);
    groups.clear();
    let mut first = 0;
    for (expert, count) in counts.iter_mut().enumerate() {
        let len = std::mem::replace(count, first);
        if len > 0 {
            groups.push(Group { expert, first, len });
        }
        first += len;
    }
    slot_of.clear();
    choice_of.clear();
    choice_of.resize(chosen.len(), 0);
    for (choice, expert) in chosen.iter().enumerate() {
        let slot = counts[*expert];
        counts[*expert] += 1;
        slot_of.push(slot);
        choice_of[slot] = choice;
    }
}
