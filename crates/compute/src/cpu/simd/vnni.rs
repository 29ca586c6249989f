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
    packed::{FP4, Form, IQ4, Levels, Scales, TILE},
};
use std::arch::x86_64::*;

/// The weights of one group of a tile.
struct Group {
    steps: [__m512i; 8],
    scales: [__m512; 2],
    mins: [__m512; 2],
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
    /// Each half of the group has one: a quarter of it is in `mins`, for the start values of levels 4 too large.
    const HALF_MINS: bool = false;
    /// The column's array of start values.
    const START: Option<usize> = None;
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]);
}

struct Two;
struct Three;
struct Four;
struct Iq4;
struct Fp4;
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

impl LoadLevels for Two {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe {
            let mask = _mm512_set1_epi8(3);
            let mut steps = [_mm512_setzero_si512(); 8];
            for half in 0..2 {
                let v = vector(p, half);
                let s = &mut steps[half * 4..half * 4 + 4];
                s[0] = _mm512_and_si512(v, mask);
                s[1] = _mm512_and_si512(_mm512_srli_epi16::<2>(v), mask);
                s[2] = _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask);
                s[3] = _mm512_and_si512(_mm512_srli_epi16::<6>(v), mask);
            }
            steps
        }
    }
}

impl LoadLevels for Three {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe {
            let (v, mask) = (vector(p, 2), _mm512_set1_epi8(4));
            let s = Two::load(p);
            // 0xf8: a | (b & c)
            let join = |low, upper| _mm512_ternarylogic_epi32::<0xf8>(low, upper, mask);
            [
                join(s[0], _mm512_slli_epi16::<2>(v)),
                join(s[1], _mm512_slli_epi16::<1>(v)),
                join(s[2], v),
                join(s[3], _mm512_srli_epi16::<1>(v)),
                join(s[4], _mm512_srli_epi16::<2>(v)),
                join(s[5], _mm512_srli_epi16::<3>(v)),
                join(s[6], _mm512_srli_epi16::<4>(v)),
                join(s[7], _mm512_srli_epi16::<5>(v)),
            ]
        }
    }
}

/// Levels out of a table.
#[inline(always)]
unsafe fn looked_up(p: *const u8, table: &[u8; 16]) -> [__m512i; 8] {
    unsafe {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        let mut steps = Four::load(p);
        for step in &mut steps {
            *step = _mm512_shuffle_epi8(table, *step);
        }
        steps
    }
}

impl LoadLevels for Iq4 {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe { looked_up(p, &IQ4) }
    }
}

impl LoadLevels for Fp4 {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [__m512i; 8] {
        unsafe { looked_up(p, &FP4) }
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

#[inline(always)]
unsafe fn unsigned(p: *const u8) -> __m512i {
    unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
}

#[inline(always)]
unsafe fn signed(p: *const u8) -> __m512 {
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
}

/// Scale and minimum of a whole group.
#[inline(always)]
unsafe fn same(scale: __m512, min: __m512) -> ([__m512; 2], [__m512; 2]) {
    unsafe { ([scale, _mm512_setzero_ps()], [min, _mm512_setzero_ps()]) }
}

struct Single<const START: usize>;
struct Affine;
struct Super;
struct SuperHalves<const START: usize>;
struct SuperMins;
struct SuperSigned;
struct Power;
struct Float<const CENTRED: bool>;
struct FloatHalves;

impl<const START: usize> LoadScales for Single<START> {
    const START: Option<usize> = Some(START);
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(halves(own), _mm512_setzero_ps()) }
    }
}

impl LoadScales for Affine {
    const MINS: bool = true;
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(halves(own), halves(own.add(32))) }
    }
}

impl LoadScales for Super {
    const MINS: bool = true;
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let wide = |p: *const u8| _mm512_cvtepi32_ps(unsigned(p));
            let scale = _mm512_mul_ps(halves(header), wide(own));
            same(scale, _mm512_mul_ps(halves(header.add(32)), wide(own.add(16))))
        }
    }
}

impl<const START: usize> LoadScales for SuperHalves<START> {
    const HALVES: bool = true;
    const START: Option<usize> = Some(START);
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let d = halves(header);
            let scales = [_mm512_mul_ps(d, signed(own)), _mm512_mul_ps(d, signed(own.add(16)))];
            (scales, [_mm512_setzero_ps(); 2])
        }
    }
}

impl LoadScales for SuperMins {
    const HALVES: bool = true;
    const HALF_MINS: bool = true;
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let d = halves(header);
            let e = _mm512_mul_ps(halves(header.add(32)), _mm512_set1_ps(0.25));
            let both = [unsigned(own), unsigned(own.add(16))];
            let low = |v| _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(15)));
            let high = |v| _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(v));
            (
                [_mm512_mul_ps(d, low(both[0])), _mm512_mul_ps(d, low(both[1]))],
                [_mm512_mul_ps(e, high(both[0])), _mm512_mul_ps(e, high(both[1]))],
            )
        }
    }
}

impl LoadScales for SuperSigned {
    const START: Option<usize> = Some(Aux::START_128);
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(_mm512_mul_ps(halves(header), signed(own)), _mm512_setzero_ps()) }
    }
}

impl LoadScales for Power {
    const START: Option<usize> = Some(Aux::START_128);
    /// As `packed::power` does it.
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let e = unsigned(own);
            let one = _mm512_set1_epi32(1);
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
            let small = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), _mm512_min_epi32(e, one));
            same(_mm512_castsi512_ps(_mm512_max_epi32(normal, small)), _mm512_setzero_ps())
        }
    }
}

impl<const CENTRED: bool> LoadScales for Float<CENTRED> {
    const MINS: bool = true;
    const START: Option<usize> = if CENTRED { Some(Aux::START_128) } else { None };
    #[inline(always)]
    unsafe fn load(header: *const u8, _: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(_mm512_loadu_ps(header.cast()), _mm512_loadu_ps(header.add(64).cast())) }
    }
}

impl LoadScales for FloatHalves {
    const HALVES: bool = true;
    const HALF_MINS: bool = true;
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let array = |i: usize| _mm512_loadu_ps(own.add(64 * i).cast());
            let quarter = |i: usize| _mm512_mul_ps(array(i), _mm512_set1_ps(0.25));
            ([array(0), array(1)], [quarter(2), quarter(3)])
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
        let sum = if S::HALF_MINS {
            let of_half = |half: usize| _mm512_cvtepi32_ps(_mm512_set1_epi32(value(Aux::START_4 + half)));
            _mm512_fmadd_ps(of_half(1), w.mins[1], _mm512_fmadd_ps(of_half(0), w.mins[0], sum))
        } else {
            sum
        };
        let f = _mm512_fmadd_ps(sum, float(Aux::SCALE), f);
        if S::MINS { _mm512_fnmadd_ps(w.mins[0], float(Aux::SUM), f) } else { f }
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
            (Levels::Six, Scales::SuperHalves) => widths!(Six, SuperHalves<{ Aux::START_32 }>),
            (Levels::Three, Scales::SuperHalves) => widths!(Three, SuperHalves<{ Aux::START_4 }>),
            (Levels::Two, Scales::SuperMins) => widths!(Two, SuperMins),
            (Levels::Iq4, Scales::Single) => widths!(Iq4, Single<{ Aux::START_128 }>),
            (Levels::Iq4, Scales::SuperSigned) => widths!(Iq4, SuperSigned),
            (Levels::Fp4, Scales::Power) => widths!(Fp4, Power),
            (Levels::Eight, Scales::Single) => widths!(Eight, Single<{ Aux::START_128 }>),
            (Levels::Two, Scales::Float(_)) => widths!(Two, Float<false>),
            (Levels::Three, Scales::Float(_)) => widths!(Three, Float<false>),
            (Levels::Four, Scales::Float(_)) => widths!(Four, Float<false>),
            (Levels::Six, Scales::Float(_)) => widths!(Six, Float<false>),
            (Levels::Eight, Scales::Float(_)) => widths!(Eight, Float<true>),
            (Levels::Four, Scales::FloatHalves) => widths!(Four, FloatHalves),
            _ => super::portable::packed(t),
        }
    }
}
