//! Repacking: the blocks of a file brought into the tiles of `packed`.
//!
//! A tile is filled block by block, its 16 rows in turn: what is written stays in the first-level cache until it is
//! whole, and the file's rows are read as 16 streams. Each type says how its levels and its scales lie in a block; all
//! else is the same code, instantiated for every instruction set (`simd`). The source layouts are those of the block types
//! (see `tensor::block`).
//!
//! What belongs here: block layouts in, tile layout out. What does not: memory and threads (`packed`).

use super::{
    columns::GROUP,
    packed::{Form, Levels, TILE},
};
use half::f16;
use tensor::{Affine, DType};

/// Rows to pack as one tile.
pub(crate) struct PackTile<'a> {
    pub(crate) dtype: DType,
    /// Up to 16 rows of a matrix, as in the file.
    pub(crate) rows: &'a [u8],
    pub(crate) row_bytes: usize,
    /// A whole tile, zero.
    pub(crate) to: &'a mut [u8],
}

/// Packs a tile. False: the type has no packed form, or its scales do not fit.
#[inline(always)]
pub(crate) fn pack(t: PackTile<'_>) -> bool {
    match t.dtype {
        DType::Q4_0 => blocks::<18, 8>(t, DType::Q4_0, |b, l| nibbles::<4>(&b[2..], l), single),
        DType::Q4_1 => blocks::<20, 8>(t, DType::Q4_1, |b, l| nibbles::<4>(&b[4..], l), affine),
        DType::Q5_0 => blocks::<22, 8>(t, DType::Q5_0, |b, l| fifth_bits(&b[2..], l), centred_16),
        DType::Q5_1 => blocks::<24, 8>(t, DType::Q5_1, |b, l| fifth_bits(&b[4..], l), affine),
        DType::Q8_0 => {
            blocks::<34, 8>(t, DType::Q8_0, |b, l| l.copy_from_slice(&words::<8>(&b[2..], 0x8080_8080)), single)
        }
        DType::Q4_K => blocks::<144, 64>(t, DType::Q4_K, |b, l| nibbles::<8>(&b[16..], l), super_scales),
        DType::Q5_K => blocks::<176, 64>(t, DType::Q5_K, q5_k_levels, super_scales),
        DType::Q6_K => blocks::<210, 64>(t, DType::Q6_K, q6_k_levels, |b, group, to| {
            to.shared(0, [b[208], b[209]]);
            to.byte(0, b[192 + 2 * group]);
            to.byte(1, b[192 + 2 * group + 1])
        }),
        DType::IQ4_NL => blocks::<18, 8>(t, DType::IQ4_NL, |b, l| nibbles::<4>(&b[2..], l), single),
        DType::IQ4_XS => blocks::<136, 64>(t, DType::IQ4_XS, |b, l| nibbles::<4>(&b[8..], l), iq4_xs_scales),
        DType::MXFP4 => blocks::<17, 8>(t, DType::MXFP4, |b, l| nibbles::<4>(&b[1..], l), |b, _, to| to.byte(0, b[0])),
        DType::Q2_K => blocks::<84, 64>(
            t,
            DType::Q2_K,
            |b, l| pairs(&b[16..80], l),
            |b, group, to| {
                to.shared(0, [b[80], b[81]]);
                to.shared(1, [b[82], b[83]]);
                to.byte(0, b[2 * group]);
                to.byte(1, b[2 * group + 1])
            },
        ),
        DType::Q3_K => blocks::<110, 64>(t, DType::Q3_K, q3_k_levels, q3_k_scales),
        other => match Affine::of(other) {
            Some(affine) if affine.bits == 2 => affine_groups::<2>(t, affine),
            Some(affine) if affine.bits == 3 => affine_groups::<3>(t, affine),
            Some(affine) if affine.bits == 4 => affine_groups::<4>(t, affine),
            Some(affine) if affine.bits == 5 => affine_groups::<5>(t, affine),
            Some(affine) if affine.bits == 6 => affine_groups::<6>(t, affine),
            Some(affine) if affine.bits == 8 => affine_groups::<8>(t, affine),
            _ => false,
        },
    }
}

/// Where the scales of one group of one row go. All writers say that the scale fits.
struct Place<'a> {
    row: usize,
    header: &'a mut [u8],
    own: &'a mut [u8],
}

impl Place<'_> {
    /// A half of the group, in array `array` of halves.
    #[inline(always)]
    fn half(&mut self, array: usize, bytes: [u8; 2]) -> bool {
        self.own.as_chunks_mut::<{ 2 * TILE }>().0[array].as_chunks_mut::<2>().0[self.row] = bytes;
        true
    }

    /// A half of the super-group.
    #[inline(always)]
    fn shared(&mut self, array: usize, bytes: [u8; 2]) {
        self.header.as_chunks_mut::<{ 2 * TILE }>().0[array].as_chunks_mut::<2>().0[self.row] = bytes;
    }

    /// A byte of the group, in array `array` of bytes.
    #[inline(always)]
    fn byte(&mut self, array: usize, byte: u8) -> bool {
        self.own.as_chunks_mut::<TILE>().0[array][self.row] = byte;
        true
    }
}

/// The loop: blocks of `BYTES`, each a super-group of the type's form. `levels` gives a block's unsigned levels in the
/// order of its elements, four in a word; `scales` writes the scales of a group of it.
#[inline(always)]
fn blocks<const BYTES: usize, const WORDS: usize>(
    t: PackTile<'_>,
    dtype: DType,
    levels: impl Fn(&[u8; BYTES], &mut [u32; WORDS]),
    scales: impl Fn(&[u8; BYTES], usize, &mut Place<'_>) -> bool,
) -> bool {
    let Some(form) = Form::of(dtype) else { return false };
    let (groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let mut fits = groups * GROUP == WORDS * 4;
    let mut unpacked = [0; WORDS];
    for (block, to) in t.to.chunks_exact_mut(header + groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        for (row, bytes) in t.rows.chunks_exact(t.row_bytes).enumerate().take(TILE) {
            let bytes = &bytes.as_chunks::<BYTES>().0[block];
            levels(bytes, &mut unpacked);
            let unpacked = unpacked.as_chunks::<8>().0.iter();
            for (group, (levels, to)) in unpacked.zip(to.chunks_exact_mut(each)).enumerate() {
                let (own, to) = to.split_at_mut(own);
                fits &= scales(bytes, group, &mut Place { row, header, own });
                put_levels(form.levels, levels, row, to);
            }
        }
    }
    fits
}

/// The same for affine groups, whose blocks hold less than a group of the tile or more.
#[inline(always)]
fn affine_groups<const BITS: usize>(t: PackTile<'_>, affine: Affine) -> bool {
    let Some(form) = Form::of(t.dtype) else { return false };
    let (groups, header, own) = form.scale_layout();
    let each = own + form.level_bytes();
    let per_super = groups * GROUP / affine.group;
    let zero = if BITS == 8 { 128.0 } else { 0.0 };
    let mut fits = true;
    let mut unpacked = [0; 8];
    for (i, to) in t.to.chunks_exact_mut(header + groups * each).enumerate() {
        let (header, to) = to.split_at_mut(header);
        for (row, bytes) in t.rows.chunks_exact(t.row_bytes).enumerate().take(TILE) {
            let blocks = bytes[i * per_super * affine.block_bytes()..].chunks_exact(affine.block_bytes());
            for (part, block) in blocks.take(per_super).enumerate() {
                let (head, levels) = block.split_at(8);
                let [scale, bias] = [0, 1].map(|i| f32::from_le_bytes(head.as_chunks::<4>().0[i]));
                let min = -(bias + zero * scale);
                fits &= scale.is_finite() && min.is_finite();
                // Both halves of a group have scales of their own, or several groups share them.
                let (scales, step) = if affine.group < GROUP { (&mut to[..own], 2) } else { (&mut header[..], 1) };
                let scales = scales.as_chunks_mut::<{ 4 * TILE }>().0;
                scales[part * (step - 1)].as_chunks_mut::<4>().0[row] = scale.to_le_bytes();
                scales[step + part * (step - 1)].as_chunks_mut::<4>().0[row] = min.to_le_bytes();
                if affine.group < GROUP {
                    let words = affine.group / 4;
                    bit_stream::<BITS>(levels, &mut unpacked[part * words..(part + 1) * words]);
                    continue;
                }
                for (levels, to) in levels.chunks_exact(GROUP / 8 * BITS).zip(to.chunks_exact_mut(each)) {
                    bit_stream::<BITS>(levels, &mut unpacked);
                    put_levels(form.levels, &unpacked, row, to);
                }
            }
            if affine.group < GROUP {
                put_levels(form.levels, &unpacked, row, &mut to[own..]);
            }
        }
    }
    fits
}

/// Levels in a stream of bits, four to a word.
#[inline(always)]
fn bit_stream<const BITS: usize>(bytes: &[u8], levels: &mut [u32]) {
    let mask = u64::from(u8::MAX >> (8 - BITS));
    for (bytes, levels) in bytes.as_chunks::<BITS>().0.iter().zip(levels.as_chunks_mut::<2>().0) {
        let mut eight = [0; 8];
        eight[..BITS].copy_from_slice(bytes);
        let eight = u64::from_le_bytes(eight);
        for (i, levels) in levels.iter_mut().enumerate() {
            let four = eight >> (4 * BITS * i);
            let level = |i: usize| ((four >> (BITS * i) & mask) as u32) << (8 * i);
            *levels = level(0) | level(1) | level(2) | level(3);
        }
    }
}

/// Writes the 8 steps of a group of row `row` to the vectors of its tile.
#[inline(always)]
fn put_levels(form: Levels, steps: &[u32; 8], row: usize, to: &mut [u8]) {
    let mut to = to.as_chunks_mut::<64>().0.iter_mut();
    let mut put = |word: u32| {
        if let Some(to) = to.next() {
            to.as_chunks_mut::<4>().0[row] = word.to_le_bytes();
        }
    };
    if form == Levels::Eight {
        return steps.iter().for_each(|step| put(*step));
    }
    let pairs = |half: &[u32; 4], shift: u32| {
        let pair = half.map(|word| word >> shift & 0x0303_0303);
        pair[0] | pair[1] << 2 | pair[2] << 4 | pair[3] << 6
    };
    let halves = steps.as_chunks::<4>().0;
    if matches!(form, Levels::Two | Levels::Three) {
        halves.iter().for_each(|half| put(pairs(half, 0)));
        if form == Levels::Three {
            put(steps.iter().enumerate().fold(0, |bits, (i, step)| bits | (step >> 2 & 0x0101_0101) << i));
        }
        return;
    }
    for j in 0..4 {
        put(steps[j] & 0x0f0f_0f0f | (steps[j + 4] & 0x0f0f_0f0f) << 4);
    }
    if form == Levels::Six {
        halves.iter().for_each(|half| put(pairs(half, 4)));
    }
}

/// The first `4 N` bytes as words, some of their bits turned.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8], turned: u32) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes) ^ turned;
    }
    words
}

/// Nibbles in runs: the low ones of `N` words, then their high ones.
#[inline(always)]
fn nibbles<const N: usize>(bytes: &[u8], levels: &mut [u32]) {
    for (i, levels) in levels.chunks_exact_mut(2 * N).enumerate() {
        let words = words::<N>(&bytes[i * 4 * N..(i + 1) * 4 * N], 0);
        for j in 0..N {
            (levels[j], levels[N + j]) = (words[j] & 0x0f0f_0f0f, words[j] >> 4 & 0x0f0f_0f0f);
        }
    }
}

/// Levels of 5 bits: the fifth ones are a little-endian word before the nibbles.
#[inline(always)]
fn fifth_bits(bytes: &[u8], levels: &mut [u32; 8]) {
    nibbles::<4>(&bytes[4..], levels);
    let [fifths] = words::<1>(bytes, 0);
    for (i, levels) in levels.iter_mut().enumerate() {
        // Four bits to the lowest bit of a byte each.
        *levels |= (((fifths >> (4 * i) & 15) * 0x0020_4081) & 0x0101_0101) << 4;
    }
}

#[inline(always)]
fn q5_k_levels(block: &[u8; 176], levels: &mut [u32; 64]) {
    nibbles::<8>(&block[48..], levels);
    let fifths = words::<8>(&block[16..], 0);
    for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        levels.iter_mut().zip(fifths).for_each(|(l, f)| *l |= (f >> group & 0x0101_0101) << 4);
    }
}

/// 128 elements share 64 bytes of low nibbles and 32 bytes of upper pairs.
#[inline(always)]
fn q6_k_levels(block: &[u8; 210], levels: &mut [u32; 64]) {
    nibbles::<16>(&block[..128], levels);
    for (part, levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let upper = words::<8>(&block[128 + part * 32..], 0);
        for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            levels.iter_mut().zip(upper).for_each(|(l, u)| *l |= (u >> (2 * group) & 0x0303_0303) << 4);
        }
    }
}

/// Levels of 2 bits: 128 elements share 32 bytes, each 32 of them 2 bits of every byte.
#[inline(always)]
fn pairs(bytes: &[u8], levels: &mut [u32; 64]) {
    for (part, levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let words = words::<8>(&bytes[part * 32..], 0);
        for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            levels.iter_mut().zip(words).for_each(|(l, word)| *l = word >> (2 * group) & 0x0303_0303);
        }
    }
}

#[inline(always)]
fn q3_k_levels(block: &[u8; 110], levels: &mut [u32; 64]) {
    pairs(&block[32..96], levels);
    let thirds = words::<8>(block, 0);
    for (group, levels) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        levels.iter_mut().zip(thirds).for_each(|(l, third)| *l |= (third >> group & 0x0101_0101) << 2);
    }
}

/// Low four bits of scale `i` in a nibble of byte `i % 8`, the upper two in byte `8 + i % 4`; all are 32 too large.
#[inline(always)]
fn q3_k_scales(block: &[u8; 110], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[108], block[109]]);
    let packed = &block[96..108];
    for half in 0..2 {
        let i = 2 * group + half;
        let low = packed[i % 8] >> (i / 8 % 2 * 4) & 15;
        let upper = packed[8 + i % 4] >> (i / 4 % 4 * 2) & 3;
        to.byte(half, (low | upper << 4).wrapping_sub(32));
    }
    true
}

/// Low four bits of scale `i` in nibble `i` of bytes 4..8, the upper two in pair `i` of bytes 2..4; all are 32 too large.
#[inline(always)]
fn iq4_xs_scales(block: &[u8; 136], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[0], block[1]]);
    let low = block[4 + group / 2 % 4] >> (group % 2 * 4) & 15;
    let upper = block[2 + group / 4 % 2] >> (group % 4 * 2) & 3;
    to.byte(0, (low | upper << 4).wrapping_sub(32))
}

/// One scale.
#[inline(always)]
fn single<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
    to.half(0, [block[0], block[1]])
}

/// `d u + m`; tiles hold `d u - m`.
#[inline(always)]
fn affine<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
    to.half(0, [block[0], block[1]]);
    to.half(1, (-f16::from_le_bytes([block[2], block[3]])).to_le_bytes())
}

/// `d (u - 16) = d u - 16 d`; sixteen times a half is exact unless it overflows.
#[inline(always)]
fn centred_16<const BYTES: usize>(block: &[u8; BYTES], _: usize, to: &mut Place<'_>) -> bool {
    let d = [block[0], block[1]];
    let min = f16::from_f32(16.0 * f16::from_le_bytes(d).to_f32());
    to.half(0, d);
    to.half(1, min.to_le_bytes()) && min.is_finite()
}

/// Q4_K and Q5_K: 6-bit pairs, as ggml packs them.
#[inline(always)]
fn super_scales<const BYTES: usize>(block: &[u8; BYTES], group: usize, to: &mut Place<'_>) -> bool {
    to.shared(0, [block[0], block[1]]);
    to.shared(1, [block[2], block[3]]);
    let packed = &block[4..16];
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let upper = (packed[group - 4] >> 6, packed[group] >> 6);
        let lower = packed[group + 4];
        (lower & 15 | upper.0 << 4, lower >> 4 | upper.1 << 4)
    };
    to.byte(0, scale);
    to.byte(1, min)
}
