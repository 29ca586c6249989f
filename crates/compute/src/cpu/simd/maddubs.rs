//! AVX2 without 8-bit dot products: the products of packed matrices by `vpmaddubsw`.
//!
//! That instruction multiplies unsigned by signed bytes and adds pairs into 16 bits, saturating. Eight such sums of 4-bit
//! levels fit 16 bits, two of 6-bit levels do. Of 8-bit levels and those of tables it gets the magnitude, and their sign goes to the column.
//!
//! Every function here is `unsafe` because of its instructions and because it reads through pointers: [`packed`] checks
//! the sizes once.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one contract for the whole file, stated above and at `packed`")]

use super::{PackedTile, PackedTiles};
use crate::cpu::{
    columns::{Aux, BEGINNING, record_bytes},
    packed::{Levels, Scales, TILE},
};
use std::arch::x86_64::*;

/// The weights of one group of a tile: of each step the vectors of rows 0..8 and 8..16.
struct Group {
    steps: [__m256i; 16],
    /// `[half of the group][half of the rows]`
    scales: [[__m256; 2]; 2],
    /// Likewise.
    mins: [[__m256; 2]; 2],
}

#[inline(always)]
unsafe fn load(p: *const u8, i: usize) -> __m256i {
    unsafe { _mm256_loadu_si256(p.add(i * 32).cast()) }
}

#[inline(always)]
unsafe fn load_levels(levels: Levels, p: *const u8, steps: &mut [__m256i; 16]) {
    unsafe {
        if levels == Levels::Eight {
            let offset = _mm256_set1_epi8(-128);
            for (i, step) in steps.iter_mut().enumerate() {
                *step = _mm256_xor_si256(load(p, i), offset); // signed again
            }
            return;
        }
        if matches!(levels, Levels::Two | Levels::Three) {
            let (pair, third) = (_mm256_set1_epi8(3), _mm256_set1_epi8(4));
            for t in 0..2 {
                for half in 0..2 {
                    let v = load(p, 2 * t + half);
                    let parts = [v, _mm256_srli_epi16::<2>(v), _mm256_srli_epi16::<4>(v), _mm256_srli_epi16::<6>(v)];
                    for (i, part) in parts.into_iter().enumerate() {
                        steps[8 * t + 2 * i + half] = _mm256_and_si256(part, pair);
                    }
                }
            }
            if levels == Levels::Three {
                for (i, step) in steps.iter_mut().enumerate() {
                    let (v, shift) = (load(p, 4 + i % 2), _mm_cvtsi32_si128((i / 2) as i32));
                    let upper = _mm256_slli_epi16::<2>(_mm256_srl_epi16(v, shift));
                    *step = _mm256_or_si256(*step, _mm256_and_si256(upper, third));
                }
            }
            return;
        }
        let mask = _mm256_set1_epi8(15);
        for i in 0..8 {
            let v = load(p, i);
            steps[i] = _mm256_and_si256(v, mask);
            steps[i + 8] = _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
        }
        if let Levels::Table(table) = levels {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            let table = _mm256_xor_si256(table, _mm256_set1_epi8(-128)); // signed
            for step in steps.iter_mut() {
                *step = _mm256_shuffle_epi8(table, *step);
            }
        }
        if levels == Levels::Six {
            let mask = _mm256_set1_epi8(0x30);
            for t in 0..2 {
                for half in 0..2 {
                    let v = load(p, 8 + 2 * t + half);
                    let parts = [_mm256_slli_epi16::<4>(v), _mm256_slli_epi16::<2>(v), v, _mm256_srli_epi16::<2>(v)];
                    for (i, part) in parts.into_iter().enumerate() {
                        let step = &mut steps[8 * t + 2 * i + half];
                        *step = _mm256_or_si256(*step, _mm256_and_si256(part, mask));
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn load_scales(scales: Scales, header: *const u8, own: *const u8, w: &mut Group) {
    unsafe {
        for rows in 0..2 {
            let halves = |p: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(p.add(16 * rows).cast()));
            let floats = |p: *const u8| _mm256_loadu_ps(p.add(32 * rows).cast());
            let bytes = |p: *const u8| _mm_loadl_epi64(p.add(8 * rows).cast());
            let unsigned = |p: *const u8| _mm256_cvtepu8_epi32(bytes(p));
            let unsigned_float = |p: *const u8| _mm256_cvtepi32_ps(unsigned(p));
            let signed = |p: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes(p)));
            match scales {
                Scales::Single => w.scales[0][rows] = halves(own),
                Scales::SingleHalves => {
                    w.scales[0][rows] = halves(own);
                    w.scales[1][rows] = halves(own.add(32));
                }
                Scales::Affine => {
                    w.scales[0][rows] = halves(own);
                    w.mins[0][rows] = halves(own.add(32));
                }
                Scales::Super => {
                    w.scales[0][rows] = _mm256_mul_ps(halves(header), unsigned_float(own));
                    w.mins[0][rows] = _mm256_mul_ps(halves(header.add(32)), unsigned_float(own.add(16)));
                }
                Scales::SuperHalves => {
                    w.scales[0][rows] = _mm256_mul_ps(halves(header), signed(own));
                    w.scales[1][rows] = _mm256_mul_ps(halves(header), signed(own.add(16)));
                }
                Scales::SuperMins => {
                    let e = _mm256_mul_ps(halves(header.add(32)), _mm256_set1_ps(0.25));
                    for half in 0..2 {
                        let both = unsigned(own.add(16 * half));
                        let low = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
                        w.scales[half][rows] = _mm256_mul_ps(halves(header), low);
                        w.mins[half][rows] = _mm256_mul_ps(e, _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(both)));
                    }
                }
                Scales::SuperSigned => w.scales[0][rows] = _mm256_mul_ps(halves(header), signed(own)),
                Scales::FloatSigned => w.scales[0][rows] = _mm256_mul_ps(floats(header), signed(own)),
                Scales::FloatSignedHalves => {
                    w.scales[0][rows] = _mm256_mul_ps(floats(header), signed(own));
                    w.scales[1][rows] = _mm256_mul_ps(floats(header), signed(own.add(16)));
                }
                // As `packed::power` does it.
                Scales::Power => {
                    let (e, one) = (unsigned(own), _mm256_set1_epi32(1));
                    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, one));
                    let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), _mm256_min_epi32(e, one));
                    w.scales[0][rows] = _mm256_castsi256_ps(_mm256_max_epi32(normal, small));
                }
                Scales::Float(_) => {
                    w.scales[0][rows] = floats(header);
                    w.mins[0][rows] = floats(header.add(64));
                }
                Scales::FloatHalves => {
                    for half in 0..2 {
                        w.scales[half][rows] = floats(own.add(64 * half));
                        let min = floats(own.add(128 + 64 * half));
                        w.mins[half][rows] = _mm256_mul_ps(min, _mm256_set1_ps(0.25));
                    }
                }
            }
        }
    }
}

/// `Σ levels · q` over steps `first..first + n` for 8 rows.
#[inline(always)]
unsafe fn dot<const LEVELS: u8>(w: &Group, rows: usize, q: *const i32, first: usize, n: usize) -> __m256i {
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let product = |step: usize| {
            let q = _mm256_set1_epi32(q.add(step).read_unaligned());
            let w = w.steps[2 * step + rows];
            if LEVELS == 8 {
                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
            } else {
                _mm256_maddubs_epi16(w, q)
            }
        };
        let mut sum = _mm256_setzero_si256();
        if LEVELS == 4 {
            for step in first..first + n {
                sum = _mm256_add_epi16(sum, product(step));
            }
            return _mm256_madd_epi16(sum, ones);
        }
        for step in (first..first + n).step_by(2) {
            let (a, b) = (product(step), product(step + 1));
            sum = if LEVELS == 6 {
                _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones))
            } else {
                _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones)))
            };
        }
        sum
    }
}

/// The product of a tile and a block of columns.
///
/// # Safety
/// Sizes as checked by [`packed`]; the machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<const LEVELS: u8, const START: usize, const HALVES: bool, const MINS: bool>(t: &mut PackedTile<'_>) {
    let (_, _, own_bytes) = t.form.scale_layout();
    let width = t.width;
    unsafe {
        let sums = t.sums.as_mut_ptr();
        if !t.accumulate {
            std::ptr::write_bytes(sums, 0, width / t.planes * TILE);
        }
        let mut w = Group {
            steps: [_mm256_setzero_si256(); 16],
            scales: [[_mm256_setzero_ps(); 2]; 2],
            mins: [[_mm256_setzero_ps(); 2]; 2],
        };
        let mut record = t.columns.as_ptr();
        for g in t.groups.clone() {
            let (header, own) = t.form.offsets(g);
            let (header, own) = (t.tile.as_ptr().add(header), t.tile.as_ptr().add(own));
            load_scales(t.form.scales, header, own, &mut w);
            load_levels(t.form.levels, own.add(own_bytes), &mut w.steps);
            let aux = record.add(width * 32);
            for c in 0..width {
                let q: *const i32 = record.add(c * 32).cast();
                let value = |array: usize| aux.cast::<i32>().add(array * width + c).read_unaligned();
                let float = |array: usize| _mm256_set1_ps(f32::from_bits(value(array).cast_unsigned()));
                let start = |array: usize| _mm256_set1_epi32(value(array) - BEGINNING.0);
                let started = |dot: __m256i, half: usize| {
                    let dot = if START == NONE { dot } else { _mm256_add_epi32(dot, start(START + half)) };
                    _mm256_cvtepi32_ps(dot)
                };
                for rows in 0..2 {
                    let sum = if HALVES {
                        let first = _mm256_mul_ps(started(dot::<LEVELS>(&w, rows, q, 0, 4), 0), w.scales[0][rows]);
                        _mm256_fmadd_ps(started(dot::<LEVELS>(&w, rows, q, 4, 4), 1), w.scales[1][rows], first)
                    } else {
                        _mm256_mul_ps(started(dot::<LEVELS>(&w, rows, q, 0, 8), 0), w.scales[0][rows])
                    };
                    // Of halves a quarter of the minimum, for the start values of levels 4 too large.
                    let sum = if HALVES && MINS {
                        let of_half = |half: usize| _mm256_cvtepi32_ps(start(Aux::START_4 + half));
                        let sum = _mm256_fmadd_ps(of_half(0), w.mins[0][rows], sum);
                        _mm256_fmadd_ps(of_half(1), w.mins[1][rows], sum)
                    } else {
                        sum
                    };
                    let at = sums.add(c / t.planes * TILE + rows * 8);
                    let mut f = _mm256_fmadd_ps(sum, float(Aux::SCALE), _mm256_loadu_ps(at));
                    if MINS && !HALVES {
                        f = _mm256_fnmadd_ps(w.mins[0][rows], float(Aux::SUM), f);
                    }
                    _mm256_storeu_ps(at, f);
                }
            }
            record = record.add(record_bytes(width));
        }
    }
}

/// No start value.
const NONE: usize = usize::MAX;

/// Dispatches on the form.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn packed(mut t: PackedTiles<'_>) {
    assert!(t.fits(), "tiles outside their slices");
    // SAFETY: `fits` was asserted, and the caller knows the machine.
    t.each(|tile| unsafe { packed_tile(tile) });
}

/// The same for one tile.
///
/// # Safety
/// As for [`packed`], whose slices were checked.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed_tile(mut t: PackedTile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        match (t.form.levels, t.form.scales) {
            (Levels::Four, Scales::Single) => block::<4, { Aux::START_8 }, false, false>(&mut t),
            (Levels::Four, Scales::Affine | Scales::Super) => block::<4, NONE, false, true>(&mut t),
            (Levels::Six, Scales::Affine | Scales::Super) => block::<6, NONE, false, true>(&mut t),
            (Levels::Six, Scales::SuperHalves) => block::<6, { Aux::START_32 }, true, false>(&mut t),
            (Levels::Three, Scales::SuperHalves) => block::<4, { Aux::START_4 }, true, false>(&mut t),
            (Levels::Two, Scales::SuperMins) => block::<4, NONE, true, true>(&mut t),
            (Levels::Table(_), Scales::Single | Scales::SuperSigned | Scales::FloatSigned | Scales::Power) => {
                block::<8, NONE, false, false>(&mut t)
            }
            (Levels::Table(_), Scales::SingleHalves | Scales::FloatSignedHalves) => {
                block::<8, NONE, true, false>(&mut t)
            }
            (Levels::Eight, Scales::Single) => block::<8, NONE, false, false>(&mut t),
            (Levels::Two | Levels::Three | Levels::Four, Scales::Float(_)) => block::<4, NONE, false, true>(&mut t),
            (Levels::Six, Scales::Float(_)) => block::<6, NONE, false, true>(&mut t),
            (Levels::Eight, Scales::Float(_)) => block::<8, NONE, false, true>(&mut t),
            (Levels::Four, Scales::FloatHalves) => block::<4, NONE, true, true>(&mut t),
            _ => super::portable::packed_tile(t),
        }
    }
}
