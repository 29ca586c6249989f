//! Projections, RoPE, the paged cache and attention, over several passes and sequences.

use crate::reference::*;
use compute::{
    Attend, Device, KV_BLOCK, KvLayer, KvSpec, KvType, NormKind, Precision, Qkv, QueryGrowth, Rope, RopePairing, Rows,
    SequenceRows, StateSpec, cpu::CpuDevice,
};
use tensor::DType;

/// One way that a model attends.
#[derive(Clone, Copy)]
struct Case {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    v_head_dim: usize,
    kv: KvType,
    window: Option<usize>,
    softcap: Option<f32>,
    sinks: bool,
    pairing: RopePairing,
    n_dims: usize,
    norm_over_all: bool,
    /// The norms come after RoPE.
    norm_after_rope: bool,
    clamp: Option<f32>,
    slopes: bool,
    /// Windows lie side by side.
    chunked: bool,
    growth: Option<QueryGrowth>,
}

const PLAIN: Case = Case {
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 32,
    v_head_dim: 32,
    kv: KvType::F32,
    window: None,
    softcap: None,
    sinks: false,
    pairing: RopePairing::Halves,
    n_dims: 32,
    norm_over_all: false,
    norm_after_rope: false,
    clamp: None,
    slopes: false,
    chunked: false,
    growth: None,
};

const WIDTH: usize = 48;

/// Everything a sequence has seen, in `f64`.
#[derive(Default)]
struct History {
    k: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
}

/// Feeds `passes` (rows of each sequence in each pass) through `qkv` and `attend` and compares with plain attention.
fn run(device: &CpuDevice, case: &Case, passes: &[&[usize]]) -> Vec<f32> {
    let Case { n_heads, n_kv_heads, head_dim, v_head_dim, .. } = *case;
    let layer = |n_out, seed| Layer::new(device, DType::F32, &[n_out, WIDTH], true, seed).unwrap();
    let (q, k, v) = (layer(n_heads * head_dim, 1), layer(n_kv_heads * head_dim, 3), layer(n_kv_heads * v_head_dim, 5));
    let norm = TestNorm::new(device, NormKind::Rms, WIDTH, 7);
    let norm_width = |heads: usize| if case.norm_over_all { heads * head_dim } else { head_dim };
    let q_norm = TestNorm::new(device, NormKind::Rms, norm_width(n_heads), 8);
    let k_norm = TestNorm::new(device, NormKind::Rms, norm_width(n_kv_heads), 9);
    let frequencies: Vec<f32> = (0..case.n_dims / 2).map(|i| 0.7f32.powi(i as i32)).collect();
    let rope =
        Rope { pairing: case.pairing, n_dims: case.n_dims, frequencies: vector(device, &frequencies), magnitude: 1.25 };
    let sink_values = random(n_heads, 11);
    let sinks = case.sinks.then(|| vector(device, &sink_values));
    let slope_values: Vec<f32> = (0..n_heads).map(|h| 0.01 * (h + 1) as f32).collect();
    let slopes = case.slopes.then(|| vector(device, &slope_values));
    let qkv = Qkv {
        norm: Some(&norm.norm),
        q: &q.projection,
        k: Some(&k.projection),
        v: Some(&v.projection),
        v_norm: None,
        q_norm: Some(&q_norm.norm),
        k_norm: Some(&k_norm.norm),
        rope: Some(&rope),
        n_heads,
        n_kv_heads,
        head_dim,
        v_head_dim,
        clamp: case.clamp,
        norm_after_rope: case.norm_after_rope,
        growth: case.growth,
    };
    let attend = Attend {
        n_heads,
        n_kv_heads,
        head_dim,
        v_head_dim,
        scale: 0.3,
        softcap: case.softcap,
        window: case.window,
        chunked: case.chunked,
        sinks: sinks.as_ref(),
        slopes: slopes.as_ref(),
    };

    let n_sequences = passes[0].len();
    let longest: usize = passes.iter().map(|p| p.iter().max().unwrap()).sum();
    let per_sequence = longest / KV_BLOCK + 1;
    let shape = KvLayer { n_kv_heads, k_dim: head_dim, v_dim: v_head_dim };
    let spec = KvSpec {
        layers: vec![shape; 2],
        n_blocks: n_sequences * per_sequence,
        dtype: case.kv,
        states: StateSpec::default(),
    };
    let mut cache = device.kv_cache(&spec).unwrap();
    // Blocks out of order and interleaved between the sequences.
    let blocks = |s: usize| (0..per_sequence).rev().map(|b| (b * n_sequences + s) as u32).collect::<Vec<_>>();

    let mut histories: Vec<History> = (0..n_sequences).map(|_| History::default()).collect();
    let mut all = Vec::new();
    for (pass, lengths) in passes.iter().enumerate() {
        let mut rows = Rows::default();
        for (s, length) in lengths.iter().enumerate() {
            let (start, first) = (rows.len(), histories[s].k.len() as u32);
            rows.positions.extend(first..first + *length as u32);
            histories[s].k.resize(first as usize + length, Vec::new());
            rows.sequences.push(SequenceRows { rows: start..start + length, blocks: blocks(s), states: None });
        }
        let n = rows.len();
        let x = random(n * WIDTH, 100 + pass as u64);
        let mut q_out = device.alloc(n * n_heads * head_dim).unwrap();
        let mut out = device.alloc(n * n_heads * v_head_dim).unwrap();
        device.qkv(&buffer(device, &x), &rows, &qkv, &mut cache, 1, &mut q_out).unwrap();
        device.attend(&q_out, &rows, &attend, &cache, 1, &mut out).unwrap();

        let limit = |mut v: Vec<f64>| {
            if let Some(c) = case.clamp {
                v.iter_mut().for_each(|v| *v = v.clamp(-f64::from(c), f64::from(c)));
            }
            v
        };
        let x = norm.apply(&wide(&x));
        let mut expected = Vec::new();
        for (s, sequence) in rows.sequences.iter().enumerate() {
            let mut queries = Vec::new();
            for row in sequence.rows.clone() {
                let (x, position) = (&x[row * WIDTH..(row + 1) * WIDTH], rows.positions[row]);
                let rotated = |mut v: Vec<f64>| {
                    rotate(&mut v, head_dim, &rope, &frequencies, position);
                    v
                };
                let placed = |norm: &TestNorm, v: Vec<f64>| match case.norm_after_rope {
                    true => norm.apply(&rotated(v)),
                    false => rotated(norm.apply(&v)),
                };
                let mut query = placed(&q_norm, limit(q.apply(0, x)));
                if let Some(QueryGrowth { span, weight }) = case.growth {
                    let factor =
                        1.0 + f64::from(weight) * ((f64::from(position) + 1.0) / f64::from(span)).floor().ln_1p();
                    query.iter_mut().for_each(|q| *q *= factor);
                }
                queries.push((position as usize, query));
                histories[s].k[position as usize] = placed(&k_norm, limit(k.apply(0, x)));
                histories[s].v.push(limit(v.apply(0, x)));
            }
            for (position, q) in queries {
                expected.extend(attention(case, &q, position, &histories[s], 0.3, [&sink_values, &slope_values]));
            }
        }
        let bound = match case.kv {
            KvType::F32 => 3e-6,
            KvType::F16 => 2e-3,
            KvType::Q8_0 => 2e-2,
        };
        let got = read(device, &out);
        close(&got, &expected, bound, &format!("{} pass {pass}", name(device)));
        all.extend(got);
    }
    all
}

/// One row, all heads.
fn attention(
    case: &Case,
    q: &[f64],
    position: usize,
    history: &History,
    scale: f64,
    [sinks, slopes]: [&[f32]; 2],
) -> Vec<f64> {
    let first = match case.window {
        Some(window) if case.chunked => position / window * window,
        window => (position + 1).saturating_sub(window.unwrap_or(usize::MAX)),
    };
    let mut out = Vec::new();
    for head in 0..case.n_heads {
        let kv_head = head / (case.n_heads / case.n_kv_heads);
        let q = &q[head * case.head_dim..][..case.head_dim];
        let weights: Vec<f64> = (first..=position)
            .map(|p| {
                let k = &history.k[p][kv_head * case.head_dim..][..case.head_dim];
                let score = scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
                let capped = case.softcap.map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh());
                let slope = if case.slopes { f64::from(slopes[head]) } else { 0.0 };
                (capped - slope * (position - p) as f64).exp()
            })
            .collect();
        let sink = if case.sinks { f64::from(sinks[head]).exp() } else { 0.0 };
        let total = weights.iter().sum::<f64>() + sink;
        for d in 0..case.v_head_dim {
            let sum: f64 =
                weights.iter().zip(first..).map(|(w, p)| w * history.v[p][kv_head * case.v_head_dim + d]).sum();
            out.push(sum / total);
        }
    }
    out
}

const PASSES: &[&[usize]] = &[&[150, 1, 33], &[1, 1, 1], &[2, 40, 1]];

#[track_caller]
fn check(case: &Case) {
    for device in devices(Precision::Fast) {
        run(&device, case, PASSES);
    }
}

#[test]
fn plain() {
    check(&PLAIN);
    check(&Case { clamp: Some(0.7), ..PLAIN });
}

#[test]
fn cache_types() {
    check(&Case { kv: KvType::F16, ..PLAIN });
    check(&Case { kv: KvType::Q8_0, ..PLAIN });
    check(&Case { kv: KvType::Q8_0, head_dim: 64, v_head_dim: 96, ..PLAIN });
    // Groups of query heads that do and do not fill registers, heads wider and narrower than a block of them.
    for (n_heads, head_dim, v_head_dim) in [(5, 64, 128), (7, 128, 64), (9, 96, 80), (16, 64, 24)] {
        check(&Case { kv: KvType::F16, n_heads, n_kv_heads: 1, head_dim, v_head_dim, ..PLAIN });
    }
    for (n_heads, head_dim, v_head_dim) in [(1, 32, 32), (5, 64, 128), (7, 128, 64), (17, 32, 32)] {
        check(&Case { kv: KvType::Q8_0, n_heads, n_kv_heads: 1, head_dim, v_head_dim, ..PLAIN });
    }
}

#[test]
fn head_shapes() {
    for (n_heads, n_kv_heads, head_dim, v_head_dim) in [(1, 1, 64, 64), (6, 1, 16, 8), (3, 3, 40, 24), (70, 1, 8, 3)] {
        check(&Case { n_heads, n_kv_heads, head_dim, v_head_dim, n_dims: 8, ..PLAIN });
    }
}

#[test]
fn rotations_and_norms() {
    check(&Case { pairing: RopePairing::Interleaved, ..PLAIN });
    check(&Case { pairing: RopePairing::Interleaved, n_dims: 16, norm_over_all: true, ..PLAIN });
    check(&Case { n_dims: 12, ..PLAIN });
    check(&Case { norm_after_rope: true, ..PLAIN });
}

#[test]
fn windows_caps_and_sinks() {
    for window in [1, 5, 64, 65, 100] {
        check(&Case { window: Some(window), sinks: window % 2 == 0, ..PLAIN });
    }
    for window in [1, 7, 64, 100, 1000] {
        check(&Case { window: Some(window), chunked: true, ..PLAIN });
    }
    check(&Case { chunked: true, growth: Some(QueryGrowth { span: 4.0, weight: 0.3 }), ..PLAIN });
    check(&Case { softcap: Some(2.0), ..PLAIN });
    check(&Case { slopes: true, window: Some(70), ..PLAIN });
    check(&Case { slopes: true, n_heads: 6, sinks: true, ..PLAIN });
    check(&Case { sinks: true, softcap: Some(0.5), kv: KvType::F16, ..PLAIN });
}

#[test]
fn long_contexts_are_cut_into_pieces() {
    for window in [None, Some(700)] {
        let case = Case { window, sinks: true, ..PLAIN };
        for device in devices(Precision::F32) {
            run(&device, &case, &[&[600, 600], &[600, 1], &[1, 3], &[2, 1]]);
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let results: Vec<Vec<f32>> =
        thread_counts(Precision::Fast).iter().map(|d| run(d, &PLAIN, &[&[600, 20], &[600, 1], &[1, 3]])).collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}
