//! Encoders against decoders: what comes back is near what went in, for every type that can be a target.

use proptest::prelude::*;
use tensor::DType;

/// Numbers near a normal distribution (sum of four uniform ones), the same on every machine.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (uniform() + uniform() + uniform() + uniform()) * 0.05).collect()
}

fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xa5; dtype.row_bytes(values.len()).unwrap()];
    dtype.encode(values, &mut bytes).unwrap();
    let mut out = vec![f32::NAN; values.len()];
    dtype.decode(&bytes, &mut out).unwrap();
    out
}

/// Root mean square error over root mean square value.
fn relative_error(values: &[f32], back: &[f32]) -> f32 {
    let squares: f32 = values.iter().zip(back).map(|(a, b)| (a - b) * (a - b)).sum();
    let all: f32 = values.iter().map(|v| v * v).sum();
    (squares / all).sqrt()
}

/// Types and the relative error that [`normal`] numbers may take: 5 % above what was measured when this was written.
const TARGETS: &[(DType, f32)] = &[
    (DType::F32, 0.0),
    (DType::F16, 0.0003),
    (DType::BF16, 0.0018),
    (DType::Q4_0, 0.085),
    (DType::Q4_1, 0.079),
    (DType::Q5_0, 0.0425),
    (DType::Q5_1, 0.0382),
    (DType::Q8_0, 0.0053),
    (DType::Q2_K, 0.28),
    (DType::Q3_K, 0.146),
    (DType::Q4_K, 0.0722),
    (DType::Q5_K, 0.0363),
    (DType::Q6_K, 0.0173),
    (DType::Q8_K, 0.0065),
    (DType::IQ4_NL, 0.0744),
    (DType::IQ4_XS, 0.075),
    (DType::MXFP4, 0.117),
    (DType::TQ1_0, 0.46),
    (DType::TQ2_0, 0.46),
    (DType::AFFINE2_32, 0.402),
    (DType::AFFINE2_64, 0.452),
    (DType::AFFINE2_128, 0.492),
    (DType::AFFINE3_32, 0.171),
    (DType::AFFINE3_64, 0.193),
    (DType::AFFINE3_128, 0.211),
    (DType::AFFINE4_16, 0.0675),
    (DType::AFFINE4_32, 0.08),
    (DType::AFFINE4_64, 0.0899),
    (DType::AFFINE4_128, 0.098),
    (DType::AFFINE5_32, 0.0388),
    (DType::AFFINE5_64, 0.0435),
    (DType::AFFINE5_128, 0.0474),
    (DType::AFFINE6_32, 0.019),
    (DType::AFFINE6_64, 0.0214),
    (DType::AFFINE6_128, 0.0233),
    (DType::AFFINE8_32, 0.0047),
    (DType::AFFINE8_64, 0.00529),
    (DType::AFFINE8_128, 0.00578),
];

#[test]
fn round_trips_stay_within_each_types_error() {
    let values = normal(64 * 256);
    for (dtype, bound) in TARGETS {
        let error = relative_error(&values, &round_trip(*dtype, &values));
        assert!(error <= *bound, "{dtype}: {error} > {bound}");
    }
}

#[test]
fn every_type_that_can_be_encoded_is_tested() {
    let targets: Vec<DType> = TARGETS.iter().map(|(dtype, _)| *dtype).collect();
    for dtype in DType::ALL {
        assert!(dtype.can_decode(), "{dtype}");
        assert_eq!(dtype.can_encode(), targets.contains(dtype), "{dtype}");
    }
}

#[test]
fn zeros_stay_zero() {
    for (dtype, _) in TARGETS {
        assert!(round_trip(*dtype, &[0.0; 512]).iter().all(|v| *v == 0.0), "{dtype}");
    }
}

#[test]
fn lone_and_one_sided_values_survive() {
    let mut spike = [0.0; 256];
    spike[37] = -3.0;
    for (dtype, _) in TARGETS {
        for values in [spike, [0.75; 256], [-0.75; 256]] {
            let error = relative_error(&values, &round_trip(*dtype, &values));
            assert!(error < 0.05, "{dtype} {:?}: {error}", &values[36..38]);
        }
    }
}

/// Sum of the squared errors, each times how much it counts.
fn weighted_error(values: &[f32], importance: &[f32], dtype: DType, encode: impl Fn(&mut [u8])) -> f64 {
    let mut bytes = vec![0xa5; dtype.row_bytes(values.len()).unwrap()];
    encode(&mut bytes);
    let mut back = vec![f32::NAN; values.len()];
    dtype.decode(&bytes, &mut back).unwrap();
    let errors = values.iter().zip(&back).zip(importance);
    errors.map(|((v, b), w)| f64::from(*w) * f64::from(v - b).powi(2)).sum()
}

/// Types that use importances, and the part of the weighted error that must be gone with them: less than was measured when
/// this was written.
const WEIGHTED: &[(DType, f64)] = &[
    (DType::Q4_0, 0.2),
    (DType::Q4_1, 0.2),
    (DType::Q5_0, 0.2),
    (DType::Q5_1, 0.2),
    (DType::Q2_K, 0.2),
    (DType::Q3_K, 0.2),
    (DType::Q4_K, 0.2),
    (DType::Q5_K, 0.2),
    (DType::Q6_K, 0.2),
    (DType::IQ4_NL, 0.2),
    (DType::IQ4_XS, 0.2),
];

#[test]
fn errors_move_to_where_they_count_least() {
    let values = normal(64 * 256);
    // Few inputs matter much, as in real models.
    let importance: Vec<f32> = normal(64 * 256).iter().rev().map(|v| (v * 100.0).exp()).collect();
    for (dtype, gone) in WEIGHTED {
        let error = |encode: &dyn Fn(&mut [u8])| weighted_error(&values, &importance, *dtype, encode);
        let plain = error(&|bytes| dtype.encode(&values, bytes).unwrap());
        let weighted = error(&|bytes| dtype.encode_weighted(&values, &importance, bytes).unwrap());
        println!("{dtype}: {:.3} of the error is gone", 1.0 - weighted / plain);
        assert!(weighted < plain * (1.0 - gone), "{dtype}: {weighted} of {plain}");
        // The same for all is like nothing given, or better.
        let alike = vec![7.0; values.len()];
        let weighted = weighted_error(&values, &alike, *dtype, |bytes| {
            dtype.encode_weighted(&values, &alike, bytes).unwrap();
        });
        let plain = weighted_error(&values, &alike, *dtype, |bytes| dtype.encode(&values, bytes).unwrap());
        assert!(weighted < plain * 1.01, "{dtype}: {weighted} of {plain}");
        assert!(dtype.encode_weighted(&values, &alike[1..], &mut []).is_err());
    }
    for dtype in DType::ALL {
        assert_eq!(dtype.uses_importance(), WEIGHTED.iter().any(|(known, _)| known == dtype), "{dtype}");
    }
}

#[test]
fn importances_of_zero_leave_a_block_to_itself() {
    let values = normal(512);
    for (dtype, _) in WEIGHTED {
        let mut bytes = vec![0; dtype.row_bytes(512).unwrap()];
        dtype.encode_weighted(&values, &[0.0; 512], &mut bytes).unwrap();
        let mut back = vec![f32::NAN; 512];
        dtype.decode(&bytes, &mut back).unwrap();
        assert!(relative_error(&values, &back) < 0.5, "{dtype}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_decode_and_any_numbers_encode(
        bytes in prop::collection::vec(any::<u8>(), 292),
        bits in prop::collection::vec(any::<u32>(), 256),
    ) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for (dtype, _) in TARGETS {
            let mut out = vec![0.0; dtype.block_len()];
            dtype.decode(&bytes[..dtype.block_bytes()], &mut out).unwrap();
            let _ = round_trip(*dtype, &values);
            let importance: Vec<f32> = values.iter().rev().map(|v| if v.is_finite() { v.abs() } else { 0.0 }).collect();
            let mut encoded = vec![0; dtype.row_bytes(256).unwrap()];
            dtype.encode_weighted(&values, &importance, &mut encoded).unwrap();
        }
    }
}
