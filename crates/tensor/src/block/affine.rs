//! Affine groups: a weight is `scale * q + bias`, with `q` of 2 to 8 bits and `f32` scale and bias for each group of a row.
//!
//! Bytes: `scale` (4), `bias` (4), then the levels as one stream of bits: level `i` is bits `i * BITS..` of it, the lowest
//! bit of a byte first. This is what MLX, GPTQ, AWQ and ONNX (`MatMulNBits`) say, each in an order of its own; their
//! scales, halves or singles, and their zero points become `f32` here without loss. A type is named after its bits and
//! the elements of a group. Files with larger groups repeat scale and bias.

use super::search::{inverse, range};
use crate::DType;
use crate::dtype::{Encode, Info};

/// Bytes of scale and bias.
const HEAD: usize = 8;
/// Levels that fill whole bytes, whatever their bits.
const EIGHT: usize = 8;

macro_rules! types {
    ($($name:ident = $bits:literal, $group:literal;)*) => {
        $(pub(crate) const $name: Info = Group::<$bits, $group>::info(stringify!($name));)*
        const TYPES: &[(DType, Affine)] = &[$((DType::$name, Affine { bits: $bits, group: $group }),)*];
    };
}

types! {
    AFFINE2_32 = 2, 32;
    AFFINE2_64 = 2, 64;
    AFFINE2_128 = 2, 128;
    AFFINE3_32 = 3, 32;
    AFFINE3_64 = 3, 64;
    AFFINE3_128 = 3, 128;
    AFFINE4_16 = 4, 16;
    AFFINE4_32 = 4, 32;
    AFFINE4_64 = 4, 64;
    AFFINE4_128 = 4, 128;
    AFFINE5_32 = 5, 32;
    AFFINE5_64 = 5, 64;
    AFFINE5_128 = 5, 128;
    AFFINE6_32 = 6, 32;
    AFFINE6_64 = 6, 64;
    AFFINE6_128 = 6, 128;
    AFFINE8_32 = 8, 32;
    AFFINE8_64 = 8, 64;
    AFFINE8_128 = 8, 128;
}

/// What sets one type of affine groups apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Bits of a level.
    pub bits: usize,
    /// Elements that share scale and bias.
    pub group: usize,
}

impl Affine {
    /// What `dtype` is; `None`: no type of affine groups.
    pub fn of(dtype: DType) -> Option<Affine> {
        TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, affine)| *affine)
    }

    /// The type; `None`: there is none of these bits and this group.
    pub fn dtype(self) -> Option<DType> {
        TYPES.iter().find(|(_, known)| *known == self).map(|(dtype, _)| *dtype)
    }

    /// For rows of `row_len` in which every `stride` elements share scale and bias: the type with the largest group that
    /// divides both, so that whole groups of the file become one or several blocks. `None`: there is none.
    pub fn dividing(bits: usize, stride: usize, row_len: usize) -> Option<Affine> {
        let divides = |n: usize, group: usize| n != 0 && n.is_multiple_of(group);
        let fits =
            |affine: &&Affine| affine.bits == bits && divides(stride, affine.group) && divides(row_len, affine.group);
        TYPES.iter().map(|(_, affine)| affine).filter(fits).max_by_key(|affine| affine.group).copied()
    }

    /// Bytes of a group's levels.
    pub fn level_bytes(self) -> usize {
        self.group * self.bits / 8
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        HEAD + self.level_bytes()
    }

    /// Writes a block: `levels` are [`Affine::level_bytes`] of the bit stream. Of levels that are too short, or too long for
    /// `block`, only what there is and fits is written.
    pub fn write(self, scale: f32, bias: f32, levels: &[u8], block: &mut [u8]) {
        let Some((head, stream)) = block.split_first_chunk_mut::<HEAD>() else { return };
        let [s0, s1, s2, s3] = scale.to_le_bytes();
        let [b0, b1, b2, b3] = bias.to_le_bytes();
        *head = [s0, s1, s2, s3, b0, b1, b2, b3];
        let n = self.level_bytes().min(levels.len()).min(stream.len());
        stream[..n].copy_from_slice(&levels[..n]);
    }

    /// Packs levels, one a byte, as the bit stream of a block; bits that a level should not have are dropped. Whole
    /// eights only, as many as both slices hold.
    pub fn pack(self, levels: &[u8], stream: &mut [u8]) {
        let mask = u64::from(u8::MAX >> (8 - self.bits.clamp(1, 8)));
        let (eights, _) = levels.as_chunks::<EIGHT>();
        for (eight, bytes) in eights.iter().zip(stream.chunks_exact_mut(self.bits.max(1))) {
            let level = |(i, level): (usize, &u8)| (u64::from(*level) & mask) << (i * self.bits);
            let bits: u64 = eight.iter().enumerate().map(level).sum();
            bytes.iter_mut().zip(bits.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }
}

/// The codec.
struct Group<const BITS: usize, const GROUP: usize>;

impl<const BITS: usize, const GROUP: usize> Group<BITS, GROUP> {
    const AFFINE: Affine = Affine { bits: BITS, group: GROUP };
    const BYTES: usize = HEAD + GROUP * BITS / 8;
    const MOST: u8 = u8::MAX >> (8 - BITS);

    const fn info(name: &'static str) -> Info {
        Info {
            name,
            len: GROUP,
            bytes: Self::BYTES,
            gguf: None,
            decode: Some(Self::decode),
            encode: Some(Encode::Plain(Self::encode)),
        }
    }

    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(Self::BYTES).zip(out.as_chunks_mut::<GROUP>().0) {
            let [s0, s1, s2, s3, b0, b1, b2, b3, levels @ ..] = block else { continue };
            let (scale, bias) = (f32::from_le_bytes([*s0, *s1, *s2, *s3]), f32::from_le_bytes([*b0, *b1, *b2, *b3]));
            for (levels, out) in levels.as_chunks::<BITS>().0.iter().zip(out.as_chunks_mut::<EIGHT>().0) {
                let mut bytes = [0; 8];
                bytes.iter_mut().zip(levels).for_each(|(to, from)| *to = *from);
                let bits = u64::from_le_bytes(bytes);
                for (i, out) in out.iter_mut().enumerate() {
                    let level = (bits >> (i * BITS)) as u8 & Self::MOST;
                    *out = scale * f32::from(level) + bias;
                }
            }
        }
    }

    /// Scale and bias from the range of the weights.
    fn encode(values: &[f32], out: &mut [u8]) {
        for (x, block) in values.as_chunks::<GROUP>().0.iter().zip(out.chunks_exact_mut(Self::BYTES)) {
            let (min, max) = range(x);
            let scale = (max - min) / f32::from(Self::MOST);
            let inverse = inverse(scale);
            let levels = x.map(|v| (((v - min) * inverse + 0.5) as u8).min(Self::MOST));
            Self::AFFINE.write(scale, min, &[], block);
            if let Some(stream) = block.get_mut(HEAD..) {
                Self::AFFINE.pack(&levels, stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_their_numbers() {
        for (dtype, affine) in TYPES {
            assert_eq!((Affine::of(*dtype), affine.dtype()), (Some(*affine), Some(*dtype)));
            assert_eq!(dtype.name(), format!("AFFINE{}_{}", affine.bits, affine.group));
            assert_eq!((dtype.block_len(), dtype.block_bytes()), (affine.group, affine.block_bytes()));
        }
        assert_eq!(Affine::of(DType::F32), None);
        assert_eq!(Affine { bits: 7, group: 32 }.dtype(), None);
    }

    #[test]
    fn groups_that_divide() {
        #[track_caller]
        fn check(bits: usize, stride: usize, row_len: usize, expected: Option<usize>) {
            assert_eq!(Affine::dividing(bits, stride, row_len).map(|affine| affine.group), expected);
        }
        check(4, 128, 4096, Some(128));
        check(4, 4096, 4096, Some(128));
        check(4, 256, 11008, Some(128));
        check(4, 128, 192, Some(64));
        check(4, 96, 192, Some(32));
        check(4, 16, 192, Some(16));
        check(3, 16, 192, None);
        check(7, 64, 64, None);
        check(4, 0, 64, None);
        check(4, 64, 0, None);
    }

    #[test]
    fn levels_lie_in_one_stream_of_bits() {
        for (dtype, affine) in TYPES {
            let levels: Vec<u8> = (0..affine.group).map(|i| (i * 37 + 11) as u8).collect();
            let mut stream = vec![0xff; affine.level_bytes()];
            affine.pack(&levels, &mut stream);
            let bit = |i: usize| stream[i / 8] >> (i % 8) & 1;
            let mut block = vec![0; affine.block_bytes()];
            affine.write(0.5, -3.0, &stream, &mut block);
            let mut out = vec![0.0; affine.group];
            dtype.decode(&block, &mut out).unwrap();
            for (i, (level, out)) in levels.iter().zip(out).enumerate() {
                let level = level & (u8::MAX >> (8 - affine.bits));
                let read: u8 = (0..affine.bits).map(|b| bit(i * affine.bits + b) << b).sum();
                assert_eq!((read, out), (level, 0.5 * f32::from(level) - 3.0), "{dtype} {i}");
            }
        }
    }
}
