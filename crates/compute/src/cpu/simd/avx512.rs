//! AVX-512 (F, BW, DQ, VL), with and without VNNI: the loops of `portable` in 512-bit registers.

use super::{Isa, Kernels};
use crate::cpu::{
    lanes::{Lanes, Rows, Word, entries, operators},
    simd::LANES,
};
use std::{
    arch::x86_64::*,
    ops::{BitAnd, BitOr, BitXor, Shl, Shr},
};

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
pub(super) static VNNI_KERNELS: &Kernels = &Kernels {
    isa: Isa::Avx512Vnni,
    packed: super::vnni::packed,
    packed_rows: Some(super::vnni_rows::packed_rows),
    quantize: super::avx512_round::quantize,
    softmax: super::avx512_softmax::softmax,
    level_scores: Some(super::cached::vnni::level_scores),
    ..*KERNELS
};

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

/// [`super::portable::transpose`], 16 columns at a time in registers.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn transpose(from: &[f32], from_stride: usize, len: usize, to: &mut [f32], to_stride: usize) {
    let whole = len / LANES * LANES;
    if whole > 0 {
        assert!((LANES - 1) * from_stride + whole <= from.len() && (whole - 1) * to_stride + LANES <= to.len());
    }
    for t in (0..whole).step_by(LANES) {
        // SAFETY: 16 rows and 16 columns lie inside by the assertion.
        unsafe { square(from.as_ptr().add(t), from_stride, to.as_mut_ptr().add(t * to_stride), to_stride) };
    }
    if whole < len {
        super::portable::transpose(&from[whole..], from_stride, len - whole, &mut to[whole * to_stride..], to_stride);
    }
}

/// 16 rows of 16.
///
/// # Safety
/// Both squares may be accessed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn square(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    let zero = _mm512_setzero_ps();
    let (mut a, mut b) = ([zero; LANES], [zero; LANES]);
    for i in 0..LANES / 2 {
        // SAFETY: by this function's contract.
        let (x, y) = unsafe {
            (_mm512_loadu_ps(from.add(2 * i * from_stride)), _mm512_loadu_ps(from.add((2 * i + 1) * from_stride)))
        };
        a[2 * i] = _mm512_unpacklo_ps(x, y);
        a[2 * i + 1] = _mm512_unpackhi_ps(x, y);
    }
    for i in (0..LANES).step_by(4) {
        let pair = |x, y| (_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
        let double = |v: __m512| _mm512_castps_pd(v);
        (b[i], b[i + 1]) = pair(double(a[i]), double(a[i + 2]));
        (b[i + 2], b[i + 3]) = pair(double(a[i + 1]), double(a[i + 3]));
    }
    // Quarter `l` of `b[4 i + j]` is column `4 l + j` of rows `4 i..4 i + 4`.
    for j in 0..4 {
        let even = (_mm512_shuffle_f32x4::<0x88>(b[j], b[4 + j]), _mm512_shuffle_f32x4::<0x88>(b[8 + j], b[12 + j]));
        let odd = (_mm512_shuffle_f32x4::<0xdd>(b[j], b[4 + j]), _mm512_shuffle_f32x4::<0xdd>(b[8 + j], b[12 + j]));
        let columns = [
            _mm512_shuffle_f32x4::<0x88>(even.0, even.1),
            _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1),
            _mm512_shuffle_f32x4::<0xdd>(even.0, even.1),
            _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1),
        ];
        for (l, column) in columns.into_iter().enumerate() {
            // SAFETY: by this function's contract.
            unsafe { _mm512_storeu_ps(to.add((4 * l + j) * to_stride), column) };
        }
    }
}

/// Words of 16 rows in a register.
#[derive(Clone, Copy)]
pub(super) struct Words(__m512i);

operators!(Words:
    // SAFETY: only the table of this instruction set uses this type.
    BitAnd bitand |a: Self, b: u32| Self(unsafe { _mm512_and_si512(a.0, _mm512_set1_epi32(b.cast_signed())) });
    // SAFETY: only the table of this instruction set uses this type.
    BitXor bitxor |a: Self, b: u32| Self(unsafe { _mm512_xor_si512(a.0, _mm512_set1_epi32(b.cast_signed())) });
    // SAFETY: only the table of this instruction set uses this type.
    Shl shl |a: Self, b: u32| Self(unsafe { _mm512_sllv_epi32(a.0, _mm512_set1_epi32(b.cast_signed())) });
    // SAFETY: only the table of this instruction set uses this type.
    Shr shr |a: Self, b: u32| Self(unsafe { _mm512_srlv_epi32(a.0, _mm512_set1_epi32(b.cast_signed())) });
);

impl BitOr for Words {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }
}

impl Word for Words {}

impl Lanes for Words {
    #[inline(always)]
    fn splat(word: u32) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn four<const BYTES: usize>(rows: &Rows<'_, BYTES>, at: usize) -> [Self; 4] {
        assert!(at + 16 <= BYTES, "words outside the block");
        // SAFETY: 16 bytes lie inside each block by the assertion; as above.
        unsafe { four(rows, at) }
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 64]) {
        // SAFETY: an unaligned write of 64 bytes; as above.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn store_halves(self, unit: f32, to: &mut [u8; 64]) {
        // SAFETY: an unaligned write of 64 bytes; as above.
        unsafe {
            let floats = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(self.0));
            _mm512_storeu_ps(to.as_mut_ptr().cast(), _mm512_mul_ps(floats, _mm512_set1_ps(unit)));
        }
    }

    #[inline(always)]
    fn store_lowest(self, to: &mut [u8; LANES]) {
        // SAFETY: an unaligned write of 16 bytes; as above.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(self.0)) }
    }

    #[inline(always)]
    fn look_up<const N: usize>(self, table: &'static [u16; N]) -> Self {
        const { assert!(N.is_power_of_two() && N >= 64) };
        // SAFETY: the table is a whole number of vectors; as above.
        unsafe { look_up(self, table) }
    }
}

/// Entries that are looked up with instructions for that; larger tables need more of them than there are indices.
const IN_REGISTERS: usize = 512;

/// Two vectors of entries at a time; upper bits of the indices then choose among what was found.
///
/// # Safety
/// The table has a multiple of 64 entries, a power of two.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn look_up<const N: usize>(indices: Words, table: &'static [u16; N]) -> Words {
    if N > IN_REGISTERS {
        let mut words = [0u32; LANES];
        // SAFETY: both are of 64 bytes.
        unsafe {
            _mm512_storeu_si512(words.as_mut_ptr().cast(), indices.0);
            entries(&mut words, table);
            return Words(_mm512_loadu_si512(words.as_ptr().cast()));
        }
    }
    let mut found = [_mm512_setzero_si512(); IN_REGISTERS / 64];
    let mut n = N / 64;
    for (found, entries) in found.iter_mut().zip(table.as_chunks::<64>().0) {
        // SAFETY: 64 entries are two vectors.
        let [first, last] = [0, 32].map(|i| unsafe { _mm512_loadu_si512(entries.as_ptr().add(i).cast()) });
        *found = _mm512_permutex2var_epi16(first, indices.0, last);
    }
    let mut bit = 64;
    while n > 1 {
        let upper = _mm512_test_epi16_mask(indices.0, _mm512_set1_epi16(bit));
        n /= 2;
        for i in 0..n {
            found[i] = _mm512_mask_blend_epi16(upper, found[2 * i], found[2 * i + 1]);
        }
        bit *= 2;
    }
    Words(found[0])
}

/// Word `i` of the 16 bytes from `at` on, of each of these rows.
///
/// # Safety
/// The 16 bytes lie inside the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn four<const BYTES: usize>(rows: &Rows<'_, BYTES>, at: usize) -> [Words; 4] {
    // SAFETY: by this function's contract.
    let row = |i: usize| unsafe { _mm_loadu_si128(rows[i].as_ptr().add(at).cast()) };
    // Quarter `l` is row `4 l + i`.
    let every_fourth = |i: usize| {
        let first = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(row(i)), row(4 + i));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(first, row(8 + i)), row(12 + i))
    };
    let (a, b, c, d) = (every_fourth(0), every_fourth(1), every_fourth(2), every_fourth(3));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_last, cd_last) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        Words(_mm512_unpacklo_epi64(ab, cd)),
        Words(_mm512_unpackhi_epi64(ab, cd)),
        Words(_mm512_unpacklo_epi64(ab_last, cd_last)),
        Words(_mm512_unpackhi_epi64(ab_last, cd_last)),
    ]
}

super::instance!(Isa::Avx512, features: ["avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"], fma: true, rows: 6,
    vectors: 4, f16_to_f32: crate::cpu::simd::avx512::f16_to_f32, transpose: crate::cpu::simd::avx512::transpose,
    half_rows: Some(crate::cpu::simd::half_rows::avx512::half_rows),
    half_tile: Some(crate::cpu::simd::cached::avx512::half_tile),
    level_mix: Some(crate::cpu::simd::cached::avx512::level_mix), packed: crate::cpu::simd::maddubs::packed, lanes: crate::cpu::simd::avx512::Words);
