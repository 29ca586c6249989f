//! Norms, products, the table and the head.

use crate::reference::*;
use compute::{Buffer, Device, Epilogue, Logits, NormKind, Observer, Precision, WeightUse, cpu::CpuDevice};
use std::sync::Arc;
use tensor::DType;

/// Largest relative error of a product by arithmetic and type.
pub(crate) fn bound(precision: Precision, dtype: DType) -> f64 {
    if precision == Precision::Fast && dtype.is_quantized() { 8e-3 } else { 2e-6 }
}

/// `residual + scale · norm(y)` in a product, over all shapes that tiling distinguishes.
fn check(device: &CpuDevice, dtype: DType, n_out: usize, n_in: usize, n: usize) {
    let bound = bound(device.info().precision, dtype);
    let Some(layer) = Layer::new(device, dtype, &[n_out, n_in], n.is_multiple_of(2), 5) else { return };
    let what = format!("{} {dtype} {n_out} x {n_in} x {n}", name(device));
    let x = random(n * n_in, 9);
    let residual = random(n * n_out, 10);
    let (x_buffer, r_buffer) = (buffer(device, &x), buffer(device, &residual));
    let mut out = device.alloc(n * n_out).unwrap();
    device.linear(&x_buffer, n, None, &layer.projection, Epilogue::PLAIN, &mut out).unwrap();
    let y = layer.apply(0, &wide(&x));
    close(&read(device, &out), &y, bound, &what);

    let norm = TestNorm::new(device, NormKind::Layer, n_in, 3);
    let after = TestNorm::new(device, NormKind::Rms, n_out, 4);
    let y = layer.apply(0, &norm.apply(&wide(&x)));
    let full = Epilogue { norm: Some(&after.norm), scale: 0.5, residual: Some(&r_buffer), ..Epilogue::PLAIN };
    device.linear(&x_buffer, n, Some(&norm.norm), &layer.projection, full, &mut out).unwrap();
    let expected: Vec<f64> = after.apply(&y).iter().zip(&residual).map(|(y, r)| 0.5 * y + f64::from(*r)).collect();
    close(&read(device, &out), &expected, bound, &what);
    let fused = Epilogue { scale: 2.0, residual: Some(&r_buffer), ..Epilogue::PLAIN };
    device.linear(&x_buffer, n, Some(&norm.norm), &layer.projection, fused, &mut out).unwrap();
    let expected: Vec<f64> = y.iter().zip(&residual).map(|(y, r)| 2.0 * y + f64::from(*r)).collect();
    close(&read(device, &out), &expected, bound, &what);
}

#[test]
fn products_of_every_type() {
    for precision in [Precision::F32, Precision::Fast] {
        for device in devices(precision) {
            for dtype in DType::ALL {
                for (n_out, n_in, n) in [(19, 256, 1), (37, 512, 2), (100, 768, 3), (64, 256, 33), (70, 1280, 5)] {
                    check(&device, *dtype, n_out, n_in, n);
                }
            }
        }
    }
}

#[test]
fn products_of_every_number_of_columns() {
    for precision in [Precision::F32, Precision::Fast] {
        for device in devices(precision) {
            for dtype in [DType::F32, DType::Q8_0, DType::Q4_K] {
                (1..=17).for_each(|n| check(&device, dtype, 33, 256, n));
            }
            // More rows and groups than are unpacked at a time.
            check(&device, DType::Q4_0, 200, 2112, 35);
            check(&device, DType::IQ2_XXS, 200, 2304, 35);
        }
    }
}

/// What speculation and batches rely on: a row's bits do not depend on the rows computed with it.
#[test]
fn a_row_alone_and_among_others() {
    const N: usize = 37;
    let types =
        [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q8_0, DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q6_K]
            .into_iter()
            .chain([DType::IQ4_XS, DType::MXFP4, DType::AFFINE4_16, DType::AFFINE4_64, DType::AFFINE8_32])
            .chain([DType::IQ1_S, DType::IQ2_S, DType::IQ3_XXS, DType::NVFP4, DType::TQ2_0]);
    for device in devices(Precision::Fast) {
        for dtype in types.clone() {
            let (n_out, n_in) = (133, 2560);
            let Some(layer) = Layer::new(&device, dtype, &[n_out, n_in], true, 6) else { continue };
            let x = random(N * n_in, 11);
            // The head's input is rounded to two planes.
            let product = |first: usize, n: usize, is_head: bool| {
                let x = buffer(&device, &x[first * n_in..(first + n) * n_in]);
                let mut out = device.alloc(n * n_out).unwrap();
                if is_head {
                    let rows: Vec<u32> = (0..n as u32).collect();
                    let args = Logits { norm: None, head: &layer.projection, scale: 1.0, softcap: None };
                    device.logits(&x, &rows, &args, &mut out).unwrap();
                } else {
                    device.linear(&x, n, None, &layer.projection, Epilogue::PLAIN, &mut out).unwrap();
                }
                read(&device, &out)
            };
            for is_head in [false, true] {
                let all = product(0, N, is_head);
                for (first, n) in [(0, 1), (3, 2), (1, 3), (5, 4), (9, 7), (2, 8), (4, 11), (16, 16), (7, 21), (36, 1)]
                {
                    let same = product(first, n, is_head) == all[first * n_out..(first + n) * n_out];
                    assert!(same, "{} {dtype}: {n} rows from {first}, head: {is_head}", name(&device));
                }
            }
        }
    }
}

#[test]
fn rows_that_are_no_whole_vectors() {
    for device in devices(Precision::Fast) {
        for n_in in [1, 3, 17, 100] {
            for n in [1, 4, 6] {
                check(&device, DType::F32, 19, n_in, n);
                check(&device, DType::F16, 19, n_in, n);
                check(&device, DType::BF16, 19, n_in, n);
            }
        }
        check(&device, DType::Q4_0, 19, 32, 1);
        check(&device, DType::Q4_0, 19, 96, 7);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for precision in [Precision::F32, Precision::Fast] {
        for dtype in [DType::F16, DType::Q4_0, DType::Q6_K] {
            for n in [1, 9] {
                let results: Vec<Vec<f32>> = thread_counts(precision)
                    .iter()
                    .filter_map(|device| {
                        let layer = Layer::new(device, dtype, &[300, 512], true, 1)?;
                        let x = buffer(device, &random(n * 512, 2));
                        let mut out = device.alloc(n * 300).unwrap();
                        device.linear(&x, n, None, &layer.projection, Epilogue::PLAIN, &mut out).unwrap();
                        Some(read(device, &out))
                    })
                    .collect();
                assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{dtype} {n}");
            }
        }
    }
}

#[test]
fn norms() {
    for device in devices(Precision::Fast) {
        for kind in [NormKind::Rms, NormKind::Layer] {
            for (n, width) in [(1, 1), (3, 7), (20, 128), (2, 2049)] {
                let norm = TestNorm::new(&device, kind, width, 7);
                let x: Vec<f32> = random(n * width, 8).iter().map(|v| v * 3.0 + 5.0).collect();
                let mut out = device.alloc(n * width).unwrap();
                device
                    .norm(
                        &buffer(&device, &x),
                        n,
                        width,
                        Epilogue { norm: Some(&norm.norm), ..Epilogue::PLAIN },
                        &mut out,
                    )
                    .unwrap();
                close(&read(&device, &out), &norm.apply(&wide(&x)), 1e-5, &name(&device));
                let residual = random(n * width, 9);
                let residual_buffer = buffer(&device, &residual);
                let all = Epilogue { norm: Some(&norm.norm), scale: 0.5, residual: Some(&residual_buffer), gain: 3.0 };
                device.norm(&buffer(&device, &x), n, width, all, &mut out).unwrap();
                let sum = |(y, r): (f64, &f32)| 3.0 * (f64::from(*r) + 0.5 * y);
                let expected: Vec<f64> = norm.apply(&wide(&x)).into_iter().zip(&residual).map(sum).collect();
                close(&read(&device, &out), &expected, 1e-5, &name(&device));
            }
        }
    }
}

#[test]
fn tables_and_heads() {
    for device in devices(Precision::Fast) {
        for dtype in DType::ALL {
            let (n_vocab, width) = (77, 256);
            let Some((tensor, exact)) = random_tensor(*dtype, &[n_vocab, width], 6) else { continue };
            let tokens = [0u32, 76, 5, 5];
            let mut out = device.alloc(tokens.len() * width).unwrap();
            let row = |id: u32| exact[id as usize * width..][..width].iter().map(|v| v * 1.5);
            let expected: Vec<f64> = tokens.iter().flat_map(|id| row(*id)).collect();
            // A tied embedding is uploaded as the matrix of the head.
            for usage in [WeightUse::Table, WeightUse::Matrix] {
                let table = device.upload(&tensor, usage).unwrap();
                device.embed(&table, &tokens, 1.5, None, &mut out).unwrap();
                close(&read(&device, &out), &expected, 1e-7, &format!("{} {dtype} {usage:?}", name(&device)));
            }
            let table = device.upload(&tensor, WeightUse::Table).unwrap();
            let before = random(tokens.len() * width, 8);
            let mut sum = device.alloc(before.len()).unwrap();
            device.embed(&table, &tokens, 1.5, Some(&buffer(&device, &before)), &mut sum).unwrap();
            let expected: Vec<f64> = expected.iter().zip(&before).map(|(e, b)| e + f64::from(*b)).collect();
            close(&read(&device, &sum), &expected, 1e-7, &format!("{} {dtype} and what was there", name(&device)));
            head(&device, *dtype, n_vocab, width, &out);
        }
    }
}

fn head(device: &CpuDevice, dtype: DType, n_vocab: usize, width: usize, x: &Buffer) {
    let layer = Layer::new(device, dtype, &[n_vocab, width], false, 6).unwrap();
    let norm = TestNorm::new(device, NormKind::Rms, width, 2);
    let args = Logits { norm: Some(&norm.norm), head: &layer.projection, scale: 0.25, softcap: Some(3.0) };
    let wanted = [3u32, 0];
    let mut out = device.alloc(2 * n_vocab).unwrap();
    device.logits(x, &wanted, &args, &mut out).unwrap();
    let x = wide(&read(device, x));
    let chosen: Vec<f64> = wanted.iter().flat_map(|r| x[*r as usize * width..][..width].to_vec()).collect();
    let y = layer.apply(0, &norm.apply(&chosen));
    let expected: Vec<f64> = y.iter().map(|y| 3.0 * (0.25 * y / 3.0).tanh()).collect();
    close(&read(device, &out), &expected, bound(device.info().precision, dtype), &format!("{} {dtype}", name(device)));
}

#[test]
fn an_observer_sees_the_normalized_input() {
    for device in devices(Precision::F32).iter().chain(&devices(Precision::Fast)) {
        let (n, n_in) = (7, 256);
        let mut layer = Layer::new(device, DType::Q4_0, &[33, n_in], false, 5).unwrap();
        let observer = Arc::new(Observer::new(1, n_in));
        layer.projection.weight.observe(Arc::clone(&observer));
        let norm = TestNorm::new(device, NormKind::Rms, n_in, 3);
        let x = random(n * n_in, 9);
        let mut out = device.alloc(n * 33).unwrap();
        for _ in 0..2 {
            device
                .linear(&buffer(device, &x), n, Some(&norm.norm), &layer.projection, Epilogue::PLAIN, &mut out)
                .unwrap();
        }
        let mut expected = vec![0.0; n_in];
        for row in norm.apply(&wide(&x)).chunks(n_in) {
            expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += 2.0 * x * x);
        }
        let observed = observer.observed();
        assert_eq!(observed.counts, [2 * n as u64]);
        let sums: Vec<f32> = observed.sums.iter().map(|sum| *sum as f32).collect();
        close(&sums, &expected, 1e-5, &name(device));
    }
}
