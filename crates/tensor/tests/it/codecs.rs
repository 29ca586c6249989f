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
        }
    }
}
