//! AVX-512: the softmax over blocks of attention.
//!
//! The same as `attention::softmax` does. An exponential is `2^n · 2^r` with `r` between -1/2 and 1/2: the powers of two that
//! the instruction set can multiply by leave a polynomial of six steps, the Taylor series of `2^r`, whose rest is 1.2e-7.

use super::{attention::Softmax, portable};
use crate::KV_BLOCK;
use std::arch::x86_64::*;

/// Vectors of a block.
const VECTORS: usize = KV_BLOCK / 16;

/// `e^x` for `x` up to 0; what is below the smallest normal number becomes 0. NaN stays.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn exp(x: __m512) -> __m512 {
    /// `ln(2)^k / k!`, from the sixth to the first.
    const SERIES: [f32; 6] =
        [1.540_353_1e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2];
    const LEAST: f32 = -126.0;
    let log2_e = _mm512_set1_ps(std::f32::consts::LOG2_E);
    let power = _mm512_mul_ps(x, log2_e);
    let is_normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(power, _mm512_set1_ps(LEAST));
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(power);
    let part = _mm512_fmsub_ps(x, log2_e, whole);
    let mut y = _mm512_set1_ps(SERIES[0]);
    for term in &SERIES[1..] {
        y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(*term));
    }
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.0));
    _mm512_maskz_scalef_ps(is_normal, y, whole)
}

/// Runs a [`Softmax`]. NaN among the scores makes the total NaN.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn softmax(s: Softmax<'_>) {
    let rows = s.scores.as_chunks_mut::<KV_BLOCK>().0.iter_mut();
    for (((scores, largest), total), shrink) in rows.zip(s.largest).zip(s.total).zip(s.shrink) {
        let at = scores.as_mut_ptr();
        // SAFETY: the vectors of a block lie in its scores.
        let parts: [__m512; VECTORS] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(at.add(16 * i)) });
        // The instruction returns its second operand where one is NaN, which is never what was the largest.
        let best = parts.iter().fold(_mm512_set1_ps(*largest), |best, part| _mm512_max_ps(*part, best));
        let best = _mm512_reduce_max_ps(best);
        *shrink = if best > *largest { portable::exp::<true>(*largest - best) } else { 1.0 };
        *largest = best;
        let shift = _mm512_set1_ps(if best == f32::NEG_INFINITY { 0.0 } else { best });
        let weights = parts.map(|part| exp(_mm512_sub_ps(part, shift)));
        let mut sum = _mm512_setzero_ps();
        for (i, weights) in weights.into_iter().enumerate() {
            sum = _mm512_add_ps(sum, weights);
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(at.add(16 * i), weights) };
        }
        *total = *total * *shrink + _mm512_reduce_add_ps(sum);
    }
}
