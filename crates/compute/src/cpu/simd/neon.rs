//! AArch64's vector unit, with and without 8-bit dot products: the loops of `portable` in 128-bit registers. Run under an
//! emulator by all tests (a Cortex-A53, and a machine with everything; the dot products by those of products); not yet timed on hardware.

use super::{Isa, Kernels};

/// Every AArch64 machine that Rust's standard targets support has it; asked all the same.
pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// The table with dot products: the other loops are the same.
pub(super) static DOT_KERNELS: &Kernels = &Kernels { isa: Isa::NeonDot, packed: super::sdot::packed, ..*KERNELS };

super::instance!(Isa::Neon, features: ["neon"], fma: true, rows: 6, vectors: 1,
    f16_to_f32: crate::cpu::simd::portable::f16_to_f32, transpose: crate::cpu::simd::portable::transpose, half_rows: None, half_tile: None,
    level_mix: None, packed: crate::cpu::simd::portable::packed, lanes: crate::cpu::lanes::Plain);
