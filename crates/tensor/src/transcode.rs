//! Elements of one type written as another: by way of `f32`, a few thousand at a time.
//!
//! What belongs here: conversion of bytes, with a refusal where the new type would make another number of one. What does
//! not: which type a tensor should get (`block::mixture`).

use crate::{DType, Error, Result};

/// Elements converted at once: a multiple of every block length.
const CHUNK: usize = 16_384;

/// The greatest number that rounds to a finite half.
const HALF_MAX: f32 = 65_519.0;

impl DType {
    /// Appends the elements of `bytes`, whole blocks of this type, to `out` as whole blocks of `to`; bytes of the same type
    /// are copied.
    ///
    /// Errors: no whole number of blocks; a type that cannot be decoded or encoded; a number that `to` cannot hold (infinite
    /// or NaN in a block type, too large for a half).
    pub fn transcode(self, bytes: &[u8], to: DType, out: &mut Vec<u8>) -> Result<()> {
        if self == to {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let n_blocks = bytes.len() / self.block_bytes();
        let elements = n_blocks.saturating_mul(self.block_len());
        let ragged =
            || Error::ByteCount { elements, dtype: self, expected: n_blocks * self.block_bytes(), actual: bytes.len() };
        if n_blocks * self.block_bytes() != bytes.len() {
            return Err(ragged());
        }
        let start = out.len();
        let n_out = to.row_bytes(elements)?;
        let end = start.checked_add(n_out).ok_or_else(ragged)?;
        out.resize(end, 0);
        let mut values = vec![0f32; CHUNK.min(elements)];
        let in_step = CHUNK / self.block_len() * self.block_bytes();
        let out_step = CHUNK / to.block_len() * to.block_bytes();
        let target = out.get_mut(start..).unwrap_or_default();
        for (bytes, out) in bytes.chunks(in_step.max(1)).zip(target.chunks_mut(out_step.max(1))) {
            let n = bytes.len() / self.block_bytes() * self.block_len();
            let values = values.get_mut(..n).ok_or_else(ragged)?;
            self.decode(bytes, values)?;
            if let Some(&value) = values.iter().find(|&&v| !to.holds(v)) {
                return Err(Error::Range { value: value.to_string(), dtype: to });
            }
            to.encode(values, out)?;
        }
        Ok(())
    }

    /// [`DType::transcode`] of whole rows whose columns count as much as `importance` says, a number for each.
    ///
    /// Errors: those of `transcode`; rows of another length.
    pub fn transcode_rows(self, bytes: &[u8], to: DType, importance: &[f32], out: &mut Vec<u8>) -> Result<()> {
        if self == to || !to.uses_importance() {
            return self.transcode(bytes, to, out);
        }
        let (in_step, out_step) = (self.row_bytes(importance.len())?, to.row_bytes(importance.len())?);
        if in_step == 0 || !bytes.len().is_multiple_of(in_step) {
            let what = format!("{} bytes are no whole number of rows of {in_step}", bytes.len());
            return Err(Error::Shape(what));
        }
        let mut values = vec![0f32; importance.len()];
        let mut encoded = vec![0; out_step];
        for bytes in bytes.chunks_exact(in_step) {
            self.decode(bytes, &mut values)?;
            if let Some(&value) = values.iter().find(|&&v| !to.holds(v)) {
                return Err(Error::Range { value: value.to_string(), dtype: to });
            }
            to.encode_weighted(&values, importance, &mut encoded)?;
            out.extend_from_slice(&encoded);
        }
        Ok(())
    }

    /// Whether encoding keeps `value` a number like it.
    fn holds(self, value: f32) -> bool {
        match self {
            DType::F16 => !value.is_finite() || value.abs() <= HALF_MAX,
            dtype if dtype.is_quantized() => value.is_finite(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn by_chunks_and_at_once_is_the_same() {
        let values: Vec<f32> = (0..CHUNK * 2 + 512).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
        for to in [DType::F16, DType::BF16, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
            let mut out = vec![7];
            DType::F32.transcode(&bytes(&values), to, &mut out).unwrap();
            let mut whole = vec![0; to.row_bytes(values.len()).unwrap()];
            to.encode(&values, &mut whole).unwrap();
            assert!(out[0] == 7 && out[1..] == whole, "{to}");
            let mut again = Vec::new();
            to.transcode(&whole, DType::F32, &mut again).unwrap();
            let mut decoded = vec![0.0; values.len()];
            to.decode(&whole, &mut decoded).unwrap();
            assert_eq!(again, bytes(&decoded), "{to}");
        }
    }

    #[test]
    fn what_would_become_another_number_is_refused() {
        #[track_caller]
        fn check(value: f32, to: DType, refused: bool) {
            let mut values = [0.5; 32];
            values[9] = value;
            let result = DType::F32.transcode(&bytes(&values), to, &mut Vec::new());
            assert_eq!(matches!(result, Err(Error::Range { .. })), refused, "{value} {to} {result:?}");
        }
        check(1e30, DType::F16, true);
        check(65_504.0, DType::F16, false);
        check(f32::NAN, DType::F16, false);
        check(f32::NAN, DType::Q8_0, true);
        check(f32::INFINITY, DType::Q4_0, true);
        check(1e30, DType::BF16, false);
    }

    #[test]
    fn ragged_bytes_are_an_error() {
        assert!(DType::F32.transcode(&[0; 7], DType::F16, &mut Vec::new()).is_err());
        assert!(DType::F32.transcode(&[0; 33 * 4], DType::Q8_0, &mut Vec::new()).is_err());
        assert!(DType::Q8_0.transcode(&[0; 33], DType::F32, &mut Vec::new()).is_err());
        DType::F32.transcode(&[], DType::Q8_0, &mut Vec::new()).unwrap();
        let rows = |n: usize| DType::F32.transcode_rows(&vec![0; n], DType::Q4_0, &[1.0; 32], &mut Vec::new());
        assert!(rows(128 + 4).is_err() && rows(256).is_ok());
    }
}
