//! AVX-512 VNNI: the products of packed matrices.
//!
//! `vpdpbusd` multiplies 4 unsigned levels of each of 16 rows by 4 signed levels of a column, which come from memory as
//! a broadcast. What the unsigned levels have too much (`z` times the sum of the column's levels) is the accumulator's
//! start value, or a minimum subtracted at the end. The weights of a group stay in 8 registers for all columns of the
//! block.
//!
//! Every function here is `unsafe` because of its instructions and because it reads through pointers: [`packed`] checks
//! the sizes once.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one contract for the whole file, stated above and at `packed`")]

use super::PackedTile;
use crate::cpu::{
    columns::{Aux, record_bytes},
    packed::{Form, Levels, Scales, TILE},
};
use std::arch::x86_64::*;

/// The weights of one group of a tile.
struct Group {
    steps: [__m512i; 8],
    scales: [__m512; 2],
    mins: __m512,
}

/// How levels are read.
trait LoadLevels {
    unsafe fn load(p: *const u8) -> [__m512i; 8];
}

/// How scales are read and what they imply.
trait LoadScales {
    /// Each half of the group has a scale of its own.
    const HALVES: bool = false;
    /// There is a minimum to subtract.
    const MINS: bool = false;
    /// The column's array of start values.
    const START: Option<usize> = None;
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], __m512);
}

struct Four;
struct Six;
struct Eight;

#[inline(always)]
unsafe fn vector(p: *const u8, i: usize) -> __m512i {
    unsafe { _mm512_loadu_si512(p.add(i * 64).cast()) }
}

impl LoadLevels for Four {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let v: [__m512i; 4] = [vector(p, 0), vector(p, 1), vector(p, 2), vector(p, 3)];
            let low = |v| _mm512_and_si512(v, mask);
            let high = |v| _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask);
            [low(v[0]), low(v[1]), low(v[2]), low(v[3]), high(v[0]), high(v[1]), high(v[2]), high(v[3])]
        }
    }
}

impl LoadLevels for Six {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe {
            let mask = _mm512_set1_epi8(0x30);
            let mut steps = Four::load(p);
            for half in 0..2 {
                let v = vector(p, 4 + half);
                // 0xf8: a | (b & c)
                let join = |low, upper| _mm512_ternarylogic_epi32::<0xf8>(low, upper, mask);
                let s = &mut steps[half * 4..half * 4 + 4];
                s[0] = join(s[0], _mm512_slli_epi16::<4>(v));
                s[1] = join(s[1], _mm512_slli_epi16::<2>(v));
                s[2] = join(s[2], v);
                s[3] = join(s[3], _mm512_srli_epi16::<2>(v));
            }
            steps
        }
    }
}

impl LoadLevels for Eight {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe { std::array::from_fn(|i| vector(p, i)) }
    }
}

#[inline(always)]
unsafe fn halves(p: *const u8) -> __m512 {
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
}

struct Single<const START: usize>;
struct Affine;
struct Super;
struct SuperHalves;

impl<const START: usize> LoadScales for Single<START> {
    const START: Option<usize> = Some(START);
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], __m512) {
        unsafe { ([halves(own), _mm512_setzero_ps()], _mm512_setzero_ps()) }
    }
}

impl LoadScales for Affine {
    const MINS: bool = true;
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], __m512) {
        unsafe { ([halves(own), _mm512_setzero_ps()], halves(own.add(32))) }
    }
}

impl LoadScales for Super {
    const MINS: bool = true;
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], __m512) {
        unsafe {
            let wide = |p: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())));
            let scale = _mm512_mul_ps(halves(header), wide(own));
            ([scale, _mm512_setzero_ps()], _mm512_mul_ps(halves(header.add(32)), wide(own.add(16))))
        }
    }
}

impl LoadScales for SuperHalves {
    const HALVES: bool = true;
    const START: Option<usize> = Some(Aux::START_32);
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], __m512) {
        unsafe {
            let wide = |p: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())));
            let d = halves(header);
            ([_mm512_mul_ps(d, wide(own)), _mm512_mul_ps(d, wide(own.add(16)))], _mm512_setzero_ps())
        }
    }
}

/// The product of a tile and a block of `C` columns.
///
/// # Safety
/// Sizes as checked by [`packed`]; the machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn block<L: LoadLevels, S: LoadScales, const C: usize>(t: &mut PackedTile<'_>) {
    let (_, _, own_bytes) = t.form.scale_layout();
    unsafe {
        let sums = t.sums.as_mut_ptr();
        let mut f = [_mm512_setzero_ps(); 16];
        // Written out for each column: only then do all accumulators stay in registers.
        macro_rules! columns {
            (|$c:ident| $body:expr) => {
                columns!(@ $c $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
            };
            (@ $c:ident $body:expr, $($number:literal)*) => {
                $(if $number < C {
                    const $c: usize = $number;
                    $body
                })*
            };
        }
        if t.accumulate {
            columns!(|COLUMN| f[COLUMN] = _mm512_loadu_ps(sums.add(COLUMN * TILE)));
        }
        let mut record = t.columns.as_ptr();
        for g in t.groups.clone() {
            let (header, own) = t.form.offsets(g);
            let (header, own) = (t.tile.as_ptr().add(header), t.tile.as_ptr().add(own));
            let (scales, mins) = S::load(header, own);
            let w = Group { steps: L::load(own.add(own_bytes)), scales, mins };
            columns!(|COLUMN| f[COLUMN] = column::<S, C, COLUMN>(&w, record, f[COLUMN]));
            record = record.add(record_bytes(C));
        }
        columns!(|COLUMN| _mm512_storeu_ps(sums.add(COLUMN * TILE), f[COLUMN]));
    }
}

/// Adds one group of one column to its sums.
#[inline(always)]
unsafe fn column<S: LoadScales, const C: usize, const COLUMN: usize>(
    w: &Group,
    record: *const u8,
    f: __m512,
) -> __m512 {
    unsafe {
        let aux = record.add(C * 32);
        let q: *const i32 = record.add(COLUMN * 32).cast();
        let value = |array: usize| aux.cast::<i32>().add(array * C + COLUMN).read_unaligned();
        let start = |half: usize| match S::START {
            Some(array) => _mm512_set1_epi32(value(array + half)),
            None => _mm512_setzero_si512(),
        };
        let dot =
            |acc, step: usize| _mm512_dpbusd_epi32(acc, w.steps[step], _mm512_set1_epi32(q.add(step).read_unaligned()));
        let float = |array: usize| _mm512_castsi512_ps(_mm512_set1_epi32(value(array)));
        let first = dot(dot(dot(dot(start(0), 0), 1), 2), 3);
        let sum = if S::HALVES {
            let last = dot(dot(dot(dot(start(1), 4), 5), 6), 7);
            let sum = _mm512_mul_ps(_mm512_cvtepi32_ps(first), w.scales[0]);
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(last), w.scales[1], sum)
        } else {
            let all = dot(dot(dot(dot(first, 4), 5), 6), 7);
            _mm512_mul_ps(_mm512_cvtepi32_ps(all), w.scales[0])
        };
        let f = _mm512_fmadd_ps(sum, float(Aux::SCALE), f);
        if S::MINS { _mm512_fnmadd_ps(w.mins, float(Aux::SUM), f) } else { f }
    }
}

/// Dispatches on form and width.
///
/// # Safety
/// The machine has AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed(mut t: PackedTile<'_>) {
    assert!(t.fits(), "tile outside its slices");
    macro_rules! widths {
        ($levels:ty, $scales:ty) => {
            match t.width {
                16 => block::<$levels, $scales, 16>(&mut t),
                8 => block::<$levels, $scales, 8>(&mut t),
                4 => block::<$levels, $scales, 4>(&mut t),
                2 => block::<$levels, $scales, 2>(&mut t),
                _ => block::<$levels, $scales, 1>(&mut t),
            }
        };
    }
    let Form { levels, scales } = t.form;
    // SAFETY: `fits` was asserted.
    unsafe {
        match (levels, scales) {
            (Levels::Four, Scales::Single) => widths!(Four, Single<{ Aux::START_8 }>),
            (Levels::Four, Scales::Affine) => widths!(Four, Affine),
            (Levels::Four, Scales::Super) => widths!(Four, Super),
            (Levels::Six, Scales::Affine) => widths!(Six, Affine),
            (Levels::Six, Scales::Super) => widths!(Six, Super),
            (Levels::Six, Scales::SuperHalves) => widths!(Six, SuperHalves),
            (Levels::Eight, Scales::Single) => widths!(Eight, Single<{ Aux::START_128 }>),
            _ => super::portable::packed(t),
        }
    }
}
