//! What the tests share: random values, devices under test, and the operations written out in `f64`.

use compute::{
    Activation, Buffer, Device, Norm, NormKind, Precision, Projection, Rope, RopePairing, RouterRule, Weight,
    WeightUse,
    cpu::{CpuDevice, CpuOptions, Isa},
};
use tensor::{DType, HostTensor, Shape, SharedBytes};

/// Two experts for each token, weighted by their shares.
pub(crate) const ROUTER_RULE: RouterRule = RouterRule {
    n_used: 2,
    sigmoid: false,
    softmax_after_choice: false,
    normalize: true,
    scale: 1.0,
    groups: None,
    peers: None,
    weighs_input: false,
};

/// Every instruction set of the machine with one, two and three threads.
pub(crate) fn devices(precision: Precision) -> Vec<CpuDevice> {
    let mut devices = Vec::new();
    for (i, isa) in Isa::available().into_iter().enumerate() {
        let threads = Some(1 + i % 3);
        devices.push(CpuDevice::new(CpuOptions { threads, precision, isa: Some(isa) }).unwrap());
    }
    devices
}

/// Devices that differ in threads only.
pub(crate) fn thread_counts(precision: Precision) -> Vec<CpuDevice> {
    let device = |threads| CpuDevice::new(CpuOptions { threads: Some(threads), precision, isa: None }).unwrap();
    vec![device(1), device(2), device(3)]
}

/// `n` values in about ±1, the same for the same seed.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() + next()).collect()
}

/// A tensor of `dtype` with random values, or with random blocks where none can be encoded, and what it holds exactly.
/// `None`: the type is no matrix's.
pub(crate) fn random_tensor(dtype: DType, dims: &[usize], seed: u64) -> Option<(HostTensor, Vec<f64>)> {
    let shape = Shape::new(dims).unwrap();
    let values = random(shape.elements(), seed);
    let mut bytes = vec![0; dtype.tensor_bytes(&shape).unwrap()];
    if dtype.can_encode() {
        dtype.encode(&values, &mut bytes).unwrap();
    } else if dtype.is_quantized() {
        random_blocks(dtype, &values, &mut bytes);
    } else {
        return None;
    }
    let tensor = HostTensor::new("test", dtype, shape, SharedBytes::from_vec(bytes)).unwrap();
    let exact = tensor.to_f32().ok()?.iter().map(|v| f64::from(*v)).collect();
    Some((tensor, exact))
}

/// Blocks of random bytes whose scales are of like sizes: there must be a number for each byte.
fn random_blocks(dtype: DType, numbers: &[f32], bytes: &mut [u8]) {
    bytes.iter_mut().zip(numbers).for_each(|(byte, number)| *byte = number.to_bits().to_le_bytes()[1]);
    for block in bytes.chunks_mut(dtype.block_bytes()) {
        match dtype {
            // Four scales without sign.
            DType::NVFP4 => block[..4].iter_mut().for_each(|scale| *scale = *scale & 15 | 0x30),
            // The upper byte of a half-precision scale, in two pieces or in one.
            DType::IQ1_M => (block[53], block[55]) = (block[53] & 15 | 0xc0, block[55] & 15 | 0x20),
            _ if dtype.block_len() == 256 => block[1] = block[1] & 0x83 | 0x28,
            _ => {}
        }
    }
}

pub(crate) fn vector(device: &CpuDevice, values: &[f32]) -> Weight {
    vector_of(device, values, &[values.len()])
}

pub(crate) fn vector_of(device: &CpuDevice, values: &[f32], dims: &[usize]) -> Weight {
    let tensor = HostTensor::from_f32("vector", Shape::new(dims).unwrap(), values).unwrap();
    device.upload(&tensor, WeightUse::Vector).unwrap()
}

pub(crate) fn buffer(device: &CpuDevice, values: &[f32]) -> Buffer {
    let mut buffer = device.alloc(values.len()).unwrap();
    device.write(values, &mut buffer).unwrap();
    buffer
}

pub(crate) fn read(device: &CpuDevice, buffer: &Buffer) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    device.read(buffer, &mut values).unwrap();
    values
}

/// A random matrix, or a stack of them, with its bias on a device and in `f64`.
pub(crate) struct Layer {
    pub(crate) projection: Projection,
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Layer {
    pub(crate) fn new(device: &CpuDevice, dtype: DType, dims: &[usize], with_bias: bool, seed: u64) -> Option<Self> {
        let (tensor, weight) = random_tensor(dtype, dims, seed)?;
        let usage = if dims.len() == 3 { WeightUse::Experts } else { WeightUse::Matrix };
        let [outer @ .., n_in] = dims else { return None };
        let n_bias = outer.iter().product();
        let bias = if with_bias { random(n_bias, seed + 1) } else { vec![0.0; n_bias] };
        let uploaded = with_bias.then(|| vector_of(device, &bias, outer));
        let projection = Projection { weight: device.upload(&tensor, usage).unwrap(), bias: uploaded };
        let bias = bias.iter().map(|v| f64::from(*v)).collect();
        Some(Self { projection, n_in: *n_in, n_out: *outer.last()?, weight, bias })
    }

    /// `x · weightᵀ + bias` of one expert (0 for a plain matrix).
    pub(crate) fn apply(&self, expert: usize, x: &[f64]) -> Vec<f64> {
        let (n_in, n_out) = (self.n_in, self.n_out);
        let weight = &self.weight[expert * n_in * n_out..];
        let bias = &self.bias[expert * n_out..];
        let mut out = Vec::new();
        for x in x.chunks(n_in) {
            for r in 0..n_out {
                out.push(x.iter().zip(&weight[r * n_in..]).map(|(x, w)| x * w).sum::<f64>() + bias[r]);
            }
        }
        out
    }
}

/// A norm with random vectors.
pub(crate) struct TestNorm {
    pub(crate) norm: Norm,
    width: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl TestNorm {
    pub(crate) fn new(device: &CpuDevice, kind: NormKind, width: usize, seed: u64) -> Self {
        let (weight, mut bias) = (random(width, seed), random(width, seed + 1));
        if kind == NormKind::Rms {
            bias.fill(0.0);
        }
        let uploaded = (kind == NormKind::Layer).then(|| vector(device, &bias));
        let norm = Norm { kind, weight: Some(vector(device, &weight)), bias: uploaded, eps: 1e-5 };
        Self { norm, width, weight, bias }
    }

    pub(crate) fn apply(&self, x: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks(self.width) {
            let n = x.len() as f64;
            let mean = if self.norm.kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + f64::from(self.norm.eps)).sqrt();
            for ((x, w), b) in x.iter().zip(&self.weight).zip(&self.bias) {
                out.push((x - mean) * scale * f64::from(*w) + f64::from(*b));
            }
        }
        out
    }
}

/// Rotates the heads of one row.
pub(crate) fn rotate(row: &mut [f64], head_dim: usize, rope: &Rope, frequencies: &[f32], position: u32) {
    let half = rope.n_dims / 2;
    for head in row.chunks_mut(head_dim) {
        for (i, f) in frequencies.iter().enumerate() {
            let (a, b) = match rope.pairing {
                RopePairing::Interleaved => (2 * i, 2 * i + 1),
                RopePairing::Halves => (i, i + half),
            };
            let (sin, cos) = (f64::from(position) * f64::from(*f)).sin_cos();
            let m = f64::from(rope.magnitude);
            (head[a], head[b]) = (m * (head[a] * cos - head[b] * sin), m * (head[a] * sin + head[b] * cos));
        }
    }
}

/// The error function: its series near zero, the continued fraction of its complement beyond.
fn erf(z: f64) -> f64 {
    if z.abs() > 2.5 {
        let fraction = (1..100).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (z.abs() + f));
        return z.signum() * (1.0 - (-z * z).exp() / std::f64::consts::PI.sqrt() / (z.abs() + fraction));
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// `act(x)`.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::ClampedSwish => x.min(7.0) / (1.0 + (-1.702 * x.min(7.0)).exp()),
    }
}

/// `act(x) ⊙ up`.
pub(crate) fn gated(activation: Activation, x: f64, up: f64) -> f64 {
    let factor = if activation == Activation::ClampedSwish { up.clamp(-7.0, 7.0) + 1.0 } else { up };
    activate(activation, x) * factor
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Fails when the root mean square of the difference exceeds `bound` times that of the expected values.
#[track_caller]
pub(crate) fn close(got: &[f32], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let square = |sum: f64, v: f64| sum + v * v;
    let size = expected.iter().copied().fold(1e-30, square);
    let error = got.iter().zip(expected).map(|(g, e)| f64::from(*g) - e).fold(0.0, square);
    let relative = (error / size).sqrt();
    assert!(relative <= bound, "{what}: relative error {relative:e} above {bound:e}");
}

/// What a device calls itself in messages.
pub(crate) fn name(device: &CpuDevice) -> String {
    let info = device.info();
    format!("{} {:?} {} threads", info.isa, info.precision, info.threads)
}
