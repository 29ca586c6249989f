//! Times attention: `attend [threads] [isa] [f16|q8_0|f32 …]`. Decoding at several depths, several sequences at once, and the
//! chunks of a long prompt, for heads as those of a 1B and of an 8B model.

use compute::{
    Attend, Buffer, Device, KV_BLOCK, KvCache, KvLayer, KvSpec, KvType, Precision, Projection, Qkv, Rows, SequenceRows,
    StateSpec, WeightUse,
    cpu::{CpuDevice, CpuOptions, Isa},
};
use std::{error::Error, io::Write, time::Instant};
use tensor::{HostTensor, Shape};

/// Width of the input from which K and V are made: as little as possible, they are not what is measured.
const WIDTH: usize = 16;
/// Positions in the cache.
const DEPTH: usize = 4096;

/// Heads of a model.
#[derive(Clone, Copy)]
struct Heads {
    name: &'static str,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    /// Enough of them that the processor's caches do not hold their keys and values.
    n_layers: usize,
}

const MODELS: [Heads; 2] = [
    Heads { name: "1B", n_heads: 32, n_kv_heads: 8, head_dim: 64, n_layers: 16 },
    Heads { name: "8B", n_heads: 32, n_kv_heads: 8, head_dim: 128, n_layers: 8 },
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map(|n| n.parse()).transpose()?;
    let isa = args.next().map(|name| Isa::from_name(&name).ok_or(name)).transpose()?;
    let device = CpuDevice::new(CpuOptions { threads, precision: Precision::Fast, isa })?;
    let names: Vec<String> = args.collect();
    let mut out = std::io::stdout();
    writeln!(out, "{:?}", device.info())?;
    for (name, dtype) in [("f16", KvType::F16), ("q8_0", KvType::Q8_0), ("f32", KvType::F32)] {
        if names.is_empty() || names.iter().any(|n| n == name) {
            for heads in MODELS {
                measure(&device, heads, name, dtype, &mut out)?;
            }
        }
    }
    Ok(())
}

fn matrix(device: &CpuDevice, n_out: usize, seed: usize) -> Result<Projection, Box<dyn Error>> {
    let values: Vec<f32> = (0..n_out * WIDTH).map(|i| ((i + seed) * 7919 % 10007) as f32 / 5003.0 - 1.0).collect();
    let tensor = HostTensor::from_f32("w", Shape::new(&[n_out, WIDTH]).ok_or("shape")?, &values)?;
    Ok(Projection { weight: device.upload(&tensor, WeightUse::Matrix)?, bias: None })
}

/// Rows `from..to` of each of `n` sequences.
fn rows(n: usize, from: usize, to: usize) -> Rows {
    let mut rows = Rows::default();
    let per_sequence = DEPTH / KV_BLOCK / n;
    for s in 0..n {
        let start = rows.len();
        rows.positions.extend(from as u32..to as u32);
        let blocks = (s * per_sequence..(s + 1) * per_sequence).map(|b| b as u32).collect();
        rows.sequences.push(SequenceRows { rows: start..rows.len(), blocks, states: None });
    }
    rows
}

fn measure(
    device: &CpuDevice,
    heads: Heads,
    name: &str,
    dtype: KvType,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let Heads { n_heads, n_kv_heads, head_dim, n_layers, .. } = heads;
    let shape = KvLayer { n_kv_heads, k_dim: head_dim, v_dim: head_dim };
    let spec =
        KvSpec { layers: vec![shape; n_layers], n_blocks: DEPTH / KV_BLOCK, dtype, states: StateSpec::default() };
    let mut cache = device.kv_cache(&spec)?;
    let (q, k) = (matrix(device, n_heads * head_dim, 1)?, matrix(device, n_kv_heads * head_dim, 2)?);
    let v = matrix(device, n_kv_heads * head_dim, 3)?;
    let args = Qkv {
        norm: None,
        q: &q,
        k: Some(&k),
        v: Some(&v),
        v_norm: None,
        q_norm: None,
        k_norm: None,
        norm_after_rope: false,
        rope: None,
        n_heads,
        n_kv_heads,
        head_dim,
        v_head_dim: head_dim,
        clamp: None,
        growth: None,
    };
    let mut queries = device.alloc(512 * n_heads * head_dim)?;
    let mut result = device.alloc(512 * n_heads * head_dim)?;
    let mut x = device.alloc(512 * WIDTH)?;
    for layer in 0..n_layers {
        for from in (0..DEPTH).step_by(512) {
            let values: Vec<f32> = (0..512 * WIDTH).map(|i| ((i + from) * 31 % 1009) as f32 / 504.0 - 1.0).collect();
            device.write(&values, &mut x)?;
            device.qkv(&x, &rows(1, from, from + 512), &args, &mut cache, layer, &mut queries)?;
        }
    }
    let attend = Attend {
        n_heads,
        n_kv_heads,
        head_dim,
        v_head_dim: head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        softcap: None,
        window: None,
        chunked: false,
        sinks: None,
        slopes: None,
    };
    write!(out, "{} {name:5}", heads.name)?;
    let mut time = |rows: &Rows, rounds| best(device, &queries, rows, &attend, &cache, n_layers, rounds, &mut result);
    for (n, depth) in [(1, 512), (1, 4096), (8, 512)] {
        let time = time(&rows(n, depth - 1, depth), 8)?;
        let bytes = (cache_bytes(&cache) / DEPTH * depth * n) as f64;
        write!(out, " | {n} x {depth} {:7.3} ms {:5.1} GB/s", time * 1e3, bytes / time / 1e9)?;
    }
    for (from, to) in [(0, 512), (1536, 2048)] {
        let time = time(&rows(1, from, to), 2)?;
        let pairs = (from + 1..=to).sum::<usize>() as f64;
        let flops = 4.0 * pairs * (n_heads * head_dim * n_layers) as f64;
        write!(out, " | {from}..{to} {:7.2} ms {:5.1} GFLOP/s", time * 1e3, flops / time / 1e9)?;
    }
    writeln!(out)?;
    Ok(())
}

fn cache_bytes(cache: &KvCache) -> usize {
    cache.bytes()
}

/// Best time of all layers once.
#[allow(clippy::too_many_arguments, reason = "an operation and how often")]
fn best(
    device: &CpuDevice,
    queries: &Buffer,
    rows: &Rows,
    attend: &Attend<'_>,
    cache: &KvCache,
    n_layers: usize,
    rounds: usize,
    result: &mut Buffer,
) -> Result<f64, Box<dyn Error>> {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        for layer in 0..n_layers {
            device.attend(queries, rows, attend, cache, layer, result)?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
