//! Matrices of small integers with scales and zero points beside them, made into blocks when they are loaded.
//!
//! A weight is `(level - zero) * scale`. Formats keep the three in tensors of their own and in orders of their own; here
//! they are numbers on grids. Where a row is a whole number of groups, the levels go into affine blocks as they are, else
//! the weights become `f32`: neither loses anything. What does not belong here: how a file says all this (`format`).

use crate::{Error, Result, TensorInfo, error::quoted, file::ModelFile};
use std::{path::Path, sync::Arc};
use tensor::{Affine, DType, SharedBytes};

/// Rows that are unpacked at once: columns are then read in runs, whichever way the levels lie.
const TILE: usize = 64;

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// In a file of the model, proven to lie inside it.
    File { part: usize, offset: u64, bytes: u64 },
    /// In memory.
    Owned(Arc<Vec<u8>>),
}

impl Data {
    fn len(&self) -> u64 {
        match self {
            Data::File { bytes, .. } => *bytes,
            Data::Owned(bytes) => bytes.len() as u64,
        }
    }

    /// The bytes; `what` is for messages.
    pub(crate) fn read(&self, parts: &[ModelFile], what: impl Fn() -> String) -> Result<SharedBytes> {
        match self {
            Data::Owned(bytes) => {
                let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::clone(bytes) as _;
                Ok(SharedBytes::new(owner))
            }
            Data::File { part, offset, bytes } => match parts.get(*part) {
                Some(file) => {
                    file.check_unchanged()?;
                    file.bytes(*offset, *bytes, what)
                }
                None => Ok(SharedBytes::from_vec(Vec::new())),
            },
        }
    }

    fn release(&self, parts: &[ModelFile], bytes: &SharedBytes) {
        if let Data::File { part, .. } = self
            && let Some(file) = parts.get(*part)
        {
            file.release(bytes);
        }
    }
}

/// A tensor whose elements no file holds as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Of levels, scales and zero points.
    Levels(Box<Levels>),
    /// Of numbers that the file has one by one.
    Owned(Arc<Vec<u8>>),
}

impl Made {
    /// The bytes of the tensor `info` of the model at `path`.
    pub(crate) fn load(&self, path: &Path, parts: &[ModelFile], info: &TensorInfo) -> Result<SharedBytes> {
        match self {
            Made::Levels(levels) => levels.load(path, parts, info),
            Made::Owned(bytes) => Data::Owned(Arc::clone(bytes)).read(parts, String::new),
        }
    }
}

/// Numbers of a matrix: that of the element in `row` and `column` is number
/// `row / blocks[0] * strides[0] + column / blocks[1] * strides[1]` of `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) data: Data,
    pub(crate) strides: [usize; 2],
    pub(crate) blocks: [usize; 2],
}

impl Grid {
    fn index(&self, row: usize, column: usize) -> usize {
        // Cannot overflow: that of the last element does not.
        row / self.blocks[0] * self.strides[0] + column / self.blocks[1] * self.strides[1]
    }

    /// The number of the last element. `None`: there is none, or it overflows.
    fn last(&self, dims: [usize; 2]) -> Option<usize> {
        let along = |i: usize| {
            let last = dims.get(i)?.checked_sub(1)?.checked_div(*self.blocks.get(i)?)?;
            last.checked_mul(*self.strides.get(i)?)
        };
        along(0)?.checked_add(along(1)?)
    }

    /// Columns that certainly share a number; all of them where only rows differ.
    fn group(&self, n_columns: usize) -> usize {
        if self.strides[1] == 0 { n_columns } else { self.blocks[1] }
    }

    fn transpose(&mut self) {
        self.strides.reverse();
        self.blocks.reverse();
    }
}

/// Integers of 2, 4 or 8 bits, one after another from the lowest bit of each byte on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Codes {
    pub(crate) grid: Grid,
    pub(crate) bits: usize,
    pub(crate) signed: bool,
}

impl Codes {
    /// Number `index` with the offset that makes it unsigned.
    fn level(&self, bytes: &[u8], index: usize) -> u8 {
        // No overflow: an index is below the number of bits of the data.
        let bit = index * self.bits;
        let byte = bytes.get(bit / 8).copied().unwrap_or_default();
        let level = byte >> (bit % 8) & u8::MAX >> (8 - self.bits);
        if self.signed { level ^ 1 << (self.bits - 1) } else { level }
    }

    /// What [`Codes::level`] adds.
    fn offset(&self) -> i32 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }
}

/// Floats on a grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Floats {
    pub(crate) grid: Grid,
    pub(crate) dtype: DType,
}

/// The level that means zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Zeros {
    /// The same everywhere.
    Fixed(i32),
    Codes(Codes),
    Floats(Floats),
}

/// A matrix of levels, whose grids are proven to lie inside their data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    dims: [usize; 2],
    codes: Codes,
    scales: Floats,
    zeros: Zeros,
}

/// What is read to make a matrix.
struct Sources {
    codes: SharedBytes,
    scales: Vec<f32>,
    zeros: ZeroValues,
}

enum ZeroValues {
    Fixed(f32),
    Codes(SharedBytes),
    Floats(Vec<f32>),
}

impl Levels {
    /// A matrix of `dims`, rows and columns. The problem in words: what does not fit.
    pub(crate) fn new(
        dims: [usize; 2],
        codes: Codes,
        scales: Floats,
        zeros: Zeros,
    ) -> std::result::Result<Self, String> {
        let fits = |grid: &Grid, bits: u64, what: &str| {
            let room = grid.data.len().saturating_mul(8) / bits.max(1);
            match grid.last(dims) {
                Some(last) if (last as u64) < room => Ok(()),
                _ => Err(format!("{what} do not fit the shape {dims:?}")),
            }
        };
        let integers = |codes: &Codes, what: &str| match codes.bits {
            2 | 4 | 8 => fits(&codes.grid, codes.bits as u64, what),
            bits => Err(format!("{what} of {bits} bits are not supported")),
        };
        let [row_step, column_step] = codes.grid.strides;
        if codes.grid.blocks != [1, 1] || row_step == 0 || column_step == 0 {
            return Err("levels that are shared are not supported".to_owned());
        }
        let floats = |floats: &Floats, what: &str| match floats.dtype {
            DType::F32 | DType::F16 | DType::BF16 => fits(&floats.grid, 8 * floats.dtype.block_bytes() as u64, what),
            other => Err(format!("{what} of the type {other} are not supported")),
        };
        integers(&codes, "the levels")?;
        floats(&scales, "the scales")?;
        match &zeros {
            Zeros::Fixed(_) => {}
            Zeros::Codes(codes) => integers(codes, "the zero points")?,
            Zeros::Floats(values) => floats(values, "the zero points")?,
        }
        Ok(Self { dims, codes, scales, zeros })
    }

    /// Rows and columns.
    pub(crate) fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// Whether `other` has its levels in the same bytes.
    pub(crate) fn shares_levels(&self, other: &Levels) -> bool {
        self.codes.grid.data == other.codes.grid.data
    }

    /// Rows become columns.
    pub(crate) fn transposed(mut self) -> Self {
        self.dims.reverse();
        self.codes.grid.transpose();
        self.scales.grid.transpose();
        match &mut self.zeros {
            Zeros::Fixed(_) => {}
            Zeros::Codes(codes) => codes.grid.transpose(),
            Zeros::Floats(floats) => floats.grid.transpose(),
        }
        self
    }

    /// The affine type that rows of it fit. `None`: a row is no whole number of groups.
    fn affine(&self) -> Option<Affine> {
        let n_columns = self.dims[1];
        let of_zeros = match &self.zeros {
            Zeros::Fixed(_) => n_columns,
            Zeros::Codes(codes) => codes.grid.group(n_columns),
            Zeros::Floats(floats) => floats.grid.group(n_columns),
        };
        let shared = greatest_common_divisor(self.scales.grid.group(n_columns), of_zeros);
        Affine::dividing(self.codes.bits, shared, n_columns)
    }

    /// The type it is loaded in.
    pub(crate) fn dtype(&self) -> DType {
        self.affine().and_then(Affine::dtype).unwrap_or(DType::F32)
    }

    /// Its bytes in that type, for the tensor `info` of the model at `path`.
    pub(crate) fn load(&self, path: &Path, parts: &[ModelFile], info: &TensorInfo) -> Result<SharedBytes> {
        let what = || format!("tensor {}", quoted(&info.name));
        let no_memory = || Error::Memory { path: path.to_owned(), bytes: info.bytes, what: what() };
        let len = usize::try_from(info.bytes).map_err(|_| no_memory())?;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| no_memory())?;
        out.resize(len, 0);
        let sources = self.sources(parts, info)?;
        let [n_rows, n_columns] = self.dims;
        let row_bytes = len.checked_div(n_rows).filter(|bytes| *bytes > 0).ok_or_else(no_memory)?;
        let affine = self.affine();
        let mut tile = vec![0; TILE.min(n_rows).saturating_mul(n_columns)];
        for (index, rows) in out.chunks_mut(row_bytes.saturating_mul(TILE)).enumerate() {
            let first = index * TILE;
            self.unpack(&sources.codes, first, rows.len() / row_bytes, &mut tile);
            let levels = tile.chunks_exact(n_columns.max(1));
            for (i, (row, levels)) in rows.chunks_exact_mut(row_bytes).zip(levels).enumerate() {
                match affine {
                    Some(affine) => self.blocks(affine, &sources, first + i, levels, row),
                    None => self.singles(&sources, first + i, levels, row),
                }
            }
        }
        self.codes.grid.data.release(parts, &sources.codes);
        Ok(SharedBytes::from_vec(out))
    }

    fn sources(&self, parts: &[ModelFile], info: &TensorInfo) -> Result<Sources> {
        let what = || format!("tensor {}", quoted(&info.name));
        let floats = |floats: &Floats| {
            let bytes = floats.grid.data.read(parts, what)?;
            let mut values = vec![0.0; bytes.len() / floats.dtype.block_bytes()];
            let whole = bytes.get(..values.len() * floats.dtype.block_bytes()).unwrap_or_default();
            let decoded = floats.dtype.decode(whole, &mut values);
            let path = parts.first().map(|file| file.path().to_owned()).unwrap_or_default();
            decoded.map_err(|source| Error::Tensor { path, tensor: quoted(&info.name), source })?;
            Ok(values)
        };
        Ok(Sources {
            codes: self.codes.grid.data.read(parts, what)?,
            scales: floats(&self.scales)?,
            zeros: match &self.zeros {
                Zeros::Fixed(zero) => ZeroValues::Fixed(*zero as f32),
                Zeros::Codes(codes) => ZeroValues::Codes(codes.grid.data.read(parts, what)?),
                Zeros::Floats(values) => ZeroValues::Floats(floats(values)?),
            },
        })
    }

    /// Levels of `n` rows from `first` on, one a byte, into `tile`, row after row.
    fn unpack(&self, bytes: &[u8], first: usize, n: usize, tile: &mut [u8]) {
        let n_columns = self.dims[1].max(1);
        let [row_step, column_step] = self.codes.grid.strides;
        let from = first * row_step;
        if column_step <= row_step {
            for (row, levels) in tile.chunks_exact_mut(n_columns).take(n).enumerate() {
                let indices = (from + row * row_step..).step_by(column_step.max(1));
                levels.iter_mut().zip(indices).for_each(|(to, index)| *to = self.codes.level(bytes, index));
            }
            return;
        }
        // A column's levels are neighbours in the file.
        for column in 0..n_columns {
            let places = tile.iter_mut().skip(column).step_by(n_columns).take(n);
            let indices = (from + column * column_step..).step_by(row_step.max(1));
            places.zip(indices).for_each(|(to, index)| *to = self.codes.level(bytes, index));
        }
    }

    /// Scale and zero (of unsigned levels) at an element.
    fn parameters(&self, sources: &Sources, row: usize, column: usize) -> (f32, f32) {
        let scale = sources.scales.get(self.scales.grid.index(row, column)).copied().unwrap_or_default();
        let zero = match (&self.zeros, &sources.zeros) {
            (_, ZeroValues::Fixed(zero)) => *zero,
            (Zeros::Codes(codes), ZeroValues::Codes(bytes)) => {
                let level = codes.level(bytes, codes.grid.index(row, column));
                (i32::from(level) - codes.offset()) as f32
            }
            (Zeros::Floats(floats), ZeroValues::Floats(values)) => {
                values.get(floats.grid.index(row, column)).copied().unwrap_or_default()
            }
            _ => 0.0,
        };
        (scale, zero + self.codes.offset() as f32)
    }

    fn blocks(&self, affine: Affine, sources: &Sources, row: usize, levels: &[u8], out: &mut [u8]) {
        let mut stream = vec![0; affine.level_bytes()];
        let groups = levels.chunks_exact(affine.group).zip(out.chunks_exact_mut(affine.block_bytes()));
        for (index, (group, block)) in groups.enumerate() {
            let (scale, zero) = self.parameters(sources, row, index * affine.group);
            affine.pack(group, &mut stream);
            affine.write(scale, -zero * scale, &stream, block);
        }
    }

    fn singles(&self, sources: &Sources, row: usize, levels: &[u8], out: &mut [u8]) {
        for (column, (level, to)) in levels.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
            let (scale, zero) = self.parameters(sources, row, column);
            *to = ((f32::from(*level) - zero) * scale).to_le_bytes();
        }
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Shape;

    fn owned(bytes: Vec<u8>) -> Data {
        Data::Owned(Arc::new(bytes))
    }

    fn singles(values: &[f32]) -> Data {
        owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn values(levels: &Levels) -> (DType, Vec<f32>) {
        let (dtype, shape) = (levels.dtype(), Shape::new(&levels.dims()).unwrap());
        let bytes = dtype.tensor_bytes(&shape).unwrap() as u64;
        let info = TensorInfo { name: "t".to_owned(), dtype, shape, bytes, part: 0, offset: 0, view: None, made: None };
        let bytes = levels.load(Path::new("m"), &[], &info).unwrap();
        let mut out = vec![0.0; shape.elements()];
        dtype.decode(&bytes, &mut out).unwrap();
        (dtype, out)
    }

    /// 70 rows of 64, levels of every width, in both orders, with scales and zeros of every kind.
    #[test]
    fn levels_become_weights() {
        let (n, k) = (70, 64);
        for (bits, signed, rows_first, group) in [
            (8, true, false, 64),
            (8, false, true, 32),
            (4, false, true, 16),
            (4, true, false, 32),
            (2, false, true, 64),
        ] {
            let most = (1i32 << bits) - 1;
            let low = if signed { -(1 << (bits - 1)) } else { 0 };
            let level = |i: usize, j: usize| low + (i as i32 * 7 + j as i32 * 5) % (most + 1);
            let strides = if rows_first { [k, 1] } else { [1, n] };
            let mut bytes = vec![0u8; n * k * bits / 8];
            for i in 0..n {
                for j in 0..k {
                    let at = i * strides[0] + j * strides[1];
                    bytes[at * bits / 8] |= ((level(i, j) & most) as u8) << (at * bits % 8);
                }
            }
            let per_row = k / group;
            let scale = |i: usize, g: usize| 0.5 + (i * per_row + g) as f32 / 64.0;
            let scales: Vec<f32> = (0..n * per_row).map(|x| scale(x / per_row, x % per_row)).collect();
            let on = |data| Grid { data, strides: [per_row, 1], blocks: [1, group] };
            let zero = |i: usize, g: usize| ((i + g) % 2) as u8;
            let zero_bytes = (0..n * per_row).map(|x| zero(x / per_row, x % per_row)).collect();
            let codes = Codes { grid: Grid { data: owned(bytes), strides, blocks: [1, 1] }, bits, signed };
            let levels = Levels::new(
                [n, k],
                codes,
                Floats { grid: on(singles(&scales)), dtype: DType::F32 },
                Zeros::Codes(Codes { grid: on(owned(zero_bytes)), bits: 8, signed: false }),
            );
            let levels = levels.unwrap();
            let expected = |i: usize, j: usize| {
                let g = j / group;
                (level(i, j) as f32 - f32::from(zero(i, g))) * scale(i, g)
            };
            let (dtype, found) = values(&levels);
            assert_eq!((dtype.is_quantized(), dtype.block_len()), (true, group), "{bits} {dtype}");
            let (turned, other) = values(&levels.transposed());
            assert_eq!(turned, DType::F32);
            for i in 0..n {
                for j in 0..k {
                    let expected = expected(i, j);
                    assert!((found[i * k + j] - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{bits} {i} {j}");
                    assert_eq!(other[j * n + i], expected, "{bits} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn one_scale_for_all_and_for_each_row() {
        let codes = |strides| Codes {
            grid: Grid { data: owned((0..128).collect()), strides, blocks: [1, 1] },
            bits: 8,
            signed: true,
        };
        let floats = |values: &[f32], strides| Floats {
            grid: Grid { data: singles(values), strides, blocks: [1, 1] },
            dtype: DType::F32,
        };
        let all = Levels::new([2, 64], codes([64, 1]), floats(&[2.0], [0, 0]), Zeros::Fixed(1)).unwrap();
        let (dtype, found) = values(&all);
        assert_eq!((dtype.block_len(), found[3], found[127]), (64, 4.0, 252.0));
        let each = Levels::new([2, 64], codes([64, 1]), floats(&[1.0, 3.0], [1, 0]), Zeros::Fixed(0)).unwrap();
        let (dtype, found) = values(&each);
        assert_eq!((dtype.block_len(), found[3], found[67]), (64, 3.0, 201.0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        #[track_caller]
        fn check(dims: [usize; 2], bits: usize, dtype: DType, expected: &str) {
            let codes = Codes {
                grid: Grid { data: owned(vec![0; 64]), strides: [32, 1], blocks: [1, 1] },
                bits,
                signed: false,
            };
            let scales = Floats { grid: Grid { data: singles(&[1.0]), strides: [0, 0], blocks: [1, 1] }, dtype };
            let problem = Levels::new(dims, codes, scales, Zeros::Fixed(0)).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
        check([3, 32], 8, DType::F32, "the levels do not fit the shape [3, 32]");
        check([2, 0], 8, DType::F32, "the levels do not fit");
        check([usize::MAX, usize::MAX], 8, DType::F32, "the levels do not fit");
        check([2, 32], 3, DType::F32, "levels of 3 bits");
        check([2, 32], 8, DType::F64, "scales of the type F64");
    }
}
