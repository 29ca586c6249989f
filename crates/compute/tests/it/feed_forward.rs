//! Dense and expert feed-forward blocks.

use crate::{linear::bound, reference::*};
use compute::{
    Activation, Device, Epilogue, Experts, FeedForward, NormKind, Observed, Observer, Precision, RouterGroups,
    RouterRule, cpu::CpuDevice,
};
use std::sync::Arc;
use tensor::DType;

const ACTIVATIONS: [Activation; 6] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Gelu,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::ClampedSwish,
];

fn hidden(gate: Option<&Layer>, up: &Layer, activation: Activation, expert: usize, x: &[f64]) -> Vec<f64> {
    let up = up.apply(expert, x);
    match gate {
        Some(gate) => gate.apply(expert, x).iter().zip(&up).map(|(g, u)| gated(activation, *g, *u)).collect(),
        None => up.iter().map(|u| activate(activation, *u)).collect(),
    }
}

fn check(device: &CpuDevice, dtype: DType, activation: Activation, gated: bool, n: usize) {
    let (width, n_ff) = (256, 512);
    let Some(up) = Layer::new(device, dtype, &[n_ff, width], true, 1) else { return };
    let gate = gated.then(|| Layer::new(device, dtype, &[n_ff, width], true, 3).unwrap());
    let down = Layer::new(device, dtype, &[width, n_ff], true, 5).unwrap();
    let (norm, after) =
        (TestNorm::new(device, NormKind::Rms, width, 7), TestNorm::new(device, NormKind::Rms, width, 8));
    // Norms between the matrices in half of the cases.
    let inner = gated.then(|| TestNorm::new(device, NormKind::Rms, n_ff, 10));
    let x = random(n * width, 9);
    let x_buffer = buffer(device, &x);
    let mut out = device.alloc(n * width).unwrap();
    let args = FeedForward {
        norm: Some(&norm.norm),
        sparsity: None,
        gate: gate.as_ref().map(|g| &g.projection),
        up: &up.projection,
        inner_norm: inner.as_ref().map(|n| &n.norm),
        down: &down.projection,
        activation,
        output_gate: None,
        epilogue: Epilogue { norm: Some(&after.norm), scale: 0.5, residual: Some(&x_buffer), ..Epilogue::PLAIN },
    };
    device.feed_forward(&x_buffer, n, &args, &mut out).unwrap();
    let h = hidden(gate.as_ref(), &up, activation, 0, &norm.apply(&wide(&x)));
    let h = inner.as_ref().map_or(h.clone(), |inner| inner.apply(&h));
    let y = after.apply(&down.apply(0, &h));
    let expected: Vec<f64> = y.iter().zip(&x).map(|(y, x)| 0.5 * y + f64::from(*x)).collect();
    let bound = 4.0 * bound(device.info().precision, dtype);
    close(&read(device, &out), &expected, bound, &format!("{} {dtype} {activation:?} {gated} {n}", name(device)));
}

#[test]
fn dense_blocks() {
    for device in devices(Precision::F32).iter().chain(&devices(Precision::Fast)) {
        for activation in ACTIVATIONS {
            for gated in [false, true] {
                check(device, DType::F32, activation, gated, 3);
            }
        }
        for dtype in [DType::F16, DType::Q4_0, DType::Q4_K, DType::Q6_K] {
            check(device, dtype, Activation::Silu, true, 1);
            check(device, dtype, Activation::Silu, true, 5);
        }
    }
}

/// A shared expert: what it adds is weighed by a gate of its own.
#[test]
fn gated_outputs() {
    let (width, n_ff, n) = (64, 96, 5);
    for device in devices(Precision::F32) {
        let layer = |n_out, n_in, seed| Layer::new(&device, DType::F32, &[n_out, n_in], false, seed).unwrap();
        let (gate, up, down) = (layer(n_ff, width, 1), layer(n_ff, width, 3), layer(width, n_ff, 5));
        let norm = TestNorm::new(&device, NormKind::Layer, width, 7);
        let open = random(width, 8);
        let open_vector = vector(&device, &open);
        let x = random(n * width, 9);
        let x_buffer = buffer(&device, &x);
        let mut out = device.alloc(n * width).unwrap();
        let args = FeedForward {
            norm: Some(&norm.norm),
            sparsity: None,
            gate: Some(&gate.projection),
            up: &up.projection,
            inner_norm: None,
            down: &down.projection,
            activation: Activation::Silu,
            output_gate: Some(&open_vector),
            epilogue: Epilogue { scale: 0.5, residual: Some(&x_buffer), ..Epilogue::PLAIN },
        };
        device.feed_forward(&x_buffer, n, &args, &mut out).unwrap();
        let mut expected = wide(&x);
        for (row, x) in norm.apply(&wide(&x)).chunks(width).enumerate() {
            let sum: f64 = x.iter().zip(&open).map(|(x, g)| x * f64::from(*g)).sum();
            let weight = 0.5 / (1.0 + (-sum).exp());
            let y = down.apply(0, &hidden(Some(&gate), &up, Activation::Silu, 0, x));
            expected[row * width..].iter_mut().zip(y).for_each(|(e, y)| *e += weight * y);
        }
        close(&read(&device, &out), &expected, 3e-6, &name(&device));
    }
}

/// Which experts and how much, in `f64`.
fn route(rule: &RouterRule, logits: &[f64], bias: Option<&[f32]>) -> Vec<(usize, f64)> {
    let softmax = |v: &[f64]| {
        let sum: f64 = v.iter().map(|v| v.exp()).sum();
        v.iter().map(|v| v.exp() / sum).collect::<Vec<_>>()
    };
    let scores = match (rule.sigmoid, rule.softmax_after_choice) {
        (true, _) => logits.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        (_, true) => logits.to_vec(),
        _ if rule.peers.is_some() => logits.to_vec(),
        _ => softmax(logits),
    };
    let rank = |i: usize| scores[i] + bias.map_or(0.0, |b| f64::from(b[i]));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    if let Some(groups) = rule.groups {
        let len = logits.len() / groups.n_groups;
        let value = |group: usize| {
            let mut ranks: Vec<f64> = (group * len..(group + 1) * len).map(rank).collect();
            ranks.sort_by(|a, b| b.total_cmp(a));
            ranks.iter().take(groups.n_best).sum::<f64>()
        };
        let mut best: Vec<usize> = (0..groups.n_groups).collect();
        best.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
        best.truncate(groups.n_used);
        order.retain(|i| best.contains(&(i / len)));
    }
    order.sort_by(|a, b| rank(*b).total_cmp(&rank(*a)).then(a.cmp(b)));
    order.truncate(rule.n_used);
    let mut weights: Vec<f64> = order.iter().map(|i| scores[*i]).collect();
    if rule.softmax_after_choice && !rule.sigmoid {
        weights = softmax(&weights);
    }
    if let Some(within) = rule.peers {
        let share = |n: usize| {
            let top = scores[order[n]];
            let near = |i: &usize| {
                !order[..n].contains(i) && (top - scores[*i]) / scores[*i].abs().max(top) <= f64::from(within)
            };
            1.0 / (0..scores.len()).filter(near).map(|i| (scores[i] - top).exp()).sum::<f64>()
        };
        weights = (0..order.len()).map(share).collect();
    }
    let sum: f64 = if rule.normalize { weights.iter().sum() } else { 1.0 };
    order.into_iter().zip(weights.iter().map(|w| w / sum * f64::from(rule.scale))).collect()
}

fn check_experts(device: &CpuDevice, dtype: DType, rule: RouterRule, with_bias: bool, gated: bool, n: usize) {
    let (n_expert, width, n_ff) = (if rule.groups.is_some() { 8 } else { 7 }, 256, 256);
    let router = Layer::new(device, DType::F32, &[n_expert, width], true, 1).unwrap();
    let stack = |n_out, n_in, seed| Layer::new(device, dtype, &[n_expert, n_out, n_in], true, seed);
    let Some(mut up) = stack(n_ff, width, 3) else { return };
    let observer = Arc::new(Observer::new(n_expert, width));
    up.projection.weight.observe(Arc::clone(&observer));
    let mut seen = Observed { sums: vec![0.0; n_expert * width], counts: vec![0; n_expert] };
    let gate = gated.then(|| stack(n_ff, width, 5).unwrap());
    let down = stack(width, n_ff, 7).unwrap();
    let norm = TestNorm::new(device, NormKind::Rms, width, 9);
    let bias = random(n_expert, 11);
    let choice_bias = with_bias.then(|| vector(device, &bias));
    let x = random(n * width, 12);
    let x_buffer = buffer(device, &x);
    let mut out = device.alloc(n * width).unwrap();
    let args = Experts {
        norm: Some(&norm.norm),
        router_norm: None,
        expert_scale: None,
        router: &router.projection,
        choice_bias: choice_bias.as_ref(),
        rule,
        gate: gate.as_ref().map(|g| &g.projection),
        up: &up.projection,
        down: &down.projection,
        activation: Activation::Silu,
        epilogue: Epilogue { residual: Some(&x_buffer), ..Epilogue::PLAIN },
    };
    device.experts(&x_buffer, n, &args, &mut out).unwrap();
    let mut expected = wide(&x);
    for (row, x) in norm.apply(&wide(&x)).chunks(width).enumerate() {
        for (expert, weight) in route(&rule, &router.apply(0, x), with_bias.then_some(&bias)) {
            let (before, weight) = if rule.weighs_input { (weight, 1.0) } else { (1.0, weight) };
            let x: Vec<f64> = x.iter().map(|x| before * x).collect();
            let y = down.apply(expert, &hidden(gate.as_ref(), &up, Activation::Silu, expert, &x));
            expected[row * width..].iter_mut().zip(y).for_each(|(e, y)| *e += weight * y);
            seen.sums[expert * width..].iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
            seen.counts[expert] += 1;
        }
    }
    let bound = 4.0 * bound(device.info().precision, dtype);
    let what = format!("{} {dtype} {rule:?} {n}", name(device));
    close(&read(device, &out), &expected, bound, &what);
    let observed = observer.observed();
    assert_eq!(observed.counts, seen.counts, "{what}");
    let sums: Vec<f32> = observed.sums.iter().map(|sum| *sum as f32).collect();
    close(&sums, &seen.sums, 1e-5, &what);
}

#[test]
fn mixtures_of_experts() {
    let groups = RouterGroups { n_groups: 4, n_used: 2, n_best: 2 };
    let rules = [
        ROUTER_RULE,
        RouterRule { n_used: 7, normalize: false, scale: 2.5, ..ROUTER_RULE },
        RouterRule { n_used: 1, sigmoid: true, ..ROUTER_RULE },
        RouterRule { n_used: 3, softmax_after_choice: true, normalize: false, ..ROUTER_RULE },
        RouterRule { n_used: 3, sigmoid: true, groups: Some(groups), ..ROUTER_RULE },
        RouterRule { n_used: 4, groups: Some(RouterGroups { n_best: 1, ..groups }), ..ROUTER_RULE },
        RouterRule { normalize: false, peers: Some(0.3), ..ROUTER_RULE },
        RouterRule { n_used: 1, sigmoid: true, normalize: false, weighs_input: true, ..ROUTER_RULE },
    ];
    for device in devices(Precision::F32).iter().chain(&devices(Precision::Fast)) {
        for rule in rules {
            for n in [1, 4, 30] {
                check_experts(device, DType::F32, rule, rule.sigmoid, n % 2 == 0, n);
            }
            [DType::Q4_0, DType::IQ2_XS].iter().for_each(|dtype| check_experts(device, *dtype, rule, false, true, 9));
        }
    }
}
