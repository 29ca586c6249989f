//! AVX-512 (F, BW, DQ, VL), with and without VNNI: the loops of `portable` in 512-bit registers.

use super::{Isa, Kernels};
use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps};

/// Whether this machine has the features named below.
pub(super) fn available() -> bool {
    super::avx2::available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Whether it has VNNI as well.
pub(super) fn vnni_available() -> bool {
    available() && is_x86_feature_detected!("avx512vnni")
}

/// The table with VNNI: the other loops are the same.
pub(super) static VNNI_KERNELS: &Kernels = &Kernels { isa: Isa::Avx512Vnni, packed: super::vnni::packed, ..*KERNELS };

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    let len = from.len().min(to.len());
    let (from, from_rest) = from[..len].as_chunks::<16>();
    let (to, to_rest) = to[..len].as_chunks_mut::<16>();
    for (f, t) in from.iter().zip(to) {
        // SAFETY: `f` is 32 bytes and `t` 64; both accesses are unaligned ones.
        unsafe { _mm512_storeu_ps(t.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(f.as_ptr().cast()))) };
    }
    super::portable::f16_to_f32(from_rest, to_rest);
}

super::instance!(Isa::Avx512, features: ["avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"], fma: true, rows: 6,
    vectors: 4, f16_to_f32: crate::cpu::simd::avx512::f16_to_f32, packed: crate::cpu::simd::maddubs::packed);
