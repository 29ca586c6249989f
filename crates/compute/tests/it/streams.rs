//! Several residual streams, the inputs of layers, and what goes with them: sparse activations, values that are keys, layers
//! without keys of their own, routers that read otherwise than experts.

use crate::reference::*;
use compute::{
    Activation, Attend, Device, Epilogue, Experts, FeedForward, KvLayer, KvSpec, KvType, LayerInput, NormKind,
    Precision, Qkv, Rows, SequenceRows, StateSpec, StreamFactors, Streams,
};
use tensor::DType;

const BOUND: f64 = 5e-6;

fn mean_square(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>() / v.len() as f64
}

#[test]
fn steps_of_streams() {
    let (n, n_rows, width) = (3, 5, 64);
    for device in devices(Precision::F32) {
        let layer = |dims: &[usize], seed| Layer::new(&device, DType::F32, dims, false, seed).unwrap();
        let stack = layer(&[n - 1, width, width], 1);
        let norm = TestNorm::new(&device, NormKind::Rms, width, 2);
        let (router, predict, correct) = (layer(&[n, width], 3), layer(&[n * n, n], 4), layer(&[n, n], 5));
        let (x, y) = (random(n * n_rows * width, 6), random(n_rows * width, 7));
        let (x_buffer, y_buffer) = (buffer(&device, &x), buffer(&device, &y));
        let (x, y) = (wide(&x), wide(&y));
        let run = |step: Streams<'_>, n_out: usize, expected: &dyn Fn(usize, usize) -> Vec<f64>| {
            let mut out = device.alloc(n_out * n_rows * width).unwrap();
            device.streams(&x_buffer, n_rows, width, &step, &mut out).unwrap();
            let places = (0..n_out).flat_map(|i| (0..n_rows).map(move |row| (i, row)));
            let expected: Vec<f64> = places.flat_map(|(i, row)| expected(i, row)).collect();
            close(&read(&device, &out), &expected, BOUND, &name(&device));
        };
        let at = |i: usize, row: usize| &x[(i * n_rows + row) * width..][..width];
        let y_at = |row: usize| &y[row * width..][..width];
        let alike = |of: &[f64], v: Vec<f64>| -> Vec<f64> {
            let factor = mean_square(of).sqrt() / mean_square(&v).max(1e-5).sqrt();
            v.into_iter().map(|v| v * factor).collect()
        };
        let factors = |x: &[f64], coefficients: &Layer| {
            let routed = router.apply(0, &norm.apply(x));
            let routed: Vec<f64> = routed.iter().map(|v| (v / width as f64).tanh()).collect();
            coefficients.apply(0, &routed)
        };
        let of = |coefficients| StreamFactors { norm: &norm.norm, router: &router.projection, coefficients };
        run(Streams::Part(&stack.projection), n, &|i, row| match i {
            0 => at(0, row).to_vec(),
            i => alike(at(0, row), stack.apply(i - 1, at(0, row))),
        });
        run(Streams::Join(&stack.projection), 1, &|_, row| {
            let mut sum = at(0, row).to_vec();
            for i in 1..n {
                let other = alike(at(0, row), stack.apply(i - 1, at(i, row)));
                sum.iter_mut().zip(other).for_each(|(s, v)| *s += v);
            }
            sum.into_iter().map(|v| v / n as f64).collect()
        });
        run(Streams::Predict(of(&predict.projection)), n, &|i, row| {
            let factors = factors(at(0, row), &predict);
            let sum = |k: usize| at(i, row)[k] + (0..n).map(|j| factors[i * n + j] * at(j, row)[k]).sum::<f64>();
            (0..width).map(sum).collect()
        });
        run(Streams::Correct(of(&correct.projection), &y_buffer), n, &|i, row| {
            let factor = 1.0 + factors(y_at(row), &correct)[i];
            (0..width).map(|k| at(i, row)[k] + factor * (y_at(row)[k] - at(0, row)[k])).collect()
        });
        run(Streams::Add(n, &y_buffer), n, &|i, row| {
            let share = if i == 0 { 0.0 } else { 1.0 };
            at(i, row).iter().zip(y_at(row)).map(|(x, y)| x + share * y).collect()
        });
        let mut small = device.alloc(n * n_rows * width - 1).unwrap();
        assert!(device.streams(&x_buffer, n_rows, width, &Streams::Add(n, &y_buffer), &mut small).is_err());
    }
}

#[test]
fn inputs_of_layers() {
    let (n_rows, width, dim, stride, first) = (4, 64, 24, 80, 40);
    for device in devices(Precision::F32) {
        let layer = |dims: &[usize], seed| Layer::new(&device, DType::F32, dims, false, seed).unwrap();
        let (gate, output) = (layer(&[dim, width], 1), layer(&[width, dim], 2));
        let norm = TestNorm::new(&device, NormKind::Rms, width, 3);
        let (scale, x, inputs) = (random(width, 4), random(n_rows * width, 5), random(n_rows * stride, 6));
        let (scale_vector, x_buffer, inputs_buffer) =
            (vector(&device, &scale), buffer(&device, &x), buffer(&device, &inputs));
        let mut out = device.alloc(n_rows * width).unwrap();
        let epilogue = Epilogue { norm: Some(&norm.norm), residual: Some(&x_buffer), gain: 0.5, ..Epilogue::PLAIN };
        let activation = Activation::GeluTanh;
        let args = LayerInput {
            scale: Some(&scale_vector),
            gate: &gate.projection,
            activation,
            inputs: &inputs_buffer,
            stride,
            first,
            output: &output.projection,
            epilogue,
        };
        device.layer_input(&x_buffer, n_rows, &args, &mut out).unwrap();
        let mut expected = Vec::new();
        for (row, x) in x.chunks(width).enumerate() {
            let scaled: Vec<f64> = x.iter().zip(&scale).map(|(x, s)| f64::from(*x) * f64::from(*s)).collect();
            let own = inputs[row * stride + first..].iter().map(|v| f64::from(*v));
            let hidden = gate.apply(0, &scaled).into_iter().zip(own);
            let hidden: Vec<f64> = hidden.map(|(g, v)| gated(activation, g, v)).collect();
            let y = norm.apply(&output.apply(0, &hidden));
            expected.extend(y.iter().zip(x).map(|(y, x)| 0.5 * (y + f64::from(*x))));
        }
        close(&read(&device, &out), &expected, BOUND, &name(&device));
        let beyond = LayerInput { first: stride - dim + 1, ..args };
        assert!(device.layer_input(&x_buffer, n_rows, &beyond, &mut out).is_err());
    }
}

#[test]
fn sparse_activations() {
    let (n, width, n_ff, deviations) = (3, 64, 96, 0.7);
    for device in devices(Precision::F32) {
        let layer = |n_out, n_in, seed| Layer::new(&device, DType::F32, &[n_out, n_in], false, seed).unwrap();
        let (gate, up, down) = (layer(n_ff, width, 1), layer(n_ff, width, 2), layer(width, n_ff, 3));
        let x = random(n * width, 4);
        let mut out = device.alloc(n * width).unwrap();
        let args = FeedForward {
            norm: None,
            gate: Some(&gate.projection),
            up: &up.projection,
            sparsity: Some(deviations),
            inner_norm: None,
            down: &down.projection,
            activation: Activation::GeluTanh,
            output_gate: None,
            epilogue: Epilogue::PLAIN,
        };
        device.feed_forward(&buffer(&device, &x), n, &args, &mut out).unwrap();
        let mut expected = Vec::new();
        for x in wide(&x).chunks(width) {
            let opened = gate.apply(0, x);
            let mean = opened.iter().sum::<f64>() / n_ff as f64;
            let deviation = (opened.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n_ff as f64).sqrt();
            let least = mean + f64::from(deviations) * deviation;
            let hidden = opened.iter().zip(up.apply(0, x));
            let hidden: Vec<f64> = hidden.map(|(g, u)| gated(Activation::GeluTanh, (g - least).max(0.0), u)).collect();
            expected.extend(down.apply(0, &hidden));
        }
        close(&read(&device, &out), &expected, BOUND, &name(&device));
    }
}

#[test]
fn routers_that_read_otherwise() {
    let (n, n_expert, width, n_ff) = (6, 4, 64, 32);
    for device in devices(Precision::F32) {
        let layer = |dims: &[usize], seed| Layer::new(&device, DType::F32, dims, false, seed).unwrap();
        let router = layer(&[n_expert, width], 1);
        let (gate, up) = (layer(&[n_expert, n_ff, width], 2), layer(&[n_expert, n_ff, width], 3));
        let down = layer(&[n_expert, width, n_ff], 4);
        let norm = |seed| TestNorm::new(&device, NormKind::Rms, width, seed);
        let (read_by_experts, read_by_router) = (norm(5), norm(6));
        let (scale, x) = (random(n_expert, 7), random(n * width, 8));
        let scale_vector = vector(&device, &scale);
        let rule = ROUTER_RULE;
        let mut out = device.alloc(n * width).unwrap();
        let args = Experts {
            norm: Some(&read_by_experts.norm),
            router_norm: Some(&read_by_router.norm),
            router: &router.projection,
            choice_bias: None,
            rule,
            gate: Some(&gate.projection),
            up: &up.projection,
            down: &down.projection,
            expert_scale: Some(&scale_vector),
            activation: Activation::Silu,
            epilogue: Epilogue::PLAIN,
        };
        device.experts(&buffer(&device, &x), n, &args, &mut out).unwrap();
        let mut expected = Vec::new();
        for x in wide(&x).chunks(width) {
            let scores: Vec<f64> = router.apply(0, &read_by_router.apply(x)).iter().map(|v| v.exp()).collect();
            let mut order: Vec<usize> = (0..n_expert).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.truncate(2);
            let sum: f64 = order.iter().map(|i| scores[*i]).sum();
            let x = read_by_experts.apply(x);
            let mut y = vec![0.0; width];
            for expert in order {
                let hidden = gate.apply(expert, &x).into_iter().zip(up.apply(expert, &x));
                let hidden: Vec<f64> = hidden.map(|(g, u)| gated(Activation::Silu, g, u)).collect();
                let weight = scores[expert] / sum * f64::from(scale[expert]);
                y.iter_mut().zip(down.apply(expert, &hidden)).for_each(|(y, v)| *y += weight * v);
            }
            expected.extend(y);
        }
        close(&read(&device, &out), &expected, BOUND, &name(&device));
    }
}

/// Layer 0 keeps keys, and as values the same before their norm; layer 1 keeps nothing and reads what layer 0 has.
#[test]
fn values_that_are_keys_and_layers_without() {
    let (n, width, n_heads, head_dim) = (6, 64, 4, 16);
    for device in devices(Precision::F32) {
        let layer = |n_out, seed| Layer::new(&device, DType::F32, &[n_out, width], false, seed).unwrap();
        let (q, k) = (layer(n_heads * head_dim, 1), layer(head_dim, 2));
        let (k_norm, v_norm) =
            (TestNorm::new(&device, NormKind::Rms, head_dim, 3), TestNorm::new(&device, NormKind::Rms, head_dim, 4));
        let shape = |n_kv_heads| KvLayer { n_kv_heads, k_dim: head_dim, v_dim: head_dim };
        let layers = vec![shape(1), shape(0)];
        let spec = KvSpec { layers, n_blocks: 1, dtype: KvType::F32, states: StateSpec::default() };
        let mut cache = device.kv_cache(&spec).unwrap();
        let rows = Rows {
            positions: (0..n as u32).collect(),
            sequences: vec![SequenceRows { rows: 0..n, blocks: vec![0], states: None }],
        };
        let own = Qkv {
            norm: None,
            q: &q.projection,
            k: Some(&k.projection),
            v: None,
            q_norm: None,
            k_norm: Some(&k_norm.norm),
            v_norm: Some(&v_norm.norm),
            norm_after_rope: false,
            rope: None,
            n_heads,
            n_kv_heads: 1,
            head_dim,
            v_head_dim: head_dim,
            clamp: None,
            growth: None,
        };
        let attend = Attend {
            n_heads,
            n_kv_heads: 1,
            head_dim,
            v_head_dim: head_dim,
            scale: 1.0,
            softcap: None,
            window: None,
            chunked: false,
            sinks: None,
            slopes: None,
        };
        let x = random(n * width, 5);
        let x_buffer = buffer(&device, &x);
        let mut queries = device.alloc(n * n_heads * head_dim).unwrap();
        let mut out = device.alloc(n * n_heads * head_dim).unwrap();
        device.qkv(&x_buffer, &rows, &own, &mut cache, 0, &mut queries).unwrap();
        let expected = |q: &Layer| {
            let x = wide(&x);
            let keys: Vec<f64> = k_norm.apply(&k.apply(0, &x));
            let values: Vec<f64> = v_norm.apply(&k.apply(0, &x));
            let mut all = Vec::new();
            for (row, queries) in q.apply(0, &x).chunks(n_heads * head_dim).enumerate() {
                for query in queries.chunks(head_dim) {
                    let score =
                        |p: usize| query.iter().zip(&keys[p * head_dim..]).map(|(q, k)| q * k).sum::<f64>().exp();
                    let weights: Vec<f64> = (0..=row).map(score).collect();
                    let sum: f64 = weights.iter().sum();
                    let mix =
                        |i: usize| weights.iter().enumerate().map(|(p, w)| w * values[p * head_dim + i]).sum::<f64>();
                    all.extend((0..head_dim).map(|i| mix(i) / sum));
                }
            }
            all
        };
        device.attend(&queries, &rows, &attend, &cache, 0, &mut out).unwrap();
        close(&read(&device, &out), &expected(&q), BOUND, &name(&device));
        let other = layer(n_heads * head_dim, 6);
        let without = Qkv { q: &other.projection, k: None, k_norm: None, v_norm: None, ..own };
        device.qkv(&x_buffer, &rows, &without, &mut cache, 1, &mut queries).unwrap();
        device.attend(&queries, &rows, &attend, &cache, 0, &mut out).unwrap();
        close(&read(&device, &out), &expected(&other), BOUND, &name(&device));
    }
}
