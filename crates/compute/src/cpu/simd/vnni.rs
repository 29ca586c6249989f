//! AVX-512 VNNI: the products of packed matrices and few columns.
//!
//! `vpdpbusd` multiplies 4 unsigned levels of each of 16 rows by 4 signed levels of a column, which come from memory as
//! a broadcast. What the unsigned levels have too much (`z` times the sum of the column's levels) is the accumulator's
//! start value, or a minimum subtracted at the end. The weights of a group stay in registers for all columns of the block.
//!
//! The sums of several columns, or of two tiles, advance step by step together: one sum alone would wait 5 cycles for each
//! of its 8 instructions, and the processor does not look far enough ahead to begin the next one meanwhile. What is needed
//! from memory next is asked for early, because the hardware's own prefetching stops at each page and does not run far
//! enough ahead of one thread.
//!
//! Every function here is `unsafe` because of its instructions and because it reads through pointers: [`packed`] checks
//! the sizes once.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one contract for the whole file, stated above and at `packed`")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays, which become registers")]

use super::{
    PackedTiles,
    vnni_load::{LoadLevels, LoadScales, by_form},
};
use crate::cpu::{
    columns::{Aux, record_bytes},
    packed::TILE,
};
use std::arch::x86_64::*;

/// How far ahead weights are asked for.
const AHEAD: usize = 4096;

/// The products of `T` tiles, from `tile` on, and `C` columns of the block, from `column` on.
///
/// # Safety
/// Sizes as checked by [`packed`]; the machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn block<L: LoadLevels, S: LoadScales, const T: usize, const C: usize>(
    t: &mut PackedTiles<'_>,
    tile: usize,
    column: usize,
) {
    let (width, tile_bytes) = (t.width, t.tile_bytes);
    let (per_super, _, _) = t.form.scale_layout();
    unsafe {
        let sums = t.sums.as_mut_ptr().add((tile * width + column) * TILE);
        let mut f = [[_mm512_setzero_ps(); C]; T];
        if t.accumulate {
            for i in 0..T {
                for c in 0..C {
                    f[i][c] = _mm512_loadu_ps(sums.add((i * width + c) * TILE));
                }
            }
        }
        let tiles = t.tiles.as_ptr().add(tile * tile_bytes);
        let mut record = t.columns.as_ptr();
        let mut at = t.form.offsets(t.groups.start).0;
        let (mut header, mut left) = (at, 0);
        for _ in 0..t.groups.len() {
            if S::HEADER > 0 {
                if left == 0 {
                    (header, left) = (at, per_super);
                    at += S::HEADER;
                }
                left -= 1;
            }
            // After these tiles come those behind them.
            let ahead = if T > 1 && at + AHEAD >= tile_bytes { AHEAD + (T - 1) * tile_bytes } else { AHEAD };
            let (mut w, mut scales, mut mins) =
                ([[_mm512_setzero_si512(); 8]; T], [[_mm512_setzero_ps(); 2]; T], [[_mm512_setzero_ps(); 2]; T]);
            for i in 0..T {
                let tile = tiles.add(i * tile_bytes);
                let own = tile.add(at);
                for line in 0..(S::OWN + L::BYTES).div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(own.wrapping_add(ahead + 64 * line).cast());
                }
                (scales[i], mins[i]) = S::load(tile.add(header), own);
                w[i] = L::load(own.add(S::OWN));
            }
            at += S::OWN + L::BYTES;

            let q = |c: usize, step: usize| record.add((column + c) * 32 + 4 * step).cast::<i32>().read_unaligned();
            let aux: *const i32 = record.add(width * 32 + column * 4).cast();
            let value = |array: usize, c: usize| aux.add(array * width + c).read_unaligned();
            let float = |array: usize, c: usize| _mm512_castsi512_ps(_mm512_set1_epi32(value(array, c)));
            for half in 0..if S::HALVES { 2 } else { 1 } {
                let mut sum = [[_mm512_setzero_si512(); C]; T];
                if let Some(start) = S::START {
                    for c in 0..C {
                        let start = _mm512_set1_epi32(value(start + half, c));
                        (0..T).for_each(|i| sum[i][c] = start);
                    }
                }
                for step in if S::HALVES { half * 4..half * 4 + 4 } else { 0..8 } {
                    for c in 0..C {
                        let q = _mm512_set1_epi32(q(c, step));
                        for i in 0..T {
                            sum[i][c] = _mm512_dpbusd_epi32(sum[i][c], w[i][step], q);
                        }
                    }
                }
                for c in 0..C {
                    let scale = float(Aux::SCALE, c);
                    for i in 0..T {
                        let mut x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][c]), scales[i][half]);
                        if S::HALF_MINS {
                            let of_half = _mm512_cvtepi32_ps(_mm512_set1_epi32(value(Aux::START_4 + half, c)));
                            x = _mm512_fmadd_ps(of_half, mins[i][half], x);
                        }
                        f[i][c] = _mm512_fmadd_ps(x, scale, f[i][c]);
                    }
                }
            }
            if S::MINS {
                for c in 0..C {
                    let of_group = float(Aux::SUM, c);
                    (0..T).for_each(|i| f[i][c] = _mm512_fnmadd_ps(mins[i][0], of_group, f[i][c]));
                }
            }
            record = record.add(record_bytes(width));
        }
        for i in 0..T {
            for c in 0..C {
                _mm512_storeu_ps(sums.add((i * width + c) * TILE), f[i][c]);
            }
        }
    }
}

/// All tiles and columns, as many at a time as registers hold.
///
/// # Safety
/// As for [`block`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn blocks<L: LoadLevels, S: LoadScales>(t: &mut PackedTiles<'_>) {
    let n_tiles = t.n_tiles();
    for tile in (0..n_tiles).step_by(2) {
        let pair = tile + 1 < n_tiles;
        unsafe {
            match t.width {
                1 if pair => block::<L, S, 2, 1>(t, tile, 0),
                1 => block::<L, S, 1, 1>(t, tile, 0),
                2 if pair => block::<L, S, 2, 2>(t, tile, 0),
                2 => block::<L, S, 1, 2>(t, tile, 0),
                width => {
                    for column in (0..width).step_by(4) {
                        if pair && !S::HALVES {
                            block::<L, S, 2, 4>(t, tile, column);
                        } else {
                            block::<L, S, 1, 4>(t, tile, column);
                            if pair {
                                block::<L, S, 1, 4>(t, tile + 1, column);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Dispatches on form and width.
///
/// # Safety
/// The machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed(mut t: PackedTiles<'_>) {
    assert!(t.fits(), "tiles outside their slices");
    // SAFETY: `fits` was asserted.
    unsafe { by_form!(t.form, |LevelsOf, ScalesOf| blocks::<LevelsOf, ScalesOf>(&mut t), super::portable::packed(t)) }
}
