//! Operations with states: several passes, sequences side by side, states saved in the middle and begun from, against the
//! recurrences written out in `f64` over the whole past.

use crate::reference::*;
use compute::{
    Activation, DeltaRule, Device, KvCache, KvLayer, KvSpec, KvType, NormKind, Precision, Rows, SequenceRows,
    ShortConv, StateRows, StateSpec, cpu::CpuDevice,
};
use tensor::DType;

const WIDTH: usize = 64;
const N_SLOTS: usize = 8;

/// One sequence's share of a pass: how many rows, and its states.
struct Part {
    sequence: usize,
    n_rows: usize,
    states: StateRows,
}

fn part(sequence: usize, n_rows: usize, from: Option<u32>, to: u32, saves: &[(usize, u32)]) -> Part {
    Part { sequence, n_rows, states: StateRows { from, to, saves: saves.to_vec() } }
}

/// Passes in which a sequence goes on in its slot or another, beside others, and branches leave what was saved.
fn passes() -> Vec<Vec<Part>> {
    vec![
        vec![part(0, 5, None, 0, &[]), part(1, 1, None, 1, &[])],
        vec![part(1, 2, Some(1), 1, &[]), part(0, 7, Some(0), 2, &[(1, 3), (6, 4)])],
        vec![part(0, 1, Some(2), 0, &[])],
        vec![part(0, 1, Some(0), 0, &[]), part(1, 12, Some(1), 5, &[(12, 6)])],
    ]
}

/// What a sequence's tokens look like: branches repeat the past of the one that they leave.
struct Past {
    rows: Vec<Vec<f32>>,
}

fn cache(device: &CpuDevice, state_len: usize) -> KvCache {
    let none = KvLayer { n_kv_heads: 0, k_dim: 8, v_dim: 8 };
    let states = StateSpec { layers: vec![0, state_len], n_slots: N_SLOTS };
    device.kv_cache(&KvSpec { layers: vec![none; 2], n_blocks: 4, dtype: KvType::F16, states }).unwrap()
}

/// An operation on rows of `x`.
type Run<'a> = &'a mut dyn FnMut(&[f32], &Rows) -> compute::Result<Vec<f32>>;

/// An operation on rows of `x` with a cache.
type RunWith<'a> = &'a mut dyn FnMut(&mut KvCache, &[f32], &Rows) -> compute::Result<Vec<f32>>;

/// Runs one pass; `run` is the operation. Gives the result of each row with its sequence and position.
fn pass(pasts: &mut Vec<Past>, parts: &[Part], seed: u64, run: Run<'_>) -> Vec<(usize, usize, Vec<f32>)> {
    let mut rows = Rows::default();
    let (mut x, mut places) = (Vec::new(), Vec::new());
    for (i, part) in parts.iter().enumerate() {
        while pasts.len() <= part.sequence {
            pasts.push(Past { rows: Vec::new() });
        }
        let past = &mut pasts[part.sequence].rows;
        let (start, first) = (rows.len(), past.len());
        for n in 0..part.n_rows {
            let row = random(WIDTH, seed + (i * 100 + n) as u64);
            x.extend_from_slice(&row);
            past.push(row);
            rows.positions.push((first + n) as u32);
            places.push((part.sequence, first + n));
        }
        let range = start..start + part.n_rows;
        rows.sequences.push(SequenceRows { rows: range, blocks: vec![0], states: Some(part.states.clone()) });
    }
    let out = run(&x, &rows).unwrap();
    let width = out.len() / places.len();
    places.into_iter().zip(out.chunks(width)).map(|((s, p), row)| (s, p, row.to_vec())).collect()
}

/// All passes, then two branches that begin with what was saved.
fn check(device: &CpuDevice, state_len: usize, run: RunWith<'_>, expected: &dyn Fn(&[Vec<f32>]) -> Vec<f64>) {
    let mut cache = cache(device, state_len);
    let mut pasts: Vec<Past> = Vec::new();
    let compare = |pasts: &[Past], results: Vec<(usize, usize, Vec<f32>)>, what: &str| {
        for (sequence, position, got) in results {
            let right = expected(&pasts[sequence].rows[..=position]);
            close(&got, &right, 2e-5, &format!("{} {what} sequence {sequence} position {position}", name(device)));
        }
    };
    for (i, parts) in passes().iter().enumerate() {
        let results = pass(&mut pasts, parts, 1000 * i as u64, &mut |x, rows| run(&mut cache, x, rows));
        compare(&pasts, results, &format!("pass {i}"));
    }
    // Sequence 0 after 6 and after 11 positions, twice beside each other; sequence 1 after all of its 15.
    for (i, (of, n, slot)) in [(0, 6, 3), (0, 11, 4), (1, 15, 6)].into_iter().enumerate() {
        let rows = pasts[of].rows[..n].to_vec();
        let first = pasts.len();
        pasts.extend([Past { rows: rows.clone() }, Past { rows }]);
        let parts = [part(first, 3, Some(slot), 2, &[]), part(first + 1, 4, Some(slot), 7, &[])];
        let results = pass(&mut pasts, &parts, 9000 + i as u64 * 500, &mut |x, rows| run(&mut cache, x, rows));
        compare(&pasts, results, "branch");
    }
}

/// `Σ taps · past`, the last of `past` with the last tap.
fn convolved(taps: &[f32], width: usize, past: &[Vec<f64>], channel: usize) -> f64 {
    let n_taps = taps.len() / width;
    let tap = |i: usize| f64::from(taps[(n_taps - 1 - i) * width + channel]);
    past.iter().rev().take(n_taps).enumerate().map(|(i, row)| tap(i) * row[channel]).sum()
}

#[test]
fn short_convolutions() {
    for device in devices(Precision::F32) {
        for (width, n_taps, with_bias) in [(WIDTH, 3, false), (200, 2, true), (7, 5, true)] {
            let norm = TestNorm::new(&device, NormKind::Rms, WIDTH, 3);
            let input = Layer::new(&device, DType::F32, &[3 * width, WIDTH], with_bias, 5).unwrap();
            let (taps, bias) = (random(n_taps * width, 7), random(width, 8));
            let (taps_on, bias_on) = (vector_of(&device, &taps, &[n_taps, width]), vector(&device, &bias));
            let args = ShortConv {
                norm: Some(&norm.norm),
                input: &input.projection,
                taps: &taps_on,
                bias: with_bias.then_some(&bias_on),
            };
            let mut run = |cache: &mut KvCache, x: &[f32], rows: &Rows| {
                let mut out = device.alloc(rows.len() * width).unwrap();
                device.short_conv(&buffer(&device, x), rows, &args, cache, 1, &mut out)?;
                Ok(read(&device, &out))
            };
            let expected = |past: &[Vec<f32>]| -> Vec<f64> {
                let parts: Vec<Vec<f64>> = past.iter().map(|x| input.apply(0, &norm.apply(&wide(x)))).collect();
                let seen: Vec<Vec<f64>> =
                    parts.iter().map(|p| (0..width).map(|c| p[c] * p[2 * width + c]).collect()).collect();
                let gate = &parts[parts.len() - 1][width..];
                let shift = |c: usize| if with_bias { f64::from(bias[c]) } else { 0.0 };
                (0..width).map(|c| gate[c] * (convolved(&taps, width, &seen, c) + shift(c))).collect()
            };
            check(&device, (n_taps - 1) * width, &mut run, &expected);
        }
    }
}

#[test]
fn delta_rules() {
    for device in devices(Precision::F32) {
        for (n_k, n_v, in_turns, k_dim, v_dim, n_taps) in
            [(2, 4, false, 8, 16, 4), (2, 6, true, 8, 16, 3), (1, 3, false, 16, 32, 2), (3, 3, false, 6, 10, 3)]
        {
            let (k_width, v_width) = (n_k * k_dim, n_v * v_dim);
            let width = 2 * k_width + v_width;
            let norm = TestNorm::new(&device, NormKind::Rms, WIDTH, 3);
            let head_norm = TestNorm::new(&device, NormKind::Rms, v_dim, 4);
            let layer = |n_out: usize, seed| Layer::new(&device, DType::F32, &[n_out, WIDTH], false, seed).unwrap();
            let (qkv, z, b, a) = (layer(width, 5), layer(v_width, 6), layer(n_v, 7), layer(n_v, 8));
            let (taps, shift) = (random(n_taps * width, 9), random(n_v, 10));
            let decay: Vec<f32> = random(n_v, 11).iter().map(|v| -0.05 - v.abs()).collect();
            let vectors =
                [vector_of(&device, &taps, &[n_taps, width]), vector(&device, &decay), vector(&device, &shift)];
            let args = DeltaRule {
                norm: Some(&norm.norm),
                qkv: &qkv.projection,
                z: &z.projection,
                b: &b.projection,
                a: &a.projection,
                taps: &vectors[0],
                decay: &vectors[1],
                shift: &vectors[2],
                head_norm: &head_norm.norm,
                n_k_heads: n_k,
                n_v_heads: n_v,
                in_turns,
                k_dim,
                v_dim,
            };
            let mut run = |cache: &mut KvCache, x: &[f32], rows: &Rows| {
                let mut out = device.alloc(rows.len() * v_width).unwrap();
                device.delta_rule(&buffer(&device, x), rows, &args, cache, 1, &mut out)?;
                Ok(read(&device, &out))
            };
            let expected = |past: &[Vec<f32>]| -> Vec<f64> {
                let inputs: Vec<Vec<f64>> = past.iter().map(|x| norm.apply(&wide(x))).collect();
                let mixed: Vec<Vec<f64>> = inputs.iter().map(|x| qkv.apply(0, x)).collect();
                let mut result = Vec::new();
                for head in 0..n_v {
                    let mut state = vec![vec![0.0; v_dim]; k_dim];
                    let k_head = if in_turns { head % n_k } else { head / (n_v / n_k) };
                    for (t, x) in inputs.iter().enumerate() {
                        let at =
                            |channel: usize| activate(Activation::Silu, convolved(&taps, width, &mixed[..=t], channel));
                        let unit = |first: usize| -> Vec<f64> {
                            let v: Vec<f64> = (first..first + k_dim).map(at).collect();
                            let length = v.iter().fold(1e-6, |sum, v| sum + v * v).sqrt();
                            v.iter().map(|v| v / length).collect()
                        };
                        let (q, k) = (unit(k_head * k_dim), unit(k_width + k_head * k_dim));
                        let v: Vec<f64> = (0..v_dim).map(|i| at(2 * k_width + head * v_dim + i)).collect();
                        let rate = 1.0 / (1.0 + (-b.apply(0, x)[head]).exp());
                        let g = f64::from(decay[head]) * (a.apply(0, x)[head] + f64::from(shift[head])).exp().ln_1p();
                        state.iter_mut().flatten().for_each(|s| *s *= g.exp());
                        for i in 0..v_dim {
                            let found: f64 = (0..k_dim).map(|j| state[j][i] * k[j]).sum();
                            (0..k_dim).for_each(|j| state[j][i] += k[j] * rate * (v[i] - found));
                        }
                        if t + 1 == inputs.len() {
                            let scale = (k_dim as f64).sqrt();
                            let out: Vec<f64> = (0..v_dim)
                                .map(|i| (0..k_dim).map(|j| state[j][i] * q[j]).sum::<f64>() / scale)
                                .collect();
                            let gates = z.apply(0, x);
                            let gate = |i: usize| activate(Activation::Silu, gates[head * v_dim + i]);
                            result.extend(head_norm.apply(&out).iter().enumerate().map(|(i, o)| o * gate(i)));
                        }
                    }
                }
                result
            };
            check(&device, (n_taps - 1) * width + n_v * k_dim * v_dim, &mut run, &expected);
        }
    }
}

#[test]
fn gates_on_results() {
    for device in devices(Precision::F32) {
        let norm = TestNorm::new(&device, NormKind::Rms, WIDTH, 3);
        let gate = Layer::new(&device, DType::F32, &[48, WIDTH], true, 5).unwrap();
        let (x, values) = (random(3 * WIDTH, 1), random(3 * 48, 2));
        let mut out = device.alloc(3 * 48).unwrap();
        let (x_on, values_on) = (buffer(&device, &x), buffer(&device, &values));
        device.output_gate(&x_on, 3, Some(&norm.norm), &gate.projection, &values_on, &mut out).unwrap();
        let open = gate.apply(0, &norm.apply(&wide(&x)));
        let expected: Vec<f64> = open.iter().zip(&values).map(|(g, v)| f64::from(*v) / (1.0 + (-g).exp())).collect();
        close(&read(&device, &out), &expected, 1e-5, &name(&device));
    }
}

#[test]
fn slots_that_make_no_sense_are_errors() {
    let device = &devices(Precision::F32)[0];
    let input = Layer::new(device, DType::F32, &[3 * 8, WIDTH], false, 5).unwrap();
    let taps = vector_of(device, &random(24, 7), &[3, 8]);
    let args = ShortConv { norm: None, input: &input.projection, taps: &taps, bias: None };
    let mut cache = cache(device, 16);
    let x = buffer(device, &random(4 * WIDTH, 1));
    let mut out = device.alloc(4 * 8).unwrap();
    #[allow(clippy::type_complexity, reason = "rows of a table")]
    let mut check = |parts: &[(u32, usize, Option<(Option<u32>, u32, &[(usize, u32)])>)], layer, expected: &str| {
        let mut rows = Rows::default();
        for &(first, n, states) in parts {
            let start = rows.len();
            rows.positions.extend(first..first + n as u32);
            let states = states.map(|(from, to, saves)| StateRows { from, to, saves: saves.to_vec() });
            rows.sequences.push(SequenceRows { rows: start..start + n, blocks: vec![0], states });
        }
        match device.short_conv(&x, &rows, &args, &mut cache, layer, &mut out) {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
        }
    };
    check(&[(0, 2, Some((None, 0, &[(1, 1)]))), (0, 2, Some((None, 2, &[])))], 1, "");
    check(&[(0, 2, Some((None, 0, &[])))], 0, "0 elements, not 16");
    check(&[(0, 2, None)], 1, "without states");
    check(&[(0, 2, Some((Some(1), 0, &[])))], 1, "those that go on");
    check(&[(3, 2, Some((None, 0, &[])))], 1, "those that go on");
    check(&[(0, 2, Some((None, 8, &[])))], 1, "slot 8 does not exist");
    check(&[(0, 2, Some((None, 0, &[(1, 9)])))], 1, "slot 9 does not exist");
    check(&[(0, 2, Some((None, 0, &[(3, 1)])))], 1, "after no row");
    check(&[(1, 2, Some((Some(1), 0, &[(1, 1)])))], 1, "over those that it begins with");
    check(&[(0, 2, Some((None, 0, &[(1, 0)])))], 1, "two sequences use");
    check(&[(0, 2, Some((None, 0, &[]))), (0, 2, Some((None, 0, &[])))], 1, "two sequences use");
    check(&[(0, 2, Some((None, 0, &[]))), (1, 2, Some((Some(0), 1, &[])))], 1, "two sequences use");
    check(&[(0, 2, Some((None, 0, &[]))), (1, 2, Some((Some(2), 1, &[])))], 1, "");
}
