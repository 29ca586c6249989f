//! AVX-512 VNNI: the weights of a group of a packed tile, as vectors.
//!
//! What belongs here: a loader for each way in which levels and scales are stored (`cpu::packed`), and which of them a form
//! needs. What does not: products (`vnni`, `vnni_rows`).
//!
//! Loaders are `unsafe` because of their instructions (AVX-512 F and BW) and because they read through pointers: whoever
//! calls them has checked that the whole group lies inside its slice.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one contract for the whole file, stated above")]

use crate::cpu::{columns::Aux, packed::Form};
use std::arch::x86_64::*;

/// How levels are read.
pub(super) trait LoadLevels {
    /// Bytes of a group of a tile.
    const BYTES: usize;
    /// Step `i` of the group whose levels begin at `p`; `table` is that of the form. Whoever has few registers asks for them
    /// one by one.
    unsafe fn step(p: *const u8, i: usize, table: __m512i) -> __m512i;
    /// All 8 of them.
    #[inline(always)]
    unsafe fn load(p: *const u8, table: __m512i) -> [__m512i; 8] {
        unsafe { std::array::from_fn(|i| Self::step(p, i, table)) }
    }
}

/// How scales are read and what they imply.
pub(super) trait LoadScales {
    /// Bytes of a super-group's header.
    const HEADER: usize = 0;
    /// Bytes of a group's own scales.
    const OWN: usize;
    /// Each half of the group has a scale of its own.
    const HALVES: bool = false;
    /// There is a minimum to subtract.
    const MINS: bool = false;
    /// Each half of the group has one: a quarter of it is in `mins`, for the start values of levels 4 too large.
    const HALF_MINS: bool = false;
    /// The column's array of start values.
    const START: Option<usize> = None;
    /// The scales have so few bits that their product with 1.5 · 2^23 is exact and finite.
    const SHORT: bool = true;
    /// Scales and minimums of both halves of a group.
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]);
}

pub(super) struct Two;
pub(super) struct Three;
pub(super) struct Four;
pub(super) struct Table;
pub(super) struct Six;
pub(super) struct Eight;

#[inline(always)]
unsafe fn vector(p: *const u8, i: usize) -> __m512i {
    unsafe { _mm512_loadu_si512(p.add(i * 64).cast()) }
}

/// Step `i` of levels of 4 bits.
#[inline(always)]
unsafe fn nibbles(p: *const u8, i: usize) -> __m512i {
    unsafe {
        let v = vector(p, i % 4);
        _mm512_and_si512(if i < 4 { v } else { _mm512_srli_epi16::<4>(v) }, _mm512_set1_epi8(15))
    }
}

/// Step `i` of levels of 2 bits, at bits `to..to + 2`, other bits being anything.
#[inline(always)]
unsafe fn pairs(p: *const u8, i: usize, to: usize) -> __m512i {
    unsafe {
        let v = vector(p, i / 4);
        match (2 * (i % 4), to) {
            (0, 4) => _mm512_slli_epi16::<4>(v),
            (2, 4) => _mm512_slli_epi16::<2>(v),
            (6, 4) | (2, 0) => _mm512_srli_epi16::<2>(v),
            (4, 0) => _mm512_srli_epi16::<4>(v),
            (6, 0) => _mm512_srli_epi16::<6>(v),
            _ => v, // where they are already
        }
    }
}

/// `low | (upper & mask)`.
#[inline(always)]
unsafe fn join(low: __m512i, upper: __m512i, mask: i8) -> __m512i {
    unsafe { _mm512_ternarylogic_epi32::<0xf8>(low, upper, _mm512_set1_epi8(mask)) }
}

/// The table that the levels of a form index, if they do, in each quarter.
#[inline(always)]
pub(super) unsafe fn table(form: Form) -> __m512i {
    unsafe {
        let load = |table: &[u8; 16]| _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        form.table().map_or(_mm512_setzero_si512(), load)
    }
}

impl LoadLevels for Two {
    const BYTES: usize = 128;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, _: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(pairs(p, i, 0), _mm512_set1_epi8(3)) }
    }
}

impl LoadLevels for Three {
    const BYTES: usize = 192;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, _: __m512i) -> __m512i {
        unsafe {
            let v = vector(p, 2);
            let third = match i {
                0 => _mm512_slli_epi16::<2>(v),
                1 => _mm512_slli_epi16::<1>(v),
                2 => v,
                3 => _mm512_srli_epi16::<1>(v),
                4 => _mm512_srli_epi16::<2>(v),
                5 => _mm512_srli_epi16::<3>(v),
                6 => _mm512_srli_epi16::<4>(v),
                _ => _mm512_srli_epi16::<5>(v),
            };
            join(Two::step(p, i, v), third, 4)
        }
    }
}

impl LoadLevels for Four {
    const BYTES: usize = 256;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, _: __m512i) -> __m512i {
        unsafe { nibbles(p, i) }
    }
}

impl LoadLevels for Table {
    const BYTES: usize = 256;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, table: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(table, nibbles(p, i)) }
    }
}

impl LoadLevels for Six {
    const BYTES: usize = 384;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, _: __m512i) -> __m512i {
        unsafe { join(nibbles(p, i), pairs(p.add(256), i, 4), 0x30) }
    }
}

impl LoadLevels for Eight {
    const BYTES: usize = 512;
    #[inline(always)]
    unsafe fn step(p: *const u8, i: usize, _: __m512i) -> __m512i {
        unsafe { vector(p, i) }
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

pub(super) struct Single<const START: usize>;
pub(super) struct Affine;
pub(super) struct Super;
pub(super) struct SuperHalves<const START: usize>;
pub(super) struct SuperMins;
pub(super) struct SingleHalves;
pub(super) struct SuperSigned;
pub(super) struct FloatSigned;
pub(super) struct FloatSignedHalves;
pub(super) struct Power;
pub(super) struct Float<const CENTRED: bool>;
pub(super) struct FloatHalves;

impl<const START: usize> LoadScales for Single<START> {
    const OWN: usize = 32;
    const START: Option<usize> = Some(START);
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(halves(own), _mm512_setzero_ps()) }
    }
}

impl LoadScales for Affine {
    const OWN: usize = 64;
    const MINS: bool = true;
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(halves(own), halves(own.add(32))) }
    }
}

impl LoadScales for Super {
    const HEADER: usize = 64;
    const OWN: usize = 32;
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
    const HEADER: usize = 32;
    const OWN: usize = 32;
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
    const HEADER: usize = 64;
    const OWN: usize = 32;
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
    const HEADER: usize = 32;
    const OWN: usize = 16;
    const START: Option<usize> = Some(Aux::START_128);
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(_mm512_mul_ps(halves(header), signed(own)), _mm512_setzero_ps()) }
    }
}

impl LoadScales for FloatSigned {
    const HEADER: usize = 64;
    const OWN: usize = 16;
    const START: Option<usize> = Some(Aux::START_128);
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(_mm512_mul_ps(_mm512_loadu_ps(header.cast()), signed(own)), _mm512_setzero_ps()) }
    }
}

/// Scales of halves of a group whose levels are 128 too large, and minimums that say so.
#[inline(always)]
unsafe fn halves_of_128(scales: [__m512; 2]) -> ([__m512; 2], [__m512; 2]) {
    unsafe { (scales, scales.map(|scale| _mm512_mul_ps(scale, _mm512_set1_ps(128.0 / 4.0)))) }
}

impl LoadScales for FloatSignedHalves {
    const HEADER: usize = 64;
    const OWN: usize = 32;
    const HALVES: bool = true;
    const HALF_MINS: bool = true;
    #[inline(always)]
    unsafe fn load(header: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe {
            let d = _mm512_loadu_ps(header.cast());
            halves_of_128([_mm512_mul_ps(d, signed(own)), _mm512_mul_ps(d, signed(own.add(16)))])
        }
    }
}

impl LoadScales for SingleHalves {
    const OWN: usize = 64;
    const HALVES: bool = true;
    const HALF_MINS: bool = true;
    #[inline(always)]
    unsafe fn load(_: *const u8, own: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { halves_of_128([halves(own), halves(own.add(32))]) }
    }
}

impl LoadScales for Power {
    const OWN: usize = 16;
    const SHORT: bool = false;
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
    const HEADER: usize = 128;
    const OWN: usize = 0;
    const SHORT: bool = false;
    const MINS: bool = true;
    const START: Option<usize> = if CENTRED { Some(Aux::START_128) } else { None };
    #[inline(always)]
    unsafe fn load(header: *const u8, _: *const u8) -> ([__m512; 2], [__m512; 2]) {
        unsafe { same(_mm512_loadu_ps(header.cast()), _mm512_loadu_ps(header.add(64).cast())) }
    }
}

impl LoadScales for FloatHalves {
    const OWN: usize = 256;
    const SHORT: bool = false;
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

/// Runs `$body` with `$levels` and `$scales` standing for the loaders of a form; `$other` where there are none.
macro_rules! by_form {
    ($form:expr, |$levels:ident, $scales:ident| $body:expr, $other:expr) => {{
        use $crate::cpu::{
            columns::Aux,
            packed::{Form, Levels, Scales},
            simd::vnni_load::*,
        };
        macro_rules! with {
            ($of_levels:ty, $of_scales:ty) => {{
                type $levels = $of_levels;
                type $scales = $of_scales;
                $body
            }};
        }
        let Form { levels, scales } = $form;
        match (levels, scales) {
            (Levels::Four, Scales::Single) => with!(Four, Single<{ Aux::START_8 }>),
            (Levels::Four, Scales::Affine) => with!(Four, Affine),
            (Levels::Four, Scales::Super) => with!(Four, Super),
            (Levels::Six, Scales::Affine) => with!(Six, Affine),
            (Levels::Six, Scales::Super) => with!(Six, Super),
            (Levels::Six, Scales::SuperHalves) => with!(Six, SuperHalves<{ Aux::START_32 }>),
            (Levels::Three, Scales::SuperHalves) => with!(Three, SuperHalves<{ Aux::START_4 }>),
            (Levels::Two, Scales::SuperMins) => with!(Two, SuperMins),
            (Levels::Table(_), Scales::Single) => with!(Table, Single<{ Aux::START_128 }>),
            (Levels::Table(_), Scales::SingleHalves) => with!(Table, SingleHalves),
            (Levels::Table(_), Scales::SuperSigned) => with!(Table, SuperSigned),
            (Levels::Table(_), Scales::FloatSigned) => with!(Table, FloatSigned),
            (Levels::Table(_), Scales::FloatSignedHalves) => with!(Table, FloatSignedHalves),
            (Levels::Table(_), Scales::Power) => with!(Table, Power),
            (Levels::Eight, Scales::Single) => with!(Eight, Single<{ Aux::START_128 }>),
            (Levels::Two, Scales::Float(_)) => with!(Two, Float<false>),
            (Levels::Three, Scales::Float(_)) => with!(Three, Float<false>),
            (Levels::Four, Scales::Float(_)) => with!(Four, Float<false>),
            (Levels::Six, Scales::Float(_)) => with!(Six, Float<false>),
            (Levels::Eight, Scales::Float(_)) => with!(Eight, Float<true>),
            (Levels::Four, Scales::FloatHalves) => with!(Four, FloatHalves),
            _ => $other,
        }
    }};
}
pub(super) use by_form;
