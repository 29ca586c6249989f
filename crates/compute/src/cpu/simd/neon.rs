//! AArch64's vector unit: the loops of `portable` in 128-bit registers. Not yet run on a machine that has it.

/// Every AArch64 machine that Rust's standard targets support has it; asked all the same.
pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

super::instance!(Isa::Neon, features: ["neon"], fma: true, rows: 6, vectors: 1,
    f16_to_f32: crate::cpu::simd::portable::f16_to_f32, packed: crate::cpu::simd::portable::packed);
