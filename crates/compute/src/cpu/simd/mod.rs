//! The inner loops, one table of functions per instruction set, chosen once by run-time detection.
//!
//! What belongs here: which instruction sets there are, which one this machine has, the table. What does not: what the
//! operations do with the loops (`op`). The portable instance is the specification of the others.

mod attention;
mod portable;
mod tiles;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_round;
#[cfg(target_arch = "x86_64")]
mod avx512_softmax;
#[cfg(target_arch = "x86_64")]
mod cached;
#[cfg(target_arch = "x86_64")]
mod half_rows;
#[cfg(target_arch = "x86_64")]
mod maddubs;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod sdot;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod vnni_load;
#[cfg(target_arch = "x86_64")]
mod vnni_rows;

pub(crate) use attention::{HalfTile, LEVEL_GROUP, LEVEL_OFFSET, LevelMix, LevelScores, QUERY_RECORD, Softmax};
pub(crate) use portable::{HalfRows, LANES, Tile};
pub(crate) use tiles::{PackedRows, PackedTile, PackedTiles};

use super::{
    columns::{Rounding, Slot},
    pack::PackTile,
};
use crate::{Activation, KV_BLOCK};

/// An instruction set with kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Whatever the target architecture guarantees.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with VNNI: 8-bit dot products.
    Avx512Vnni,
    /// AArch64 with its vector unit.
    Neon,
    /// The same with `dotprod`: 8-bit dot products.
    NeonDot,
}

impl Isa {
    /// All of them, the plainest first.
    pub const ALL: &'static [Isa] = &[Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDot];

    /// The name that users see and write.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name().eq_ignore_ascii_case(name))
    }

    /// Whether this machine and this build have it.
    pub fn is_available(self) -> bool {
        Kernels::of(self).is_some()
    }

    /// Those this machine has, the plainest first.
    pub fn available() -> Vec<Isa> {
        Self::ALL.iter().copied().filter(|isa| isa.is_available()).collect()
    }

    /// The fastest that this machine has.
    pub fn best() -> Isa {
        Self::ALL.iter().copied().rfind(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `(x, shift, scale, weight, bias, out)`.
type Normalize = unsafe fn(&[f32], f32, f32, Option<&[f32]>, Option<&[f32]>, &mut [f32]);

/// The functions of one instruction set.
///
/// The pointers are `unsafe` because calling them on a machine without the instructions is undefined; [`Kernels::of`]
/// is the only way to a table from outside and it asks the machine first, so the methods are safe.
pub(crate) struct Kernels {
    isa: Isa,
    dot: unsafe fn(&[f32], &[f32]) -> f32,
    sum: unsafe fn(&[f32]) -> f32,
    max: unsafe fn(&[f32]) -> f32,
    exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    softcap: unsafe fn(&mut [f32], f32),
    sigmoid: unsafe fn(&mut [f32]),
    activate: unsafe fn(Activation, &mut [f32], Option<&[f32]>),
    normalize: Normalize,
    multiply: unsafe fn(Tile<'_>),
    f16_to_f32: unsafe fn(&[u16], &mut [f32]),
    bf16_to_f32: unsafe fn(&[u16], &mut [f32]),
    scale_groups: unsafe fn(&[i8], &[f32], &mut [f32]),
    softmax: unsafe fn(Softmax<'_>),
    widen_keys: unsafe fn(&[u8], &[f32; KV_BLOCK], &mut [f32]),
    half_tile: Option<unsafe fn(HalfTile<'_>)>,
    level_scores: Option<unsafe fn(LevelScores<'_>)>,
    level_mix: Option<unsafe fn(LevelMix<'_>)>,
    half_rows: Option<unsafe fn(HalfRows<'_>)>,
    packed: unsafe fn(PackedTiles<'_>),
    packed_rows: Option<unsafe fn(PackedRows<'_>) -> bool>,
    pack: unsafe fn(PackTile<'_>) -> bool,
    transpose: unsafe fn(&[f32], usize, usize, &mut [f32], usize),
    quantize: unsafe fn(&[f32], &Slot, Rounding, &mut [u8]),
}

macro_rules! methods {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {
        impl Kernels {
            $($(#[$doc])* pub(crate) fn $name(&self, $($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
                unsafe { (self.$name)($($arg),*) }
            })*
        }
    };
}

methods! {
    /// `Σ a·b`.
    fn dot(a: &[f32], b: &[f32]) -> f32;
    /// `Σ a`.
    fn sum(a: &[f32]) -> f32;
    /// The largest value that is a number.
    fn max(a: &[f32]) -> f32;
    /// `values = e^(values - shift)`; returns their sum.
    fn exp_sum(values: &mut [f32], shift: f32) -> f32;
    /// `values = cap · tanh(values / cap)`.
    fn softcap(values: &mut [f32], cap: f32);
    /// `values = sigmoid(values)`.
    fn sigmoid(values: &mut [f32]);
    /// `x = act(x) · up`.
    fn activate(activation: Activation, x: &mut [f32], up: Option<&[f32]>);
    /// `out = (x - shift) · scale · weight + bias`.
    fn normalize(x: &[f32], shift: f32, scale: f32, weight: Option<&[f32]>, bias: Option<&[f32]>, out: &mut [f32]);
    /// A small matrix product.
    fn multiply(tile: Tile<'_>);
    /// Exactly.
    fn f16_to_f32(from: &[u16], to: &mut [f32]);
    /// Exactly.
    fn bf16_to_f32(from: &[u16], to: &mut [f32]);
    /// `to[i] = from[i] · scales[i / 32]`.
    fn scale_groups(from: &[i8], scales: &[f32], to: &mut [f32]);
    /// Scores to weights.
    fn softmax(scores: Softmax<'_>);
    /// Levels of K as `f32`.
    fn widen_keys(from: &[u8], scales: &[f32; KV_BLOCK], to: &mut [f32]);
    /// Tiles of a packed matrix times a block of columns.
    fn packed(tiles: PackedTiles<'_>);
    /// Brings rows of a file into a tile; false: they have no packed form.
    fn pack(tile: PackTile<'_>) -> bool;
    /// 16 rows to 16 lanes: `to[t][r] = from[r][t]`.
    fn transpose(from: &[f32], from_stride: usize, len: usize, to: &mut [f32], to_stride: usize);
    /// Rounds a column to 8-bit levels.
    fn quantize(x: &[f32], slot: &Slot, rounding: Rounding, block: &mut [u8]);
}

impl Kernels {
    /// The table of an instruction set, if this machine has it.
    pub(crate) fn of(isa: Isa) -> Option<&'static Kernels> {
        match isa {
            Isa::Portable => Some(portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::available().then_some(avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::available().then_some(avx512::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::vnni_available().then_some(avx512::VNNI_KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::available().then_some(neon::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => sdot::available().then_some(neon::DOT_KERNELS),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni => None,
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDot => None,
        }
    }

    /// Rows of 16-bit floats times few columns. False: there is no such loop here, and nothing was done.
    pub(crate) fn half_rows(&self, rows: HalfRows<'_>) -> bool {
        // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
        self.half_rows.map(|half_rows| unsafe { half_rows(rows) }).is_some()
    }

    /// Whether [`Kernels::packed_rows`] has loops for some forms.
    pub(crate) fn has_packed_rows(&self) -> bool {
        self.packed_rows.is_some()
    }

    /// Tiles of a packed matrix times many columns. False: there is no such loop for this form, and nothing was done.
    pub(crate) fn packed_rows(&self, rows: PackedRows<'_>) -> bool {
        // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
        self.packed_rows.is_some_and(|packed_rows| unsafe { packed_rows(rows) })
    }

    /// Few queries times half precision. False: there is no such loop here, and nothing was done.
    pub(crate) fn half_tile(&self, tile: HalfTile<'_>) -> bool {
        // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
        self.half_tile.map(|half_tile| unsafe { half_tile(tile) }).is_some()
    }

    /// Whether there is a loop for [`LevelScores`].
    pub(crate) fn has_level_scores(&self) -> bool {
        self.level_scores.is_some()
    }

    /// Few rounded queries times levels of K. False: there is no such loop here, and nothing was done.
    pub(crate) fn level_scores(&self, scores: LevelScores<'_>) -> bool {
        // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
        self.level_scores.map(|level_scores| unsafe { level_scores(scores) }).is_some()
    }

    /// Few rows of weights times levels of V. False: there is no such loop here, and nothing was done.
    pub(crate) fn level_mix(&self, mix: LevelMix<'_>) -> bool {
        // SAFETY: this table came from `Kernels::of`, so the machine has its instructions.
        self.level_mix.map(|level_mix| unsafe { level_mix(mix) }).is_some()
    }

    /// Which instruction set this is.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }
}

/// Instantiates the loops of `portable` under target features and gathers them in `KERNELS`.
macro_rules! instance {
    ($isa:expr, features: [$($feature:literal)?], fma: $fma:literal, rows: $rows:literal, vectors: $vectors:literal,
     f16_to_f32: $f16_to_f32:path, transpose: $transpose:path, half_rows: $half_rows:expr,
     half_tile: $half_tile:expr, level_mix: $level_mix:expr, packed: $packed:path, lanes: $lanes:ty) => {
        /// The table of this instruction set.
        pub(super) const KERNELS: &$crate::cpu::simd::Kernels = &instance::TABLE;

        mod instance {
            use $crate::{Activation, KV_BLOCK, cpu::{columns::{Rounding, Slot}, pack::{self, PackTile}, simd::{Isa, Kernels, attention::{self, Softmax}, portable::{self, Tile}}}};

            $(#[target_feature(enable = $feature)])?
            fn dot(a: &[f32], b: &[f32]) -> f32 {
                portable::dot::<$fma>(a, b)
            }
            $(#[target_feature(enable = $feature)])?
            fn sum(a: &[f32]) -> f32 {
                portable::sum(a)
            }
            $(#[target_feature(enable = $feature)])?
            fn max(a: &[f32]) -> f32 {
                portable::max(a)
            }
            $(#[target_feature(enable = $feature)])?
            fn exp_sum(values: &mut [f32], shift: f32) -> f32 {
                portable::exp_sum::<$fma>(values, shift)
            }
            $(#[target_feature(enable = $feature)])?
            fn softcap(values: &mut [f32], cap: f32) {
                portable::softcap::<$fma>(values, cap)
            }
            $(#[target_feature(enable = $feature)])?
            fn sigmoid(values: &mut [f32]) {
                portable::sigmoid::<$fma>(values)
            }
            $(#[target_feature(enable = $feature)])?
            fn activate(activation: Activation, x: &mut [f32], up: Option<&[f32]>) {
                portable::activate::<$fma>(activation, x, up)
            }
            $(#[target_feature(enable = $feature)])?
            fn normalize(
                x: &[f32],
                shift: f32,
                scale: f32,
                weight: Option<&[f32]>,
                bias: Option<&[f32]>,
                out: &mut [f32],
            ) {
                portable::normalize(x, shift, scale, weight, bias, out)
            }
            $(#[target_feature(enable = $feature)])?
            fn multiply(tile: Tile<'_>) {
                portable::multiply::<$fma, $rows, $vectors>(tile)
            }
            $(#[target_feature(enable = $feature)])?
            fn bf16_to_f32(from: &[u16], to: &mut [f32]) {
                portable::bf16_to_f32(from, to)
            }

            $(#[target_feature(enable = $feature)])?
            fn softmax(scores: Softmax<'_>) {
                attention::softmax::<$fma>(scores)
            }

            $(#[target_feature(enable = $feature)])?
            fn widen_keys(from: &[u8], scales: &[f32; KV_BLOCK], to: &mut [f32]) {
                attention::widen_keys(from, scales, to)
            }

            $(#[target_feature(enable = $feature)])?
            fn scale_groups(from: &[i8], scales: &[f32], to: &mut [f32]) {
                portable::scale_groups(from, scales, to)
            }

            $(#[target_feature(enable = $feature)])?
            fn quantize(x: &[f32], slot: &Slot, rounding: Rounding, block: &mut [u8]) {
                portable::quantize(x, slot, rounding, block)
            }

            $(#[target_feature(enable = $feature)])?
            fn pack(tile: PackTile<'_>) -> bool {
                pack::pack::<$lanes>(tile)
            }

            pub(super) static TABLE: Kernels = Kernels {
                isa: $isa,
                dot,
                sum,
                max,
                exp_sum,
                softcap,
                sigmoid,
                activate,
                normalize,
                multiply,
                f16_to_f32: $f16_to_f32,
                bf16_to_f32,
                scale_groups,
                softmax,
                widen_keys,
                half_tile: $half_tile,
                level_scores: None,
                level_mix: $level_mix,
                half_rows: $half_rows,
                packed: $packed,
                packed_rows: None,
                pack,
                transpose: $transpose,
                quantize,
            };
        }
    };
}
use instance;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn all() -> Vec<&'static Kernels> {
        Isa::available().into_iter().filter_map(Kernels::of).collect()
    }

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(*isa));
        }
        assert!(Isa::best().is_available() && Isa::Portable.is_available());
    }

    #[test]
    fn reductions_of_every_length() {
        for k in all() {
            for n in (0..140).chain([1000]) {
                let (a, b) = (values(n, 1), values(n, 2));
                let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(k.dot(&a, &b)) - exact).abs() < 1e-4, "{} {n}", k.isa());
                let exact: f64 = a.iter().map(|a| f64::from(*a)).sum();
                assert!((f64::from(k.sum(&a)) - exact).abs() < 1e-4, "{} {n}", k.isa());
                assert_eq!(k.max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{} {n}", k.isa());
            }
        }
    }

    #[test]
    fn exponentials() {
        for k in all() {
            for x in [-200.0, -87.0, -20.5, -1.0, -1e-6, 0.0, 0.3, 1.0, 10.0, 80.0, f32::NEG_INFINITY] {
                for n in [1, 17] {
                    let mut v = vec![x; n];
                    let sum = k.exp_sum(&mut v, 0.0);
                    let exact = f64::from(x).exp();
                    for y in &v {
                        assert!((f64::from(*y) - exact).abs() <= 3e-7 * exact + 1e-37, "{} {x}: {y}", k.isa());
                    }
                    assert!((f64::from(sum) - exact * n as f64).abs() <= 1e-5 * exact * n as f64 + 1e-36);
                }
            }
            let mut v = [f32::NAN; 20];
            assert!(k.exp_sum(&mut v, 0.0).is_nan(), "{}", k.isa());
        }
    }

    #[test]
    fn activations() {
        #[track_caller]
        fn check(k: &Kernels, activation: Activation, x: f32, expected: f64) {
            let mut out = [x; 5];
            k.activate(activation, &mut out, Some(&[2.0; 5]));
            let got = f64::from(out[3]);
            assert!((got - 2.0 * expected).abs() < 2e-6 * expected.abs().max(0.1), "{} {x} {got} {expected}", k.isa());
            let mut out = [x; 5];
            k.activate(activation, &mut out, None);
            assert!((f64::from(out[4]) - expected).abs() < 2e-6 * expected.abs().max(0.1));
        }
        for k in all() {
            // erf(1/√2) = 0.6826894921, erf(√2) = 0.9544997361
            check(k, Activation::Gelu, 1.0, 0.5 * 1.682_689_492_1);
            check(k, Activation::Gelu, -2.0, -(1.0 - 0.954_499_736_1));
            check(k, Activation::GeluTanh, 1.0, 0.5 * (1.0 + (0.797_884_560_8f64 * 1.044_715).tanh()));
            check(k, Activation::GeluTanh, -30.0, 0.0);
            check(k, Activation::Silu, 1.5, 1.5 / (1.0 + (-1.5f64).exp()));
            check(k, Activation::Silu, -100.0, 0.0);
            check(k, Activation::Relu, -1.0, 0.0);
            check(k, Activation::Relu, 2.5, 2.5);
            check(k, Activation::ReluSquared, 3.0, 9.0);
            let mut v = [3.0f32; 3];
            k.softcap(&mut v, 5.0);
            assert!((f64::from(v[0]) - 5.0 * 0.6f64.tanh()).abs() < 1e-5);
            k.softcap(&mut v, f32::INFINITY.min(30.0));
            let mut v = [0.5f32; 3];
            k.sigmoid(&mut v);
            assert!((f64::from(v[2]) - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-6);
            let mut nan = [f32::NAN; 2];
            k.softcap(&mut nan, 1.0);
            assert!(nan[0].is_nan());
        }
    }

    #[test]
    fn small_products() {
        for k in all() {
            for (n_rows, n_inner, n_cols) in [(1, 1, 16), (7, 33, 80), (13, 5, 64), (2, 0, 16)] {
                let (a_stride, b_stride, c_stride) = (n_inner + 3, n_cols + 16, n_cols + 1);
                let (a, b) = (values(n_rows * a_stride, 3), values(n_inner * b_stride + 1, 4));
                for accumulate in [false, true] {
                    let mut c = vec![0.25; n_rows * c_stride];
                    let tile = Tile {
                        a: &a,
                        a_stride,
                        n_rows,
                        n_inner,
                        b: &b,
                        b_stride,
                        n_cols,
                        c: &mut c,
                        c_stride,
                        accumulate,
                    };
                    k.multiply(tile);
                    for r in 0..n_rows {
                        for j in 0..n_cols {
                            let start = if accumulate { 0.25 } else { 0.0 };
                            let exact: f32 = (0..n_inner).map(|t| a[r * a_stride + t] * b[t * b_stride + j]).sum();
                            let got = c[r * c_stride + j];
                            assert!((got - exact - start).abs() < 1e-4, "{} {r} {j}", k.isa());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_half_precision() {
        for k in all() {
            for (n_rows, row_len, n) in
                [(1, 1, 1), (9, 70, 1), (7, 33, 2), (5, 64, 3), (4, 16, 4), (6, 130, 9), (0, 16, 2)]
            {
                let (w, x) = (values(n_rows * row_len, 5), values(n * row_len, 6));
                for bf16 in [false, true] {
                    let bits = |v: &f32| match bf16 {
                        true => half::bf16::from_f32(*v).to_bits(),
                        false => half::f16::from_f32(*v).to_bits(),
                    };
                    let value = |bits: u16| match bf16 {
                        true => half::bf16::from_bits(bits).to_f32(),
                        false => half::f16::from_bits(bits).to_f32(),
                    };
                    let rows: Vec<u8> = w.iter().flat_map(|v| bits(v).to_le_bytes()).collect();
                    let mut out = vec![f32::NAN; n * n_rows];
                    if !k.half_rows(HalfRows { bf16, rows: &rows, row_len, x: &x, n, out: &mut out }) {
                        continue;
                    }
                    for (c, x) in x.chunks(row_len).enumerate() {
                        for (r, w) in w.chunks(row_len).enumerate() {
                            let exact: f32 = w.iter().zip(x).map(|(w, x)| value(bits(w)) * x).sum();
                            let got = out[c * n_rows + r];
                            assert!((got - exact).abs() < 1e-4, "{} {row_len} {c} {r}: {got} {exact}", k.isa());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn transposition() {
        for k in all() {
            for len in [0, 1, 15, 16, 37, 64] {
                let (from_stride, to_stride) = (len + 3, 24);
                let from = values(16 * from_stride, 7);
                let mut to = vec![0.0; len * to_stride + 16];
                k.transpose(&from, from_stride, len, &mut to, to_stride);
                for t in 0..len {
                    for r in 0..16 {
                        assert_eq!(to[t * to_stride + r], from[r * from_stride + t], "{} {len} {t} {r}", k.isa());
                    }
                }
            }
        }
    }

    #[test]
    fn scaled_levels() {
        let levels: Vec<i8> = (0..256).map(|i| (i * 37 % 256) as u8 as i8).collect();
        let scales: [f32; KV_BLOCK] = std::array::from_fn(|i| values(64, 8)[i]);
        let offset: Vec<u8> = levels.iter().map(|level| (i32::from(*level) + LEVEL_OFFSET) as u8).collect();
        for k in all() {
            let mut out = vec![0.0; 256];
            k.widen_keys(&offset, &scales, &mut out);
            let expected = |i: usize| f32::from(levels[i % 64 * 4 + i / 64]) * scales[i % 64];
            assert!(out.iter().enumerate().all(|(i, o)| *o == expected(i)), "{}", k.isa());
            k.scale_groups(&levels, &scales, &mut out);
            assert!(out.iter().enumerate().all(|(i, o)| *o == f32::from(levels[i]) * scales[i / 32]), "{}", k.isa());
        }
    }

    #[test]
    fn half_precision_is_exact_for_every_value() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        for k in all() {
            let mut wide = vec![0.0; bits.len()];
            k.f16_to_f32(&bits, &mut wide);
            for (b, w) in bits.iter().zip(&wide) {
                let exact = half::f16::from_bits(*b).to_f32();
                assert!(exact == *w || (exact.is_nan() && w.is_nan()), "{} {b:#x}", k.isa());
            }
            k.bf16_to_f32(&bits, &mut wide);
            assert!(bits.iter().zip(&wide).all(|(b, w)| w.to_bits() == u32::from(*b) << 16 || w.is_nan()));
        }
    }

    #[test]
    fn softmax_over_blocks() {
        for k in all() {
            let n = 3;
            let blocks = [values(n * KV_BLOCK, 1), values(n * KV_BLOCK, 2).iter().map(|v| 9.0 * v).collect()];
            let (mut largest, mut total, mut shrink) = (vec![f32::NEG_INFINITY; n], vec![0.0; n], vec![0.0; n]);
            let mut sums = vec![0.0f64; n];
            for mut scores in blocks.clone() {
                scores[5] = f32::NEG_INFINITY;
                let (largest, total, shrink) = (&mut largest[..], &mut total[..], &mut shrink[..]);
                k.softmax(Softmax { scores: &mut scores, largest, total, shrink });
                assert_eq!(scores[5], 0.0);
                for (i, sum) in sums.iter_mut().enumerate() {
                    let weights = &scores[i * KV_BLOCK..(i + 1) * KV_BLOCK];
                    *sum = *sum * f64::from(shrink[i]) + weights.iter().map(|w| f64::from(*w)).sum::<f64>();
                }
            }
            for i in 0..n {
                let both = blocks.iter().flat_map(|b| b[i * KV_BLOCK..(i + 1) * KV_BLOCK].iter().enumerate());
                let both = both.filter(|(p, _)| i > 0 || *p != 5).map(|(_, v)| *v);
                let best = both.clone().fold(f32::NEG_INFINITY, f32::max);
                let exact: f64 = both.map(|v| f64::from(v - best).exp()).sum();
                assert!(largest[i] == best && (f64::from(total[i]) - exact).abs() < 1e-4 * exact, "{}", k.isa());
                assert!((sums[i] - exact).abs() < 1e-4 * exact, "{}", k.isa());
            }
            // Nothing seen, and what is no number.
            let (mut largest, mut total, mut shrink) = ([f32::NEG_INFINITY; 2], [0.0; 2], [0.0; 2]);
            let mut scores = [f32::NEG_INFINITY; 2 * KV_BLOCK];
            scores[KV_BLOCK + 7] = f32::NAN;
            let s = Softmax { scores: &mut scores, largest: &mut largest, total: &mut total, shrink: &mut shrink };
            k.softmax(s);
            assert!(total[0] == 0.0 && shrink[0] == 1.0 && total[1].is_nan(), "{}", k.isa());
            assert!(scores[..KV_BLOCK].iter().all(|w| *w == 0.0), "{}", k.isa());
        }
    }

    #[test]
    fn half_precision_straight_from_the_cache_has_the_same_bits() {
        for k in all() {
            for (n_rows, n_inner, n_cols) in [(1, 3, 16), (4, 64, 64), (7, 50, 80), (13, 1, 128)] {
                let (a, wide) = (values(n_rows * (n_inner + 2), 3), values(n_inner * n_cols, 4));
                let b: Vec<u16> = wide.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect();
                let mut wide = vec![0.0; b.len()];
                k.f16_to_f32(&b, &mut wide);
                for accumulate in [false, true] {
                    let (mut c, mut expected) = (vec![0.25; n_rows * n_cols], vec![0.25; n_rows * n_cols]);
                    let (a, a_stride) = (&a[..], n_inner + 2);
                    let tile =
                        HalfTile { a, a_stride, n_rows, n_inner, b: &b, n_cols, c: &mut c, accumulate, next: &[] };
                    if !k.half_tile(tile) {
                        continue;
                    }
                    let (b_stride, c_stride, b) = (n_cols, n_cols, &wide[..]);
                    let c_too = &mut expected[..];
                    k.multiply(Tile {
                        a,
                        a_stride,
                        n_rows,
                        n_inner,
                        b,
                        b_stride,
                        n_cols,
                        c: c_too,
                        c_stride,
                        accumulate,
                    });
                    assert!(c == expected, "{} {n_rows} {n_inner} {n_cols}", k.isa());
                }
            }
        }
    }

    #[test]
    fn levels_straight_from_the_cache() {
        let level = |i: usize| (i * 7919 % 255) as i32 - 127;
        for k in all() {
            for (n, groups, seen) in [(1, 1, 64), (4, 2, 37), (7, 4, 1), (9, 3, 64)] {
                let dim = groups * LEVEL_GROUP;
                let scale = |group: usize, p: usize| half::f16::from_f32(0.001 * (1 + group * 5 + p) as f32);
                let scales: Vec<u16> =
                    (0..groups * KV_BLOCK).map(|i| scale(i / KV_BLOCK, i % KV_BLOCK).to_bits()).collect();
                let q = values(n * dim, 5);
                let mut queries = vec![0u8; n * groups * QUERY_RECORD];
                for (q, to) in q.chunks(dim).zip(queries.chunks_mut(groups * QUERY_RECORD)) {
                    k.quantize(q, &Slot { column: 0, width: 2 }, Rounding::TwoPlanes, to);
                }
                let levels: Vec<u8> = (0..dim * KV_BLOCK).map(|i| (level(i) + LEVEL_OFFSET) as u8).collect();
                let mut scores = vec![0.0; n * KV_BLOCK];
                let parts = LevelScores {
                    levels: &levels,
                    scales: &scales,
                    queries: &queries,
                    n,
                    scores: &mut scores,
                    next: &[],
                };
                if k.level_scores(parts) {
                    for (i, p) in (0..n).flat_map(|i| (0..KV_BLOCK).map(move |p| (i, p))) {
                        let k_value = |d: usize| {
                            f64::from(level((d / 4 * KV_BLOCK + p) * 4 + d % 4)) * scale(d / LEVEL_GROUP, p).to_f64()
                        };
                        let exact: f64 = (0..dim).map(|d| f64::from(q[i * dim + d]) * k_value(d)).sum();
                        assert!((f64::from(scores[i * KV_BLOCK + p]) - exact).abs() < 1e-2, "{} {i} {p}", k.isa());
                    }
                }
                let signed: Vec<i8> = (0..dim * KV_BLOCK).map(|i| level(i) as i8).collect();
                let weights = values(n * KV_BLOCK, 6);
                let mut sums = vec![0.5; n * dim];
                let (weights_in, sums_out) = (&weights[..], &mut sums[..]);
                let mix = LevelMix {
                    levels: &signed,
                    scales: &scales,
                    weights: weights_in,
                    seen,
                    n,
                    sums: sums_out,
                    next: &[],
                };
                if k.level_mix(mix) {
                    for (i, d) in (0..n).flat_map(|i| (0..dim).map(move |d| (i, d))) {
                        let v = |p: usize| f64::from(level(p * dim + d)) * scale(d / LEVEL_GROUP, p).to_f64();
                        let exact: f64 = (0..seen).map(|p| f64::from(weights[i * KV_BLOCK + p]) * v(p)).sum();
                        assert!((f64::from(sums[i * dim + d]) - 0.5 - exact).abs() < 1e-3, "{} {i} {d}", k.isa());
                    }
                }
            }
        }
    }
}
