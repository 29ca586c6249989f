//! Low-rank additions: products with them, of every way to multiply, and what cannot be one.

use crate::{linear::bound, reference::*};
use compute::{Device, Epilogue, Error, LowRank, Precision, cpu::CpuDevice};
use tensor::DType;

/// Adds to `y` what an addition makes of `x`, matrix by matrix of a stack.
fn add(y: &mut [f64], x: &[f64], a: &Layer, b: &Layer, part: usize, scale: f32) {
    let added = b.apply(part, &a.apply(part, x));
    y.iter_mut().zip(added).for_each(|(y, added)| *y += f64::from(scale) * added);
}

/// A product with two additions and a fused epilogue; the same without additions again.
fn check(device: &CpuDevice, dtype: DType, n_out: usize, n_in: usize, n: usize) {
    let mut layer = Layer::new(device, dtype, &[n_out, n_in], true, 5).unwrap();
    let bare = layer.projection.clone();
    let kinds = [(DType::F16, 8, 0.25), (DType::F32, 5, -1.5)];
    let pairs: Vec<(Layer, Layer, f32)> = (kinds.iter().zip(20u64..))
        .map(|(&(dtype, rank, scale), seed)| {
            let a = Layer::new(device, dtype, &[rank, n_in], false, seed).unwrap();
            (a, Layer::new(device, dtype, &[n_out, rank], false, seed + 10).unwrap(), scale)
        })
        .collect();
    let weight = |layer: &Layer| layer.projection.weight.clone();
    let additions = pairs.iter().map(|(a, b, scale)| LowRank { a: weight(a), b: weight(b), scale: *scale }).collect();
    layer.projection.weight.set_low_rank(additions).unwrap();

    let (x, residual) = (random(n * n_in, 9), random(n * n_out, 10));
    let (x_buffer, r_buffer) = (buffer(device, &x), buffer(device, &residual));
    let epilogue = Epilogue { scale: 0.5, residual: Some(&r_buffer), ..Epilogue::PLAIN };
    let mut out = device.alloc(n * n_out).unwrap();
    let finished = |y: &[f64]| -> Vec<f64> { y.iter().zip(&residual).map(|(y, r)| 0.5 * y + f64::from(*r)).collect() };
    let mut y = layer.apply(0, &wide(&x));
    let bound = bound(device.info().precision, dtype);
    device.linear(&x_buffer, n, None, &bare, epilogue, &mut out).unwrap();
    close(&read(device, &out), &finished(&y), bound, "without additions");
    for (a, b, scale) in &pairs {
        add(&mut y, &wide(&x), a, b, 0, *scale);
    }
    device.linear(&x_buffer, n, None, &layer.projection, epilogue, &mut out).unwrap();
    close(&read(device, &out), &finished(&y), bound, &format!("{} {dtype} {n_out} x {n_in} x {n}", name(device)));
}

#[test]
fn products_with_additions() {
    for precision in [Precision::F32, Precision::Fast] {
        for device in devices(precision) {
            for dtype in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0] {
                for (n_out, n_in, n) in [(1, 256, 1), (37, 512, 2), (100, 768, 9), (64, 256, 33)] {
                    check(&device, dtype, n_out, n_in, n);
                }
            }
        }
    }
}

#[test]
fn each_matrix_of_a_stack_has_its_own() {
    for device in devices(Precision::Fast) {
        let (n, n_out, n_in, n_rows) = (3, 20, 64, 2);
        let mut stack = Layer::new(&device, DType::Q8_0, &[n, n_out, n_in], false, 1).unwrap();
        let a = Layer::new(&device, DType::F32, &[n, 4, n_in], false, 2).unwrap();
        let b = Layer::new(&device, DType::F32, &[n, n_out, 4], false, 3).unwrap();
        let addition = LowRank { a: a.projection.weight.clone(), b: b.projection.weight.clone(), scale: 2.0 };
        stack.projection.weight.set_low_rank(vec![addition]).unwrap();
        let x = random(n_rows * n * n_in, 9);
        let mut out = device.alloc(n_rows * n * n_out).unwrap();
        device.heads(&buffer(&device, &x), n_rows, &stack.projection, &mut out).unwrap();
        let mut expected = Vec::new();
        for (i, x) in wide(&x).chunks(n_in).enumerate() {
            let mut y = stack.apply(i % n, x);
            add(&mut y, x, &a, &b, i % n, 2.0);
            expected.extend(y);
        }
        close(&read(&device, &out), &expected, bound(Precision::Fast, DType::Q8_0), &name(&device));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = devices(Precision::F32).remove(0);
    let weight = |dims: &[usize]| Layer::new(&device, DType::F32, dims, false, 1).unwrap().projection.weight;
    #[track_caller]
    fn check(mut weight: compute::Weight, a: compute::Weight, b: compute::Weight, scale: f32) {
        let refused = weight.set_low_rank(vec![LowRank { a, b, scale }]);
        assert!(matches!(refused, Err(Error::Argument { op: "low rank", .. })), "{refused:?}");
        assert!(weight.low_rank().is_empty());
    }
    check(weight(&[6, 8]), weight(&[2, 9]), weight(&[6, 2]), 1.0);
    check(weight(&[6, 8]), weight(&[2, 8]), weight(&[7, 2]), 1.0);
    check(weight(&[6, 8]), weight(&[2, 8]), weight(&[6, 3]), 1.0);
    check(weight(&[3, 6, 8]), weight(&[2, 8]), weight(&[6, 2]), 1.0);
    check(weight(&[3, 6, 8]), weight(&[2, 2, 8]), weight(&[3, 6, 2]), 1.0);
    check(weight(&[6, 8]), weight(&[2, 8]), weight(&[6, 2]), f32::NAN);
}
