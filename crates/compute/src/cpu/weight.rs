//! Tensors on the CPU device: matrices repacked for the integer products or in the bytes of the file, vectors as `f32`.
//!
//! What belongs here: what `upload` makes and typed access to it. What does not: arithmetic (`op`).

use super::{
    argument,
    op::Team,
    pack::PackTile,
    packed::{Packed, TILE, Tiling},
    simd::Kernels,
};
use crate::{Error, Observer, Precision, Result, Weight, WeightUse};
use std::sync::Arc;
use tensor::{DType, HostTensor, Shape, SharedBytes};

/// What is behind [`Weight`] on this device.
pub(crate) enum CpuWeight {
    /// Rows as they lie in the file (zero copy), and how every product packs those that it needs, if it does.
    Rows { bytes: SharedBytes, tiling: Option<Tiling> },
    /// Tiles of 16 rows, each matrix of a stack on its own.
    Packed { packed: Packed, rows_each: usize },
    /// Norms, biases, frequencies.
    Vector(Vec<f32>),
}

/// Brings a tensor to the device.
pub(crate) fn upload(team: &mut Team, tensor: &HostTensor, usage: WeightUse) -> Result<Weight> {
    let (dtype, shape) = (tensor.dtype(), *tensor.shape());
    let refused = |source| Error::Tensor { name: tensor.name().to_owned(), source };
    if !dtype.can_decode() {
        return Err(refused(tensor::Error::Unsupported { dtype, action: "computed with" }));
    }
    let (inner, resident, mapped) = match usage {
        WeightUse::Vector => {
            let values = tensor.to_f32().map_err(refused)?;
            let bytes = values.len() * size_of::<f32>();
            (CpuWeight::Vector(values), bytes, false)
        }
        WeightUse::Matrix | WeightUse::Experts if team.precision == Precision::Fast => match pack(team, tensor, usage)?
        {
            Some(weight) => weight,
            None => rows(tensor, Tiling::of(dtype, shape.row_len()).filter(|tiling| !tiling.is_kept)),
        },
        WeightUse::Matrix | WeightUse::Experts | WeightUse::Table => rows(tensor, None),
    };
    let is_integer = matches!(inner, CpuWeight::Packed { .. } | CpuWeight::Rows { tiling: Some(_), .. });
    Ok(Weight {
        inner: Arc::new(inner),
        dtype,
        shape,
        resident,
        mapped,
        is_integer,
        low_rank: Vec::new(),
        observer: None,
    })
}

/// A matrix, or each matrix of a stack, repacked; with its bytes.
fn pack(team: &mut Team, tensor: &HostTensor, usage: WeightUse) -> Result<Option<(CpuWeight, usize, bool)>> {
    let shape = tensor.shape();
    let (n_matrices, rows_each) = matrices(shape, usage);
    let packed = Packed::new(team, tensor.dtype(), tensor.bytes(), n_matrices, rows_each, shape.row_len())?;
    Ok(packed.map(|packed| {
        let bytes = packed.tiles.len();
        (CpuWeight::Packed { packed, rows_each }, bytes, false)
    }))
}

/// A matrix as it lies in the file; with its bytes.
fn rows(tensor: &HostTensor, tiling: Option<Tiling>) -> (CpuWeight, usize, bool) {
    (CpuWeight::Rows { bytes: tensor.bytes().clone(), tiling }, tensor.bytes().len(), true)
}

/// How many matrices a tensor is, and the rows of each.
fn matrices(shape: &Shape, usage: WeightUse) -> (usize, usize) {
    let n_matrices = match (usage, shape.dims()) {
        (WeightUse::Experts, [n, _, _]) => *n,
        _ => 1,
    };
    (n_matrices, shape.rows() / n_matrices.max(1))
}

/// Bytes that the CPU keeps of a tensor of this type and shape, known before there is one. `None`: those of the file, as
/// they lie there, packed only tile by tile when they are used or not at all. (A matrix with scales that its packed form cannot
/// hold stays in those as well.)
pub fn weight_bytes(precision: Precision, dtype: DType, shape: &Shape, usage: WeightUse) -> Option<u64> {
    let bytes = match usage {
        WeightUse::Vector => shape.elements().checked_mul(size_of::<f32>()),
        WeightUse::Matrix | WeightUse::Experts if precision == Precision::Fast => {
            let (n_matrices, rows_each) = matrices(shape, usage);
            Packed::bytes(dtype, n_matrices, rows_each, shape.row_len())
        }
        WeightUse::Matrix | WeightUse::Experts | WeightUse::Table => None,
    };
    bytes.and_then(|bytes| u64::try_from(bytes).ok())
}

/// The values of a vector of `len` elements.
pub(crate) fn vector<'a>(op: &'static str, weight: &'a Weight, len: usize) -> Result<&'a [f32]> {
    match weight.inner.downcast_ref::<CpuWeight>() {
        Some(CpuWeight::Vector(values)) if values.len() == len => Ok(values),
        Some(CpuWeight::Vector(values)) => {
            Err(argument(op, format_args!("a vector of {} elements where {len} are needed", values.len())))
        }
        Some(CpuWeight::Rows { .. } | CpuWeight::Packed { .. }) => {
            Err(argument(op, "a matrix where a vector is needed"))
        }
        None => Err(argument(op, "a weight of another device")),
    }
}

/// [`vector`] of an optional weight.
pub(crate) fn optional_vector<'a>(
    op: &'static str,
    weight: Option<&'a Weight>,
    len: usize,
) -> Result<Option<&'a [f32]>> {
    weight.map(|w| vector(op, w, len)).transpose()
}

/// Rows of one dtype.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) dtype: DType,
    pub(crate) n_rows: usize,
    pub(crate) row_len: usize,
    store: Store<'a>,
    /// Who watches the products, and which matrix of a stack this is.
    observer: Option<(&'a Observer, usize)>,
}

#[derive(Clone, Copy)]
enum Store<'a> {
    /// One after another, as in the file.
    Rows { bytes: &'a [u8], row_bytes: usize, tiling: Option<Tiling> },
    /// From a tile on.
    Packed { packed: &'a Packed, first_tile: usize, rows_each: usize },
}

impl<'a> Matrix<'a> {
    /// A weight seen as `[rows, row_len]`, all outer dimensions flattened.
    pub(crate) fn of(op: &'static str, weight: &'a Weight) -> Result<Self> {
        let (n_rows, row_len) = (weight.shape.rows(), weight.shape.row_len());
        let store = match weight.inner.downcast_ref::<CpuWeight>() {
            Some(CpuWeight::Rows { bytes, tiling }) => {
                let row_bytes = weight.dtype.row_bytes(row_len).map_err(|e| argument(op, e))?;
                if row_bytes.checked_mul(n_rows) != Some(bytes.len()) {
                    return Err(argument(op, "a weight whose bytes do not fit its shape"));
                }
                Store::Rows { bytes, row_bytes, tiling: *tiling }
            }
            Some(CpuWeight::Packed { packed, rows_each }) => {
                Store::Packed { packed, first_tile: 0, rows_each: *rows_each }
            }
            Some(CpuWeight::Vector(_)) => return Err(argument(op, "a vector where a matrix is needed")),
            None => return Err(argument(op, "a weight of another device")),
        };
        let observer = weight.observer.as_deref().map(|observer| (observer, 0));
        Ok(Self { dtype: weight.dtype, n_rows, row_len, store, observer })
    }

    /// Whether [`Matrix::part`] can cut it into matrices of `n_rows`.
    pub(crate) fn is_stack_of(&self, n_rows: usize) -> bool {
        match self.store {
            Store::Rows { .. } => true,
            Store::Packed { rows_each, .. } => rows_each == n_rows,
        }
    }

    /// Matrix `index` of a stack of matrices of `n_rows`.
    pub(crate) fn part(self, index: usize, n_rows: usize) -> Self {
        let store = match self.store {
            Store::Rows { bytes, row_bytes, tiling } => {
                let first = index * n_rows * row_bytes;
                Store::Rows { bytes: &bytes[first..first + n_rows * row_bytes], row_bytes, tiling }
            }
            Store::Packed { packed, rows_each, .. } => {
                Store::Packed { packed, first_tile: index * rows_each.div_ceil(TILE), rows_each }
            }
        };
        let observer = self.observer.map(|(observer, _)| (observer, index));
        Self { n_rows, store, observer, ..self }
    }

    /// Tells whoever watches that it is multiplied with the first `n` rows of `x`.
    pub(crate) fn watch(&self, x: &[f32], n: usize) {
        if let Some((observer, index)) = self.observer {
            observer.add(index, &x[..n * self.row_len]);
        }
    }

    /// How its rows lie in the tiles that [`Matrix::tiles`] returns. `None`: it is multiplied as floats.
    pub(crate) fn tiling(&self) -> Option<Tiling> {
        match self.store {
            Store::Rows { tiling, .. } => tiling,
            Store::Packed { packed, .. } => Some(packed.tiling),
        }
    }

    /// The bytes of `n` tiles from the one on that holds rows `16 · first..`. Those that are not kept are made in `scratch`,
    /// which has room for them.
    pub(crate) fn tiles<'b>(&self, kernels: &Kernels, first: usize, n: usize, scratch: &'b mut [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self.store {
            Store::Rows { tiling: None, .. } => &[],
            Store::Rows { bytes, row_bytes, tiling: Some(Tiling { tile_bytes, .. }) } => {
                for (tile, to) in scratch[..n * tile_bytes].chunks_exact_mut(tile_bytes.max(1)).enumerate() {
                    let first = (first + tile) * TILE;
                    let rows = &bytes[first * row_bytes..(first + TILE).min(self.n_rows) * row_bytes];
                    let fits = kernels.pack(PackTile { dtype: self.dtype, rows, row_bytes, to });
                    debug_assert!(fits, "forms that are not kept hold all scales");
                }
                &scratch[..n * tile_bytes]
            }
            Store::Packed { packed, first_tile, .. } => {
                let tile_bytes = packed.tiling.tile_bytes;
                &packed.tiles[(first_tile + first) * tile_bytes..][..n * tile_bytes]
            }
        }
    }

    /// Rows `first..first + n` of 16-bit floats as they lie in the file, and whether they are `bf16`. `None`: another type.
    pub(crate) fn half_rows(&self, first: usize, n: usize) -> Option<(&'a [u8], bool)> {
        match self.store {
            Store::Rows { bytes, row_bytes, .. } if matches!(self.dtype, DType::F16 | DType::BF16) => {
                Some((&bytes[first * row_bytes..(first + n) * row_bytes], self.dtype == DType::BF16))
            }
            _ => None,
        }
    }

    /// Columns `first..first + out.len()` of a row, exactly; both are whole blocks. Packed matrices decode whole rows
    /// only.
    pub(crate) fn decode(&self, kernels: &Kernels, row: usize, first: usize, out: &mut [f32]) {
        let (bytes, row_bytes) = match self.store {
            Store::Rows { bytes, row_bytes, .. } => (bytes, row_bytes),
            Store::Packed { packed, first_tile, .. } => {
                assert!(first == 0 && out.len() == self.row_len, "part of a packed row");
                return packed.decode_row(first_tile + row / TILE, row % TILE, out);
            }
        };
        let (block_len, block_bytes) = (self.dtype.block_len(), self.dtype.block_bytes());
        let start = row * row_bytes + first / block_len * block_bytes;
        let bytes = &bytes[start..start + out.len() / block_len * block_bytes];
        match self.dtype {
            DType::F16 => widen(bytes, out, |from, to| kernels.f16_to_f32(from, to)),
            DType::BF16 => widen(bytes, out, |from, to| kernels.bf16_to_f32(from, to)),
            dtype => dtype.decode(bytes, out).expect("upload checked that the type decodes, this function the length"),
        }
    }
}

/// Runs `convert` over 16-bit elements that may lie at odd addresses.
fn widen(bytes: &[u8], out: &mut [f32], convert: impl Fn(&[u16], &mut [f32])) {
    // SAFETY: every bit pattern is a u16.
    let (head, aligned, _) = unsafe { bytes.align_to::<u16>() };
    if head.is_empty() && cfg!(target_endian = "little") {
        return convert(aligned, out);
    }
    let mut chunk = [0u16; 64];
    for (bytes, out) in bytes.chunks(128).zip(out.chunks_mut(64)) {
        for (c, b) in chunk.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *c = u16::from_le_bytes(*b);
        }
        convert(&chunk[..out.len()], out);
    }
}
