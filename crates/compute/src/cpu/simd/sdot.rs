//! AArch64 with 8-bit dot products (`dotprod`): the products of packed matrices by `sdot`.
//!
//! `sdot` multiplies 4 signed levels of each of 4 rows by 4 signed levels of a column, one lane of a vector. Levels of up to 6 bits
//! are signed bytes as they are, and what they have too much is the column's start value; levels of 8 bits and those of
//! tables lose their offset of 128 first. Four rows at a time, so that their weights stay in 8 registers for all columns.
//!
//! The instructions are written as assembly because their intrinsics are not stable yet.
//!
//! Every function here is `unsafe` because of its instructions and because it reads through pointers: [`packed`] checks
//! the sizes once. The contract of all others is that those checks hold: pointers are to whole groups and records of the
//! tile's form.

use super::{PackedTile, PackedTiles};
use crate::cpu::{
    columns::{Aux, BEGINNING, record_bytes},
    packed::{Levels, Scales, TILE, power},
};
use std::arch::{aarch64::*, asm};

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    super::neon::available() && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// The weights of one group of four rows.
struct Group {
    steps: [int8x16_t; 8],
    /// Of both halves of the group.
    scales: [float32x4_t; 2],
    /// Likewise.
    mins: [float32x4_t; 2],
}

/// `sum + Σ w · q` over 4 levels: those of each row, and lane `LANE` of the column's.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot<const LANE: u32>(mut sum: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is one that the caller has made sure of.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {q:v}.4b[{lane}]", sum = inout(vreg) sum, w = in(vreg) w, q = in(vreg) q,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four halves.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn halves(p: *const u8) -> float32x4_t {
    // SAFETY: 8 bytes are read, which lie in the group by the contract of this file.
    unsafe {
        let bits = p.cast::<u64>().read_unaligned();
        let wide: float32x4_t;
        asm!("fmov {wide:d}, {bits}", "fcvtl {wide:v}.4s, {wide:v}.4h", wide = out(vreg) wide, bits = in(reg) bits,
            options(pure, nomem, nostack, preserves_flags));
        wide
    }
}

/// Four bytes, as 32-bit numbers.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn unsigned(p: *const u8) -> uint32x4_t {
    // SAFETY: 4 bytes are read, which lie in the group by the contract of this file.
    unsafe {
        let bytes = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
        vmovl_u16(vget_low_u16(vmovl_u8(bytes)))
    }
}

#[inline]
#[target_feature(enable = "neon")]
unsafe fn signed(p: *const u8) -> float32x4_t {
    // SAFETY: 4 bytes are read, which lie in the group by the contract of this file.
    unsafe {
        let bytes = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
    }
}

/// The levels of rows `4 · quad..`; `p` points to the group's.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn load_levels(levels: Levels, p: *const u8, quad: usize, steps: &mut [int8x16_t; 8]) {
    // SAFETY: all loads lie in the levels of the group, whose size is that of its form.
    unsafe {
        let load = |i: usize| vld1q_u8(p.add(i * 64 + quad * 16));
        let byte = |v: u8| vdupq_n_u8(v);
        match levels {
            Levels::Eight => {
                for (i, step) in steps.iter_mut().enumerate() {
                    *step = vreinterpretq_s8_u8(veorq_u8(load(i), byte(128)));
                }
            }
            Levels::Two | Levels::Three => {
                for half in 0..2 {
                    let v = load(half);
                    let parts = [v, vshrq_n_u8::<2>(v), vshrq_n_u8::<4>(v), vshrq_n_u8::<6>(v)];
                    for (i, part) in parts.into_iter().enumerate() {
                        steps[4 * half + i] = vreinterpretq_s8_u8(vandq_u8(part, byte(3)));
                    }
                }
                if levels == Levels::Three {
                    let v = load(2);
                    for (i, step) in steps.iter_mut().enumerate() {
                        let bit = vandq_u8(vshlq_u8(v, vdupq_n_s8(2 - i as i8)), byte(4));
                        *step = vorrq_s8(*step, vreinterpretq_s8_u8(bit));
                    }
                }
            }
            Levels::Four | Levels::Table(_) | Levels::Six => {
                for i in 0..4 {
                    let v = load(i);
                    steps[i] = vreinterpretq_s8_u8(vandq_u8(v, byte(15)));
                    steps[i + 4] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                }
                if levels == Levels::Six {
                    for half in 0..2 {
                        let v = load(4 + half);
                        let parts = [vshlq_n_u8::<4>(v), vshlq_n_u8::<2>(v), v, vshrq_n_u8::<2>(v)];
                        for (i, part) in parts.into_iter().enumerate() {
                            let upper = vreinterpretq_s8_u8(vandq_u8(part, byte(0x30)));
                            steps[4 * half + i] = vorrq_s8(steps[4 * half + i], upper);
                        }
                    }
                }
                if let Levels::Table(table) = levels {
                    let table = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(table.as_ptr()), byte(128)));
                    for step in steps.iter_mut() {
                        *step = vqtbl1q_s8(table, vreinterpretq_u8_s8(*step));
                    }
                }
            }
        }
    }
}

/// The scales of rows `4 · quad..`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn load_scales(scales: Scales, header: *const u8, own: *const u8, quad: usize, w: &mut Group) {
    // SAFETY: all loads lie in the scales of the group and of its super-group, whose sizes are those of its form.
    unsafe {
        let half = |p: *const u8| halves(p.add(8 * quad));
        let floats = |p: *const u8| vld1q_f32(p.add(16 * quad).cast());
        let wide = |p: *const u8| vcvtq_f32_u32(unsigned(p.add(4 * quad)));
        let signed = |p: *const u8| signed(p.add(4 * quad));
        match scales {
            Scales::Single => w.scales[0] = half(own),
            Scales::SingleHalves => w.scales = [half(own), half(own.add(32))],
            Scales::Affine => (w.scales[0], w.mins[0]) = (half(own), half(own.add(32))),
            Scales::Super => {
                w.scales[0] = vmulq_f32(half(header), wide(own));
                w.mins[0] = vmulq_f32(half(header.add(32)), wide(own.add(16)));
            }
            Scales::SuperHalves => {
                w.scales[0] = vmulq_f32(half(header), signed(own));
                w.scales[1] = vmulq_f32(half(header), signed(own.add(16)));
            }
            Scales::SuperMins => {
                let e = vmulq_n_f32(half(header.add(32)), 0.25);
                for part in 0..2 {
                    let both = unsigned(own.add(16 * part + 4 * quad));
                    let low = vcvtq_f32_u32(vandq_u32(both, vdupq_n_u32(15)));
                    w.scales[part] = vmulq_f32(half(header), low);
                    w.mins[part] = vmulq_f32(e, vcvtq_f32_u32(vshrq_n_u32::<4>(both)));
                }
            }
            Scales::SuperSigned => w.scales[0] = vmulq_f32(half(header), signed(own)),
            Scales::FloatSigned => w.scales[0] = vmulq_f32(floats(header), signed(own)),
            Scales::FloatSignedHalves => {
                w.scales[0] = vmulq_f32(floats(header), signed(own));
                w.scales[1] = vmulq_f32(floats(header), signed(own.add(16)));
            }
            Scales::Power => {
                let powers: [f32; 4] = std::array::from_fn(|i| power(*own.add(4 * quad + i)));
                w.scales[0] = vld1q_f32(powers.as_ptr());
            }
            Scales::Float(_) => (w.scales[0], w.mins[0]) = (floats(header), floats(header.add(64))),
            Scales::FloatHalves => {
                for part in 0..2 {
                    w.scales[part] = floats(own.add(64 * part));
                    w.mins[part] = vmulq_n_f32(floats(own.add(128 + 64 * part)), 0.25);
                }
            }
        }
    }
}

/// The product of a tile and a block of columns.
///
/// # Safety
/// Sizes as checked by [`packed`]; the machine has `dotprod`.
#[target_feature(enable = "neon,dotprod")]
unsafe fn block<const START: usize, const HALVES: bool, const MINS: bool>(t: &mut PackedTile<'_>) {
    let (_, _, own_bytes) = t.form.scale_layout();
    let width = t.width;
    // SAFETY: groups, records and sums lie inside their slices: `packed` asserted it for all of them.
    unsafe {
        let sums = t.sums.as_mut_ptr();
        if !t.accumulate {
            std::ptr::write_bytes(sums, 0, width / t.planes * TILE);
        }
        let none = vdupq_n_f32(0.0);
        let mut w = Group { steps: [vdupq_n_s8(0); 8], scales: [none; 2], mins: [none; 2] };
        let mut record = t.columns.as_ptr();
        for g in t.groups.clone() {
            let (header, own) = t.form.offsets(g);
            let (header, own) = (t.tile.as_ptr().add(header), t.tile.as_ptr().add(own));
            let aux = record.add(width * 32);
            for quad in 0..TILE / 4 {
                load_scales(t.form.scales, header, own, quad, &mut w);
                load_levels(t.form.levels, own.add(own_bytes), quad, &mut w.steps);
                for c in 0..width {
                    let q: *const i8 = record.add(c * 32).cast();
                    let (first, last) = (vld1q_s8(q), vld1q_s8(q.add(16)));
                    let value = |array: usize| aux.cast::<i32>().add(array * width + c).read_unaligned();
                    let float = |array: usize| f32::from_bits(value(array).cast_unsigned());
                    let begun = |array: usize| value(array) - BEGINNING.0;
                    let start = |half: usize| vdupq_n_s32(if START == NONE { 0 } else { begun(START + half) });
                    let four = |sum, w: &[int8x16_t], q| {
                        let sum = sdot::<1>(sdot::<0>(sum, w[0], q), w[1], q);
                        sdot::<3>(sdot::<2>(sum, w[2], q), w[3], q)
                    };
                    let dot = four(start(0), &w.steps[..4], first);
                    let mut sum = if HALVES {
                        let other = four(start(1), &w.steps[4..], last);
                        vfmaq_f32(vmulq_f32(vcvtq_f32_s32(dot), w.scales[0]), vcvtq_f32_s32(other), w.scales[1])
                    } else {
                        vmulq_f32(vcvtq_f32_s32(four(dot, &w.steps[4..], last)), w.scales[0])
                    };
                    // Of halves a quarter of the minimum, for the start values of levels 4 too large.
                    if HALVES && MINS {
                        for half in 0..2 {
                            sum = vfmaq_n_f32(sum, w.mins[half], begun(Aux::START_4 + half) as f32);
                        }
                    }
                    let at = sums.add(c / t.planes * TILE + quad * 4);
                    let mut f = vfmaq_n_f32(vld1q_f32(at), sum, float(Aux::SCALE));
                    if MINS && !HALVES {
                        f = vfmsq_n_f32(f, w.mins[0], float(Aux::SUM));
                    }
                    vst1q_f32(at, f);
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
/// The machine has `dotprod`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn packed(mut t: PackedTiles<'_>) {
    assert!(t.fits(), "tiles outside their slices");
    // SAFETY: `fits` was asserted, and the caller knows the machine.
    t.each(|tile| unsafe { packed_tile(tile) });
}

/// The same for one tile.
///
/// # Safety
/// As for [`packed`], whose slices were checked.
#[target_feature(enable = "neon,dotprod")]
unsafe fn packed_tile(mut t: PackedTile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        match (t.form.levels, t.form.scales) {
            (Levels::Four, Scales::Single) => block::<{ Aux::START_8 }, false, false>(&mut t),
            (Levels::Four | Levels::Six, Scales::Affine | Scales::Super) => block::<NONE, false, true>(&mut t),
            (Levels::Six, Scales::SuperHalves) => block::<{ Aux::START_32 }, true, false>(&mut t),
            (Levels::Three, Scales::SuperHalves) => block::<{ Aux::START_4 }, true, false>(&mut t),
            (Levels::Two, Scales::SuperMins) => block::<NONE, true, true>(&mut t),
            (Levels::Table(_), Scales::Single | Scales::SuperSigned | Scales::FloatSigned | Scales::Power)
            | (Levels::Eight, Scales::Single) => block::<NONE, false, false>(&mut t),
            (Levels::Table(_), Scales::SingleHalves | Scales::FloatSignedHalves) => block::<NONE, true, false>(&mut t),
            (Levels::Table(_), Scales::Float(_)) => super::portable::packed_tile(t),
            (_, Scales::Float(_)) => block::<NONE, false, true>(&mut t),
            (Levels::Four, Scales::FloatHalves) => block::<NONE, true, true>(&mut t),
            _ => super::portable::packed_tile(t),
        }
    }
}
