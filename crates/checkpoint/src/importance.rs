//! Importance matrices: how much the inputs of each column of a model's matrices matter, measured on a text.
//!
//! What belongs here: the two layouts that llama.cpp's tool of that name has (a GGUF file with the tensors `NAME.in_sum2` and
//! `NAME.counts`; before that, a list of names and numbers without a head), read and, for the first, written. What does
//! not: how the sums come about (`compute`), what encoders do with them (`tensor`).

use crate::error::quoted;
use crate::file::ModelFile;
use crate::write::unwritable;
use crate::{Checkpoint, Error, Layout, NewTensor, OpenOptions, Result, Value, limits};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tensor::{DType, Shape};

/// What stands before the names of matrices.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// An importance matrix as it is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Importance {
    /// By the name of the tensor, the mean of the squares of what each column is multiplied with: `[n_matrices, row_len]`,
    /// `n_matrices` being 1 for all but stacks of experts or heads. All numbers are finite and above 0 unless all are 0.
    pub entries: BTreeMap<String, Vec<f32>>,
    /// What it was measured on, as the file says.
    pub datasets: Vec<String>,
    /// Parts that the text was cut into, if the file says.
    pub n_chunks: Option<u32>,
}

/// A tensor's sums, to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportanceSums {
    /// The tensor's name.
    pub name: String,
    /// `[n_matrices, row_len]`: sums of squares.
    pub sums: Vec<f32>,
    /// `[n_matrices]`: of how many rows.
    pub counts: Vec<f32>,
}

impl Importance {
    /// Reads a file of either layout.
    ///
    /// Errors: it cannot be opened, is another file or is damaged.
    pub fn read(path: &Path) -> Result<Importance> {
        let file = ModelFile::open(path, true)?;
        let bytes = file.bytes(0, file.len(), || "the file".to_owned())?;
        let importance = if bytes.starts_with(b"GGUF") {
            Importance::from_gguf(path)?
        } else {
            Importance::from_list(path, &bytes)?
        };
        if importance.entries.is_empty() {
            return Err(none(path, "it has no sums of any tensor"));
        }
        Ok(importance)
    }

    fn from_gguf(path: &Path) -> Result<Importance> {
        let file = Checkpoint::open(path, &OpenOptions::default())?;
        let metadata = file.metadata();
        if metadata.str("general.type")?.is_some_and(|kind| kind != "imatrix") {
            return Err(none(path, "it is a model, not an importance matrix"));
        }
        let datasets = match metadata.string_array("imatrix.datasets")? {
            Some(texts) => texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
            None => Vec::new(),
        };
        let mut importance =
            Importance { datasets, n_chunks: metadata.u32("imatrix.chunk_count")?, ..Importance::default() };
        for info in file.tensors() {
            let Some(name) = info.name.strip_suffix(SUMS) else { continue };
            let values = |name: &str| {
                let tensor = file.load(name)?;
                tensor.to_f32().map_err(|source| Error::Tensor { path: path.to_owned(), tensor: quoted(name), source })
            };
            let (sums, counts) = (values(&info.name)?, values(&format!("{name}{COUNTS}"))?);
            let means = means(sums, &counts).map_err(|problem| malformed(path, name, problem))?;
            importance.entries.insert(name.to_owned(), means);
        }
        Ok(importance)
    }

    /// The older layout: the number of entries, and of each its name, how many calls were added up, and the sums; then, in
    /// newer files, the calls and the name of the text. All numbers have 32 bits and begin with their lowest byte.
    fn from_list(path: &Path, bytes: &[u8]) -> Result<Importance> {
        let mut list = List { path, rest: bytes };
        let n_entries = list.count("the number of entries", limits::TENSORS)?;
        let mut importance = Importance::default();
        for _ in 0..n_entries {
            let name_len = list.count("the length of a name", limits::TENSOR_NAME_BYTES)?;
            let name = String::from_utf8_lossy(list.take(name_len, "a name")?).into_owned();
            let n_calls = list.number("a number of calls")?;
            let n_values = list.count("a number of sums", u64::from(u32::MAX))?;
            let sums = list.take(n_values.saturating_mul(4), "sums")?;
            let sums = sums.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let means = means(sums, &[n_calls as f32]).map_err(|problem| malformed(path, &name, problem))?;
            importance.entries.insert(name, means);
        }
        if !list.rest.is_empty() {
            importance.n_chunks = u32::try_from(list.number("the number of calls")?).ok();
            let len = list.count("the length of the text's name", limits::STRING_BYTES)?;
            importance.datasets.push(String::from_utf8_lossy(list.take(len, "the text's name")?).into_owned());
        }
        Ok(importance)
    }
}

impl ImportanceSums {
    /// Writes a file of the layout in GGUF: the sums of `tensors` over `n_chunks` parts of `chunk_size` tokens of `dataset`.
    ///
    /// Error: that of `out`; sums and counts that do not fit each other.
    pub fn write(
        tensors: &[ImportanceSums],
        dataset: &str,
        n_chunks: u32,
        chunk_size: u32,
        out: &mut dyn Write,
    ) -> Result<()> {
        let fields = [
            ("general.type".to_owned(), Value::text("imatrix")),
            ("imatrix.datasets".to_owned(), Value::texts([dataset.as_bytes()].into_iter())),
            ("imatrix.chunk_count".to_owned(), Value::U32(n_chunks)),
            ("imatrix.chunk_size".to_owned(), Value::U32(chunk_size)),
        ];
        let mut new = Vec::new();
        for tensor in tensors {
            let n = tensor.counts.len();
            let row_len = tensor.sums.len().checked_div(n).unwrap_or(0);
            for (suffix, len) in [(SUMS, row_len), (COUNTS, 1)] {
                let name = format!("{}{suffix}", tensor.name);
                let shape = Shape::new(&[n, len]).filter(|_| n * row_len == tensor.sums.len());
                let shape = shape.ok_or_else(|| unwritable(&name, "sums and counts do not fit each other"))?;
                new.push(NewTensor { name, dtype: DType::F32, shape });
            }
        }
        let layout = Layout::gguf(&fields, &new, None)?;
        let written = layout.write::<std::io::Error>(out, |index, out| {
            let Some(tensor) = tensors.get(index / 2) else { return Ok(()) };
            let numbers = if index % 2 == 0 { &tensor.sums } else { &tensor.counts };
            numbers.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
        });
        written.map_err(|source| Error::Unwritable {
            what: "the importance matrix".to_owned(),
            problem: source.to_string(),
        })
    }
}

/// The older layout, from where it is read on.
struct List<'a> {
    path: &'a Path,
    rest: &'a [u8],
}

impl<'a> List<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| {
            let problem = format!("{what} of {len} bytes, and the file has {} left", self.rest.len());
            none(self.path, &problem)
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, what: &str) -> Result<i32> {
        let bytes = self.take(4, what)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes)))
    }

    /// A number that is at least 1 and at most `most`.
    fn count(&mut self, what: &str, most: u64) -> Result<usize> {
        let number = self.number(what)?;
        let count = usize::try_from(number).ok().filter(|&count| count > 0 && count as u64 <= most);
        count.ok_or_else(|| none(self.path, &format!("{what} would be {number}")))
    }
}

/// Means of sums by matrix, each divided by its count or all by the only one. What was never counted matters as much as
/// anything; columns without any input matter a little, lest blocks of them be left to chance.
fn means(mut sums: Vec<f32>, counts: &[f32]) -> std::result::Result<Vec<f32>, String> {
    let n = counts.len();
    if n == 0 || sums.is_empty() || !sums.len().is_multiple_of(n) {
        return Err(format!("{} sums for {n} counts", sums.len()));
    }
    if let Some(bad) = sums.iter().chain(counts).find(|number| !number.is_finite() || **number < 0.0) {
        return Err(format!("{bad} among its numbers"));
    }
    let row_len = sums.len() / n;
    for (row, count) in sums.chunks_exact_mut(row_len).zip(counts) {
        if *count == 0.0 {
            row.fill(1.0);
            continue;
        }
        let least = row.iter().sum::<f32>() / row_len as f32 * LEAST;
        row.iter_mut().for_each(|sum| *sum = sum.max(least) / count);
    }
    Ok(sums)
}

/// The least that a column matters, as a part of what all of the matrix do on average.
const LEAST: f32 = 1e-4;

fn none(path: &Path, detail: &str) -> Error {
    Error::NotAModel { path: path.to_owned(), detail: format!("no importance matrix: {detail}") }
}

fn malformed(path: &Path, name: &str, problem: String) -> Error {
    Error::Malformed { path: path.to_owned(), field: format!("importance of {}", quoted(name)), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn sums(name: &str, sums: &[f32], counts: &[f32]) -> ImportanceSums {
        ImportanceSums { name: name.to_owned(), sums: sums.to_vec(), counts: counts.to_vec() }
    }

    /// An entry of the older layout.
    fn entry(name: &str, n_calls: i32, sums: &[f32]) -> Vec<u8> {
        let number = |n: i32| n.to_le_bytes().to_vec();
        let values = sums.iter().flat_map(|v| v.to_le_bytes()).collect();
        [number(name.len() as i32), name.into(), number(n_calls), number(sums.len() as i32), values].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = [sums("blk.0.a.weight", &[2.0, 4.0], &[2.0]), sums("b", &[3.0, 0.0, 5.0, 6.0], &[3.0, 0.0])];
        let mut bytes = Vec::new();
        ImportanceSums::write(&tensors, "some.txt", 7, 512, &mut bytes).unwrap();
        let read = Importance::read(file(&bytes).path()).unwrap();
        assert_eq!((read.n_chunks, read.datasets.as_slice()), (Some(7), ["some.txt".to_owned()].as_slice()));
        assert_eq!(read.entries["blk.0.a.weight"], [1.0, 2.0]);
        assert_eq!(read.entries["b"], [1.0, 0.5 * LEAST, 1.0, 1.0]);
        assert!(ImportanceSums::write(&[sums("a", &[1.0], &[1.0, 2.0])], "", 1, 1, &mut Vec::new()).is_err());
        // The last tensor's numbers are followed by less than an alignment of zeros.
        for end in 0..bytes.len() - 32 {
            assert!(Importance::read(file(&bytes[..end]).path()).is_err(), "{end}");
        }
    }

    #[test]
    fn the_older_layout_is_read() {
        let head = [2i32.to_le_bytes().to_vec(), entry("a", 2, &[2.0, 6.0]), entry("b", 4, &[4.0])].concat();
        let tail = [5i32.to_le_bytes().as_slice(), &4i32.to_le_bytes(), b"text"].concat();
        for (bytes, n_chunks) in [(head.clone(), None), ([head.clone(), tail].concat(), Some(5))] {
            let read = Importance::read(file(&bytes).path()).unwrap();
            assert_eq!(
                (read.entries["a"].as_slice(), read.entries["b"].as_slice()),
                ([1.0, 3.0].as_slice(), [1.0].as_slice())
            );
            assert_eq!((read.n_chunks, read.datasets.len()), (n_chunks, usize::from(n_chunks.is_some())));
        }
        for end in 0..head.len() {
            assert!(Importance::read(file(&head[..end]).path()).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        #[track_caller]
        fn check(bytes: &[u8], expected: &str) {
            let error = Importance::read(file(bytes).path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let one = |entry: Vec<u8>| [1i32.to_le_bytes().to_vec(), entry].concat();
        check(b"some text that is no such file", "entries would be");
        check(&one(entry("a", 1, &[f32::NAN])), "NaN");
        check(&one(entry("a", 1, &[-1.0])), "-1");
        check(&one(entry("a", 1, &[])), "would be 0");
        check(&one([&[1, 0, 0, 0, b'a', 1, 0, 0, 0], i32::MAX.to_le_bytes().as_slice()].concat()), "left");
        check(&i32::MAX.to_le_bytes(), "entries would be");
    }
}
