//! Products straight from the cache, in AVX2, AVX-512 and VNNI: few queries against one block, whose elements are widened in
//! registers and serve all queries there.
//!
//! What belongs here: those loops. What does not: many queries, for which a block is widened once in memory (`kv`).

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one contract for each function, stated at its entry, which checks sizes"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over arrays that become registers, and over memory")]
#![allow(clippy::redundant_closure_call, reason = "the instances name their operations as closures")]

use super::attention::{HalfTile, LEVEL_GROUP, LevelMix, LevelScores, QUERY_RECORD};
use crate::{
    KV_BLOCK,
    cpu::columns::{Aux, BEGINNING},
};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Asks for the cache lines from `p` on; any address may be asked for.
#[inline(always)]
fn early(p: *const i8, n_bytes: usize) {
    const LINE: usize = 64;
    for at in (0..n_bytes).step_by(LINE) {
        // SAFETY: every x86-64 machine has the instruction, and it changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(at)) };
    }
}

/// An instance: features, vector type, its lanes, and the operations.
macro_rules! instance {
    ($name:ident, $features:literal, $vector:ty, lanes: $lanes:literal, vectors: $vectors:literal, rows: $rows:literal,
     level_rows: $level_rows:literal,
     zero: $zero:expr, set: $set:expr, load: $load:expr, store: $store:expr, half: $half:expr, level: $level:expr,
     mul: $mul:path, fma: $fma:path) => {
        pub(super) mod $name {
            use super::{HalfTile, KV_BLOCK, LEVEL_GROUP, LevelMix, early};
            use std::arch::x86_64::*;

            /// `R` rows times `V` vectors of columns.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize, const V: usize>(t: &mut HalfTile<'_>, row: usize, col: usize) {
                unsafe {
                    let a = t.a.as_ptr().add(row * t.a_stride);
                    let c = t.c.as_mut_ptr().add(row * t.n_cols + col);
                    let mut b = t.b.as_ptr().add(col);
                    let mut sums = [[$zero; V]; R];
                    if t.accumulate {
                        for r in 0..R {
                            for v in 0..V {
                                sums[r][v] = $load(c.add(r * t.n_cols + v * $lanes));
                            }
                        }
                    }
                    for k in 0..t.n_inner {
                        let mut wide = [$zero; V];
                        for v in 0..V {
                            wide[v] = $half(b.add(v * $lanes));
                        }
                        for r in 0..R {
                            let x = $set(*a.add(r * t.a_stride + k));
                            for v in 0..V {
                                sums[r][v] = $fma(wide[v], x, sums[r][v]);
                            }
                        }
                        if row == 0 {
                            early(t.next.as_ptr().wrapping_add(k * t.n_cols + col).cast(), V * $lanes * 2);
                        }
                        b = b.add(t.n_cols);
                    }
                    for r in 0..R {
                        for v in 0..V {
                            $store(c.add(r * t.n_cols + v * $lanes), sums[r][v]);
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn columns<const R: usize>(t: &mut HalfTile<'_>, row: usize) {
                let mut col = 0;
                unsafe {
                    while col + $vectors * $lanes <= t.n_cols {
                        block::<R, $vectors>(t, row, col);
                        col += $vectors * $lanes;
                    }
                    while col < t.n_cols {
                        block::<R, 1>(t, row, col);
                        col += $lanes;
                    }
                }
            }

            /// Runs a [`HalfTile`].
            ///
            /// # Safety
            /// The machine has these instructions; sizes are checked here.
            #[target_feature(enable = $features)]
            pub(in crate::cpu::simd) unsafe fn half_tile(mut t: HalfTile<'_>) {
                assert!(t.fits(), "tile outside its slices");
                let mut row = 0;
                while row < t.n_rows {
                    let left = t.n_rows - row;
                    let some = left.div_ceil(left.div_ceil($rows));
                    unsafe {
                        match some {
                            1 => columns::<1>(&mut t, row),
                            2 => columns::<2>(&mut t, row),
                            3 => columns::<3>(&mut t, row),
                            4 => columns::<4>(&mut t, row),
                            5 => columns::<5>(&mut t, row),
                            _ => columns::<6>(&mut t, row),
                        }
                    }
                    row += some;
                }
            }

            /// The columns of one group for `R` rows, whose weights are multiplied by the group's scales already.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn group<const R: usize>(t: &mut LevelMix<'_>, group: usize, row: usize, weights: *const f32) {
                const V: usize = LEVEL_GROUP / $lanes;
                let dim = t.n_groups() * LEVEL_GROUP;
                unsafe {
                    let sums_at = t.sums.as_mut_ptr().add(row * dim + group * LEVEL_GROUP);
                    let mut levels = t.levels.as_ptr().add(group * LEVEL_GROUP);
                    let mut sums = [[$zero; V]; R];
                    for r in 0..R {
                        for v in 0..V {
                            sums[r][v] = $load(sums_at.add(r * dim + v * $lanes));
                        }
                    }
                    for k in 0..t.seen {
                        for v in 0..V {
                            let wide = $level(levels.add(v * $lanes));
                            for r in 0..R {
                                sums[r][v] = $fma(wide, $set(*weights.add(r * KV_BLOCK + k)), sums[r][v]);
                            }
                        }
                        if row == 0 && group % 2 == 0 {
                            early(t.next.as_ptr().wrapping_add(k * dim + group * LEVEL_GROUP).cast(), 2 * LEVEL_GROUP);
                        }
                        levels = levels.add(dim);
                    }
                    for r in 0..R {
                        for v in 0..V {
                            $store(sums_at.add(r * dim + v * $lanes), sums[r][v]);
                        }
                    }
                }
            }

            /// Runs a [`LevelMix`].
            ///
            /// # Safety
            /// The machine has these instructions; sizes are checked here.
            #[target_feature(enable = $features)]
            pub(in crate::cpu::simd) unsafe fn level_mix(mut t: LevelMix<'_>) {
                assert!(t.fits(), "a block outside its slices");
                let mut weights = [0.0f32; $level_rows * KV_BLOCK];
                let mut row = 0;
                while row < t.n {
                    let left = t.n - row;
                    let some = left.div_ceil(left.div_ceil($level_rows));
                    for g in 0..t.n_groups() {
                        for p in (0..KV_BLOCK).step_by($lanes) {
                            unsafe {
                                let scale = $half(t.scales.as_ptr().add(g * KV_BLOCK + p));
                                for r in 0..some {
                                    let weight = $load(t.weights.as_ptr().add((row + r) * KV_BLOCK + p));
                                    // Beyond `seen` this may be anything; it is not read.
                                    $store(weights.as_mut_ptr().add(r * KV_BLOCK + p), $mul(weight, scale));
                                }
                            }
                        }
                        let weights = weights.as_ptr();
                        unsafe {
                            match some {
                                1 => group::<1>(&mut t, g, row, weights),
                                2 => group::<2>(&mut t, g, row, weights),
                                3 => group::<3>(&mut t, g, row, weights),
                                _ => group::<4>(&mut t, g, row, weights),
                            }
                        }
                    }
                    row += some;
                }
            }
        }
    };
}

instance!(avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", __m512, lanes: 16, vectors: 4, rows: 6, level_rows: 4,
    zero: _mm512_setzero_ps(), set: |x: f32| _mm512_set1_ps(x), load: |p: *const f32| _mm512_loadu_ps(p),
    store: |p: *mut f32, v: __m512| _mm512_storeu_ps(p, v),
    half: |p: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
    level: |p: *const i8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))),
    mul: _mm512_mul_ps, fma: _mm512_fmadd_ps);

instance!(avx2, "avx2,fma,f16c", __m256, lanes: 8, vectors: 2, rows: 6, level_rows: 3,
    zero: _mm256_setzero_ps(), set: |x: f32| _mm256_set1_ps(x), load: |p: *const f32| _mm256_loadu_ps(p),
    store: |p: *mut f32, v: __m256| _mm256_storeu_ps(p, v),
    half: |p: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
    level: |p: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))),
    mul: _mm256_mul_ps, fma: _mm256_fmadd_ps);

/// AVX-512 VNNI: levels of K times levels of queries.
pub(super) mod vnni {
    use super::{Aux, BEGINNING, KV_BLOCK, LEVEL_GROUP, LevelScores, QUERY_RECORD, early};
    use std::arch::x86_64::*;

    /// Positions of a register block: two vectors.
    const POSITIONS: usize = 32;

    /// A value of array `array` of a record of two columns.
    #[inline(always)]
    unsafe fn value(record: *const u8, array: usize, column: usize) -> *const i32 {
        unsafe { record.add(2 * LEVEL_GROUP + (array * 2 + column) * 4).cast() }
    }

    /// `R` queries, both planes of each, and 32 positions from `first` on.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn block<const R: usize>(t: &mut LevelScores<'_>, query: usize, first: usize) {
        let n_groups = t.n_groups();
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            for g in 0..n_groups {
                let records: [*const u8; R] =
                    std::array::from_fn(|r| t.queries.as_ptr().add(((query + r) * n_groups + g) * QUERY_RECORD));
                let mut dots = [[[_mm512_setzero_si512(); 2]; 2]; R];
                for r in 0..R {
                    for plane in 0..2 {
                        let start = value(records[r], Aux::START_128, plane).read_unaligned();
                        dots[r][plane] = [_mm512_set1_epi32(start); 2];
                    }
                }
                let levels = t.levels.as_ptr().add((g * LEVEL_GROUP / 4 * KV_BLOCK + first) * 4);
                for word in 0..LEVEL_GROUP / 4 {
                    let at = levels.add(word * KV_BLOCK * 4);
                    if query == 0 {
                        let ahead = (g * LEVEL_GROUP / 4 + word) * KV_BLOCK * 4 + first * 4;
                        early(t.next.as_ptr().wrapping_add(ahead), POSITIONS * 4);
                    }
                    let k = [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())];
                    for r in 0..R {
                        for plane in 0..2 {
                            let q = records[r].add(plane * LEVEL_GROUP + word * 4).cast::<i32>().read_unaligned();
                            let q = _mm512_set1_epi32(q);
                            for v in 0..2 {
                                dots[r][plane][v] = _mm512_dpbusd_epi32(dots[r][plane][v], k[v], q);
                            }
                        }
                    }
                }
                let scales = t.scales.as_ptr().add(g * KV_BLOCK + first);
                let beginning = _mm512_set1_ps(BEGINNING.1);
                for v in 0..2 {
                    let scale = _mm512_cvtph_ps(_mm256_loadu_si256(scales.add(v * 16).cast()));
                    for r in 0..R {
                        let plane = |plane: usize| {
                            let of_query =
                                _mm512_set1_ps(value(records[r], Aux::SCALE, plane).cast::<f32>().read_unaligned());
                            (_mm512_sub_ps(_mm512_castsi512_ps(dots[r][plane][v]), beginning), of_query)
                        };
                        let ((fine, fine_scale), (coarse, coarse_scale)) = (plane(1), plane(0));
                        let dot = _mm512_fmadd_ps(coarse, coarse_scale, _mm512_mul_ps(fine, fine_scale));
                        sums[r][v] = _mm512_fmadd_ps(dot, scale, sums[r][v]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..2 {
                    let to = t.scores.as_mut_ptr().add((query + r) * KV_BLOCK + first + v * 16);
                    _mm512_storeu_ps(to, sums[r][v]);
                }
            }
        }
    }

    /// Runs a [`LevelScores`].
    ///
    /// # Safety
    /// The machine has these instructions; sizes are checked here.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(in crate::cpu::simd) unsafe fn level_scores(mut t: LevelScores<'_>) {
        assert!(t.fits(), "a block outside its slices");
        let mut query = 0;
        while query < t.n {
            let left = t.n - query;
            let some = left.div_ceil(left.div_ceil(4));
            for first in (0..KV_BLOCK).step_by(POSITIONS) {
                unsafe {
                    match some {
                        1 => block::<1>(&mut t, query, first),
                        2 => block::<2>(&mut t, query, first),
                        3 => block::<3>(&mut t, query, first),
                        _ => block::<4>(&mut t, query, first),
                    }
                }
            }
            query += some;
        }
    }
}
