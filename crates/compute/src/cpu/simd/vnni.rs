//! AVX-512 VNNI: the products of packed matrices and few columns.
//!
//! `vpdpbusd` multiplies 4 unsigned levels of each of 16 rows by 4 signed levels of a column, which come from memory as
//! a broadcast. What the unsigned levels have too much (`z` times the sum of the column's levels) is the accumulator's
//! start value, or a minimum subtracted at the end. Sums begin at 1.5 · 2^23 as the bits of a float (see `vnni_rows`), and the
//! two planes of a row of `x` are added up in one sum of floats: up to 8 rows, with both planes, are computed in one pass
//! over a tile, which reads the weights once.
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
    vnni_load::{LoadLevels, LoadScales, by_form, table},
};
use crate::cpu::{
    columns::{Aux, BEGINNING, record_bytes},
    packed::TILE,
};
use std::arch::x86_64::*;

/// How far ahead weights are asked for.
const AHEAD: usize = 4096;
/// Rows of `x` that are computed together, at most.
const ROWS: usize = 8;

/// A share of the rows of a block, with which a tile is passed over.
#[derive(Clone, Copy)]
struct Share {
    /// The first of them.
    row: usize,
    /// Which of the tile's passes this is, and of how many.
    pass: usize,
    n_passes: usize,
}

/// The products of `T` tiles and `C` rows of `x`, of `P` planes each.
///
/// # Safety
/// Sizes as checked by [`packed`]; the machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn block<L: LoadLevels, S: LoadScales, const P: usize, const C: usize, const T: usize>(
    t: &mut PackedTiles<'_>,
    tiles: [usize; T],
    share: Share,
) {
    let (width, tile_bytes) = (t.width, t.tile_bytes);
    let (per_super, _, _) = t.form.scale_layout();
    unsafe {
        let sums = tiles.map(|tile| t.sums.as_mut_ptr().add((tile * (width / P) + share.row) * TILE));
        let tiles = tiles.map(|tile| t.tiles.as_ptr().add(tile * tile_bytes));
        let mut f = [[_mm512_setzero_ps(); C]; T];
        if t.accumulate {
            for i in 0..T {
                for c in 0..C {
                    f[i][c] = _mm512_loadu_ps(sums[i].add(c * TILE));
                }
            }
        }
        let (beginning, table) = (_mm512_set1_epi32(BEGINNING.0), table(t.form));
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
            // A tile that is passed over several times lies in the cache meanwhile: each pass asks for its part of the tiles
            // after these. Else what comes soon is asked for; behind several tiles come those that follow them.
            let ahead = if share.n_passes > 1 {
                2 * tile_bytes
            } else if T > 1 && at + AHEAD >= tile_bytes {
                AHEAD + (T - 1) * tile_bytes
            } else {
                AHEAD
            };
            let (mut scales, mut mins) = ([[_mm512_setzero_ps(); 2]; T], [[_mm512_setzero_ps(); 2]; T]);
            let own = tiles.map(|tile| tile.add(at));
            for i in 0..T {
                let lines = (S::OWN + L::BYTES).div_ceil(64);
                let mut line = share.pass;
                while line < lines {
                    _mm_prefetch::<_MM_HINT_T0>(own[i].wrapping_add(ahead + 64 * line).cast());
                    line += share.n_passes;
                }
                (scales[i], mins[i]) = S::load(tiles[i].add(header), own[i]);
            }
            at += S::OWN + L::BYTES;

            let first = share.row * P;
            let q = |c: usize, step: usize| record.add((first + c) * 32 + 4 * step).cast::<i32>().read_unaligned();
            let aux: *const i32 = record.add(width * 32 + first * 4).cast();
            let value = |array: usize, c: usize| _mm512_set1_epi32(aux.add(array * width + c).read_unaligned());
            let float = |array: usize, c: usize| _mm512_castsi512_ps(value(array, c));
            // Macros, because every step and half must be known when this is compiled.
            macro_rules! begin {
                ($half:literal) => {{
                    let mut sum = [[[beginning; P]; C]; T];
                    if let Some(start) = S::START {
                        for c in 0..C {
                            for p in 0..P {
                                let start = value(start + $half, c * P + p);
                                (0..T).for_each(|i| sum[i][c][p] = start);
                            }
                        }
                    }
                    sum
                }};
            }
            macro_rules! multiply {
                ($sum:ident, $($step:literal)*) => {$(
                    let levels: [__m512i; T] = std::array::from_fn(|i| L::step(own[i].add(S::OWN), $step, table));
                    for c in 0..C {
                        for p in 0..P {
                            let q = _mm512_set1_epi32(q(c * P + p, $step));
                            for i in 0..T {
                                $sum[i][c][p] = _mm512_dpbusd_epi32($sum[i][c][p], levels[i], q);
                            }
                        }
                    }
                )*};
            }
            macro_rules! add {
                ($sum:ident, $half:literal) => {
                    let begun = scales.map(|scale| _mm512_mul_ps(scale[$half], _mm512_set1_ps(BEGINNING.1)));
                    for c in 0..C {
                        for p in 0..P {
                            let scale = float(Aux::SCALE, c * P + p);
                            for i in 0..T {
                                let sum = _mm512_castsi512_ps($sum[i][c][p]);
                                let mut x = if S::SHORT {
                                    _mm512_fmsub_ps(sum, scales[i][$half], begun[i])
                                } else {
                                    _mm512_mul_ps(_mm512_sub_ps(sum, _mm512_set1_ps(BEGINNING.1)), scales[i][$half])
                                };
                                if S::HALF_MINS {
                                    let of_half = float(Aux::START_4 + $half, c * P + p);
                                    let of_half = _mm512_sub_ps(of_half, _mm512_set1_ps(BEGINNING.1));
                                    x = _mm512_fmadd_ps(of_half, mins[i][$half], x);
                                }
                                f[i][c] = _mm512_fmadd_ps(x, scale, f[i][c]);
                            }
                        }
                    }
                };
            }
            let mut sum = begin!(0);
            multiply!(sum, 0 1 2 3);
            if S::HALVES {
                add!(sum, 0);
                sum = begin!(1);
                multiply!(sum, 4 5 6 7);
                add!(sum, 1);
            } else {
                multiply!(sum, 4 5 6 7);
                add!(sum, 0);
            }
            if S::MINS {
                for c in 0..C {
                    for p in 0..P {
                        let of_group = float(Aux::SUM, c * P + p);
                        (0..T).for_each(|i| f[i][c] = _mm512_fnmadd_ps(mins[i][0], of_group, f[i][c]));
                    }
                }
            }
            record = record.add(record_bytes(width));
        }
        for i in 0..T {
            for c in 0..C {
                _mm512_storeu_ps(sums[i].add(c * TILE), f[i][c]);
            }
        }
    }
}

/// All tiles and rows of `x`, as many at a time as registers hold.
///
/// # Safety
/// As for [`block`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn blocks<L: LoadLevels, S: LoadScales, const P: usize>(t: &mut PackedTiles<'_>) {
    let (n_tiles, n_rows) = (t.n_tiles(), t.width / P);
    let n_passes = n_rows / ROWS + (n_rows % ROWS).count_ones() as usize;
    for tile in (0..n_tiles).step_by(2) {
        // The last of an odd number is computed twice.
        let pair = [tile, (tile + 1).min(n_tiles - 1)];
        let mut share = Share { row: 0, pass: 0, n_passes };
        while share.row < n_rows {
            let together = ROWS.min(1 << (n_rows - share.row).ilog2());
            unsafe {
                match together {
                    1 => block::<L, S, P, 1, 2>(t, pair, share),
                    2 => block::<L, S, P, 2, 2>(t, pair, share),
                    4 => block::<L, S, P, 4, 2>(t, pair, share),
                    _ => {
                        block::<L, S, P, ROWS, 1>(t, [tile], share);
                        if pair[1] > tile {
                            block::<L, S, P, ROWS, 1>(t, [pair[1]], share);
                        }
                    }
                }
            }
            (share.row, share.pass) = (share.row + together, share.pass + 1);
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
    unsafe {
        by_form!(
            t.form,
            |LevelsOf, ScalesOf| match t.planes {
                2 => blocks::<LevelsOf, ScalesOf, 2>(&mut t),
                _ => blocks::<LevelsOf, ScalesOf, 1>(&mut t),
            },
            super::portable::packed(t)
        )
    }
}
