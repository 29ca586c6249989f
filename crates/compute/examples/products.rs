//! Times matrix products: `products [threads] [isa] [type …]`. One column shows memory speed, 512 columns arithmetic. Of a few
//! columns also the product of the head, whose input is rounded to two planes.

use compute::{
    Device, Epilogue, Logits, Precision, Projection, WeightUse,
    cpu::{CpuDevice, CpuOptions, Isa},
};
use std::{error::Error, io::Write, time::Instant};
use tensor::{DType, HostTensor, Shape, SharedBytes};

const N_OUT: usize = 8192;
const N_IN: usize = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map(|n| n.parse()).transpose()?;
    let isa = args.next().map(|name| Isa::from_name(&name).ok_or(name)).transpose()?;
    let device = CpuDevice::new(CpuOptions { threads, precision: Precision::Fast, isa })?;
    let names: Vec<String> = args.collect();
    let mut types: Vec<DType> = names.iter().filter_map(|name| DType::from_name(name)).collect();
    if types.is_empty() {
        types = vec![DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::F16, DType::BF16];
    }
    let mut out = std::io::stdout();
    writeln!(out, "{:?}", device.info())?;
    for dtype in types {
        measure(&device, dtype, &mut out)?;
    }
    Ok(())
}

/// Processor time of the calling thread where the system tells it (on a shared machine the clock on the wall measures the
/// neighbours), else the clock. With several threads that is the time of one of them, which is what counts.
fn seconds() -> f64 {
    #[cfg(target_os = "linux")]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one timespec.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0 {
            return time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
        }
    }
    START.elapsed().as_secs_f64()
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

/// Best time of each shape. Several copies of the matrix, so that the caches do not hold them.
fn measure(device: &CpuDevice, dtype: DType, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let shape = Shape::new(&[N_OUT, N_IN]).ok_or("shape")?;
    let values: Vec<f32> = (0..N_OUT * N_IN).map(|i| ((i * 7919 % 10007) as f32 / 5003.0 - 1.0) * 0.05).collect();
    let mut bytes = vec![0; dtype.tensor_bytes(&shape)?];
    for (values, bytes) in values.chunks(N_IN).zip(bytes.chunks_mut(dtype.row_bytes(N_IN)?)) {
        if dtype.can_encode() {
            dtype.encode(values, bytes)?;
        } else {
            // Any blocks will do: what is no number takes no other time.
            bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = value.to_bits().to_le_bytes()[1]);
        }
    }
    let file_bytes = bytes.len() as f64;
    let tensor = HostTensor::new("w", dtype, shape, SharedBytes::from_vec(bytes))?;
    let copies = 4;
    let mut upload = f64::MAX;
    let mut weights = Vec::new();
    for _ in 0..copies {
        let start = seconds();
        weights.push(Projection { weight: device.upload(&tensor, WeightUse::Matrix)?, bias: None });
        upload = upload.min(seconds() - start);
    }
    write!(out, "{dtype:6} upload {:5.2} GB/s", file_bytes / upload / 1e9)?;
    for (n, is_head) in
        [1, 2, 3, 4, 6, 8, 12, 16, 32, 512].map(|n| (n, false)).into_iter().chain([1, 4, 8, 16].map(|n| (n, true)))
    {
        let mut x = device.alloc(n * N_IN)?;
        device.write(&values[..n * N_IN], &mut x)?;
        let mut y = device.alloc(n * N_OUT)?;
        let rows: Vec<u32> = (0..n as u32).collect();
        let mut best = f64::MAX;
        for _ in 0..if n > 32 { 3 } else { 20 } {
            for weight in &weights {
                let start = seconds();
                if is_head {
                    device.logits(
                        &x,
                        &rows,
                        &Logits { norm: None, head: weight, scale: 1.0, softcap: None },
                        &mut y,
                    )?;
                } else {
                    device.linear(&x, n, None, weight, Epilogue::PLAIN, &mut y)?;
                }
                best = best.min(seconds() - start);
            }
        }
        let gops = 2.0 * (N_OUT * N_IN * n) as f64 / best / 1e9;
        let name = if is_head { "head" } else { "n" };
        write!(out, " | {name}={n} {:5.2} ms {:4.1} GB/s {gops:5.1} GOP/s", best * 1e3, file_bytes / best / 1e9)?;
    }
    writeln!(out)?;
    Ok(())
}
