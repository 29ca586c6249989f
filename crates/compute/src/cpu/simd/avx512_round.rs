//! AVX-512: columns rounded to 8-bit levels.
//!
//! The same as `cpu::columns` does, for a group of 32 elements in two registers: the errors of all candidate scales are added
//! up together.

use crate::cpu::columns::{Aux, BEGINNING, CANDIDATES, GROUP, Rounding, Slot, record_bytes};
use std::arch::x86_64::*;

/// A column of one group.
struct Rounded {
    levels: [__m512i; 2],
    scale: f32,
}

/// The sums of four vectors, in each quarter.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn quarters(v: &[__m512]) -> __m512 {
    let pair = |a, b| _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
    _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
}

/// How many levels the best scale gives the largest element.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn best(x: [__m512; 2], largest: f32) -> f32 {
    /// Of candidates 0 to 3, twice, and 4 to 7, twice.
    const INVERSE_SQUARES: [f32; 16] = {
        let mut inverse = [0.0; 16];
        let mut i = 0;
        while i < 16 {
            let tried = (127 - (i % 4 + i / 8 * 4)) as f32;
            inverse[i] = 1.0 / (tried * tried);
            i += 1;
        }
        inverse
    };
    const { assert!(CANDIDATES == 8) };
    let mut left = [_mm512_setzero_ps(); CANDIDATES];
    for (candidate, left) in left.iter_mut().enumerate() {
        let inverse = _mm512_set1_ps((127 - candidate) as f32 / largest);
        // What is left after rounding to whole numbers.
        let rest = x.map(|x| _mm512_reduce_ps::<0>(_mm512_mul_ps(x, inverse)));
        *left = _mm512_fmadd_ps(rest[0], rest[0], _mm512_mul_ps(rest[1], rest[1]));
    }
    let (first, last) = (quarters(&left[..4]), quarters(&left[4..]));
    let halves = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(first, last), _mm512_shuffle_f32x4::<0xee>(first, last));
    let all = _mm512_add_ps(halves, _mm512_shuffle_f32x4::<0xb1>(halves, halves));
    // SAFETY: 16 elements are read.
    let errors = _mm512_mul_ps(all, unsafe { _mm512_loadu_ps(INVERSE_SQUARES.as_ptr()) });
    let least = _mm512_cmpeq_ps_mask(errors, _mm512_set1_ps(_mm512_reduce_min_ps(errors))).trailing_zeros();
    (127 - (least % 4 + least / 8 % 2 * 4)) as f32
}

/// Rounds a group; see [`crate::cpu::columns`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn round(x: [__m512; 2], fit: bool) -> Rounded {
    let largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
    // Quiet and signalling NaN, both infinities.
    let not_finite = _mm512_fpclass_ps_mask::<0x99>(x[0]) | _mm512_fpclass_ps_mask::<0x99>(x[1]);
    if not_finite != 0 || largest <= 1e-30 {
        let scale = if not_finite == 0 { 0.0 } else { f32::NAN };
        return Rounded { levels: [_mm512_setzero_si512(); 2], scale };
    }
    let top = if fit { best(x, largest) } else { 127.0 };
    let inverse = _mm512_set1_ps(top / largest);
    let levels = x.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
    let mut scale = largest / top;
    if fit {
        let of = levels.map(|levels| _mm512_cvtepi32_ps(levels));
        let products = _mm512_fmadd_ps(x[0], of[0], _mm512_mul_ps(x[1], of[1]));
        let squares = _mm512_fmadd_ps(of[0], of[0], _mm512_mul_ps(of[1], of[1]));
        let products = _mm512_reduce_add_ps(products);
        if products.is_finite() {
            scale = products / _mm512_reduce_add_ps(squares);
        }
    }
    Rounded { levels, scale }
}

/// Writes a group to its place in a record.
///
/// # Safety
/// The record has the bytes of a block of the slot's width, and the slot is one of its columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn put(slot: Slot, rounded: &Rounded, record: *mut u8) {
    let [first, last] = rounded.levels;
    // SAFETY: 32 bytes of levels of each column, then 8 arrays of 4 bytes a column, lie inside by this function's contract.
    unsafe {
        let at = record.add(slot.column * GROUP);
        _mm_storeu_si128(at.cast(), _mm512_cvtepi32_epi8(first));
        _mm_storeu_si128(at.add(16).cast(), _mm512_cvtepi32_epi8(last));
        let (first, last) = (_mm512_reduce_add_epi32(first), _mm512_reduce_add_epi32(last));
        let aux = |index: usize, bits: i32| {
            let at = slot.width * GROUP + (index * slot.width + slot.column) * 4;
            record.add(at).cast::<i32>().write_unaligned(bits);
        };
        aux(Aux::SCALE, rounded.scale.to_bits().cast_signed());
        aux(Aux::SUM, (rounded.scale * (first + last) as f32).to_bits().cast_signed());
        aux(Aux::START_8, BEGINNING.0 - 8 * (first + last));
        aux(Aux::START_128, BEGINNING.0 - 128 * (first + last));
        aux(Aux::START_32, BEGINNING.0 - 32 * first);
        aux(Aux::START_32 + 1, BEGINNING.0 - 32 * last);
        aux(Aux::START_4, BEGINNING.0 - 4 * first);
        aux(Aux::START_4 + 1, BEGINNING.0 - 4 * last);
    }
}

/// [`crate::cpu::columns::quantize`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize(x: &[f32], slot: &Slot, rounding: Rounding, block: &mut [u8]) {
    let two = rounding == Rounding::TwoPlanes;
    assert!(slot.column + usize::from(two) < slot.width, "a column outside its block");
    for (x, record) in x.as_chunks::<GROUP>().0.iter().zip(block.chunks_exact_mut(record_bytes(slot.width))) {
        // SAFETY: 32 elements are read; the record has the bytes of such a block, and the slots are columns of it.
        unsafe {
            let x = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))];
            let rounded = round(x, !two);
            put(*slot, &rounded, record.as_mut_ptr());
            if two {
                let scale = _mm512_set1_ps(rounded.scale);
                let rest = [0, 1].map(|i| _mm512_fnmadd_ps(_mm512_cvtepi32_ps(rounded.levels[i]), scale, x[i]));
                put(slot.second(), &round(rest, false), record.as_mut_ptr());
            }
        }
    }
}
