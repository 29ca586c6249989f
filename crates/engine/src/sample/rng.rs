//! The random numbers of sampling: xoshiro256++ (Blackman & Vigna 2019), seeded by SplitMix64 as its authors advise.
//! Our own, so that a seed means the same tokens on every platform and in every later version.

/// xoshiro256++: 256 bits of state, period 2^256 - 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xoshiro256 {
    state: [u64; 4],
}

impl Xoshiro256 {
    /// The generator of a seed. Any seed will do, 0 included.
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        Xoshiro256 { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c1, d1) = (c ^ a, d ^ b);
        self.state = [a ^ d1, b ^ c1, c1 ^ (b << 17), d1.rotate_left(45)];
        result
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// One step of SplitMix64 (Steele, Lea & Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed nobody chose, small enough to type again (32 bits): from the keys the standard library draws for its hash maps.
pub(crate) fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_reference_values() {
        // The first outputs for seed 1234567, as published with the algorithm's reference code.
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
        assert_eq!(split_mix(&mut state), 9_817_491_932_198_370_423);
    }

    #[test]
    fn xoshiro_reference_values() {
        // The first outputs for the state 1, 2, 3, 4, by the authors' formula.
        let mut rng = Xoshiro256 { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn uniform_fills_its_range_evenly() {
        let mut rng = Xoshiro256::new(0);
        let mut bins = [0u32; 16];
        for _ in 0..16_000 {
            let x = rng.next_f64();
            assert!((0.0..1.0).contains(&x));
            bins[(x * 16.0) as usize] += 1;
        }
        let chi2: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 37.7, "{bins:?}"); // 15 degrees of freedom, p = 0.001
    }
}
