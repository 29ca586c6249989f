//! A tensor in host memory, as a checkpoint hands it out.

use crate::{DType, Error, Result, Shape, SharedBytes};

/// Name, dtype, shape and bytes (usually of a memory map): row-major, blocks along the innermost dimension.
#[derive(Clone, Debug)]
pub struct HostTensor {
    name: String,
    dtype: DType,
    shape: Shape,
    bytes: SharedBytes,
}

impl HostTensor {
    /// Checks that `bytes` is exactly as long as `shape` in `dtype` needs.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Shape, bytes: SharedBytes) -> Result<Self> {
        let expected = dtype.tensor_bytes(&shape)?;
        if expected != bytes.len() {
            return Err(Error::ByteCount { elements: shape.elements(), dtype, expected, actual: bytes.len() });
        }
        Ok(Self { name: name.into(), dtype, shape, bytes })
    }

    /// A float tensor made in memory.
    pub fn from_f32(name: impl Into<String>, shape: Shape, values: &[f32]) -> Result<Self> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, DType::F32, shape, SharedBytes::from_vec(bytes))
    }

    /// The tensor's name in the house vocabulary (GGUF's).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element or block type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len() / self.shape.rows().max(1)
    }

    /// The rows `range` of a matrix (or of any tensor seen as `[rows, row_len]`) under another name, without a copy.
    pub fn rows(&self, name: impl Into<String>, range: std::ops::Range<usize>) -> Result<Self> {
        let row_bytes = self.row_bytes();
        let outside = || Error::Shape(format!("rows {range:?} are outside {} {}", self.name, self.shape));
        if range.start > range.end || range.end > self.shape.rows() {
            return Err(outside());
        }
        let bytes = self.bytes.slice(range.start * row_bytes..range.end * row_bytes).ok_or_else(outside)?;
        let shape = Shape::new(&[range.len(), self.shape.row_len()]).ok_or_else(outside)?;
        Self::new(name, self.dtype, shape, bytes)
    }

    /// All elements as `f32`, by the reference codec.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.shape.elements()];
        self.dtype.decode(&self.bytes, &mut out)?;
        Ok(out)
    }
}
