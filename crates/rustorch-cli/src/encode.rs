//! The bytes of a tensor in another type: a few rows at a time, on all threads, handed on in order.
//!
//! At most a few megabytes per thread are held, whatever the size of the tensor. What belongs here: the division of the
//! work. What does not: the conversion itself (`tensor::DType::transcode`), where rows come from and bytes go.

use std::{num::NonZeroUsize, ops::Range};
use tensor::{DType, Error, Shape};

/// Elements that a thread converts at once, unless one row has more.
const ELEMENTS: usize = 1 << 20;

/// Appends the bytes of the rows asked for; threads call it at once.
type Read<'a, E> = dyn Fn(Range<usize>, &mut Vec<u8>) -> Result<(), E> + Sync + 'a;

/// What is converted to what.
#[derive(Clone, Copy)]
pub(crate) struct Conversion<'a> {
    pub(crate) from: DType,
    pub(crate) to: DType,
    pub(crate) shape: Shape,
    /// Threads to use; none: one for each processor.
    pub(crate) threads: Option<usize>,
    /// How much the columns of each of its matrices count, `[n_matrices, row_len]`; empty: all alike.
    pub(crate) importance: &'a [f32],
}

impl Conversion<'_> {
    /// Converts all rows that `read` gives, and hands the bytes of some rows at a time to `write`, in order.
    ///
    /// Error: that of `read` or `write`; a type, or a number, that cannot be converted.
    pub(crate) fn run<E: From<Error> + Send>(
        &self,
        read: &Read<'_, E>,
        write: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let n_rows = self.shape.rows();
        // Refused as a whole before anything is converted.
        for dtype in [self.from, self.to] {
            dtype.row_bytes(self.shape.row_len())?;
        }
        let step = (ELEMENTS / self.shape.row_len().max(1)).max(1);
        let n_threads = match self.from == self.to {
            true => 1,
            false => self.threads.or(std::thread::available_parallelism().ok().map(NonZeroUsize::get)).unwrap_or(1),
        };
        let mut row = 0;
        while row < n_rows {
            let starts = (0..n_threads).map(|i| row.saturating_add(i.saturating_mul(step))).take_while(|&s| s < n_rows);
            let chunks: Vec<Range<usize>> = starts.map(|s| s..s.saturating_add(step).min(n_rows)).collect();
            row = chunks.last().map_or(n_rows, |last| last.end);
            for bytes in self.convert(&chunks, read) {
                write(bytes?)?;
            }
        }
        Ok(())
    }

    /// The bytes of `rows` in the new type, those of each matrix as its own columns count.
    fn transcode(&self, rows: &Range<usize>, source: &[u8], target: &mut Vec<u8>) -> tensor::Result<()> {
        let row_len = self.shape.row_len();
        let n_matrices = self.importance.len().checked_div(row_len).unwrap_or(0);
        let Some(rows_each) = self.shape.rows().checked_div(n_matrices).filter(|&rows| rows > 0) else {
            return self.from.transcode(source, self.to, target);
        };
        let row_bytes = self.from.row_bytes(row_len)?;
        let outside = || Error::Shape(format!("rows {rows:?} are outside {}", self.shape));
        let mut row = rows.start;
        while row < rows.end {
            let matrix = row / rows_each;
            let end = rows.end.min((matrix + 1) * rows_each);
            let bytes = source.get((row - rows.start) * row_bytes..(end - rows.start) * row_bytes);
            let importance = self.importance.get(matrix * row_len..(matrix + 1) * row_len);
            let (bytes, importance) = bytes.zip(importance).ok_or_else(outside)?;
            self.from.transcode_rows(bytes, self.to, importance, target)?;
            row = end;
        }
        Ok(())
    }

    fn convert<E: From<Error> + Send>(&self, chunks: &[Range<usize>], read: &Read<'_, E>) -> Vec<Result<Vec<u8>, E>> {
        let convert = |rows: &Range<usize>| {
            let mut source = Vec::new();
            read(rows.clone(), &mut source)?;
            if self.from == self.to {
                return Ok(source);
            }
            let mut target = Vec::new();
            self.transcode(rows, &source, &mut target)?;
            Ok(target)
        };
        if let [one] = chunks {
            return vec![convert(one)];
        }
        std::thread::scope(|scope| {
            let convert = &convert;
            let workers: Vec<_> = chunks.iter().map(|rows| scope.spawn(move || convert(rows))).collect();
            let broke_down = |_| Err(Error::Shape("a thread of the conversion broke down".to_owned()).into());
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(broke_down)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_threads_makes_the_same() {
        let shape = Shape::new(&[4099, 512]).unwrap();
        let values: Vec<u8> = (0..shape.elements()).flat_map(|i| ((i as f32 * 0.1).sin()).to_le_bytes()).collect();
        let read = |rows: Range<usize>, out: &mut Vec<u8>| {
            out.extend_from_slice(&values[rows.start * 2048..rows.end * 2048]);
            Ok::<(), Error>(())
        };
        let mut expected = Vec::new();
        DType::F32.transcode(&values, DType::Q8_0, &mut expected).unwrap();
        for threads in [1, 2, 3] {
            let conversion =
                Conversion { from: DType::F32, to: DType::Q8_0, shape, threads: Some(threads), importance: &[] };
            let mut out = Vec::new();
            conversion
                .run(&read, &mut |bytes| {
                    out.extend(bytes);
                    Ok(())
                })
                .unwrap();
            assert_eq!(out, expected);
            let stop = || Error::Shape("stop".to_owned());
            assert_eq!(conversion.run(&read, &mut |_| Err(stop())), Err(stop()));
            let unread = |_: Range<usize>, _: &mut Vec<u8>| Err(stop());
            assert_eq!(conversion.run(&unread, &mut |_| Ok(())), Err(stop()));
        }
    }

    #[test]
    fn each_matrix_of_a_stack_has_its_own_importances() {
        // Three matrices of so many rows that chunks begin within them.
        let shape = Shape::new(&[3, 2999, 256]).unwrap();
        let values: Vec<u8> = (0..shape.elements()).flat_map(|i| ((i as f32 * 0.7).sin()).to_le_bytes()).collect();
        let importance: Vec<f32> = (0..3 * 256).map(|i| 1.0 + (i % 7) as f32 * 10.0).collect();
        let read = |rows: Range<usize>, out: &mut Vec<u8>| {
            out.extend_from_slice(&values[rows.start * 1024..rows.end * 1024]);
            Ok::<(), Error>(())
        };
        let mut expected = Vec::new();
        for (values, importance) in values.chunks(2999 * 1024).zip(importance.chunks(256)) {
            DType::F32.transcode_rows(values, DType::Q4_0, importance, &mut expected).unwrap();
        }
        let threads = Some(2);
        let conversion = Conversion { from: DType::F32, to: DType::Q4_0, shape, threads, importance: &importance };
        let mut out = Vec::new();
        let mut write = |bytes: Vec<u8>| {
            out.extend(bytes);
            Ok::<(), Error>(())
        };
        conversion.run(&read, &mut write).unwrap();
        assert!(out == expected);
    }
}
