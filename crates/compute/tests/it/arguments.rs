//! Arguments that do not fit are errors, and values that are no numbers flow through.

use crate::reference::*;
use compute::{
    Attend, Device, Epilogue, Error, KvLayer, KvSpec, KvType, Norm, NormKind, Precision, Projection, Rows,
    SequenceRows, StateSpec, WeightUse,
    cpu::{CpuDevice, CpuOptions, Isa},
};
use tensor::{DType, HostTensor, Shape, SharedBytes};

fn device() -> CpuDevice {
    CpuDevice::new(CpuOptions { threads: Some(2), precision: Precision::Fast, isa: None }).unwrap()
}

#[track_caller]
fn refused<T>(result: compute::Result<T>, part: &str) {
    let Err(error) = result else { panic!("accepted, expected an error with {part:?}") };
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn options() {
    let new = |threads, isa| CpuDevice::new(CpuOptions { threads, precision: Precision::F32, isa });
    refused(new(Some(0), None), "0 threads");
    refused(new(Some(1_000_000), None), "1000000 threads");
    for isa in Isa::ALL.iter().filter(|isa| !isa.is_available()) {
        refused(new(None, Some(*isa)), isa.name());
    }
    let info = new(None, Some(Isa::Portable)).unwrap().info();
    assert!(info.threads >= 1 && info.isa == "portable" && info.backend == "cpu" && !info.name.is_empty());
}

#[test]
fn shapes_and_ranges() {
    let device = device();
    let layer = Layer::new(&device, DType::F32, &[4, 8], false, 1).unwrap();
    let (small, mut out) = (device.alloc(7).unwrap(), device.alloc(4).unwrap());
    refused(
        device.linear(&small, 1, None, &layer.projection, Epilogue::PLAIN, &mut out),
        "buffer of 7 elements where 8",
    );
    let x = device.alloc(8).unwrap();
    let mut short = device.alloc(3).unwrap();
    refused(device.linear(&x, 1, None, &layer.projection, Epilogue::PLAIN, &mut short), "buffer of 3 elements where 4");
    refused(device.linear(&x, usize::MAX, None, &layer.projection, Epilogue::PLAIN, &mut out), "overflows");
    let wrong = Projection { bias: Some(vector(&device, &[0.0; 3])), ..layer.projection.clone() };
    refused(device.linear(&x, 1, None, &wrong, Epilogue::PLAIN, &mut out), "vector of 3 elements where 4");
    let matrix = Projection { bias: Some(layer.projection.weight.clone()), ..layer.projection.clone() };
    refused(device.linear(&x, 1, None, &matrix, Epilogue::PLAIN, &mut out), "a matrix where a vector");
    let norm = Norm { kind: NormKind::Rms, weight: Some(vector(&device, &[1.0; 5])), bias: None, eps: 0.0 };
    refused(
        device.linear(&x, 1, Some(&norm), &layer.projection, Epilogue::PLAIN, &mut out),
        "vector of 5 elements where 8",
    );
    refused(device.embed(&layer.projection.weight, &[4], 1.0, None, &mut device.alloc(8).unwrap()), "token 4");
    refused(device.alloc(usize::MAX), "cannot allocate");
    device.linear(&x, 0, None, &layer.projection, Epilogue::PLAIN, &mut out).unwrap();
    device.embed(&layer.projection.weight, &[], 1.0, None, &mut out).unwrap();
}

#[test]
fn types_without_a_decoder() {
    for dtype in DType::ALL.iter().filter(|dtype| !dtype.can_decode()) {
        let shape = Shape::new(&[2, dtype.block_len()]).unwrap();
        let bytes = SharedBytes::from_vec(vec![0; dtype.tensor_bytes(&shape).unwrap()]);
        let tensor = HostTensor::new("blk.0.x", *dtype, shape, bytes).unwrap();
        assert!(matches!(device().upload(&tensor, WeightUse::Matrix), Err(Error::Tensor { .. })));
    }
}

#[test]
fn caches_and_rows() {
    let device = device();
    let shape = KvLayer { n_kv_heads: 1, k_dim: 16, v_dim: 16 };
    let spec = KvSpec { layers: vec![shape], n_blocks: 2, dtype: KvType::Q8_0, states: StateSpec::default() };
    refused(device.kv_cache(&spec), "8 bits");
    refused(device.kv_cache(&KvSpec { n_blocks: usize::MAX, dtype: KvType::F16, ..spec.clone() }), "overflows");
    let cache = device.kv_cache(&KvSpec { dtype: KvType::F16, ..spec }).unwrap();
    assert_eq!(cache.bytes(), 2 * 64 * 16 * 2 * 2);
    let args = Attend {
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 16,
        v_head_dim: 16,
        scale: 1.0,
        softcap: None,
        window: None,
        chunked: false,
        sinks: None,
        slopes: None,
    };
    let q = device.alloc(32).unwrap();
    let mut out = device.alloc(32).unwrap();
    let rows = |positions: &[u32], rows: std::ops::Range<usize>, blocks: &[u32]| Rows {
        positions: positions.to_vec(),
        sequences: vec![SequenceRows { rows, blocks: blocks.to_vec(), states: None }],
    };
    let mut attend = |rows: &Rows, layer: usize| device.attend(&q, rows, &args, &cache, layer, &mut out);
    attend(&rows(&[64], 0..1, &[1, 0]), 0).unwrap();
    refused(attend(&rows(&[64], 0..1, &[1]), 0), "needs 2 KV blocks");
    refused(attend(&rows(&[64], 0..1, &[1, 2]), 0), "block 2 does not exist");
    refused(attend(&rows(&[3, 5], 0..2, &[1]), 0), "not consecutive");
    refused(attend(&rows(&[3, 4], 0..1, &[1]), 0), "do not cover all rows");
    refused(attend(&rows(&[3], 0..2, &[1]), 0), "in order");
    refused(attend(&rows(&[3], 0..1, &[1]), 1), "no layer 1");
}

#[test]
fn what_is_no_number_flows() {
    for device in devices(Precision::Fast) {
        for dtype in [DType::F32, DType::F16, DType::Q8_0] {
            let Some(layer) = Layer::new(&device, dtype, &[20, 64], false, 1) else { continue };
            for n in [1, 8] {
                let mut x = random(n * 64, 3);
                x[5] = f32::NAN;
                let mut out = device.alloc(n * 20).unwrap();
                device.linear(&buffer(&device, &x), n, None, &layer.projection, Epilogue::PLAIN, &mut out).unwrap();
                let out = read(&device, &out);
                assert!(out[..20].iter().all(|v| v.is_nan()), "{} {dtype}", name(&device));
                assert!(out[20..].iter().all(|v| v.is_finite()), "{} {dtype}", name(&device));
            }
        }
    }
}
