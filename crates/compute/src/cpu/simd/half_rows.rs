//! Rows of 16-bit floats times few columns: weights are widened in registers, exactly, and meet `f32` columns in blocks of
//! several rows and several columns, so that what is widened or loaded once serves several products.
//!
//! Each product adds up in the same order whatever the block, so that a column alone and among others gets the same bits.
//!
//! What belongs here: those loops in AVX2 and AVX-512. What does not: many columns (`op::product`, which multiplies panels).

#![allow(clippy::undocumented_unsafe_blocks, reason = "one contract for each instance, stated at its `half_rows`")]
#![allow(clippy::needless_range_loop, reason = "an index runs over arrays that become registers, and over memory")]
#![allow(clippy::redundant_closure_call, reason = "the instances name their operations as closures")]

use super::HalfRows;
use half::{bf16, f16};

/// One element; `p` points to two readable bytes.
#[inline(always)]
unsafe fn element<const BF16: bool>(p: *const u8) -> f32 {
    let bits = unsafe { p.cast::<u16>().read_unaligned() };
    if BF16 { bf16::from_bits(bits).to_f32() } else { f16::from_bits(bits).to_f32() }
}

/// An instance: features, vector type, its lanes, rows of a block, and the operations.
macro_rules! instance {
    ($name:ident, $features:literal, $vector:ty, lanes: $lanes:literal, rows: $rows:literal, zero: $zero:expr,
     load: $load:expr, f16: $f16:expr, bf16: $bf16:expr, fma: $fma:path, sum: $sum:expr) => {
        pub(super) mod $name {
            use super::{HalfRows, element};
            use std::arch::x86_64::*;

            /// The next vector of weights.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn widened<const BF16: bool>(p: *const u8) -> $vector {
                unsafe { if BF16 { $bf16(p) } else { $f16(p) } }
            }

            /// `R` rows times `C` columns.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn block<const BF16: bool, const R: usize, const C: usize>(
                t: &mut HalfRows<'_>,
                row: usize,
                column: usize,
            ) {
                let len = t.row_len;
                let n_rows = t.n_rows();
                unsafe {
                    let w = t.rows.as_ptr().add(row * len * 2);
                    let x = t.x.as_ptr().add(column * len);
                    let mut sums = [[$zero; C]; R];
                    let mut k = 0;
                    while k + $lanes <= len {
                        let mut values = [$zero; C];
                        for c in 0..C {
                            values[c] = $load(x.add(c * len + k));
                        }
                        for r in 0..R {
                            let w = widened::<BF16>(w.add((r * len + k) * 2));
                            for c in 0..C {
                                sums[r][c] = $fma(w, values[c], sums[r][c]);
                            }
                        }
                        k += $lanes;
                    }
                    for r in 0..R {
                        for c in 0..C {
                            let mut sum: f32 = $sum(sums[r][c]);
                            for k in k..len {
                                sum += element::<BF16>(w.add((r * len + k) * 2)) * *x.add(c * len + k);
                            }
                            *t.out.as_mut_ptr().add((column + c) * n_rows + row + r) = sum;
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn rows<const BF16: bool>(t: &mut HalfRows<'_>) {
                let n_rows = t.n_rows();
                let mut row = 0;
                macro_rules! columns {
                    ($r:literal) => {{
                        let mut column = 0;
                        while column < t.n {
                            unsafe {
                                match t.n - column {
                                    1 => block::<BF16, $r, 1>(t, row, column),
                                    2 => block::<BF16, $r, 2>(t, row, column),
                                    3 => block::<BF16, $r, 3>(t, row, column),
                                    _ => block::<BF16, $r, 4>(t, row, column),
                                }
                            }
                            column += 4;
                        }
                        row += $r;
                    }};
                }
                while row + $rows <= n_rows {
                    columns!($rows);
                }
                while row < n_rows {
                    columns!(1);
                }
            }

            /// Runs a [`HalfRows`].
            ///
            /// # Safety
            /// The machine has these instructions; sizes are checked here.
            #[target_feature(enable = $features)]
            pub(in crate::cpu::simd) unsafe fn half_rows(mut t: HalfRows<'_>) {
                assert!(t.fits(), "rows outside their slices");
                unsafe { if t.bf16 { rows::<true>(&mut t) } else { rows::<false>(&mut t) } }
            }
        }
    };
}

instance!(avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", __m512, lanes: 16, rows: 4, zero: _mm512_setzero_ps(),
    load: |p: *const f32| _mm512_loadu_ps(p),
    f16: |p: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
    bf16: |p: *const u8| {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))))
    },
    fma: _mm512_fmadd_ps, sum: |v: __m512| _mm512_reduce_add_ps(v));

instance!(avx2, "avx2,fma,f16c", __m256, lanes: 8, rows: 2, zero: _mm256_setzero_ps(),
load: |p: *const f32| _mm256_loadu_ps(p),
f16: |p: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
bf16: |p: *const u8| {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))))
},
fma: _mm256_fmadd_ps,
sum: |v: __m256| {
    let halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
});
