//! Shapes, outermost dimension first: a matrix is `[rows, columns]` and one row is contiguous.
//!
//! GGUF writes dimensions the other way round (`ne`, fastest first); its reader turns them here and nowhere else.

use std::fmt;

/// At most this many dimensions; language models need three, convolutions of other modalities five.
const MAX_DIMS: usize = 6;

/// The dimensions of a tensor, outermost first, one to six of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_DIMS],
    n_dims: u8,
}

impl Shape {
    /// A shape of one to six dimensions, outermost first. `None` when there are none or too many, or when their
    /// product overflows.
    pub fn new(dims: &[usize]) -> Option<Self> {
        if dims.is_empty() || dims.len() > MAX_DIMS {
            return None;
        }
        dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d))?;
        let mut all = [1; MAX_DIMS];
        all.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(Self { dims: all, n_dims: dims.len() as u8 })
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.n_dims as usize]
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Length of a row: the innermost dimension.
    pub fn row_len(&self) -> usize {
        self.dims[self.n_dims as usize - 1]
    }

    /// Number of rows: all dimensions but the innermost multiplied.
    pub fn rows(&self) -> usize {
        self.dims[..self.n_dims as usize - 1].iter().product()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.dims().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_rows_and_row_length() {
        #[track_caller]
        fn check(dims: &[usize], rows: usize, row_len: usize) {
            let shape = Shape::new(dims).unwrap();
            assert_eq!((shape.rows(), shape.row_len(), shape.elements()), (rows, row_len, rows * row_len), "{shape}");
        }
        check(&[7], 1, 7);
        check(&[3, 5], 3, 5);
        check(&[2, 3, 5], 6, 5);
        check(&[2, 3, 5, 7], 30, 7);
    }

    #[test]
    fn impossible_shapes_are_none() {
        assert!(Shape::new(&[]).is_none());
        assert!(Shape::new(&[1; 7]).is_none());
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
    }
}
