//! Matrices of a graph: floats as they are, or levels with scales and zero points, in the orders that operators read them.
//!
//! The orders are those of `DequantizeLinear`, `MatMulInteger` and `Gemm` in ONNX's specification and of `MatMulNBits` and
//! `GatherBlockQuantized` in ONNX Runtime's. Problems are told in words; the caller knows the node.

use super::{
    data::{Constant, Kind},
    proto::Node,
};
use crate::levels::{Codes, Floats, Grid, Levels, Zeros};
use std::rc::Rc;

/// A matrix made of constants.
#[derive(Clone)]
pub(super) enum Matrix {
    /// Floats of a constant of two dimensions.
    Plain {
        constant: usize,
        transposed: bool,
    },
    Levels(Rc<Levels>),
}

impl Matrix {
    /// The constant as a matrix. `None`: it is none, or holds no floats.
    pub(super) fn plain(constants: &[Constant<'_>], index: usize) -> Option<Self> {
        let constant = constants.get(index)?;
        (constant.is_float() && constant.dims.len() == 2)
            .then_some(Matrix::Plain { constant: index, transposed: false })
    }

    /// Rows become columns.
    pub(super) fn transposed(self) -> Self {
        match self {
            Matrix::Plain { constant, transposed } => Matrix::Plain { constant, transposed: !transposed },
            Matrix::Levels(levels) => Matrix::Levels(Rc::new(Rc::unwrap_or_clone(levels).transposed())),
        }
    }

    /// Rows and columns.
    pub(super) fn dims(&self, constants: &[Constant<'_>]) -> [usize; 2] {
        match self {
            Matrix::Levels(levels) => levels.dims(),
            Matrix::Plain { constant, transposed } => match constants.get(*constant).map(|c| c.dims.as_slice()) {
                Some([rows, columns]) if *transposed => [*columns, *rows],
                Some([rows, columns]) => [*rows, *columns],
                _ => [0, 0],
            },
        }
    }

    /// Whether it is made of the same bytes.
    pub(super) fn is_same(&self, other: &Matrix) -> bool {
        match (self, other) {
            (Matrix::Plain { constant: one, .. }, Matrix::Plain { constant: other, .. }) => one == other,
            (Matrix::Levels(one), Matrix::Levels(other)) => one.shares_levels(other),
            _ => false,
        }
    }
}

/// Makes the matrices that a node reads.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r, 'a> {
    pub(super) constants: &'r [Constant<'a>],
    pub(super) node: &'r Node<'a>,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Reader<'_, 'a> {
    fn constant(&self, index: usize) -> Result<&Constant<'a>> {
        self.constants.get(index).ok_or_else(|| "a constant is missing".to_owned())
    }

    /// A positive attribute; `default` where the node does not say.
    fn size(&self, name: &str, default: Option<usize>) -> Result<usize> {
        let given = match self.node.int(name) {
            None => default,
            Some(value) => usize::try_from(value).ok(),
        };
        given.filter(|size| *size > 0).ok_or_else(|| format!("the attribute {name} is missing or invalid"))
    }

    /// The axis that scales go along and how many elements share one; 0: each has its own.
    pub(super) fn axis_and_block(&self) -> Result<(usize, usize)> {
        let axis = match self.node.int("axis").unwrap_or(1) {
            -2 | 0 => 0,
            -1 | 1 => 1,
            other => return Err(format!("the axis {other} of a matrix is invalid")),
        };
        let block = self.node.int("block_size").unwrap_or(0);
        Ok((axis, usize::try_from(block).map_err(|_| format!("the block size {block} is invalid"))?))
    }

    /// A matrix for `Gemm`, rows of which belong to the outputs.
    pub(super) fn general(&self, matrix: Matrix) -> Result<Matrix> {
        let is_one = |name| self.node.float(name).is_none_or(|factor| factor == 1.0);
        if !is_one("alpha") || !is_one("beta") || self.node.int("transA").unwrap_or(0) != 0 {
            return Err("factors and a transposed first factor are not supported".to_owned());
        }
        Ok(if self.node.int("transB").unwrap_or(0) == 0 { matrix.transposed() } else { matrix })
    }

    fn codes(
        &self,
        index: usize,
        grid: impl FnOnce(&Constant<'a>) -> Result<Grid>,
        bits: Option<usize>,
    ) -> Result<Codes> {
        let constant = self.constant(index)?;
        let signed = match constant.element.kind {
            Kind::Signed => true,
            Kind::Unsigned => false,
            Kind::Float | Kind::Other => return Err(format!("{} holds no integers", constant.described())),
        };
        let bits = bits.unwrap_or(constant.element.bits);
        Ok(Codes { grid: grid(constant)?, bits, signed })
    }

    fn floats(&self, index: usize, grid: impl FnOnce(&Constant<'a>) -> Result<Grid>) -> Result<Floats> {
        let constant = self.constant(index)?;
        match constant.element.dtype {
            Some(dtype) => Ok(Floats { grid: grid(constant)?, dtype }),
            None => Err(format!("{} holds no floats", constant.described())),
        }
    }

    /// Integers of two dimensions with scales along an axis: one for all, one for each, or one for every `block`.
    pub(super) fn levels(
        &self,
        levels: usize,
        scales: usize,
        zeros: Option<usize>,
        axis: usize,
        block: usize,
    ) -> Result<Matrix> {
        let stored = self.constant(levels)?;
        let &[rows, columns] = stored.dims.as_slice() else {
            return Err(format!("the integers {} are no matrix", stored.described()));
        };
        let dims = [rows, columns];
        let codes =
            self.codes(levels, |c| Ok(Grid { data: c.data.clone(), strides: [columns, 1], blocks: [1, 1] }), None)?;
        let along = |constant: &Constant<'a>| along(constant, dims, axis, block);
        let scales = self.floats(scales, along)?;
        let zeros = match zeros {
            None => Zeros::Fixed(0),
            Some(zeros) => Zeros::Codes(self.codes(zeros, along, None)?),
        };
        Ok(Matrix::Levels(Rc::new(Levels::new(dims, codes, scales, zeros)?)))
    }

    /// `MatMulNBits`: rows of whole groups, each group's levels in bytes of its own.
    pub(super) fn grouped(&self, levels: usize, scales: Option<usize>, zeros: Option<usize>) -> Result<Matrix> {
        let dims = [self.size("N", None)?, self.size("K", None)?];
        let (bits, group) = (self.size("bits", Some(4))?, self.size("block_size", None)?);
        self.in_groups(dims, bits, group, levels, scales, zeros)
    }

    /// `GatherBlockQuantized`: the same as a table whose size its scales tell.
    pub(super) fn grouped_table(&self, levels: usize, scales: Option<usize>, zeros: Option<usize>) -> Result<Matrix> {
        let (bits, group) = (self.size("bits", Some(4))?, self.size("block_size", Some(128))?);
        let axes = [("gather_axis", 0, 0), ("quantize_axis", 1, 1)];
        for (name, default, expected) in axes {
            if self.node.int(name).unwrap_or(default) != expected {
                return Err(format!("only {name} {expected} is supported"));
            }
        }
        let missing = || "its scales are not constant".to_owned();
        let stored = self.constant(levels)?;
        let scale_dims = &self.constant(scales.ok_or_else(missing)?)?.dims;
        let (&[rows, groups], bytes) = (scale_dims.as_slice(), stored.len().saturating_mul(stored.element.bits) / 8)
        else {
            return Err("its scales are no matrix".to_owned());
        };
        let columns = (bytes.saturating_mul(8) / bits).checked_div(rows).unwrap_or(0);
        if columns.div_ceil(group) != groups {
            return Err(format!("{groups} groups of {group} do not make rows of {columns}"));
        }
        if !columns.is_multiple_of(group) && stored.element.bits == 8 {
            return Err(format!("rows of {columns} are no whole number of groups of {group}"));
        }
        self.in_groups([rows, columns], bits, group, levels, scales, zeros)
    }

    fn in_groups(
        &self,
        dims: [usize; 2],
        bits: usize,
        group: usize,
        levels: usize,
        scales: Option<usize>,
        zeros: Option<usize>,
    ) -> Result<Matrix> {
        if ![2, 4, 8].contains(&bits) || !group.is_multiple_of(8) {
            return Err(format!("groups of {group} levels of {bits} bits are not supported"));
        }
        let groups = dims[1].div_ceil(group);
        let row = groups.checked_mul(group).ok_or_else(|| format!("groups of {group} levels are too large"))?;
        let grid = |c: &Constant<'a>, strides, blocks| Ok(Grid { data: c.data.clone(), strides, blocks });
        let mut codes = self.codes(levels, |c| grid(c, [row, 1], [1, 1]), Some(bits))?;
        // Bytes that hold several levels, whatever the tensor calls them.
        codes.signed &= self.constant(levels)?.element.bits == bits;
        let missing = || "its scales are not constant".to_owned();
        let scales = self.floats(scales.ok_or_else(missing)?, |c| grid(c, [groups, 1], [1, group]))?;
        let zeros = match zeros {
            None if codes.signed => Zeros::Fixed(0),
            None => Zeros::Fixed(1 << (bits - 1)),
            Some(index) if self.constant(index)?.is_float() => {
                Zeros::Floats(self.floats(index, |c| grid(c, [groups, 1], [1, group]))?)
            }
            Some(index) => {
                // The zero points of a row fill whole bytes.
                let padded = (groups * bits).div_ceil(8) * 8 / bits;
                let mut zeros = self.codes(index, |c| grid(c, [padded, 1], [1, group]), Some(bits))?;
                zeros.signed = codes.signed;
                Zeros::Codes(zeros)
            }
        };
        Ok(Matrix::Levels(Rc::new(Levels::new(dims, codes, scales, zeros)?)))
    }
}

/// The places of numbers that go along `axis` of a matrix of `dims`.
fn along(constant: &Constant<'_>, dims: [usize; 2], axis: usize, block: usize) -> Result<Grid> {
    let mut grid = Grid { data: constant.data.clone(), strides: [0, 0], blocks: [1, 1] };
    let is_each = constant.dims.as_slice() == [dims[axis]];
    match constant.dims.as_slice() {
        _ if constant.len() == 1 => {}
        _ if is_each && block == 0 => grid.strides[axis] = 1,
        &[rows, columns] if block > 0 => {
            let mut expected = dims;
            expected[axis] = dims[axis].div_ceil(block);
            if [rows, columns] != expected {
                return Err(format!("{} does not fit a matrix {dims:?} in blocks of {block}", constant.described()));
            }
            grid.strides = [columns, 1];
            grid.blocks[axis] = block;
        }
        _ => return Err(format!("{} does not fit a matrix {dims:?}", constant.described())),
    }
    Ok(grid)
}
