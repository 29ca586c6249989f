//! AVX-512 VNNI: the products of packed matrices and many columns.
//!
//! Up to 6 tiles and 64 groups are unpacked at a time, once for all columns: what they become stays in the second-level
//! cache. Three tiles and four columns are multiplied together: 12 sums of integers and 12 of floats in registers, three
//! loads of weights and four broadcasts for 12 instructions `vpdpbusd` (see `vnni` for what they compute).
//!
//! Sums begin at 1.5 · 2^23 as the bits of a float, so that adding integers to its bits adds them to its value: one
//! multiplication with the scale, less the scale's product with that beginning, then gives `scale · sum`, correctly
//! rounded, where conversion and multiplication would be two instructions. That holds while the product is exact, which
//! is so for all scales of few bits.
//!
//! An unpacked group of `T` tiles is 8 steps of `T` vectors of levels; then, each for `T` tiles: scales (one or two), their
//! products with the beginning, minimums.
//!
//! Every function here is `unsafe` because of its instructions and because it reads through pointers: [`packed_rows`]
//! checks the sizes once.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one contract for the whole file, stated above and at `packed_rows`"
)]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays, which become registers")]

use super::{
    PackedRows,
    vnni_load::{LoadLevels, LoadScales, by_form, table},
};
use crate::cpu::{
    columns::{Aux, BEGINNING, MAX_BLOCK, record_bytes},
    packed::TILE,
};
use std::{arch::x86_64::*, ops::Range};

/// Columns that are computed together.
const COLUMNS: usize = 4;
/// Groups after which the next tiles take their turn: few enough that their columns and weights stay in the first-level
/// cache.
const GROUPS: usize = 8;

/// Halves of a group that have scales of their own.
const fn n_scales<S: LoadScales>() -> usize {
    if S::HALVES { 2 } else { 1 }
}

/// Vectors that an unpacked group of a tile takes.
const fn n_vectors<S: LoadScales>() -> usize {
    let scales = n_scales::<S>() * if S::SHORT { 2 } else { 1 };
    8 + scales
        + if S::HALF_MINS {
            2
        } else if S::MINS {
            1
        } else {
            0
        }
}

/// Unpacks `groups` of tiles `tile..tile + n`.
///
/// # Safety
/// Sizes as checked by [`packed_rows`]; the machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn unpack<L: LoadLevels, S: LoadScales>(
    t: &PackedRows<'_>,
    tile: usize,
    n: usize,
    groups: Range<usize>,
    mut to: *mut f32,
) {
    let table = unsafe { table(t.form) };
    for group in groups {
        let (header, own) = t.form.offsets(group);
        for i in 0..n {
            unsafe {
                let tile = t.tiles.as_ptr().add((tile + i) * t.tile_bytes);
                let (scales, mins) = S::load(tile.add(header), tile.add(own));
                let steps = L::load(tile.add(own + S::OWN), table);
                let to = to.add(i * TILE);
                for (step, levels) in steps.into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(step * n * TILE).cast(), levels);
                }
                let mut vector = 8;
                let mut put = |v| {
                    _mm512_storeu_ps(to.add(vector * n * TILE), v);
                    vector += 1;
                };
                scales.into_iter().take(n_scales::<S>()).for_each(&mut put);
                if S::SHORT {
                    let products = scales.map(|scale| _mm512_mul_ps(scale, _mm512_set1_ps(BEGINNING.1)));
                    products.into_iter().take(n_scales::<S>()).for_each(&mut put);
                }
                let n_mins = if S::HALF_MINS {
                    2
                } else if S::MINS {
                    1
                } else {
                    0
                };
                mins.into_iter().take(n_mins).for_each(&mut put);
            }
        }
        to = unsafe { to.add(n_vectors::<S>() * n * TILE) };
    }
}

/// `T` unpacked tiles times 4 columns of a block, whose first records and places are `record` and `column`: `P` planes of each
/// row of `x`. Goes to `sums`, whose rows of `x` are `stride` apart, or is added to them.
///
/// # Safety
/// As for [`unpack`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<S: LoadScales, const P: usize, const T: usize>(
    mut w: *const f32,
    mut record: *const u8,
    column: usize,
    n_groups: usize,
    sums: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    unsafe {
        let mut f = [[_mm512_setzero_ps(); COLUMNS]; T];
        if accumulate {
            for i in 0..T {
                for c in 0..COLUMNS / P {
                    f[i][c] = _mm512_loadu_ps(sums.add(c * stride + i * TILE));
                }
            }
        }
        let beginning = _mm512_set1_epi32(BEGINNING.0);
        for _ in 0..n_groups {
            let q = record.add(column * 32);
            let aux: *const i32 = record.add(MAX_BLOCK * 32 + column * 4).cast();
            let value = |array: usize, c: usize| _mm512_set1_epi32(aux.add(array * MAX_BLOCK + c).read_unaligned());
            let vector = |index: usize, i: usize| w.add((index * T + i) * TILE);
            for half in 0..n_scales::<S>() {
                let mut sum = [[beginning; COLUMNS]; T];
                if let Some(start) = S::START {
                    for c in 0..COLUMNS {
                        let start = value(start + half, c);
                        (0..T).for_each(|i| sum[i][c] = start);
                    }
                }
                for step in half * 4..if S::HALVES { half * 4 + 4 } else { 8 } {
                    let levels: [__m512i; T] = std::array::from_fn(|i| _mm512_loadu_si512(vector(step, i).cast()));
                    for c in 0..COLUMNS {
                        let q = _mm512_set1_epi32(q.add(c * 32 + step * 4).cast::<i32>().read_unaligned());
                        for i in 0..T {
                            sum[i][c] = _mm512_dpbusd_epi32(sum[i][c], levels[i], q);
                        }
                    }
                }
                let scales: [__m512; T] = std::array::from_fn(|i| _mm512_loadu_ps(vector(8 + half, i)));
                for c in 0..COLUMNS {
                    let scale = _mm512_castsi512_ps(value(Aux::SCALE, c));
                    for i in 0..T {
                        let sum = _mm512_castsi512_ps(sum[i][c]);
                        let mut x = if S::SHORT {
                            _mm512_fmsub_ps(sum, scales[i], _mm512_loadu_ps(vector(8 + n_scales::<S>() + half, i)))
                        } else {
                            _mm512_mul_ps(_mm512_sub_ps(sum, _mm512_set1_ps(BEGINNING.1)), scales[i])
                        };
                        if S::HALF_MINS {
                            let of_half = _mm512_castsi512_ps(value(Aux::START_4 + half, c));
                            let of_half = _mm512_sub_ps(of_half, _mm512_set1_ps(BEGINNING.1));
                            let min = _mm512_loadu_ps(vector(n_vectors::<S>() - 2 + half, i));
                            x = _mm512_fmadd_ps(of_half, min, x);
                        }
                        f[i][c / P] = _mm512_fmadd_ps(x, scale, f[i][c / P]);
                    }
                }
            }
            if S::MINS {
                for c in 0..COLUMNS {
                    let of_group = _mm512_castsi512_ps(value(Aux::SUM, c));
                    for i in 0..T {
                        let min = _mm512_loadu_ps(vector(n_vectors::<S>() - 1, i));
                        f[i][c / P] = _mm512_fnmadd_ps(min, of_group, f[i][c / P]);
                    }
                }
            }
            record = record.add(record_bytes(MAX_BLOCK));
            w = w.add(n_vectors::<S>() * T * TILE);
        }
        for i in 0..T {
            for c in 0..COLUMNS / P {
                _mm512_storeu_ps(sums.add(c * stride + i * TILE), f[i][c]);
            }
        }
    }
}

/// All tiles and columns.
///
/// # Safety
/// As for [`unpack`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn rows<L: LoadLevels, S: LoadScales, const P: usize>(t: &mut PackedRows<'_>) {
    const { assert!(n_vectors::<S>() <= PackedRows::VECTORS) };
    let n_tiles = t.n_tiles();
    let stride = n_tiles * TILE;
    let tile_len = n_vectors::<S>() * TILE;
    for first in (0..t.n_groups).step_by(PackedRows::GROUPS) {
        let n_groups = PackedRows::GROUPS.min(t.n_groups - first);
        let scratch = t.scratch.as_mut_ptr();
        for tile in (0..n_tiles).step_by(3) {
            unsafe {
                let to = scratch.add(tile * n_groups * tile_len);
                unpack::<L, S>(t, tile, 3.min(n_tiles - tile), first..first + n_groups, to);
            }
        }
        for block in 0..t.n_blocks {
            let block_start = (block * t.n_groups + first) * record_bytes(MAX_BLOCK);
            for part in (0..n_groups).step_by(GROUPS) {
                let n = GROUPS.min(n_groups - part);
                for tile in (0..n_tiles).step_by(3) {
                    let together = 3.min(n_tiles - tile);
                    for column in (0..MAX_BLOCK).step_by(COLUMNS) {
                        unsafe {
                            let w = scratch.add((tile * n_groups + part * together) * tile_len);
                            let record = t.columns.as_ptr().add(block_start + part * record_bytes(MAX_BLOCK));
                            let sums = t.sums.as_mut_ptr().add((block * MAX_BLOCK + column) / P * stride + tile * TILE);
                            let more = first + part > 0;
                            match together {
                                3 => multiply::<S, P, 3>(w, record, column, n, sums, stride, more),
                                2 => multiply::<S, P, 2>(w, record, column, n, sums, stride, more),
                                _ => multiply::<S, P, 1>(w, record, column, n, sums, stride, more),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Dispatches on the form. False: there are no such loops for it, and nothing was done.
///
/// # Safety
/// The machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed_rows(mut t: PackedRows<'_>) -> bool {
    assert!(t.fits(), "tiles outside their slices");
    by_form!(
        t.form,
        |LevelsOf, ScalesOf| {
            // SAFETY: `fits` was asserted, and the caller knows the machine.
            unsafe {
                match t.planes {
                    2 => rows::<LevelsOf, ScalesOf, 2>(&mut t),
                    _ => rows::<LevelsOf, ScalesOf, 1>(&mut t),
                }
            }
            true
        },
        false
    )
}
