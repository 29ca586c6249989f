//! Element and block types: one closed enum, one table row each.

use crate::{Error, Result, Shape, block};
use std::fmt;

/// Decodes whole blocks: `bytes.len() / block_bytes * block_len == out.len()` holds when it is called.
pub(crate) type Decode = fn(&[u8], &mut [f32]);
/// Encodes whole blocks; the same lengths hold the other way round.
#[derive(Clone, Copy)]
pub(crate) enum Encode {
    /// All elements count alike.
    Plain(fn(&[f32], &mut [u8])),
    /// An element's error counts as much as is given for it, in as many numbers as there are elements.
    Weighted(fn(&[f32], Option<&[f32]>, &mut [u8])),
}

/// What a block type is: the row of the table behind [`DType`].
pub(crate) struct Info {
    pub(crate) name: &'static str,
    /// Elements in a block (1 for plain types).
    pub(crate) len: usize,
    /// Bytes in a block.
    pub(crate) bytes: usize,
    /// The type's number in a GGUF file; none: such files do not have it.
    pub(crate) gguf: Option<u32>,
    pub(crate) decode: Option<Decode>,
    pub(crate) encode: Option<Encode>,
}

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $info:path;)*) => {
        /// The type of a tensor's elements, or of the blocks that hold them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the field's standard spelling")]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every type, in the order of the table.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            fn info(self) -> &'static Info {
                match self { $(DType::$variant => &$info,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE single precision.
    F32 = block::plain::F32;
    /// IEEE half precision.
    F16 = block::plain::F16;
    /// The upper half of an IEEE single.
    BF16 = block::plain::BF16;
    /// IEEE double precision.
    F64 = block::plain::F64;
    /// 8-bit floats: 4 bits of exponent, 3 of mantissa, no infinity (OCP FP8).
    F8_E4M3 = block::plain::F8_E4M3;
    /// 8-bit floats: 5 bits of exponent, 2 of mantissa (OCP FP8).
    F8_E5M2 = block::plain::F8_E5M2;
    /// Powers of two from 2⁻¹²⁷ to 2¹²⁷ (OCP MX's scales).
    F8_E8M0 = block::plain::F8_E8M0;
    /// Truth values, one byte each.
    BOOL = block::plain::BOOL;
    /// Unsigned 8-bit integers.
    U8 = block::plain::U8;
    /// Unsigned 16-bit integers.
    U16 = block::plain::U16;
    /// Unsigned 32-bit integers.
    U32 = block::plain::U32;
    /// Unsigned 64-bit integers.
    U64 = block::plain::U64;
    /// Signed 8-bit integers.
    I8 = block::plain::I8;
    /// Signed 16-bit integers.
    I16 = block::plain::I16;
    /// Signed 32-bit integers.
    I32 = block::plain::I32;
    /// Signed 64-bit integers.
    I64 = block::plain::I64;
    /// 4 bits, 32 a block, one scale.
    Q4_0 = block::q4_0::INFO;
    /// 4 bits, 32 a block, scale and minimum.
    Q4_1 = block::q4_1::INFO;
    /// 5 bits, 32 a block, one scale.
    Q5_0 = block::q5_0::INFO;
    /// 5 bits, 32 a block, scale and minimum.
    Q5_1 = block::q5_1::INFO;
    /// 8 bits, 32 a block, one scale.
    Q8_0 = block::q8_0::INFO;
    /// 2 bits, 256 a super-block.
    Q2_K = block::q2_k::INFO;
    /// 3 bits, 256 a super-block.
    Q3_K = block::q3_k::INFO;
    /// 4 bits, 256 a super-block.
    Q4_K = block::q4_k::INFO;
    /// 5 bits, 256 a super-block.
    Q5_K = block::q5_k::INFO;
    /// 6 bits, 256 a super-block.
    Q6_K = block::q6_k::INFO;
    /// 8 bits, 256 a super-block with sums: the partner of the K types.
    Q8_K = block::q8_k::INFO;
    /// 4 bits into a table, 32 a block.
    IQ4_NL = block::iq4_nl::INFO;
    /// 4 bits into a table, 256 a super-block.
    IQ4_XS = block::iq4_xs::INFO;
    /// 4-bit floats (E2M1) with a shared power of two, 32 a block (OCP MX).
    MXFP4 = block::mxfp4::INFO;
    /// 4-bit floats (E2M1) in groups of 16 with 8-bit scales (UE4M3), 64 a block.
    NVFP4 = block::nvfp4::INFO;
    /// 1.56 bits: points of a code book, shifted, 256 a super-block.
    IQ1_S = block::iq1_s::INFO;
    /// 1.75 bits: as IQ1_S with finer scales.
    IQ1_M = block::iq1_m::INFO;
    /// 2.06 bits: points of a code book of 256, 256 a super-block.
    IQ2_XXS = block::iq2_xxs::INFO;
    /// 2.31 bits: points of a code book of 512, 256 a super-block.
    IQ2_XS = block::iq2_xs::INFO;
    /// 2.56 bits: points of a code book of 1024, 256 a super-block.
    IQ2_S = block::iq2_s::INFO;
    /// 3.06 bits: points of a code book of 256, 256 a super-block.
    IQ3_XXS = block::iq3_xxs::INFO;
    /// 3.44 bits: points of a code book of 512, 256 a super-block.
    IQ3_S = block::iq3_s::INFO;
    /// Ternary, five to a byte, 256 a block, one scale.
    TQ1_0 = block::tq1_0::INFO;
    /// Ternary, 2 bits each, 256 a block, one scale.
    TQ2_0 = block::tq2_0::INFO;
    /// 2 bits, 32 a group, scale and bias.
    AFFINE2_32 = block::affine::AFFINE2_32;
    /// 2 bits, 64 a group, scale and bias.
    AFFINE2_64 = block::affine::AFFINE2_64;
    /// 2 bits, 128 a group, scale and bias.
    AFFINE2_128 = block::affine::AFFINE2_128;
    /// 3 bits, 32 a group, scale and bias.
    AFFINE3_32 = block::affine::AFFINE3_32;
    /// 3 bits, 64 a group, scale and bias.
    AFFINE3_64 = block::affine::AFFINE3_64;
    /// 3 bits, 128 a group, scale and bias.
    AFFINE3_128 = block::affine::AFFINE3_128;
    /// 4 bits, 16 a group, scale and bias.
    AFFINE4_16 = block::affine::AFFINE4_16;
    /// 4 bits, 32 a group, scale and bias.
    AFFINE4_32 = block::affine::AFFINE4_32;
    /// 4 bits, 64 a group, scale and bias.
    AFFINE4_64 = block::affine::AFFINE4_64;
    /// 4 bits, 128 a group, scale and bias.
    AFFINE4_128 = block::affine::AFFINE4_128;
    /// 5 bits, 32 a group, scale and bias.
    AFFINE5_32 = block::affine::AFFINE5_32;
    /// 5 bits, 64 a group, scale and bias.
    AFFINE5_64 = block::affine::AFFINE5_64;
    /// 5 bits, 128 a group, scale and bias.
    AFFINE5_128 = block::affine::AFFINE5_128;
    /// 6 bits, 32 a group, scale and bias.
    AFFINE6_32 = block::affine::AFFINE6_32;
    /// 6 bits, 64 a group, scale and bias.
    AFFINE6_64 = block::affine::AFFINE6_64;
    /// 6 bits, 128 a group, scale and bias.
    AFFINE6_128 = block::affine::AFFINE6_128;
    /// 8 bits, 32 a group, scale and bias.
    AFFINE8_32 = block::affine::AFFINE8_32;
    /// 8 bits, 64 a group, scale and bias.
    AFFINE8_64 = block::affine::AFFINE8_64;
    /// 8 bits, 128 a group, scale and bias.
    AFFINE8_128 = block::affine::AFFINE8_128;
}

impl DType {
    /// The field's standard spelling, e.g. `Q4_K`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The type of that name, in any letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.name().eq_ignore_ascii_case(name))
    }

    /// The type with that number in a GGUF file.
    pub fn from_gguf(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.gguf() == Some(number))
    }

    /// The type's number in a GGUF file. `None`: such files do not have it.
    pub fn gguf(self) -> Option<u32> {
        self.info().gguf
    }

    /// Elements in one block; 1 for plain types.
    pub fn block_len(self) -> usize {
        self.info().len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.info().bytes
    }

    /// Whether elements come in blocks that share a scale.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Whether [`DType::decode`] works for this type.
    pub fn can_decode(self) -> bool {
        self.info().decode.is_some()
    }

    /// Whether [`DType::encode`] works for this type.
    pub fn can_encode(self) -> bool {
        self.info().encode.is_some()
    }

    /// Bytes of a row of `len` elements. Error: no whole number of blocks, or too large.
    pub fn row_bytes(self, len: usize) -> Result<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return Err(Error::RaggedRow { len, dtype: self, block: self.block_len() });
        }
        (len / self.block_len())
            .checked_mul(self.block_bytes())
            .ok_or_else(|| Error::Overflow { shape: format!("[{len}]"), dtype: self })
    }

    /// Bytes of a tensor. Error: ragged rows, or too large.
    pub fn tensor_bytes(self, shape: &Shape) -> Result<usize> {
        self.row_bytes(shape.row_len())?
            .checked_mul(shape.rows())
            .ok_or_else(|| Error::Overflow { shape: shape.to_string(), dtype: self })
    }

    /// Decodes whole blocks to `f32`: the definition of what the bytes mean.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        self.check_len(out.len(), bytes.len())?;
        let decode = self.info().decode.ok_or(Error::Unsupported { dtype: self, action: "decoded" })?;
        decode(bytes, out);
        Ok(())
    }

    /// Encodes `f32` values to whole blocks.
    pub fn encode(self, values: &[f32], out: &mut [u8]) -> Result<()> {
        self.check_len(values.len(), out.len())?;
        match self.info().encode.ok_or(Error::Unsupported { dtype: self, action: "encoded" })? {
            Encode::Plain(encode) => encode(values, out),
            Encode::Weighted(encode) => encode(values, None, out),
        }
        Ok(())
    }

    /// Whether [`DType::encode_weighted`] makes other blocks than [`DType::encode`].
    pub fn uses_importance(self) -> bool {
        matches!(self.info().encode, Some(Encode::Weighted(_)))
    }

    /// Encodes `f32` values to whole blocks that err least where `importance` is greatest. It has a number for each value,
    /// finite and not negative: how much the square of its error counts. Types that do not use it encode as ever.
    pub fn encode_weighted(self, values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<()> {
        if importance.len() != values.len() {
            let what = format!("{} numbers of importance for {} values", importance.len(), values.len());
            return Err(Error::Shape(what));
        }
        self.check_len(values.len(), out.len())?;
        match self.info().encode.ok_or(Error::Unsupported { dtype: self, action: "encoded" })? {
            Encode::Plain(encode) => encode(values, out),
            Encode::Weighted(encode) => encode(values, Some(importance), out),
        }
        Ok(())
    }

    fn check_len(self, elements: usize, actual: usize) -> Result<()> {
        let expected = self.row_bytes(elements)?;
        if expected == actual { Ok(()) } else { Err(Error::ByteCount { elements, dtype: self, expected, actual }) }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
