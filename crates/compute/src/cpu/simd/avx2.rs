//! AVX2 with FMA and F16C (x86-64-v3): the loops of `portable` in 256-bit registers.

use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

/// Whether this machine has the features named below.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    let len = from.len().min(to.len());
    let (from, from_rest) = from[..len].as_chunks::<8>();
    let (to, to_rest) = to[..len].as_chunks_mut::<8>();
    for (f, t) in from.iter().zip(to) {
        // SAFETY: `f` is 16 bytes and `t` 32; both accesses are unaligned ones.
        unsafe { _mm256_storeu_ps(t.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(f.as_ptr().cast()))) };
    }
    super::portable::f16_to_f32(from_rest, to_rest);
}

super::instance!(Isa::Avx2, features: ["avx2,fma,f16c"], fma: true, rows: 6, vectors: 1,
    f16_to_f32: crate::cpu::simd::avx2::f16_to_f32, transpose: crate::cpu::simd::portable::transpose, half_rows: Some(crate::cpu::simd::half_rows::avx2::half_rows),
    half_tile: Some(crate::cpu::simd::cached::avx2::half_tile),
    level_mix: Some(crate::cpu::simd::cached::avx2::level_mix), packed: crate::cpu::simd::maddubs::packed, lanes: crate::cpu::lanes::Plain);
