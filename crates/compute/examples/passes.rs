//! Times whole passes over a model with the shapes of a 1B (Q4_0 or another type, the head Q6_K; random weights, nothing to load):
//! `passes [threads] [rounds] [type]`. Several sequences at once, one token at a great depth with both types of cache, and the
//! chunks of a long prompt. All cases in turn, round by round; medians and least values.

use compute::{
    Activation, Attend, Buffer, Device, Epilogue, FeedForward, KV_BLOCK, KvCache, KvLayer, KvSpec, KvType, Logits,
    Norm, NormKind, Precision, Projection, Qkv, Rows, SequenceRows, StateSpec, WeightUse,
    cpu::{CpuDevice, CpuOptions},
};
use std::{error::Error, io::Write, time::Instant};
use tensor::{DType, HostTensor, Shape, SharedBytes};

const WIDTH: usize = 2048;
const FF_WIDTH: usize = 8192;
const VOCABULARY: usize = 128_256;
const N_LAYERS: usize = 16;
const N_HEADS: usize = 32;
const N_KV_HEADS: usize = 8;
const HEAD_DIM: usize = 64;
/// Rows of a chunk of a prompt.
const CHUNK: usize = 128;
const DEPTH: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map(|n| n.parse()).transpose()?;
    let rounds = args.next().map_or(Ok(5), |n| n.parse())?;
    let dtype = args.next().map_or(Ok(DType::Q4_0), |name| DType::from_name(&name).ok_or(name))?;
    let device = CpuDevice::new(CpuOptions { threads, precision: Precision::Fast, isa: None })?;
    let mut out = std::io::stdout();
    writeln!(out, "{:?}", device.info())?;
    let mut model = Model::new(device, dtype)?;
    let mut caches = [model.cache(KvType::F16)?, model.cache(KvType::Q8_0)?];
    for cache in &mut caches {
        // Two positions of each block touch all of its pages.
        let positions: Vec<usize> = (0..DEPTH).step_by(KV_BLOCK / 2).collect();
        model.pass(&one_each(&positions, |_| blocks(0, DEPTH + 1)), cache)?;
    }
    let few = |n: usize| one_each(&vec![32; n], |i| blocks(i, 33));
    let deep = one_each(&[DEPTH], |_| blocks(0, DEPTH + 1));
    let mut cases: Vec<(String, usize, Rows)> =
        [1, 2, 3, 4, 6, 8, 12, 16].map(|n| (format!("{n} rows"), 0, few(n))).into();
    cases.push((format!("at {DEPTH} f16"), 0, deep.clone()));
    cases.push((format!("at {DEPTH} q8_0"), 1, deep));
    for from in [0, 384, 1024, 1920] {
        cases.push((format!("{from}..{}", from + CHUNK), 0, prompt(from)));
    }
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((_, cache, rows), times) in cases.iter().zip(&mut times) {
            let start = Instant::now();
            model.pass(rows, &mut caches[*cache])?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    for ((name, ..), times) in cases.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        writeln!(out, "{name:14} {:8.2} ms, least {:8.2}", times[times.len() / 2], times[0])?;
    }
    Ok(())
}

/// The blocks of sequence `i`, for so many positions.
fn blocks(i: usize, positions: usize) -> Vec<u32> {
    (0..positions.div_ceil(KV_BLOCK)).map(|block| (i + block) as u32).collect()
}

/// One row of each of several sequences.
fn one_each(positions: &[usize], blocks: impl Fn(usize) -> Vec<u32>) -> Rows {
    let mut rows = Rows::default();
    for (i, position) in positions.iter().enumerate() {
        rows.positions.push(*position as u32);
        rows.sequences.push(SequenceRows { rows: i..i + 1, blocks: blocks(i), states: None });
    }
    rows
}

/// A chunk of a prompt.
fn prompt(from: usize) -> Rows {
    let positions = (from..from + CHUNK).map(|position| position as u32).collect();
    let sequence = SequenceRows { rows: 0..CHUNK, blocks: blocks(0, from + CHUNK), states: None };
    Rows { positions, sequences: vec![sequence] }
}

struct Layer {
    q: Projection,
    k: Projection,
    v: Projection,
    o: Projection,
    gate: Projection,
    up: Projection,
    down: Projection,
}

struct Model {
    device: CpuDevice,
    norm: Norm,
    layers: Vec<Layer>,
    head: Projection,
    x: Buffer,
    y: Buffer,
    q: Buffer,
    attention: Buffer,
    logits: Buffer,
}

impl Model {
    fn new(device: CpuDevice, dtype: DType) -> Result<Self, Box<dyn Error>> {
        let weight = |n_out, n_in| matrix(&device, dtype, n_out, n_in);
        let layers = (0..N_LAYERS).map(|_| {
            Ok::<_, Box<dyn Error>>(Layer {
                q: weight(N_HEADS * HEAD_DIM, WIDTH)?,
                k: weight(N_KV_HEADS * HEAD_DIM, WIDTH)?,
                v: weight(N_KV_HEADS * HEAD_DIM, WIDTH)?,
                o: weight(WIDTH, N_HEADS * HEAD_DIM)?,
                gate: weight(FF_WIDTH, WIDTH)?,
                up: weight(FF_WIDTH, WIDTH)?,
                down: weight(WIDTH, FF_WIDTH)?,
            })
        });
        let layers = layers.collect::<Result<_, _>>()?;
        let head = matrix(&device, DType::Q6_K, VOCABULARY, WIDTH)?;
        let ones = HostTensor::from_f32("norm", Shape::new(&[WIDTH]).ok_or("shape")?, &[1.0; WIDTH])?;
        let weight = Some(device.upload(&ones, WeightUse::Vector)?);
        let norm = Norm { kind: NormKind::Rms, weight, bias: None, eps: 1e-5 };
        let mut x = device.alloc(CHUNK * WIDTH)?;
        let values: Vec<f32> = (0..CHUNK * WIDTH).map(|i| (i * 7919 % 10_007) as f32 / 5003.0 - 1.0).collect();
        device.write(&values, &mut x)?;
        let [y, q, attention] = [(); 3].map(|()| device.alloc(CHUNK * WIDTH));
        let logits = device.alloc(16 * VOCABULARY)?;
        Ok(Self { norm, layers, head, x, y: y?, q: q?, attention: attention?, logits, device })
    }

    fn cache(&self, dtype: KvType) -> Result<KvCache, Box<dyn Error>> {
        let layer = KvLayer { n_kv_heads: N_KV_HEADS, k_dim: HEAD_DIM, v_dim: HEAD_DIM };
        let (layers, n_blocks) = (vec![layer; N_LAYERS], DEPTH / KV_BLOCK + 1);
        Ok(self.device.kv_cache(&KvSpec { layers, n_blocks, dtype, states: StateSpec::default() })?)
    }

    /// All layers; logits of every sequence, of a prompt's last row only.
    fn pass(&mut self, rows: &Rows, cache: &mut KvCache) -> Result<(), Box<dyn Error>> {
        let Self { device, norm, layers, head, x, y, q, attention, logits } = self;
        let n = rows.len();
        for (index, layer) in layers.iter().enumerate() {
            let qkv = Qkv {
                norm: Some(norm),
                q: &layer.q,
                k: Some(&layer.k),
                v: Some(&layer.v),
                q_norm: None,
                k_norm: None,
                v_norm: None,
                norm_after_rope: false,
                rope: None,
                n_heads: N_HEADS,
                n_kv_heads: N_KV_HEADS,
                head_dim: HEAD_DIM,
                v_head_dim: HEAD_DIM,
                clamp: None,
                growth: None,
            };
            device.qkv(x, rows, &qkv, cache, index, q)?;
            let attend = Attend {
                n_heads: N_HEADS,
                n_kv_heads: N_KV_HEADS,
                head_dim: HEAD_DIM,
                v_head_dim: HEAD_DIM,
                scale: 0.125,
                softcap: None,
                window: None,
                chunked: false,
                sinks: None,
                slopes: None,
            };
            device.attend(q, rows, &attend, cache, index, attention)?;
            device.linear(attention, n, None, &layer.o, Epilogue::PLAIN, y)?;
            let feed_forward = FeedForward {
                norm: Some(norm),
                gate: Some(&layer.gate),
                up: &layer.up,
                inner_norm: None,
                down: &layer.down,
                activation: Activation::Silu,
                output_gate: None,
                sparsity: None,
                epilogue: Epilogue { scale: 0.0, residual: Some(x), ..Epilogue::PLAIN },
            };
            // Into another buffer, as the model does; what the next layer reads stays tame.
            device.feed_forward(y, n, &feed_forward, q)?;
        }
        let wanted: Vec<u32> = rows.sequences.iter().take(16).map(|s| s.rows.end as u32 - 1).collect();
        device.logits(x, &wanted, &Logits { norm: Some(norm), head, scale: 1.0, softcap: None }, logits)?;
        Ok(())
    }
}

/// A matrix of random levels and equal scales.
fn matrix(device: &CpuDevice, dtype: DType, n_out: usize, n_in: usize) -> Result<Projection, Box<dyn Error>> {
    let shape = Shape::new(&[n_out, n_in]).ok_or("shape")?;
    let mut bytes = vec![0u8; dtype.tensor_bytes(&shape)?];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes()[..chunk.len()]);
    }
    // Half precision: 2^-10, where a block has its scale.
    let at = match dtype {
        DType::Q3_K | DType::Q6_K | DType::TQ1_0 | DType::TQ2_0 => dtype.block_bytes() - 2,
        _ => 0,
    };
    bytes.chunks_mut(dtype.block_bytes()).for_each(|block| block[at..at + 2].copy_from_slice(&[0x00, 0x14]));
    let tensor = HostTensor::new("w", dtype, shape, SharedBytes::from_vec(bytes))?;
    Ok(Projection { weight: device.upload(&tensor, WeightUse::Matrix)?, bias: None })
}
